"""`Bulk`: a shard's ledger, taken over, for transactions of many rows: what moves queues between shards."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from omnimind.config.sections import LedgerSettings
from omnimind.errors import LedgerFenced, OmniMindError
from omnimind.failpoints import failpoint
from omnimind.ledger.opening import open_ledger, sqlite_path
from omnimind.ledger.schema import ledger as ledger_table
from omnimind.ledger.sqlite_errors import as_ours as sqlite_error

_LOCK_TIMEOUT = 5.0


class Bulk:
    """The ledger of one shard. Making it migrates it and raises its epoch: whoever owned it is out."""

    def __init__(self, settings: LedgerSettings, home: Path, shard: int) -> None:
        self.shard = shard
        ledger = open_ledger(settings, home, shard)
        try:
            self.epoch = ledger.open(1).epoch
        finally:
            ledger.close()
        self._path = sqlite_path(home, shard)
        self._remote = bool(settings.url)
        connect = self._connect_postgres(settings) if self._remote else self._connect_sqlite
        self._engine = sa.create_engine(
            "postgresql+psycopg://" if self._remote else "sqlite://",
            creator=connect,
            poolclass=sa.StaticPool,
            pool_reset_on_return=None,
        )
        self._connection = self._engine.connect()

    def _connect_sqlite(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=_LOCK_TIMEOUT, isolation_level=None)
        connection.execute("PRAGMA synchronous = FULL")
        return connection

    def _connect_postgres(self, settings: LedgerSettings) -> Any:
        from omnimind.ledger.postgres_address import Address  # noqa: PLC0415 - an extra
        from omnimind.ledger.postgres_connections import Connections  # noqa: PLC0415

        def connect() -> Any:
            connection = Connections(Address(settings, self.shard)).connect_writer()
            connection.autocommit = False
            return connection

        return connect

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sa.Connection]:
        """Give a connection inside a transaction of the present epoch; commit it at the end, durably.

        Raises LedgerFenced when somebody has taken the ledger over meanwhile, and what the database raises.
        """
        connection = self._connection
        try:
            if not self._remote:
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            self._prove(connection)
            yield connection
            failpoint("rebalance.before_commit")
            connection.commit()
            failpoint("rebalance.after_commit")
        except BaseException as error:
            self._undo()
            if isinstance(error, Exception):
                raise self._ours(error) from error
            raise

    def text(self, stored: str) -> str:
        """Return a name as it is, of one that was read: PostgreSQL takes no NUL, so names may be escaped."""
        if not self._remote:
            return stored
        from omnimind.ledger.postgres_pack import unescape  # noqa: PLC0415 - an extra

        return unescape(stored)

    def _prove(self, connection: sa.Connection) -> None:
        found = connection.execute(
            sa.select(ledger_table.c.epoch).where(ledger_table.c.id == 1).with_for_update(read=True)
        ).scalar_one()
        if found != self.epoch:
            msg = f"the ledger of shard {self.shard} has been taken over while queues were being moved"
            raise LedgerFenced(msg, hint="start it again, once")

    def _undo(self) -> None:
        with contextlib.suppress(Exception):
            self._connection.rollback()

    def _ours(self, error: Exception) -> OmniMindError:
        if self._remote:
            from omnimind.ledger.postgres_errors import as_ours  # noqa: PLC0415 - an extra

            return as_ours(error, f"shard {self.shard}")
        return sqlite_error(error, self._path)

    def close(self) -> None:
        """Release the connection; a second call does nothing."""
        self._connection.close()
        self._engine.dispose()
