"""Connections to one SQLite file: a writer of its own, a small pool for reads, and their settings."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.pool import QueuePool

from omnimind.errors import LedgerError, LedgerFenced
from omnimind.failpoints import failpoint
from omnimind.ledger.migrate import migrate
from omnimind.ledger.schema import APPLICATION_ID
from omnimind.ledger.sqlite_errors import as_ours
from omnimind.ledger.statements import EPOCH, TAKE_OVER

CHECKPOINT_PAGES = 2000
"""Pages (of 4 KiB) in the write-ahead log at which a commit carries them into the database."""

WAL_MOST = 64 << 20
"""Bytes of the write-ahead log beyond which a writer waits for readers, to start it anew."""

_WRITER_CACHE = 64 << 10
_READER_CACHE = 8 << 10


class Database:
    """A file, its settings and its connections.

    lock_timeout: seconds to wait for another process's lock. synchronous: ``FULL``; tests use ``NORMAL``
    to see that what it loses is noticed.
    """

    def __init__(self, path: Path, lock_timeout: float, synchronous: str) -> None:
        self.path = path
        self.wal = Path(f"{path}-wal")
        self._lock_timeout = lock_timeout
        self._synchronous = synchronous
        self._engine: sa.Engine | None = None
        self._writer: sqlite3.Connection | None = None

    # ------------------------------------------------------------------------------------- connections

    def _connect(self, cache_kib: int, *, read_only: bool) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.path,
            timeout=self._lock_timeout,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=256,
        )
        try:
            for pragma in (
                f"synchronous = {self._synchronous}",
                f"cache_size = -{cache_kib}",
                f"wal_autocheckpoint = {CHECKPOINT_PAGES}",
                f"journal_size_limit = {WAL_MOST // 4}",
                "temp_store = MEMORY",
                "trusted_schema = OFF",
                "cell_size_check = ON",
                f"query_only = {'ON' if read_only else 'OFF'}",
            ):
                connection.execute(f"PRAGMA {pragma}")
        except BaseException:
            connection.close()
            raise
        return connection

    def _readers(self) -> sa.Engine:
        if self._engine is None:
            self._engine = sa.create_engine(
                "sqlite://",
                creator=lambda: self._connect(_READER_CACHE, read_only=True),
                poolclass=QueuePool,
                pool_size=4,
                max_overflow=8,
                pool_reset_on_return=None,
            )
        return self._engine

    @property
    def writer(self) -> sqlite3.Connection:
        """Return the writer's connection; raises LedgerError when the ledger is not open."""
        if self._writer is None:
            msg = f"{self.path} is not open"
            raise LedgerError(msg, hint="call open() first", path=str(self.path))
        return self._writer

    def read(self, statement: str, values: tuple[Any, ...] | list[Any] = ()) -> list[Any]:
        """Return the rows of a query, as they were committed; any thread may ask."""
        try:
            borrowed = self._readers().raw_connection()
            try:
                return borrowed.cursor().execute(statement, values).fetchall()  # type: ignore[no-any-return]
            finally:
                borrowed.close()
        except Exception as error:
            raise as_ours(error, self.path) from error

    def rollback(self) -> bool:
        """Undo the writer's open transaction; return whether it is certain that none is left."""
        try:
            if self.writer.in_transaction:
                self.writer.execute("ROLLBACK")
        except sqlite3.Error:
            return False
        return not self.writer.in_transaction

    def close(self) -> None:
        """Close all connections."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        if self._engine is not None:
            self._engine.dispose()
            self._engine = None

    # ------------------------------------------------------------------------------------------ taking

    def take_over(self, after: int | None = None) -> int:
        """Become the writer: migrate and raise the epoch in one transaction; return the epoch.

        after: the epoch that must have been the last one; raises LedgerFenced when it is over.
        """
        self._writer = self._connect(_WRITER_CACHE, read_only=False)
        self._refuse_foreign()
        self._writer.execute("PRAGMA journal_mode = WAL")
        engine = sa.create_engine(
            "sqlite://", creator=lambda: self._writer, poolclass=sa.StaticPool, pool_reset_on_return=None
        )
        with engine.connect() as connection:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            try:
                migrate(connection, str(self.path))
                connection.exec_driver_sql(f"PRAGMA application_id = {APPLICATION_ID}")
                if after is not None and connection.exec_driver_sql(EPOCH).scalar_one() != after:
                    msg = f"epoch {after} of {self.path} is over: a newer coordinator owns it"
                    raise LedgerFenced(msg, hint="this coordinator must stop", path=str(self.path))  # noqa: TRY301
                epoch: int = connection.exec_driver_sql(TAKE_OVER).scalar_one()
                failpoint("ledger.before_takeover")
                connection.commit()
            except BaseException:
                self.rollback()
                raise
        return epoch

    def _refuse_foreign(self) -> None:
        mark = self.writer.execute("PRAGMA application_id").fetchone()[0]
        tables = self.writer.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
        if mark != APPLICATION_ID and (mark or tables):
            msg = f"{self.path} is a database of another program"
            raise LedgerError(
                msg, hint="use another OMNIMIND_HOME, or move that file away", path=str(self.path)
            )
