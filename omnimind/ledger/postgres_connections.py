"""Connections to one PostgreSQL schema: a writer of its own, a few for reads, and their settings.

A server that is paused, or a host that is cut off in the middle of a statement, would hold a thread for
ever: what takes longer than its time has its connection cut from this side (`Deadlines`).
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import psycopg

from omnimind.errors import LedgerError, LedgerUnavailable
from omnimind.ledger.postgres_address import Address
from omnimind.ledger.postgres_errors import as_ours, outcome_unknown
from omnimind.ledger.postgres_pack import escape, register, unescape
from omnimind.ledger.postgres_statements import numbered

Connection = psycopg.Connection[Any]

OLDEST = 140000
"""The oldest server that is supported and tested, as libpq numbers it."""

READERS = 4
_GRACE = 5.0
"""Seconds beyond the server's own time limit after which a connection is cut from this side."""

_COMMON = (
    "SET search_path TO {schema}; SET statement_timeout TO {timeout}; SET jit TO off;"
    " SET default_transaction_isolation TO 'read committed';"
)
_WRITER = (
    # Whoever is paused inside a transaction holds the epoch's row: the server ends that.
    " SET idle_in_transaction_session_timeout TO '10s'; SET lock_timeout TO '5s';"
    # Rows are found by their number: no plan that reads the whole table, whatever the statistics say.
    " SET enable_hashjoin TO off; SET enable_mergejoin TO off; SET enable_seqscan TO off"
)
_READER = " SET default_transaction_read_only TO on"
_FACTS = (
    "SELECT current_setting('synchronous_commit'), current_setting('fsync'),"
    " current_setting('full_page_writes'), current_setting('server_encoding'), pg_is_in_recovery()"
)


class Deadlines:
    """Cuts connections whose call takes too long, from one thread that runs while there are any."""

    def __init__(self) -> None:
        self._lock = threading.Condition()
        self._running: dict[int, tuple[float, Connection]] = {}
        self._thread: threading.Thread | None = None

    @contextlib.contextmanager
    def within(self, connection: Connection, seconds: float) -> Iterator[None]:
        """Let what is done inside take at most so many seconds; one inside another counts for itself."""
        key = id(connection)
        with self._lock:
            outer = self._running.get(key)
            self._running[key] = (time.monotonic() + seconds, connection)
            if self._thread is None:
                self._thread = threading.Thread(target=self._watch, name="omnimind-deadlines", daemon=True)
                self._thread.start()
        try:
            yield
        finally:
            with self._lock:
                if outer is None:
                    self._running.pop(key, None)
                else:
                    self._running[key] = (max(outer[0], time.monotonic() + _GRACE), connection)

    def close(self) -> None:
        """End the thread."""
        with self._lock:
            self._thread = None
            self._lock.notify()

    def _watch(self) -> None:
        with self._lock:
            while self._thread is threading.current_thread():
                self._lock.wait(1.0)
                now = time.monotonic()
                for until, connection in list(self._running.values()):
                    if now > until:
                        _cut(connection)


def _cut(connection: Connection) -> None:
    """Shut a connection's socket, so that who waits for it hears of its end."""
    with contextlib.suppress(OSError, psycopg.Error):
        copy = socket.socket(fileno=os.dup(connection.fileno()))
        try:
            copy.shutdown(socket.SHUT_RDWR)
        finally:
            copy.close()


