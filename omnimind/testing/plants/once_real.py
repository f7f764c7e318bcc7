"""Bugs that the core really had, and that the simulator found. They must be found again."""

from __future__ import annotations

from typing import Any

from omnimind.cluster import events as ev
from omnimind.cluster import lines, members, outcomes, queues, schedules, submission
from omnimind.cluster.core import CoordinatorCore
from omnimind.cluster.gate import CommitGate
from omnimind.cluster.policies import QueuePolicy
from omnimind.cluster.queues import Entry, QueueBook, QueueState, Signature
from omnimind.cluster.records import task_from_row
from omnimind.cluster.sends import Accepted, Effects, Reply
from omnimind.cluster.states import Line
from omnimind.cluster.task import DistributedTask
from omnimind.testing.plants.registry import Patches, plant


@plant("S", 60, "A delayed task that is due rings all the time while the core recovers")
def recovery_spins(patches: Patches) -> None:
    def next_wakeup(self: CoordinatorCore) -> float:
        whens = (self.next_check, self.timers.next(), self.delayed.next())
        return min(when for when in whens if when is not None)

    patches.put(CoordinatorCore, "next_wakeup", next_wakeup)


@plant("P1a", 200, "A resend is answered as if none of its keys had stood before", keyed=0.7)
def resend_forgets_its_keys(patches: Patches) -> None:
    def submit(core: CoordinatorCore, event: ev.Submit, now: float, fx: Effects) -> None:
        if submission._resent(core, event):  # noqa: SLF001
            fx.sends.append(Reply(event.request, Accepted(len(event.tasks), {})))
        else:
            original(core, event, now, fx)

    original = patches.put(submission, "submit", submit)


@plant(
    "S",
    600,
    "A task that left its line and came back stands in it twice",
    window=2,
    coordinator_after=0.1,
    poison=0.3,
    kill_worker=0.3,
    tasks=40,
    bound=50,
    duration=1.0,
)
def left_over_entries_count(patches: Patches) -> None:
    def stands(entry: Entry) -> bool:
        return entry[3].line is Line.READY

    patches.put(queues, "_stands", stands)


@plant("S", 300, "Delayed tasks on disk do not count as pending after a restart", window=2, delays=0.6)
def delayed_tail_not_counted(patches: Patches) -> None:
    def restore(core: CoordinatorCore, event: ev.Recovered, now: float) -> None:
        tails, event.delayed_tails = event.delayed_tails, {}
        original(core, event, now)
        if tails:
            core.delayed.tail = sum(tails.values())
            core.delayed.horizon = lines._beyond(event.delayed, (float("-inf"), 0))  # noqa: SLF001

    original = patches.put(lines, "restore", restore)


@plant("S", 200, "What is not committed yet is not seen in rows that are read for an event", window=2, io=0.5)
def rows_without_uncommitted_states(patches: Patches) -> None:
    def load(_self: CommitGate, ids: Any, live: Any, facts: Any) -> list[DistributedTask]:
        missing = [task_id for task_id in ids if task_id not in live]
        return [task_from_row(row) for row in facts.tasks(missing)]

    patches.put(CommitGate, "load", load)


@plant(
    "S",
    200,
    "An adopted task that was requeued since is requeued again when the recovery is over",
    coordinator_after=0.1,
    pause=0.1,
    crash=0.1,
    nodes=4,
    raises=0.5,
    tasks=40,
    bound=50,
)
def orphans_requeued_twice(patches: Patches) -> None:
    def end(core: CoordinatorCore, now: float, fx: Effects) -> None:
        core.recovering = False
        orphans, core.orphans = core.orphans, {}
        for task in orphans.values():
            if core.live(task.task_id) is task and task.task_id not in _held(core):
                outcomes.orphaned(core, task, now, fx)

    patches.put(members, "_end_recovery", end)


def _held(core: CoordinatorCore) -> dict[str, None]:
    return {t.task_id: None for b in core.batches.values() for t in b.tasks if t is not None}


@plant("P5", 100, "A task that ended is taken into memory when a node reports it")
def ended_task_remembered(patches: Patches) -> None:
    def joined(core: CoordinatorCore, event: ev.NodeJoined, now: float, fx: Effects) -> None:
        for row in event.tasks:
            if row.terminal and row.task_id not in core.tasks:
                core.remember(row)
        original(core, event, now, fx)

    original = patches.put(members, "joined", joined)


@plant("P5", 200, "A schedule submits beyond the bound of its queue", bound=3, schedules=1)
def schedule_ignores_the_bound(patches: Patches) -> None:
    def due(core: CoordinatorCore, name: str, now: float, fx: Effects) -> None:
        policies = {queue: state.policy for queue, state in core.book.queues.items()}
        for state in core.book.queues.values():
            state.policy = QueuePolicy(state.policy.name, max_pending=1 << 40)
        try:
            original(core, name, now, fx)
        finally:
            for queue, state in core.book.queues.items():
                state.policy = policies[queue]

    original = patches.put(schedules, "due", due)


@plant(
    "S",
    300,
    "A task that comes after another one twice is told of its end twice",
    after=1.0,
    poison=0.3,
    keyed=0.7,
)
def told_twice(patches: Patches) -> None:
    def release(
        self: CoordinatorCore, ended: DistributedTask, now: float, fx: Effects
    ) -> list[DistributedTask]:
        waiting = self.dependents.get(ended.task_id, [])
        failed: list[DistributedTask] = original(self, ended, now, fx)
        return failed if len(waiting) < 2 else failed + failed  # noqa: PLR2004

    original = patches.put(CoordinatorCore, "_release", release)


@plant(
    "S",
    300,
    "A queue that was idle is known at its new time to one signature only",
    queues=3,
    tasks=40,
    bound=50,
    picky=0.7,
)
def turn_lost(patches: Patches) -> None:
    def offer(self: QueueBook, queue: QueueState, signature: Signature) -> None:
        if queue.running == 0:
            queue.vtime = max(queue.vtime, self._vnow)
        original(self, queue, signature)

    original = patches.put(QueueBook, "_offer", offer)


@plant(
    "S",
    300,
    "A task that is first behind a left-over entry is not listed",
    window=2,
    tasks=40,
    bound=50,
    crash=0.2,
)
def head_not_listed(patches: Patches) -> None:
    def push(self: QueueBook, task: DistributedTask) -> None:
        queue = self.queues[task.queue]
        lanes = {key: lane.heap[0][:2] for key, lane in queue.lanes.items() if lane.heap}
        enlist = self._enlist
        place = (task.rank, task.seq)
        hidden = any(
            first <= place
            for key, first in lanes.items()
            if key[0] == task.task_type and key[1] == task.options
        )
        if hidden:
            self._enlist = lambda *_: None  # type: ignore[method-assign]
        try:
            original(self, task)
        finally:
            self._enlist = enlist  # type: ignore[method-assign]

    original = patches.put(QueueBook, "push", push)
