"""`CoordinatorCore`: the state of the cluster, and the one door through which everything enters.

How to read it: `handle` looks up the event's type in a table, the part that is responsible (named
after what it knows: `submission`, `attempts`, `members`, `lines`, `schedules`) changes the state and
notes records and sends in the `Effects`, and afterwards whatever can start now is dispatched. The
same events at the same times give the same effects: there is no clock, no I/O and no unseeded chance.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from random import Random
from typing import Any

from omnimind.cluster import attempts, drains, lines, members, outcomes, schedules, stopping, submission
from omnimind.cluster import events as ev
from omnimind.cluster.attempts import LiveBatch
from omnimind.cluster.batching import DurationBook
from omnimind.cluster.invariants import validate
from omnimind.cluster.lines import DelayedLine
from omnimind.cluster.node import NodeInfo
from omnimind.cluster.placement import NodeIndex
from omnimind.cluster.policies import CoreLimits, QueuePolicy, Schedule
from omnimind.cluster.queues import QueueBook, Signature
from omnimind.cluster.records import Record, state_row, task_row
from omnimind.cluster.sends import Effects, Ended, Refusal, Reply
from omnimind.cluster.states import TERMINAL, Line, TaskStatus
from omnimind.cluster.task import DistributedTask
from omnimind.cluster.timers import Timers
from omnimind.errors import OmniMindError
from omnimind.ids import SHARDS_MAX, fence

DEFAULT_QUEUE = "default"


class CoordinatorCore:
    """Every decision about tasks and nodes of one shard.

    node_id: who coordinates, for the status. seed: of the chance in retries and random placement.
    strategy: see `placement`. shard: which of how many `shards` it is (see `sharding`). The first event
    must be `Recovered`.
    """

    def __init__(
        self,
        node_id: str,
        limits: CoreLimits | None = None,
        *,
        seed: int = 0,
        strategy: str = "least_loaded",
        shard: int = 0,
        shards: int = 1,
    ) -> None:
        self.node_id = node_id
        self.shard, self.shards = shard, shards
        self.limits = limits or CoreLimits()
        self.random = Random(seed)
        self.epoch = 0
        self.counter = 0
        self.seq = 0
        self.inherited = 0
        """The last number that a predecessor gave: of tasks up to it, forgotten attempts may run."""
        self.recovering = False
        self.recover_until = 0.0
        self.tasks: dict[str, DistributedTask] = {}
        self.nodes: dict[str, NodeInfo] = {}
        self.joined: dict[str, str] = {}
        """Incarnations that have reported to this core, by node."""
        self.awaited: dict[str, str] = {}
        """Nodes of the predecessor that have not reported yet: nothing starts before grace is over."""
        self.batches: dict[int, LiveBatch] = {}
        self.by_node: dict[str, dict[int, LiveBatch]] = {}
        self.book = QueueBook(self.limits.ageing, self.limits.window)
        self.delayed = DelayedLine()
        self.index = NodeIndex(strategy, seed)
        self.durations = DurationBook(self.limits)
        self.timers = Timers()
        self.blocked: dict[Signature, str] = {}
        """Signatures that no node could take at the last look."""
        self.dependents: dict[str, list[str]] = {}
        self.remaining: dict[str, dict[str, None]] = {}
        """Waiting tasks and the ids that they still wait for."""
        self.keys: dict[str, str] = {}
        self.orphans: dict[str, DistributedTask] = {}
        """Tasks that ran when the predecessor died, until the nodes have reported."""
        self.schedules: dict[str, Schedule] = {}
        self.fetches = 0
        self.fetch_no = 0
        self.reading: dict[tuple[str, str], int] = {}
        """The number of the fetch that is under way, by line and queue."""
        self.sweeping = False
        self.full = False
        """Whether the ledger has no room for new tasks."""
        self.gone: dict[str, int] = {}
        """Tasks that left memory while rows were being read, with the number of the last fetch before that:
        in what this fetch and those before it bring, their rows are out of date.
        """
        self.kept: deque[str] = deque()
        self.next_check = 0.0
        self.counts: dict[str, int] = {}
        """Counters since the start: ended by status, retries, lost attempts, refused stale outcomes, …"""
        self._handlers: dict[type[Any], Callable[[Any, float, Effects], None]] = {
            ev.Submit: lambda e, now, fx: submission.submit(self, e, now, fx),
            ev.Outcomes: lambda e, now, fx: outcomes.outcomes(self, e, now, fx),
            ev.NodeJoined: lambda e, now, fx: members.joined(self, e, now, fx),
            ev.Heartbeat: lambda e, now, fx: members.heartbeat(self, e, now, fx),
            ev.NodeGone: lambda e, now, fx: members.gone(self, e, now, fx),
            ev.NodeControl: lambda e, now, fx: drains.control(self, e, now, fx),
            ev.Cancel: lambda e, now, fx: stopping.cancel(self, e, now, fx),
            ev.QueueSet: lambda e, now, fx: lines.set_queue(self, e, now, fx),
            ev.QueueRemove: lambda e, now, fx: lines.remove_queue(self, e, now, fx),
            ev.ScheduleSet: lambda e, now, fx: schedules.put(self, e, now, fx),
            ev.ScheduleRemove: lambda e, now, fx: schedules.remove(self, e, now, fx),
            ev.ScheduleRun: lambda e, now, fx: schedules.run_now(self, e, now, fx),
            ev.Loaded: lambda e, now, fx: lines.loaded(self, e, now, fx),
            ev.Note: self._note,
            ev.Claimed: self._claimed,
            ev.Settled: self._settled,
            ev.Checkpoint: lambda e, _now, fx: outcomes.checkpoint(self, e, fx),
            ev.Space: self._space,
            ev.Tick: lambda _e, _now, _fx: None,
            ev.Recovered: self._recover,
        }

    def handle(self, event: ev.Event, now: float) -> Effects:
        """Take in an event at time `now` (Unix seconds) and return what is to be written, then sent."""
        fx = Effects()
        if self.epoch and now - self.next_check > self.limits.stall:
            members.excuse(self, now - self.next_check, now)
        self._handlers[type(event)](event, now, fx)
        self._due(now, fx)
        if not self.recovering:
            lines.promote(self, now, fx)
            attempts.dispatch(self, now, fx)
            lines.refill(self, now, fx)
        return fx

    def next_wakeup(self) -> float:
        """Return when a `Tick` is due at the latest."""
        # While it recovers nothing is promoted: a delayed task that is due must not ring all the time.
        delayed = None if self.recovering else self.delayed.next()
        return min(w for w in (self.next_check, self.timers.next(), delayed) if w is not None)

    def validate(self) -> None:
        """Check every structural invariant; raises AssertionError with the story of what is wrong."""
        validate(self)

    # --- what the parts share -------------------------------------------------------------------

    def count(self, what: str, by: int = 1) -> None:
        """Add to a counter."""
        self.counts[what] = self.counts.get(what, 0) + by

    def next_fence(self, tasks: int) -> int:
        """Grant fences to a batch of `tasks` tasks and return the first."""
        base = fence(self.epoch, self.counter, self.shard)
        self.counter += tasks
        return base

    def next_seq(self) -> int:
        """Return the next number in order of submission; no two shards give the same one."""
        self.seq += 1
        if self.shards > 1:
            self.seq += (self.shard - self.seq) % SHARDS_MAX
        return self.seq

    def save(self, task: DistributedTask, fx: Effects) -> None:
        """Note a task's present state for the ledger."""
        task.stored = task.line
        fx.records.updates.append(state_row(task))

    def insert(self, task: DistributedTask, fx: Effects) -> None:
        """Note a new task for the ledger."""
        task.stored = task.line
        fx.records.inserts.append(task_row(task))

    def remember(self, task: DistributedTask) -> None:
        """Hold a live task in memory."""
        self.tasks[task.task_id] = task
        if task.key is not None:
            self.keys[task.key] = task.task_id

    def forget(self, task: DistributedTask) -> None:
        """Let a task leave memory: it has ended, or waits on disk from now on."""
        if self.fetches:
            self.gone[task.task_id] = self.fetch_no
        if task.line is Line.NONE and self.limits.keep_ended:
            self.kept.append(task.task_id)
            if len(self.kept) <= self.limits.keep_ended:
                return
            old = self.tasks.pop(self.kept.popleft(), None)
            if old is not None and old.key is not None:
                self.keys.pop(old.key, None)
            return
        self.tasks.pop(task.task_id, None)
        if task.key is not None:
            self.keys.pop(task.key, None)

    def live(self, task_id: str) -> DistributedTask | None:
        """Return a task in memory that has not ended."""
        task = self.tasks.get(task_id)
        return None if task is None or task.line is Line.NONE else task

    def end(
        self,
        task: DistributedTask,
        status: TaskStatus,
        cause: str,
        now: float,
        fx: Effects,
        error: dict[str, Any] | None = None,
    ) -> None:
        """Bring a task to its terminal state, and with it those that wait for it."""
        ended = [task]
        task.error, task.cause = error, cause
        self._finish(task, status, now, fx)
        while ended:
            first = ended.pop()
            ended += self._fail_after(first, now, fx)

    def _fail_after(self, ended: DistributedTask, now: float, fx: Effects) -> list[DistributedTask]:
        """Let those go on that waited for an ended task; return those that have failed with it."""
        failed = self._release(ended, now, fx)
        for waiting in failed:
            waiting.cause = f"dependency {ended.task_id} ended {ended.status}"
            waiting.error = {
                "type": "DependencyFailed",
                "message": waiting.cause,
                "dependency": ended.task_id,
                "dependency_cause": ended.cause,
            }
            self._finish(waiting, TaskStatus.FAILED, now, fx)
        return failed

    def _finish(self, task: DistributedTask, status: TaskStatus, now: float, fx: Effects) -> None:
        lines.withdraw(self, task, Line.NONE)
        if status is not TaskStatus.COMPLETED:
            task.result = None
        task.move(status)
        task.completed_at = now
        task.cancelling = None
        self.book.queues[task.queue].ended += 1
        self.count(status.value)
        self.save(task, fx)
        self.forget(task)
        sends = fx.sends
        if sends and isinstance(sends[-1], Ended):
            sends[-1].tasks.append(task)
        else:
            sends.append(Ended([task]))

    def _release(self, ended: DistributedTask, now: float, fx: Effects) -> list[DistributedTask]:
        """Tell the waiting tasks that one they wait for has ended; return those that must fail with it."""
        failed: list[DistributedTask] = []
        for task_id in self.dependents.pop(ended.task_id, ()):
            waiting = self.live(task_id)
            remaining = self.remaining.get(task_id)
            if waiting is None or remaining is None:
                continue
            if ended.status is not TaskStatus.COMPLETED:
                failed.append(waiting)
                continue
            remaining.pop(ended.task_id, None)
            if not remaining:
                lines.withdraw(self, waiting, Line.NONE)
                self.book.queues[waiting.queue].pending += 1
                lines.enter(self, waiting, now, fx)
                if waiting.task_id in self.tasks:
                    self.save(waiting, fx)
        return failed

    def _space(self, event: ev.Space, _now: float, _fx: Effects) -> None:
        self.full = event.full

    # --- small handlers ---------------------------------------------------------------------------

    def _note(self, event: ev.Note, _now: float, fx: Effects) -> None:
        record: Record = event.record
        fx.records.others.append(record)
        fx.sends.append(Reply(event.request, None))

    def _claimed(self, event: ev.Claimed, _now: float, fx: Effects) -> None:
        fx.records.others += event.records
        fx.sends.append(Reply(event.request, None))

    def _settled(self, event: ev.Settled, now: float, fx: Effects) -> None:
        """Do for tasks of other shards what `end` does for those of this one."""
        for fact in event.tasks:
            if fact.status in TERMINAL and fact.task_id in self.dependents:
                stub = DistributedTask(fact.task_id, "", status=TaskStatus(fact.status), cause=fact.cause)
                ended = [stub]
                while ended:
                    ended += self._fail_after(ended.pop(), now, fx)

    def refuse(self, request: int, error: OmniMindError, fx: Effects) -> None:
        """Answer a request with an error."""
        fx.sends.append(Refusal(request, error))

    def _due(self, now: float, fx: Effects) -> None:
        while (alarm := self.timers.due(now)) is not None:
            _, _, kind, subject, fence_ = alarm
            match kind:
                case "deadline":
                    stopping.deadline(self, subject, now, fx)
                case "grace":
                    stopping.grace_over(self, subject, fence_, fx)
                case "rate":
                    queue = self.book.queues.get(subject)
                    if queue is not None:
                        self.book.regate(queue, now)
                case "schedule":
                    schedules.due(self, subject, now, fx)
                case "drain":
                    drains.due(self, subject, now, fx)
                case "recovery":
                    members.recovery_over(self, now, fx)
        if now >= self.next_check:
            self.next_check = now + min(1.0, self.limits.heartbeat_timeout / 5)
            members.check(self, now, fx)
            self.book.share_window()
            lines.overdue(self, now, fx)
            if len(self.timers) > 256 + 4 * len(self.tasks):
                self.timers.prune(self.tasks)  # type: ignore[arg-type]

    def _recover(self, event: ev.Recovered, now: float, fx: Effects) -> None:
        self.epoch, self.seq, self.inherited = event.epoch, event.last_seq, event.last_seq
        self.next_check = now
        for policy in event.queues:
            self.book.set(policy, now)
        if DEFAULT_QUEUE not in self.book.queues:
            self.book.set(QueuePolicy(DEFAULT_QUEUE), now)
        lines.restore(self, event, now)
        members.restore(self, event, now)
        for schedule in event.schedules:
            schedules.restore(self, schedule)
        submission.restore_waiting(self, event, now, fx)
        if not self.recovering:
            members.recovery_over(self, now, fx)