class Connections:
    """A schema's connections. warnings: what is unwise about the server, known once it was connected to."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self.version = ""
        self.warnings: list[str] = []
        self.deadlines = Deadlines()
        self._seconds = address.settings.statement_timeout
        self._writer: Connection | None = None
        self._idle: list[Connection] = []
        self._lock = threading.Lock()
        self._slots = threading.BoundedSemaphore(READERS)

    # ------------------------------------------------------------------------------------------ making

    def _connect(self, role: str, settings: str, seconds: float) -> Connection:
        where = str(self.address)
        # ConfigError for a password file that cannot be read passes as it is.
        parameters = self.address.parameters(role)
        try:
            connection: Connection = psycopg.connect(**parameters, autocommit=True)
        except psycopg.Error as error:
            raise as_ours(error, where) from error
        try:
            version = connection.info.server_version
            if version < OLDEST:
                msg = f"{where} is PostgreSQL {version // 10000}; {OLDEST // 10000} or later is needed"
                raise LedgerError(msg, hint="upgrade the server, or name another in ledger.url")  # noqa: TRY301
            text = (_COMMON + settings).format(schema=f'"{self.address.schema}"', timeout=int(seconds * 1000))
            with self.deadlines.within(connection, seconds + _GRACE):
                connection.execute(text.encode())
            register(connection)
            connection.prepared_max = 400
        except Exception as error:
            connection.close()
            raise as_ours(error, where) from error
        self.version = f"{version // 10000}.{version % 10000}"
        return connection

    def connect_writer(self) -> Connection:
        """Return a new connection for the writer, whose commits are durable, and keep it."""
        connection = self._connect("writer", _WRITER, self._seconds)
        try:
            self._look_at(connection)
        except Exception as error:
            connection.close()
            raise as_ours(error, str(self.address)) from error
        self._writer = connection
        return connection

    def _look_at(self, connection: Connection) -> None:
        """Make sure that what is committed is on disk, as far as a session can."""
        with self.deadlines.within(connection, self._seconds + _GRACE):
            row = connection.execute(_FACTS).fetchone()
        assert row is not None
        synchronous, fsync, whole_pages, encoding, standby = row
        where = str(self.address)
        if standby:
            hint = "promote it, or name the primary in ledger.url"
            raise LedgerUnavailable(f"{where} takes no writes: it is a standby", hint=hint, retry_after=1.0)
        if encoding != "UTF8":
            msg = f"{where} stores texts as {encoding}, not as UTF8"
            raise LedgerError(msg, hint="createdb --encoding UTF8 --template template0 NAME")
        self.warnings = []
        if synchronous == "off":
            connection.execute("SET synchronous_commit TO on")
            self.warnings.append(
                "synchronous_commit is off on the server: the ledger's own sessions switch it on"
            )
        for name, value in (("fsync", fsync), ("full_page_writes", whole_pages)):
            if value == "off":
                self.warnings.append(
                    f"{name} is off on the server: a power cut may lose or damage what was acknowledged"
                )

    # ------------------------------------------------------------------------------------------- using

    @property
    def writer(self) -> Connection:
        """Return the writer's connection; raises LedgerError when the ledger is not open."""
        if self._writer is None:
            msg = f"{self.address} is not open"
            raise LedgerError(msg, hint="call open() first")
        return self._writer

    def working(self, connection: Connection) -> contextlib.AbstractContextManager[None]:
        """Let what is done with a connection take as long as a statement may, and a little more."""
        return self.deadlines.within(connection, self._seconds + _GRACE)

    def read(self, statement: str, values: Any = ()) -> list[Any]:
        """Return the rows of a query, as they were committed; any thread may ask.

        One that fails with a connection that had been idle (the server was restarted) is asked again.
        """
        bound = [escape(v) if isinstance(v, str) else v for v in values]
        for last in (False, True):
            with self._slots:
                connection, fresh = self._borrow()
                try:
                    with self.working(connection):
                        cursor = psycopg.RawCursor(connection)
                        rows = cursor.execute(numbered(statement), bound, binary=True).fetchall()
                except Exception as error:
                    broken = connection.broken or connection.closed
                    connection.close()
                    if broken and not fresh and not last and outcome_unknown(error):
                        self._drop_idle()
                        continue
                    raise as_ours(error, str(self.address)) from error
                self._give_back(connection)
            return [_unescaped(row) for row in rows]
        raise AssertionError

    def patiently(self, seconds: float) -> Connections:
        """Return connections to the same schema whose statements may take so many seconds."""
        other = Connections(self.address)
        other._seconds = seconds
        return other

    def _borrow(self) -> tuple[Connection, bool]:
        with self._lock:
            if self._idle:
                return self._idle.pop(), False
        return self._connect("reader", _READER, self._seconds), True

    def _give_back(self, connection: Connection) -> None:
        with self._lock:
            self._idle.append(connection)

    def _drop_idle(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def rollback(self) -> bool:
        """Undo the writer's open transaction; return whether it is certain that none is left."""
        connection = self.writer
        try:
            with self.deadlines.within(connection, _GRACE):
                connection.rollback()
        except psycopg.Error:
            return False
        return not connection.broken

    def close(self) -> None:
        """Close all connections."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        self._drop_idle()
        self.deadlines.close()


def _unescaped(row: tuple[Any, ...]) -> tuple[Any, ...]:
    for value in row:
        if type(value) is str and "\x1a" in value:
            return tuple(unescape(v) if type(v) is str else v for v in row)
    return row
