"""`PostgresLedger`: the ledger in a schema of a PostgreSQL database, which outlives each machine.

Each write is one transaction and one round trip: BEGIN, the proof that the epoch is still this one, the
rows, COMMIT. The proof holds the epoch's row until the commit, so a successor cannot come in between; and
a predecessor that was paused, however long and wherever, finds another epoch and is refused.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from typing import Any

import psycopg

from omnimind.cluster.events import Recovered
from omnimind.cluster.records import Records
from omnimind.errors import (
    LedgerCorrupt,
    LedgerError,
    LedgerFenced,
    LedgerFull,
    OmniMindError,
)
from omnimind.failpoints import failpoint
from omnimind.ledger import postgres_statements as pg
from omnimind.ledger import postgres_write
from omnimind.ledger.interface import About, Sentences
from omnimind.ledger.postgres_address import Address
from omnimind.ledger.postgres_connections import Connections
from omnimind.ledger.postgres_errors import as_ours, outcome_unknown, state_of
from omnimind.ledger.postgres_takeover import take_over
from omnimind.ledger.reads import Reads
from omnimind.ledger.statements import INSERT_PAYLOAD

_CHECK_SECONDS = 600.0
_ROOM = 1 << 20
"""Bytes that a disk that was full must take before new tasks may come again."""
_ANOTHER_EPOCH = "22012"
"""division_by_zero: what the proof of the epoch ends in."""


class PostgresLedger(Reads):
    """A ledger at an address. It needs CREATE in the database for the first opening, and nothing more later.

    Of its connections one writes and up to `READERS` read, each only when it is needed.
    """

    remote = True

    def __init__(self, address: Address) -> None:
        self.address = address
        self.epoch = 0
        self._where = str(address)
        self._connections = Connections(address)
        self._lock = threading.Lock()
        self._refusal: OmniMindError | None = None
        self._full = False
        self._commits = self._rows = self._bytes = 0
        self._seconds = 0.0

    # ---------------------------------------------------------------------------------- open and close

    def open(self, window: int, *, after: int | None = None) -> Recovered:
        with self._lock:
            self._connections.close()
            try:
                self.epoch = take_over(self._connections, after)
            except BaseException:
                self._connections.close()
                raise
            self._refusal = None
            self._commits = self._rows = 0
            self._seconds = 0.0
        return self.recovered(self.epoch, window)

    def close(self) -> None:
        with self._lock:
            self._connections.close()

    @property
    def full(self) -> bool:
        """Return whether new tasks are refused, since the server's disk was full a moment ago."""
        return self._full

    # ------------------------------------------------------------------------------------------ writing

    def write(self, records: Records) -> None:
        if not records:
            return
        with self._lock:
            started = time.perf_counter()
            with self._transaction() as cursor:
                inserts, updates, others = postgres_write.packed(records)
                # Nothing waits for an answer before the COMMIT has left: one round trip.
                with self._connections.writer.pipeline():
                    self._begin(cursor)
                    postgres_write.run(cursor, inserts)
                    if inserts:
                        failpoint("ledger.after_inserts")
                    postgres_write.run(cursor, updates)
                    if updates:
                        failpoint("ledger.after_updates")
                    postgres_write.run(cursor, others)
                    self._commit(cursor)
            failpoint("ledger.after_commit")
            self._seconds += time.perf_counter() - started
            self._commits += 1
            self._rows += len(records.inserts) + len(records.updates)

    def prune(self, before: float, keep: int, limit: int) -> int:
        with self._lock, self._transaction() as cursor:
            self._begin(cursor)
            count = postgres_write.prune(cursor, before, keep, limit)
            self._commit(cursor)
        return count

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[psycopg.RawCursor[Any]]:
        """Give a cursor of the writer; raise one of our errors, with nothing left open, when it fails."""
        if self._refusal is not None:
            raise self._refusal
        connection = self._connections.writer
        try:
            failpoint("ledger.before_begin")
            with self._connections.working(connection):
                yield psycopg.RawCursor(connection)
        except Exception as error:
            raise self._failed(error) from error
        except BaseException:
            self._connections.rollback()
            raise

    def _begin(self, cursor: psycopg.RawCursor[Any]) -> None:
        cursor.execute(b"BEGIN")
        cursor.execute(pg.PROVE.encode(), (self.epoch,), prepare=True)

    def _commit(self, cursor: psycopg.RawCursor[Any]) -> None:
        failpoint("ledger.before_commit")
        cursor.execute(b"COMMIT")

    def _failed(self, error: Exception) -> OmniMindError:
        """Undo, note what that means for the writes to come, and return the error to raise."""
        undone = self._connections.rollback()
        ours = as_ours(error, self._where)
        if state_of(error) == _ANOTHER_EPOCH:
            msg = f"epoch {self.epoch} of {self._where} is over: a newer coordinator owns it"
            ours = LedgerFenced(msg, hint="this coordinator must stop")
        if isinstance(ours, LedgerFull):
            self._full = True
        if isinstance(ours, (LedgerFenced, LedgerCorrupt)):
            self._refusal = ours
        elif not isinstance(error, OmniMindError) and (not undone or outcome_unknown(error)):
            ours = self._refusal = LedgerError(
                f"whether a transaction was written is unknown: {ours.message}",
                hint=ours.hint or "the coordinator opens the ledger again by itself",
                retry_after=ours.retry_after or 1.0,
            )
        return ours

    # ------------------------------------------------------------------------------------- maintenance

    def maintain(self) -> None:
        """See that the server is there, the epoch still this one, and whether a full disk has room again."""
        with self._lock:
            if self._full:
                with contextlib.suppress(LedgerFull):
                    self._try_room()
                    self._full = False
            with self._transaction() as cursor:
                self._begin(cursor)
                row = cursor.execute(pg.SIZE.encode()).fetchone()
                cursor.execute(b"ROLLBACK")
            self._bytes = row[0] if row else 0

    def _try_room(self) -> None:
        """Write something and take it back; raises LedgerFull. What it has used is vacuumed by the server."""
        with self._transaction() as cursor:
            self._begin(cursor)
            cursor.execute(pg.numbered(INSERT_PAYLOAD), (-1, os.urandom(_ROOM)))
            cursor.execute(b"ROLLBACK")

    # ------------------------------------------------------------------------------------------ reading

    def _read(self, statement: str, values: tuple[Any, ...] | list[Any] = ()) -> list[Any]:
        return self._connections.read(statement, values)

    def _size(self) -> int:
        return int(self._read(pg.SIZE)[0][0])

    def check(self) -> Sentences:
        """Return what contradicts itself; PostgreSQL checks its own pages where they have checksums."""
        patient = PostgresLedger(self.address)
        patient._connections = self._connections.patiently(_CHECK_SECONDS)
        try:
            return patient.contradictions()
        finally:
            patient.close()

    def about(self) -> About:
        return About(
            "postgresql",
            f"{self.address.where}, schema {self.address.schema}",
            self._connections.version,
            [*self._connections.warnings],
        )

    def statistics(self) -> dict[str, Any]:
        return {
            "commits": self._commits,
            "rows": self._rows,
            "seconds": self._seconds,
            "bytes": self._bytes,
            "wal_bytes": 0,
            "full": self._full,
            "epoch": self.epoch,
        }
