"""Where a task that has not started waits: ready, delayed or for others; in memory or on disk.

Memory holds a window of each line, its front; the rest is on disk only and read in when the front gets
short. What makes that safe:

* Everything of a line that is on disk only lies at or beyond the line's *horizon*; memory may hold
  keys beyond it too, and a row whose task is in memory is skipped.
* While a line is being read, nothing of it goes to disk only, so the rows that are read are all.
* Rows are older than memory. A task that left memory after a fetch was sent is in `core.gone`,
  and its row is skipped.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING

from omnimind.cluster import events as ev
from omnimind.cluster import stopping
from omnimind.cluster.policies import MAX_NAME, QueuePolicy
from omnimind.cluster.queues import Entry, Key, QueueState, rank_of
from omnimind.cluster.records import QueueRemoved, QueueSaved
from omnimind.cluster.sends import Effects, Fetch, Reply
from omnimind.cluster.states import Line
from omnimind.cluster.task import DistributedTask
from omnimind.errors import Conflict, InvalidInput, OmniMindError, UnknownQueue

if TYPE_CHECKING:
    from omnimind.cluster.core import CoordinatorCore


def _stands(entry: Entry) -> bool:
    return entry[3].line is Line.DELAYED and entry[3].entry == entry[2]


class DelayedLine:
    """Tasks whose time has not come, over all queues, by when they are due."""

    def __init__(self) -> None:
        self.heap: list[Entry] = []
        self.count = 0
        self._entries = 0
        self.tail = 0
        self.horizon: Key | None = None
        self.fetching = False

    def push(self, task: DistributedTask) -> None:
        """Stand a task in line until its `not_before`."""
        task.line = Line.DELAYED
        task.rank = task.not_before
        self._entries += 1
        task.entry = self._entries
        heappush(self.heap, (task.rank, task.seq, task.entry, task))
        self.count += 1

    def leave(self, task: DistributedTask, line: Line) -> None:
        """Take a task out, into `line`; its entry is skipped later."""
        task.line = line
        self.count -= 1
        if len(self.heap) > 64 + 2 * self.count:
            self.heap = [entry for entry in self.heap if _stands(entry)]
            heapify(self.heap)

    def head(self) -> DistributedTask | None:
        """Return the task that is due first."""
        while self.heap:
            entry = self.heap[0]
            if _stands(entry):
                return entry[3]
            heappop(self.heap)
        return None

    def next(self) -> float | None:
        """Return when the first task is due."""
        head = self.head()
        return None if head is None else head.rank

    def pop(self) -> DistributedTask:
        """Take the first task out."""
        task = heappop(self.heap)[3]
        self.count -= 1
        return task


def enter(core: CoordinatorCore, task: DistributedTask, now: float, fx: Effects) -> None:
    """Stand a pending task in the line where it belongs now. The caller saves or inserts it.

    When the line's window is full the task leaves memory and is, from its row on, on disk only; it is
    saved here when its row says something else.
    """
    if task.not_before > now:
        line = core.delayed
        task.rank = task.not_before
        full = line.count >= core.limits.window and not line.fetching
        beyond = line.horizon is not None and (task.rank, task.seq) >= line.horizon
        if (line.tail and not line.fetching and beyond) or full:
            task.line = Line.DELAYED
            line.tail += 1
            place = (task.rank, task.seq)
            line.horizon = place if line.horizon is None else min(line.horizon, place)
            _to_disk(core, task, fx)
        else:
            core.remember(task)
            line.push(task)
        return
    queue = core.book.queues[task.queue]
    task.rank = rank_of(task, core.limits.ageing)
    place = (task.rank, task.seq)
    if not queue.fetching:
        beyond = queue.horizon is not None and place >= queue.horizon
        full = queue.units >= core.book.window and place >= queue.max_key
        if (queue.tail and beyond) or full:
            task.line = Line.READY
            queue.tail += 1
            core.book.tailing = True
            queue.horizon = place if queue.horizon is None else min(queue.horizon, place)
            _to_disk(core, task, fx)
            return
    core.remember(task)
    core.book.push(task)
    if queue.units > 2 * core.book.window and not queue.fetching:
        _spill(core, queue, fx)


def _to_disk(core: CoordinatorCore, task: DistributedTask, fx: Effects) -> None:
    if task.stored is not Line.NONE and task.stored is not task.line:
        core.save(task, fx)
    # An entry that is left over in a heap must not take it for one that stands there.
    task.entry = 0
    core.forget(task)


def _spill(core: CoordinatorCore, queue: QueueState, fx: Effects) -> None:
    """Put the back of a ready line that has outgrown memory on disk only."""
    for task in core.book.cut(queue, core.book.window // 2):
        place = (task.rank, task.seq)
        queue.tail += 1
        core.book.tailing = True
        queue.horizon = place if queue.horizon is None else min(queue.horizon, place)
        _to_disk(core, task, fx)


def withdraw(core: CoordinatorCore, task: DistributedTask, line: Line) -> None:
    """Take a task out of whichever line it stands in, into `line`."""
    queue = core.book.queues[task.queue]
    match task.line:
        case Line.READY:
            queue.pending -= 1
            if task.task_id in core.tasks:
                core.book.leave(task, line)
            else:
                queue.tail -= 1
        case Line.DELAYED:
            queue.pending -= 1
            if task.task_id in core.tasks:
                core.delayed.leave(task, line)
            else:
                core.delayed.tail -= 1
        case Line.WAITING:
            queue.pending -= 1
            core.remaining.pop(task.task_id, None)
        case Line.RUNNING | Line.NONE:
            pass
    task.line = line


def promote(core: CoordinatorCore, now: float, fx: Effects) -> None:
    """Let delayed tasks whose time has come stand in their ready lines."""
    delayed = core.delayed
    while (head := delayed.head()) is not None and head.rank <= now:
        task = delayed.pop()
        task.line = Line.NONE
        enter(core, task, now, fx)


def refill(core: CoordinatorCore, _now: float, fx: Effects) -> None:
    """Ask the ledger for more of each line whose front has become short."""
    delayed = core.delayed
    if not core.book.tailing and delayed.tail == 0:
        return
    size = core.book.window
    core.book.tailing = False
    for name, queue in core.book.queues.items():
        core.book.tailing = core.book.tailing or queue.tail > 0
        if queue.tail > 0 and not queue.fetching and queue.units < size // 2:
            queue.fetching = True
            rank, seq = queue.horizon or (float("-inf"), 0)
            _fetch(core, Fetch("ready", name, (rank, seq - 1), size // 2), fx)
    if delayed.tail > 0 and not delayed.fetching and delayed.count < core.limits.window // 2:
        delayed.fetching = True
        rank, seq = delayed.horizon or (float("-inf"), 0)
        _fetch(core, Fetch("delayed", "", (rank, seq - 1), core.limits.window // 2), fx)


def _fetch(core: CoordinatorCore, fetch: Fetch, fx: Effects) -> None:
    core.fetches += 1
    core.fetch_no += 1
    core.reading[fetch.line, fetch.queue] = core.fetch_no
    fx.sends.append(fetch)


def overdue(core: CoordinatorCore, now: float, fx: Effects) -> None:
    """Ask for tasks on disk whose deadline has passed."""
    if (core.book.tailing or core.delayed.tail) and not core.sweeping:
        core.sweeping = True
        _fetch(core, Fetch("overdue", limit=1000, before=now), fx)


def loaded(core: CoordinatorCore, event: ev.Loaded, now: float, fx: Effects) -> None:
    """Take in rows that were asked for."""
    core.fetches -= 1
    number = core.reading.pop((event.line, event.queue), 0)
    fresh = [t for t in event.tasks if t.task_id not in core.tasks and core.gone.get(t.task_id, 0) < number]
    match event.line:
        case "ready":
            queue = core.book.queues.get(event.queue)
            if queue is not None:
                _loaded_ready(core, queue, event, fresh)
        case "delayed":
            line = core.delayed
            line.fetching = False
            for task in fresh:
                line.tail -= 1
                _adopt_row(core, task)
                line.push(task)
            line.horizon = _beyond(event.tasks, line.horizon) if event.more else None
            if not event.more:
                line.tail = 0
        case _:
            core.sweeping = False
            for task in fresh:
                task.stored = task.line
                stopping.expire_on_disk(core, task, now, fx)
    if core.fetches == 0:
        core.gone.clear()


def _loaded_ready(
    core: CoordinatorCore, queue: QueueState, event: ev.Loaded, fresh: list[DistributedTask]
) -> None:
    queue.fetching = False
    for task in fresh:
        queue.tail -= 1
        _adopt_row(core, task)
        core.book.push(task)
    if event.more:
        queue.horizon = _beyond(event.tasks, queue.horizon)
    else:
        queue.horizon, queue.tail = None, 0


def _adopt_row(core: CoordinatorCore, task: DistributedTask) -> None:
    task.stored = task.line
    core.remember(task)
    if task.deadline is not None:
        core.timers.set(task.deadline, "deadline", task.task_id)


def into_memory(core: CoordinatorCore, task: DistributedTask) -> None:
    """Take a task that is on disk only, whose row was read for this event, into its line in memory."""
    queue = queue_of(core, task)
    _adopt_row(core, task)
    match task.line:
        case Line.READY:
            queue.tail -= 1
            core.book.push(task)
        case Line.DELAYED:
            core.delayed.tail -= 1
            core.delayed.push(task)
        case Line.WAITING | Line.RUNNING | Line.NONE:
            pass


def _beyond(rows: list[DistributedTask], old: Key | None) -> Key | None:
    return (rows[-1].rank, rows[-1].seq + 1) if rows else old


def restore(core: CoordinatorCore, event: ev.Recovered, now: float) -> None:
    """Stand recovered tasks in their lines."""
    last: Key | None = None
    for task in event.ready:
        _adopt_row(core, task)
        queue_of(core, task).pending += 1
        core.book.push(task)
        last = (task.rank, task.seq)
    for name, tail in event.tails.items():
        queue = core.book.queues.get(name) or core.book.set(QueuePolicy(name), now)
        queue.tail = tail
        core.book.tailing = True
        queue.pending += tail
        queue.horizon = (last[0], last[1] + 1) if last else (float("-inf"), 0)
    for task in event.delayed:
        _adopt_row(core, task)
        queue_of(core, task).pending += 1
        core.delayed.push(task)
    for name, tail in event.delayed_tails.items():
        queue = core.book.queues.get(name) or core.book.set(QueuePolicy(name), now)
        queue.pending += tail
        core.delayed.tail += tail
    if core.delayed.tail:
        core.delayed.horizon = _beyond(event.delayed, (float("-inf"), 0))


def queue_of(core: CoordinatorCore, task: DistributedTask) -> QueueState:
    queue = core.book.queues.get(task.queue)
    # A queue that was removed while tasks of it were in flight lives until they have ended.
    return queue or core.book.set(QueuePolicy(task.queue), 0.0)


def set_queue(core: CoordinatorCore, event: ev.QueueSet, now: float, fx: Effects) -> None:
    """Create or change a queue."""
    policy = event.policy
    bad = bad_policy(policy)
    if bad is not None:
        core.refuse(event.request, bad, fx)
        return
    core.book.set(policy, now)
    fx.records.others.append(QueueSaved(policy))
    fx.sends.append(Reply(event.request, policy.name))


def bad_policy(policy: QueuePolicy) -> InvalidInput | None:
    """Return what is wrong with a queue's policy, None when nothing is."""
    if not 0 < len(policy.name) <= MAX_NAME:
        return InvalidInput(
            f"a queue's name has 1 to {MAX_NAME} characters", field="name", hint="give a shorter one"
        )
    if not 0 < policy.weight < float("inf"):
        return InvalidInput("a weight is a positive number", field="weight", hint="1.0 is the usual one")
    if policy.concurrency is not None and policy.concurrency < 1:
        return InvalidInput(
            "a concurrency limit is at least 1", field="concurrency", hint="pause the queue instead"
        )
    if policy.rate is not None and not 0 < policy.rate < float("inf"):
        return InvalidInput(
            "a rate is a positive number of starts a second",
            field="rate",
            hint="pause the queue to start nothing, or leave the rate out for no limit",
        )
    if policy.max_pending < 1:
        return InvalidInput(
            "max_pending is at least 1", field="max_pending", hint="leave it out for the usual bound"
        )
    return None


def cannot_remove(core: CoordinatorCore, name: str) -> OmniMindError | None:
    """Return why a queue cannot be removed, None when it can."""
    queue = core.book.queues.get(name)
    if queue is None:
        return UnknownQueue(f"no queue {name!r}", field="name")
    if name == "default":
        return Conflict("the queue 'default' always exists", field="name")
    if queue.pending or queue.running:
        return Conflict(
            f"queue {name!r} holds {queue.pending} pending and {queue.running} running tasks",
            field="name",
            hint="wait for them or cancel them first",
        )
    return None


def remove_queue(core: CoordinatorCore, event: ev.QueueRemove, _now: float, fx: Effects) -> None:
    """Remove a queue that holds nothing."""
    error = cannot_remove(core, event.name)
    if error is not None:
        core.refuse(event.request, error, fx)
        return
    del core.book.queues[event.name]
    fx.records.others.append(QueueRemoved(event.name))
    fx.sends.append(Reply(event.request, event.name))
