"""`CommitGate`: nothing leaves before what it rests on is durable. And the facts a core needs from disk.

The shell adds each `Effects` as the core returns it, takes all records gathered so far as one
transaction, and releases the sends when that transaction is committed: a group commit. While one
transaction is being written, the next one gathers.

Between the core's decision and the commit the ledger lags behind. So facts for the core are read
through the gate, which lays what is not yet committed over what the ledger says.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from omnimind.cluster.events import KnownTask, Submit
from omnimind.cluster.records import Records, TaskRow, task_from_row
from omnimind.cluster.sends import Effects, Ended, Refusal, Reply, Send
from omnimind.cluster.states import TaskStatus
from omnimind.cluster.task import DistributedTask
from omnimind.errors import OmniMindError

_ID, _KEY, _DIGEST = 1, 8, 9


class Facts(Protocol):
    """The reads of a ledger that the core's facts come from (part of `ledger.interface.Ledger`)."""

    def tasks(self, ids: list[str], /) -> list[TaskRow]:
        """Return rows by id."""

    def known_ids(self, ids: list[str], /) -> dict[str, KnownTask]:
        """Return states by id."""

    def known_keys(self, keys: list[str], /) -> dict[str, KnownTask]:
        """Return tasks by idempotency key."""


class CommitGate:
    """Holds sends back until their records, and all records before them, are committed."""

    def __init__(self) -> None:
        self._gathering: list[Effects] = []
        self._writing: list[Effects] = []
        self._overlay: dict[str, KnownTask] | None = None
        self._overlay_keys: dict[str, KnownTask] = {}

    def add(self, effects: Effects) -> None:
        """Take in what a core returned."""
        if effects.records or effects.sends:
            self._gathering.append(effects)
            self._overlay = None

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
        records = Records()
        for effects in self._writing:
            records.extend(effects.records)
        return records

    def committed(self) -> list[Send]:
        """Return the sends that may leave now that the transaction of `take` is durable."""
        sends = [send for effects in self._writing for send in effects.sends]
        self._writing = []
        self._overlay = None
        return sends

    def failed(self, error: OmniMindError) -> list[Send]:
        """Drop everything that waits, and return refusals for those who wait for an answer.

        The core that made these effects must be thrown away: the ledger does not know of them.
        """
        waiting = [send for effects in self._writing + self._gathering for send in effects.sends]
        self._writing, self._gathering, self._overlay = [], [], None
        refused: list[Send] = []
        for send in waiting:
            if isinstance(send, Reply):
                refused.append(Refusal(send.request, error))
            elif isinstance(send, Refusal):
                refused.append(send)
        return refused

    def _uncommitted(self) -> dict[str, KnownTask]:
        if self._overlay is None:
            found: dict[str, KnownTask] = {}
            keys: dict[str, KnownTask] = {}
            for effects in self._writing + self._gathering:
                for row in effects.records.inserts:
                    known = KnownTask(row[_ID], TaskStatus.PENDING, row[_DIGEST])
                    found[row[_ID]] = known
                    if row[_KEY] is not None:
                        keys[row[_KEY]] = known
                for send in effects.sends:
                    if isinstance(send, Ended):
                        for task in send.tasks:
                            known = KnownTask(task.task_id, task.status, task.digest, task.cause)
                            found[task.task_id] = known
                            if task.key is not None:
                                keys[task.key] = known
            self._overlay, self._overlay_keys = found, keys
        return self._overlay

    def look_up(self, submit: Submit, live: dict[str, DistributedTask], facts: Facts) -> None:
        """Fill in what a submission must know: its dependencies, its keys, whether it was sent before.

        live: the tasks that the core holds, which need no look-up.
        """
        first = next((t.task_id for t in submit.tasks if t.key is None), "")
        if first and first not in live:
            submit.resent = first in self._uncommitted() or bool(facts.known_ids([first]))
        after = {d: None for t in submit.tasks for d in t.after if d not in live}
        if after:
            submit.known_ids = facts.known_ids(list(after)) | {
                d: known for d in after if (known := self._uncommitted().get(d))
            }
        keys = {t.key: None for t in submit.tasks if t.key is not None}
        if keys:
            submit.known_keys = facts.known_keys(list(keys))
            self._uncommitted()
            submit.known_keys |= {k: known for k in keys if (known := self._overlay_keys.get(k))}

    def load(
        self, ids: Iterable[str], live: dict[str, DistributedTask], facts: Facts
    ) -> list[DistributedTask]:
        """Return the tasks among `ids` that live on disk only."""
        missing = [i for i in ids if i not in live]
        if not missing:
            return []
        over = self._uncommitted()
        ended = {i for i in missing if i in over and over[i].status != TaskStatus.PENDING}
        tasks = [task_from_row(row) for row in facts.tasks(missing)]
        return [t for t in tasks if t.task_id not in ended]
