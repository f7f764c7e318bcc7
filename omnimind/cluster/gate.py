"""`CommitGate`: nothing leaves before what it rests on is durable. And the facts a core needs from disk.

The shell adds each `Effects` as the core returns it, takes all records gathered so far as one
transaction, and releases the sends when that transaction is committed: a group commit. While one
transaction is being written, the next one gathers.

Between the core's decision and the commit the ledger lags behind. So facts for the core are read
through the gate, which lays what is not yet committed over what the ledger says. Where reading takes
time (a database on another machine), the reader takes `hold` first: what is committed between its read
and its use lies over it, too.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Protocol

from omnimind.cluster.events import KnownTask, Submit
from omnimind.cluster.records import (
    STATE_COLUMNS,
    TASK_COLUMNS,
    CheckpointSaved,
    Records,
    TaskRow,
    task_from_row,
)
from omnimind.cluster.sends import Effects, Ended, Refusal, Reply, Send
from omnimind.cluster.states import TaskStatus
from omnimind.cluster.task import DistributedTask
from omnimind.errors import OmniMindError

_SEQ, _ID, _KEY, _DIGEST = (TASK_COLUMNS.index(name) for name in ("seq", "id", "key", "digest"))
_FIXED = TASK_COLUMNS.index(STATE_COLUMNS[0])
_CHECKPOINT = _FIXED - 1


class Facts(Protocol):
    """The reads of a ledger that the core's facts come from (part of `ledger.interface.Ledger`)."""

    def tasks(self, ids: list[str], /) -> list[TaskRow]:
        """Return rows by id."""

    def known_ids(self, ids: list[str], /) -> dict[str, KnownTask]:
        """Return states by id."""

    def known_keys(self, keys: list[str], /) -> dict[str, KnownTask]:
        """Return tasks by idempotency key."""


class _Overlay:
    """What some effects will make of the ledger, as far as the core's facts are concerned."""

    def __init__(self) -> None:
        self.known: dict[str, KnownTask] = {}
        self.keys: dict[str, KnownTask] = {}
        self.inserts: dict[str, TaskRow] = {}
        self.states: dict[int, TaskRow] = {}
        self.checkpoints: dict[int, bytes] = {}
        self._folded = 0

    def fold(self, gathered: list[Effects]) -> None:
        """Take in what has been gathered since the last time."""
        for effects in gathered[self._folded :]:
            for row in effects.records.inserts:
                self.inserts[row[_ID]] = row
                self._put(KnownTask(row[_ID], TaskStatus.PENDING, row[_DIGEST]), row[_KEY])
            for state in effects.records.updates:
                self.states[state[-1]] = state
            for record in effects.records.others:
                if isinstance(record, CheckpointSaved):
                    self.checkpoints[record.seq] = record.data
            for send in effects.sends:
                if isinstance(send, Ended):
                    for task in send.tasks:
                        known = KnownTask(task.task_id, task.status, task.digest, task.cause)
                        self._put(known, task.key)
        self._folded = len(gathered)

    def _put(self, known: KnownTask, key: str | None) -> None:
        self.known[known.task_id] = known
        if key is not None:
            self.keys[key] = known


