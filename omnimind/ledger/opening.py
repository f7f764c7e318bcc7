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
    ``HOME/ledger-n.db``; of PostgreSQL they are the schemas ``omnimind`` and ``omnimind_n``. Raises
    ConfigError for a url that is none, and when psycopg is not installed.
    """
    if isinstance(settings, str):
        settings = LedgerSettings(url=settings)
    if not settings.url:
        return SqliteLedger(sqlite_path(home, shard))
    try:
        from omnimind.ledger.postgres import PostgresLedger  # noqa: PLC0415 - an extra, and slow to import
        from omnimind.ledger.postgres_address import Address  # noqa: PLC0415
    except ImportError as error:
        msg = f"PostgreSQL needs the package psycopg: {error}"
        hint = "pip install 'omnimind-runtime[postgres]'"
        raise ConfigError(msg, field="ledger.url", hint=hint) from error
    return PostgresLedger(Address(settings, shard))


def sqlite_path(home: Path, shard: int = 0) -> Path:
    """Return the file of a shard's SQLite ledger."""
    return home / (f"ledger-{shard}.db" if shard else "ledger.db")
