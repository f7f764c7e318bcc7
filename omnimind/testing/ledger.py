"""`SimDisk` and `SimLedger`: what is durable in a simulation, and a ledger on it that may fail.

The ledger is `MemoryLedger`, the model that the database is compared with. What its `write` has taken is
durable: it survives the coordinator. The time between a transaction's hand-over and its commit, in which
a crash loses it, is the simulated shell's business (`omnimind.testing.coordinator`).
"""

from __future__ import annotations

from collections.abc import Callable

from omnimind.cluster.events import KnownTask, Recovered
from omnimind.cluster.records import STATE_COLUMNS, TASK_COLUMNS, Records, TaskRow
from omnimind.cluster.states import TERMINAL
from omnimind.errors import LedgerFenced, LedgerFull, LedgerUnavailable
from omnimind.ledger.memory import MemoryLedger
from omnimind.ledger.memory_store import Store
from omnimind.ledger.rows import SEQ, STATUS

ENDED = frozenset(status.value for status in TERMINAL)

PRIORITY, NOT_BEFORE, RETRIES, DEATHS, FENCE, ERROR = (
    TASK_COLUMNS.index(name) for name in ("priority", "not_before", "retry_count", "deaths", "fence", "error")
)
_FIXED = TASK_COLUMNS.index(STATE_COLUMNS[0])

Watch = Callable[[TaskRow | None, TaskRow], None]


class SimDisk:
    """The durable state, one for all lives of the coordinator.

    tight: there is no room for new tasks any more, but what has begun can still be written down.
    fault: None, ``full`` or ``unavailable`` (nothing of a write is written), or ``unknown`` (the next
    write raises OSError; `unknown_commits` says whether it was written all the same). watch: called for
    each task row that becomes durable, with the row that stood there before.
    """

    def __init__(self) -> None:
        self.store = Store()
        self.live: dict[int, None] = {}
        """Numbers of the tasks that have not ended."""
        self.tight = False
        self.fault: str | None = None
        self.unknown_commits = False
        self.watch: Watch | None = None

    @property
    def epoch(self) -> int:
        """Return the epoch of the coordinator that opened it last."""
        return self.store.epoch

    def row(self, task_id: str) -> TaskRow | None:
        """Return a task's row."""
        seq = self.store.seq_of.get(task_id)
        return None if seq is None else self.store.rows[seq]

    def alive(self) -> list[TaskRow]:
        """Return the rows of the tasks that have not ended."""
        return [self.store.rows[seq] for seq in self.live]

    def apply(self, records: Records) -> None:
        """Make a transaction durable."""
        changes: list[tuple[TaskRow | None, TaskRow]] = [(None, row) for row in records.inserts]
        touched = {row[SEQ]: row for row in records.inserts}
        for state in records.updates:
            before = touched.get(state[-1]) or self.store.rows.get(state[-1])
            if before is not None:
                row = touched[state[-1]] = before[:_FIXED] + state[:-1]
                changes.append((before, row))
        self.store.apply(records)
        for before, row in changes:
            if row[STATUS] in ENDED:
                self.live.pop(row[SEQ], None)
            else:
                self.live[row[SEQ]] = None
            if self.watch is not None:
                self.watch(before, row)


class SimLedger(MemoryLedger):
    """One life's opening of a `SimDisk`. A later opening refuses its writes (LedgerFenced)."""

    def __init__(self, disk: SimDisk) -> None:
        super().__init__(disk.store)
        self.disk = disk

    def _reachable(self) -> None:
        if self.disk.fault == "unavailable":
            raise LedgerUnavailable

    def open(self, window: int, *, after: int | None = None) -> Recovered:
        """Take over as the writer, which writes the epoch: a full disk refuses that too."""
        self._reachable()
        if self.disk.fault == "full":
            raise LedgerFull
        return super().open(window, after=after)

    @property
    def full(self) -> bool:
        """Return whether new tasks are refused."""
        return self.disk.tight

    def write(self, records: Records) -> None:
        if self.epoch != self.disk.epoch:
            raise LedgerFenced
        self._reachable()
        if self.disk.fault == "full" or (self.disk.tight and records.inserts):
            raise LedgerFull
        unknown, self.disk.fault = self.disk.fault == "unknown", None
        if not unknown or self.disk.unknown_commits:
            self.disk.apply(records)
        if unknown:
            msg = "the connection broke during the commit"
            raise OSError(msg)

    def tasks(self, ids: list[str]) -> list[TaskRow]:
        self._reachable()
        return super().tasks(ids)

    def known_keys(self, keys: list[str]) -> dict[str, KnownTask]:
        self._reachable()
        return super().known_keys(keys)

    def ready(self, queue: str, after: tuple[float, int], limit: int) -> list[TaskRow]:
        self._reachable()
        return super().ready(queue, after, limit)

    def delayed(self, after: tuple[float, int], limit: int) -> list[TaskRow]:
        self._reachable()
        return super().delayed(after, limit)

    def overdue(self, before: float, limit: int) -> list[TaskRow]:
        self._reachable()
        return super().overdue(before, limit)
