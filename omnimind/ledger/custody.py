"""Who may change a ledger from outside: nobody while a coordinator owns it.

On this host the home's lock keeps everybody else out, the supervisor too, for as long as the work takes. In
PostgreSQL a coordinator is known by its session; and since every tool raises the epoch in its own
transaction, one that comes by in between is refused as any predecessor is.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from omnimind import ownership
from omnimind.config.sections import LedgerSettings
from omnimind.errors import AlreadyRunning, HomeUnusable
from omnimind.instance import Paths, running

_MEND = "stop it with: omnimind down; `omnimind ledger backup`, `export` and `check` need no stop"


def owner(settings: LedgerSettings, home: Path) -> str | None:
    """Return who owns the ledger now, for people; None when nobody does. Raises what connecting raises."""
    record = running(Paths(home))
    if record is not None:
        return f"the instance in {home} (pid {record.supervisor.pid})"
    left = ownership.leftovers(Paths(home)) if home.exists() else []
    if left:
        return f"processes of an instance in {home} that died (pid {left[0].pid})"
    if settings.url:
        from omnimind.ledger.stores_postgres import owners  # noqa: PLC0415 - psycopg is an extra

        found = owners(settings)
        if found:
            return f"a coordinator ({', '.join(found)})"
    return None


@contextmanager
def custody(settings: LedgerSettings, home: Path) -> Iterator[None]:
    """Own a ledger as nobody but a supervisor does. Raises AlreadyRunning, saying who owns it."""
    paths = Paths(home)
    try:
        for folder in (paths.home, paths.run):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        msg = f"cannot use {paths.home}: {error.strerror}: {error.filename}"
        raise HomeUnusable(msg, field="OMNIMIND_HOME") from error
    try:
        lock = ownership.Lock(paths)
    except AlreadyRunning as error:
        who = owner(settings, home) or error.message
        raise AlreadyRunning(f"the ledger is owned by {who}", hint=_MEND) from None
    with lock:
        other = owner(settings, home)
        if other is not None:
            raise AlreadyRunning(f"the ledger is owned by {other}", hint=_MEND)
        yield
