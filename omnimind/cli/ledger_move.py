"""`omnimind ledger export` and `import`: all of a ledger in one file, and from it into an empty one."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from omnimind.cli.changes import Change, Effect
from omnimind.cli.ledger_common import Bar, ledger_of, url_option
from omnimind.cli.options import write
from omnimind.cli.output import View, next_steps
from omnimind.cli.session import Session
from omnimind.cli.table import sheet
from omnimind.errors import AlreadyRunning, Conflict

if TYPE_CHECKING:
    from omnimind.ledger.transfer import Moved

_FILE = click.Path(path_type=Path, dir_okay=False, resolve_path=True)


@click.command()
@click.argument("file", type=_FILE)
@url_option
@write()
def export(session: Session, file: Path, url: str | None) -> Change:
    """Write all of the ledger to a new FILE, as it is at one moment.

    An instance may be at work meanwhile. The file is compressed, each of its lines is checked when it is
    read, and it fits SQLite and PostgreSQL alike.
    """
    from omnimind.ledger import transfer  # noqa: PLC0415
    from omnimind.ledger.stores import counts, revision_of  # noqa: PLC0415

    chosen = ledger_of(session, url)

    def plan() -> list[Effect]:
        with closing(transfer.store_of(chosen, session.home)) as store:
            transfer.need_ledger(store)
            if file.exists():
                raise Conflict(f"{file} exists already", hint="name another file, or remove this one")
            tasks = sum(tables["tasks"] for tables in counts(store).values())
            then = f"an export of {store.where}, schema {revision_of(store)}"
            return [Effect(str(file), "write", "", then, f"{tasks:,} tasks at this moment")]

    def apply() -> View:
        with closing(transfer.store_of(chosen, session.home)) as store, Bar() as bar:
            moved = transfer.export(store, file, bar)
        return moved_view(moved, next_steps(f"omnimind ledger import {file.name} --home ANOTHER"))

    return Change(plan, apply)


@click.command("import")
@click.argument("file", type=_FILE)
@url_option
@write()
def import_(session: Session, file: Path, url: str | None) -> Change:
    """Fill an empty ledger from an export.

    Every row is read back and compared before the ledger can be used. A ledger with work in it is refused,
    and so is one that a coordinator owns. --plan reads FILE to its end.
    """
    from omnimind.ledger import transfer  # noqa: PLC0415

    chosen = ledger_of(session, url)

    def plan() -> list[Effect]:
        free(chosen, session)
        transfer.refuse_work(chosen, session.home)
        with Bar() as bar:
            found = transfer.read_through(file, bar)
        then = f"{found.counts.get('tasks', 0):,} tasks, {sum(found.counts.values()):,} rows"
        return [Effect(place(chosen, session), "import", "empty", then, f"from {file}")]

    def apply() -> View:
        with Bar() as bar:
            moved = transfer.import_file(file, chosen, session.home, bar)
        return moved_view(moved, next_steps("omnimind ledger check", "omnimind up"))

    return Change(plan, apply)


def free(chosen: Any, session: Session) -> None:
    """Raise AlreadyRunning when somebody owns the ledger: for plans; the deed itself takes the lock."""
    from omnimind.ledger.custody import owner  # noqa: PLC0415

    who = owner(chosen, session.home)
    if who is not None:
        raise AlreadyRunning(f"the ledger is owned by {who}", hint="stop it with: omnimind down")


def place(chosen: Any, session: Session) -> str:
    """Return where a ledger is, for people, without user and password."""
    if not chosen.url:
        return str(session.home)
    from omnimind.ledger.postgres_address import Address  # noqa: PLC0415

    return f"PostgreSQL at {Address(chosen).where}"


def moved_view(moved: Moved, notes: list[str]) -> View:
    """Return what was moved as it is shown."""
    import msgspec  # noqa: PLC0415

    data = msgspec.to_builtins(moved)
    text = sheet([
        ("where", moved.where),
        ("tasks", f"{moved.counts.get('tasks', 0):,}"),
        ("rows", f"{sum(moved.counts.values()):,}"),
        ("schema", moved.revision),
        ("epoch", moved.epoch),
        ("bytes", f"{moved.bytes:,}" if moved.bytes else None),
        ("sha256", moved.sha256 or None),
        ("moved aside", moved.aside or None),
    ])  # fmt: skip
    return View(data=data, text=text, key="where", notes=notes)