class CommitGate:
    """Holds sends back until their records, and all records before them, are committed."""

    def __init__(self) -> None:
        self._gathering: list[Effects] = []
        self._writing: list[Effects] = []
        self._later = _Overlay()
        """Over what gathers; `_sooner` over what is being written."""
        self._sooner = _Overlay()
        self._commits = 0
        self._holds: dict[int, int] = {}
        """Of each reader, how many commits there were before it began to read."""
        self._hold = 0
        self._kept: deque[tuple[int, _Overlay]] = deque()
        """Over what was committed since the first of them began."""

    def hold(self) -> int:
        """Keep what is committed from now on in sight, until `release` of the number returned."""
        self._hold += 1
        self._holds[self._hold] = self._commits
        return self._hold

    def release(self, hold: int) -> None:
        """End a hold; a second call does nothing."""
        self._holds.pop(hold, None)
        oldest = min(self._holds.values(), default=self._commits)
        while self._kept and self._kept[0][0] <= oldest:
            self._kept.popleft()

    def add(self, effects: Effects) -> None:
        """Take in what a core returned."""
        if effects.records or effects.sends:
            self._gathering.append(effects)

    @property
    def idle(self) -> bool:
        """Return whether nothing waits."""
        return not self._gathering and not self._writing

    @property
    def backlog(self) -> int:
        """Return how many effects wait for a commit."""
        return len(self._gathering) + len(self._writing)

    def take(self) -> Records | None:
        """Return the next transaction, None when one is being written or nothing waits.

        An empty transaction needs no write, but still its `committed()`.
        """
        if self._writing or not self._gathering:
            return None
        self._writing, self._gathering = self._gathering, []
        self._sooner, self._later = self._later, _Overlay()
        records = Records()
        for effects in self._writing:
            records.extend(effects.records)
        return records

    def committed(self) -> list[Send]:
        """Return the sends that may leave now that the transaction of `take` is durable."""
        sends = [send for effects in self._writing for send in effects.sends]
        self._commits += 1
        if self._holds:
            self._sooner.fold(self._writing)
            self._kept.append((self._commits, self._sooner))
        self._writing = []
        self._sooner = _Overlay()
        return sends

    def failed(self, error: OmniMindError) -> list[Send]:
        """Drop everything that waits, and return refusals for those who wait for an answer.

        The core that made these effects must be thrown away: the ledger does not know of them.
        """
        waiting = [send for effects in self._writing + self._gathering for send in effects.sends]
        self._writing, self._gathering = [], []
        self._sooner, self._later = _Overlay(), _Overlay()
        refused: list[Send] = []
        for send in waiting:
            if isinstance(send, Reply):
                refused.append(Refusal(send.request, error))
            elif isinstance(send, Refusal):
                refused.append(send)
        return refused

    def _overlays(self) -> tuple[_Overlay, ...]:
        """Return what the ledger may not have said yet, the oldest part first."""
        self._sooner.fold(self._writing)
        self._later.fold(self._gathering)
        return (*(overlay for _, overlay in self._kept), self._sooner, self._later)

    def look_up(self, submit: Submit, live: dict[str, DistributedTask], facts: Facts) -> None:
        """Fill in what a submission must know: its dependencies, its keys, whether it was sent before.

        live: the tasks that the core holds, which need no look-up.
        """
        overlays = self._overlays()
        first = next((t.task_id for t in submit.tasks if t.key is None), "")
        if first and first not in live:
            submit.resent = any(first in o.known for o in overlays) or bool(facts.known_ids([first]))
        after = {d: None for t in submit.tasks for d in t.after if d not in live}
        if after:
            submit.known_ids = facts.known_ids(list(after))
            for overlay in overlays:
                submit.known_ids |= {d: overlay.known[d] for d in after if d in overlay.known}
        keys = {t.key: None for t in submit.tasks if t.key is not None}
        if keys:
            submit.known_keys = facts.known_keys(list(keys))
            for overlay in overlays:
                submit.known_keys |= {k: overlay.keys[k] for k in keys if k in overlay.keys}

    def load(
        self, ids: Iterable[str], live: dict[str, DistributedTask], facts: Facts
    ) -> list[DistributedTask]:
        """Return the tasks among `ids` that the core does not hold, as the next commits will leave them."""
        missing = [i for i in ids if i not in live]
        if not missing:
            return []
        rows = {row[_ID]: row for row in facts.tasks(missing)}
        for overlay in self._overlays():
            rows |= {i: overlay.inserts[i] for i in missing if i in overlay.inserts}
            for task_id, row in rows.items():
                seq = row[_SEQ]
                state = overlay.states.get(seq, (*row[_FIXED:], seq))
                checkpoint = overlay.checkpoints.get(seq, row[_CHECKPOINT])
                rows[task_id] = (*row[:_CHECKPOINT], checkpoint, *state[:-1])
        return [task_from_row(row) for row in rows.values()]
