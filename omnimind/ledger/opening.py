"""`open_ledger`: the ledger that the settings name."""

from __future__ import annotations

from pathlib import Path

from omnimind.config.sections import LedgerSettings
from omnimind.errors import ConfigError
from omnimind.ledger.interface import Ledger
from omnimind.ledger.sqlite import SqliteLedger


def open_ledger(settings: LedgerSettings | str, home: Path, shard: int = 0) -> Ledger:
    """Return the ledger of a shard, not open yet: its reads work at once, `open` makes it the writer.

    settings: the section `ledger`, or just its url. Shard 0 of SQLite is ``HOME/ledger.db``, shard n is
    ``HOME/ledger-n.db``. Raises ConfigError for a url that is none.
    """
    if isinstance(settings, str):
        settings = LedgerSettings(url=settings)
    if not settings.url:
        return SqliteLedger(sqlite_path(home, shard))
    msg = f"{settings.url.partition(':')[0]}: is no database that OmniMind can use"
    raise ConfigError(msg, field="ledger.url", hint="leave it empty, or give postgresql://user@host/database")


def sqlite_path(home: Path, shard: int = 0) -> Path:
    """Return the file of a shard's SQLite ledger."""
    return home / (f"ledger-{shard}.db" if shard else "ledger.db")
