"""Bugs in submissions, keys, bounds, lines, dependencies, times and fairness."""

from __future__ import annotations

from typing import Any

import msgspec

from omnimind.cluster import events as ev
from omnimind.cluster import lines, stopping, submission
from omnimind.cluster.core import CoordinatorCore
from omnimind.cluster.events import KnownTask
from omnimind.cluster.gate import CommitGate
from omnimind.cluster.queues import QueueBook, QueueState
from omnimind.cluster.sends import Effects
from omnimind.cluster.states import Line
from omnimind.cluster.task import DistributedTask
from omnimind.testing.plants.registry import Patches, plant


@plant("P3", 60, "Only keys of tasks in memory are known", keyed=0.7)
def key_map_not_rebuilt(patches: Patches) -> None:

    def blind(self: CommitGate, submit: ev.Submit, *args: Any) -> None:
        original(self, submit, *args)
        submit.known_keys = {}

    original = patches.put(CommitGate, "look_up", blind)


@plant("P3", 60, "A key with another payload is answered as if it were the same", keyed=0.7)
def key_conflict_accepted(patches: Patches) -> None:
    patches.put(submission, "payload_digest", lambda _task: b"")


@plant("S", 60, "A submission that is sent again is accepted again")
def resend_taken_for_new(patches: Patches) -> None:

    def blind(_core: CoordinatorCore, _event: ev.Submit) -> bool:
        return False

    patches.put(submission, "_resent", blind)


@plant("P5", 200, "What was pending before a restart does not count against the bound", bound=3)
def bound_lost_at_restart(patches: Patches) -> None:
    before: dict[CoordinatorCore, dict[str, int]] = {}

    def restore(core: CoordinatorCore, event: ev.Recovered, now: float) -> None:
        original_restore(core, event, now)
        before[core] = {name: queue.pending for name, queue in core.book.queues.items()}

    def lax(core: CoordinatorCore, fresh: list[DistributedTask]) -> None:
        ignored = before.get(core, {})
        for name, queue in core.book.queues.items():
            queue.pending -= ignored.get(name, 0)
        try:
            original_check(core, fresh)
        finally:
            for name, queue in core.book.queues.items():
                queue.pending += ignored.get(name, 0)

    original_restore = patches.put(lines, "restore", restore)
    original_check = patches.put(submission, "_check_room", lax)


@plant("P5", 100, "Nothing is ever refused", bound=3)
def no_bound(patches: Patches) -> None:
    patches.put(submission, "_check_room", lambda *_: None)


@plant("P5", 100, "A refusal does not say when to come again", bound=3)
def refused_without_a_time(patches: Patches) -> None:
    patches.put(submission, "_RETRY_AFTER", None)


@plant("P5", 60, "The map of keys grows for ever", keyed=0.7)
def keys_never_forgotten(patches: Patches) -> None:

    def hoarding(self: CoordinatorCore, task: DistributedTask) -> None:
        key, task.key = task.key, None
        original(self, task)
        task.key = key

    original = patches.put(CoordinatorCore, "forget", hoarding)


@plant("D", 100, "A task does not wait for those that it comes after", after=0.6)
def dependency_dropped(patches: Patches) -> None:

    def impatient(
        core: CoordinatorCore,
        tasks: list[DistributedTask],
        _known: dict[str, KnownTask],
        now: float,
        fx: Effects,
    ) -> None:
        for task in tasks:
            submission._go_on(core, task, now, fx)  # noqa: SLF001

    patches.put(submission, "_wait", impatient)


@plant("P2f", 100, "After a restart, delayed tasks are not looked at again")
def retry_timer_not_rearmed(patches: Patches) -> None:

    def forgetful(core: CoordinatorCore, event: ev.Recovered, now: float) -> None:
        event.delayed = []
        original(core, event, now)

    original = patches.put(lines, "restore", forgetful)


@plant("P2f", 60, "What waits on disk is never read in", window=2)
def tail_not_refilled(patches: Patches) -> None:
    patches.put(lines, "refill", lambda *_: None)


@plant("P2f", 100, "What goes to disk is forgotten", window=2)
def window_drops_what_it_spills(patches: Patches) -> None:

    def dropping(core: CoordinatorCore, task: DistributedTask, fx: Effects) -> None:
        original(core, task, fx)
        queue = core.book.queues[task.queue]
        queue.pending -= 1
        if task.line is Line.READY:
            queue.tail -= 1
        else:
            core.delayed.tail -= 1

    original = patches.put(lines, "_to_disk", dropping)


@plant(
    "P2a",
    100,
    "A row that was read before its task left memory brings the task back",
    window=2,
    deadlines=0.6,
    tasks=40,
    bound=50,
    io=0.5,
)
def rows_out_of_date_believed(patches: Patches) -> None:

    def trusting(self: CoordinatorCore, task: DistributedTask) -> None:
        original(self, task)
        self.gone.clear()

    original = patches.put(CoordinatorCore, "forget", trusting)


@plant("D", 200, "A task starts after its deadline", deadlines=0.5)
def deadline_ignored(patches: Patches) -> None:
    patches.put(stopping, "deadline", lambda *_: None)


@plant("D", 100, "A task starts before its time", delays=0.5)
def delay_ignored(patches: Patches) -> None:

    def hasty(core: CoordinatorCore, task: DistributedTask, now: float, fx: Effects) -> None:
        task.not_before = 0.0
        original(core, task, now, fx)

    original = patches.put(lines, "enter", hasty)


@plant("A", 30, "Urgent tasks go first for ever", profile="ageing")
def starvation(patches: Patches) -> None:

    def absolute(task: DistributedTask, ageing: float) -> float:
        rank: float = original(task, ageing)
        return task.priority * 1e6 + rank

    original = patches.put(lines, "rank_of", absolute)


@plant("F", 30, "Whoever came first gets everything", profile="fair")
def unfair(patches: Patches) -> None:

    def begin(self: QueueBook, queue: QueueState, *args: Any) -> None:
        original_begin(self, queue, *args)
        queue.vtime = 0.0

    def charge(_self: QueueBook, _queue: QueueState, _seconds: float) -> None:
        pass

    original_begin = patches.put(QueueBook, "begin", begin)
    patches.put(QueueBook, "charge", charge)


@plant("P7", 200, "A paused queue starts tasks", controls=0.6)
def pause_ignored(patches: Patches) -> None:
    def gate(self: QueueState, now: float) -> str | None:
        policy, self.policy = self.policy, msgspec.structs.replace(self.policy, paused=False)
        try:
            why: str | None = original(self, now)
        finally:
            self.policy = policy
        return why

    original = patches.put(QueueState, "gate", gate)


@plant("R", 200, "A queue starts as many tasks as it likes", limited=True, queues=3, duration=0.005)
def rate_ignored(patches: Patches) -> None:
    def refill(self: QueueState, now: float) -> None:
        self.tokens, self.tokens_at = 1000.0, now

    patches.put(QueueState, "refill_tokens", refill)
