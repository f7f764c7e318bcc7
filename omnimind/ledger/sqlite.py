"""`SqliteLedger`: the ledger as one SQLite file, the default.

Write-ahead log with `synchronous=FULL`: a commit is on disk when `write` returns. One connection writes,
others read beside it. A predecessor that is not quite dead finds another epoch inside its transaction
and is refused.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from omnimind.cluster.events import Recovered
from omnimind.cluster.records import Records
from omnimind.errors import (
    LedgerCorrupt,
    LedgerError,
    LedgerFenced,
    LedgerFull,
    LedgerUnavailable,
    OmniMindError,
)
from omnimind.failpoints import failpoint
from omnimind.ledger import sqlite_write
from omnimind.ledger.interface import About, Sentences
from omnimind.ledger.reads import Reads
from omnimind.ledger.sqlite_database import WAL_MOST, Database
from omnimind.ledger.sqlite_errors import as_ours, code_of, outcome_unknown
from omnimind.ledger.sqlite_files import Reserve, make_private, size_of
from omnimind.ledger.statements import EPOCH

T = TypeVar("T")

RESERVE_BYTES = 16 << 20


class SqliteLedger(Reads):
    """A ledger in the file `path`, which is made, mode 0600, when it is missing.

    lock_timeout: seconds to wait for another process's lock before LedgerUnavailable. reserve: bytes kept
    back in ``PATH.reserve`` for a full disk (0: none). When the disk is full they are given back: then new
    tasks are refused with LedgerFull, while ends of tasks, checkpoints and reads go on, until there is
    room for the reserve again.
    """

    remote = False

    def __init__(
        self,
        path: str | Path,
        *,
        lock_timeout: float = 5.0,
        reserve: int = RESERVE_BYTES,
        synchronous: str = "FULL",
    ) -> None:
        self.path = Path(path)
        self.epoch = 0
        self._database = Database(self.path, lock_timeout, synchronous)
        self._reserve = Reserve(Path(f"{path}.reserve"), reserve)
        self._lock = threading.Lock()
        self._refusal: OmniMindError | None = None
        self._full = False
        self._commits = self._rows = self._oversized = 0
        self._seconds = 0.0

    # ---------------------------------------------------------------------------------- open and close

    def open(self, window: int, *, after: int | None = None) -> Recovered:
        with self._lock:
            self._database.close()
            try:
                self._take_over(after)
            except (LedgerFull, LedgerError) as error:
                fatal = type(error) not in {LedgerFull, LedgerError}
                if fatal or not self._reserve.release():
                    self._database.close()
                    raise
                # Even a new epoch needs space.
                self._database.close()
                self._take_over(after)
            self._full = not self._reserve.take()
            self._refusal = None
            self._commits = self._rows = self._oversized = 0
            self._seconds = 0.0
        return self.recovered(self.epoch, window)

    def _take_over(self, after: int | None) -> None:
        try:
            make_private(self.path)
        except OSError as error:
            msg = f"{self.path} cannot be opened: {error.strerror}"
            hint = f"make its folder writable for this user: ls -ld {self.path.parent}"
            raise LedgerUnavailable(msg, hint=hint, path=str(self.path)) from error
        try:
            self.epoch = self._database.take_over(after)
        except Exception as error:
            raise as_ours(error, self.path) from error

    def close(self) -> None:
        with self._lock:
            self._database.close()

    @property
    def full(self) -> bool:
        """Return whether new tasks are refused, since the disk is (or was a moment ago) full."""
        return self._full

    # ------------------------------------------------------------------------------------------ writing

    def write(self, records: Records) -> None:
        if not records:
            return
        with self._lock:
            if self._full and records.inserts and not self._room():
                msg = f"no space is left for {self.path}"
                raise LedgerFull(msg, path=str(self.path), retry_after=10.0)
            started = time.perf_counter()
            if records.inserts:
                self._transaction(lambda connection: sqlite_write.apply(connection, records))
            else:
                self._squeezed(lambda connection: sqlite_write.apply(connection, records))
            self._seconds += time.perf_counter() - started
            self._commits += 1
            self._rows += len(records.inserts) + len(records.updates)
            self._bound_log()

    def prune(self, before: float, keep: int, limit: int) -> int:
        with self._lock:
            return self._squeezed(lambda connection: sqlite_write.prune(connection, before, keep, limit))

    def _squeezed(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do `work`, which brings no new tasks, with the reserve and the log's space if that is needed."""
        while True:
            try:
                return self._transaction(work)
            except LedgerFull:
                if not self._reserve.release() and not self._truncate_log():
                    raise

    def _transaction(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do `work` in one transaction of the present epoch, or raise one of our errors."""
        if self._refusal is not None:
            raise self._refusal
        connection = self._database.writer
        try:
            failpoint("ledger.before_begin")
            connection.execute("BEGIN IMMEDIATE")
            if connection.execute(EPOCH).fetchone()[0] != self.epoch:
                msg = f"epoch {self.epoch} of {self.path} is over: a newer coordinator owns it"
                raise LedgerFenced(msg, hint="this coordinator must stop", path=str(self.path))  # noqa: TRY301
            result = work(connection)
            failpoint("ledger.before_commit")
            connection.execute("COMMIT")
            failpoint("ledger.after_commit")
        except Exception as error:
            raise self._failed(error) from error
        except BaseException:
            self._database.rollback()
            raise
        return result

    def _failed(self, error: Exception) -> OmniMindError:
        """Undo, note what that means for the writes to come, and return the error to raise."""
        undone = self._database.rollback()
        ours = as_ours(error, self.path)
        if isinstance(ours, LedgerFull):
            self._full = True
        if isinstance(ours, (LedgerFenced, LedgerCorrupt)):
            self._refusal = ours
        elif not undone or outcome_unknown(error):
            # fsync reports a lost write once and then forgets it: only the file itself can tell now.
            self._refusal = LedgerError(
                f"an earlier write to {self.path} failed and its outcome is unknown: {ours.message}",
                hint="the coordinator opens the ledger again by itself; if this repeats, check the disk",
                path=str(self.path),
            )
        return ours

    # -------------------------------------------------------------------------------------- maintenance

    def maintain(self) -> None:
        with self._lock:
            if self._refusal is None:
                if size_of(self._database.wal):
                    self._truncate_log()
                self._room()

    def _room(self) -> bool:
        """Keep the reserve again if there is room; return whether new tasks may come."""
        self._full = not self._reserve.take()
        return not self._full

    def _bound_log(self) -> None:
        """Start the write-ahead log anew when readers have kept it from that for too long."""
        if size_of(self._database.wal) <= WAL_MOST:
            self._oversized = 0
            return
        if self._oversized % 64 == 0:
            self._truncate_log()
        self._oversized += 1

    def _truncate_log(self) -> bool:
        """Carry the log into the database and cut it; return whether that gave space back."""
        connection = self._database.writer
        before = size_of(self._database.wal)
        wait = connection.execute("PRAGMA busy_timeout").fetchone()[0]
        try:
            connection.execute("PRAGMA busy_timeout = 100")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        except sqlite3.Error as error:
            # Nothing is lost: the log stays as it is, and the next commit or call tries again.
            if outcome_unknown(error):
                raise self._failed(error) from error
            if code_of(error) == sqlite3.SQLITE_FULL and self._reserve.release():
                return self._truncate_log()
        finally:
            connection.execute(f"PRAGMA busy_timeout = {wait}")
        return size_of(self._database.wal) < before

    # ------------------------------------------------------------------------------------------ reading

    def _read(self, statement: str, values: tuple[Any, ...] | list[Any] = ()) -> list[Any]:
        return self._database.read(statement, values)

    def _size(self) -> int:
        return size_of(self.path) + size_of(self._database.wal)

    def about(self) -> About:
        return About("sqlite", str(self.path), sqlite3.sqlite_version, [])

    def check(self) -> Sentences:
        rows = self._read("PRAGMA integrity_check(20)")
        return [f"SQLite: {row[0]}" for row in rows if row[0] != "ok"] + self.contradictions()

    def statistics(self) -> dict[str, Any]:
        return {
            "commits": self._commits,
            "rows": self._rows,
            "seconds": self._seconds,
            "bytes": size_of(self.path),
            "wal_bytes": size_of(self._database.wal),
            "full": self._full,
            "epoch": self.epoch,
        }
