"""Attempts begin: dispatched in batches under growing fences, or adopted from a predecessor."""

from __future__ import annotations

from typing import TYPE_CHECKING

from omnimind.cluster import events as ev
from omnimind.cluster import lines, stopping
from omnimind.cluster.node import NodeInfo
from omnimind.cluster.placement import Seat
from omnimind.cluster.queues import Lane, Signature
from omnimind.cluster.sends import Batch, BatchItem, Dispatch, Effects, StopAttempts
from omnimind.cluster.states import Line, TaskStatus
from omnimind.cluster.task import DistributedTask
from omnimind.ids import epoch_of

if TYPE_CHECKING:
    from omnimind.cluster.core import CoordinatorCore

_UNKNOWN_SECONDS = 0.05


class LiveBatch:
    """A batch that a node holds. `tasks[i]` is None once item i has ended or was taken back."""

    __slots__ = (
        "current", "estimate", "fence", "incarnation", "kind", "load", "node_id", "open", "queue",
        "quick", "sent_at", "slots", "spent", "tasks",
    )  # fmt: skip

    def __init__(
        self, fence: int, node_id: str, incarnation: str, tasks: list[DistributedTask | None], now: float
    ) -> None:
        self.fence = fence
        self.node_id = node_id
        self.incarnation = incarnation
        self.tasks = tasks
        self.open = sum(t is not None for t in tasks)
        self.sent_at = now
        self.current: int | None = None
        first = next(t for t in tasks if t is not None)
        self.queue = first.queue
        self.slots = first.options.slots
        self.kind = first.options.kind
        self.load = self.open if self.kind == "async" else 1
        self.quick = False
        self.estimate = 0.0
        self.spent = 0.0


def pace_of(task: DistributedTask) -> tuple[str, str]:
    """Return under which name a task's durations are remembered."""
    return task.task_type, task.options.handler


# --- dispatch ---------------------------------------------------------------------------------------


def dispatch(core: CoordinatorCore, now: float, fx: Effects) -> None:
    """Start whatever may start now: the queue that is furthest behind first, while a node has room."""
    book = core.book
    turns: dict[Signature, tuple[float, int, Lane]] = {}
    """Whose turn it is, by signature, as far as this was asked: only what a queue is given changes it."""
    while book.ready:
        best: tuple[float, int, Lane] | None = None
        for signature in list(book.groups):
            if signature in core.blocked:
                continue
            found = turns.get(signature)
            if found is None:
                queue = book.turn(signature, now)
                lane = None if queue is None else queue.head_lane(signature)
                if queue is None or lane is None:
                    continue
                found = turns[signature] = (queue.vtime, queue.no, lane)
            if best is None or found[:2] < best[:2]:
                best = found
        if best is None:
            break
        lane = best[2]
        kind = (lane.task_type, lane.options.handler)
        quick = core.durations.quick(kind)
        needs, slots = lane.signature
        seat = core.index.pick(needs, slots, lane.task_type, quick=quick)
        if seat is None:
            capable = core.index.capable(needs)
            core.blocked[lane.signature] = "no free slot" if capable else "no capable node"
            continue
        _start(core, lane, seat, now, fx, quick=quick)
        for signature in [s for s, found in turns.items() if found[2].queue is lane.queue]:
            del turns[signature]
    for name in book.take_rate_gated():
        core.timers.set(book.when_rate_allows(book.queues[name]), "rate", name)


def _batch_limit(core: CoordinatorCore, lane: Lane, seat: Seat) -> int:
    queue, options = lane.queue, lane.options
    limit = core.durations.size((lane.task_type, options.handler), options.kind)
    if limit == 1 or lane.count == 1:
        return 1
    # What is on disk is taken to be made up like what is in memory: else the window would set the size.
    count = lane.count if queue.tail == 0 else lane.count * (queue.ready + queue.tail) // queue.ready
    # Spread what is there over the free slots, so that a short line does not go to one node whole.
    slots = core.index.slots(lane.signature[0])
    if options.kind == "async":
        # They only wait: what is left must not stand in line for a slot while a batch has room.
        slots -= seat.taken
    limit = min(limit, max(1, -(-count // max(1, slots // options.slots))))
    policy = queue.policy
    if policy.rate is not None:
        limit = min(limit, max(1, int(queue.tokens + 1e-9)))
    if policy.concurrency is not None and options.kind == "async":
        limit = min(limit, max(1, policy.concurrency - queue.running))
    return limit


def _start(core: CoordinatorCore, lane: Lane, seat: Seat, now: float, fx: Effects, *, quick: bool) -> None:
    tasks = core.book.take(lane, _batch_limit(core, lane, seat), core.limits.batch_bytes)
    base = core.next_fence(len(tasks))
    node = seat.node
    items = []
    for index, task in enumerate(tasks):
        # Written before it is sent, where a start that nobody remembers does harm: it could be repeated,
        # or a predecessor's attempt that comes to light later could be taken for the newest one.
        inherited = task.seq <= core.inherited and epoch_of(task.fence) != core.epoch
        task.fence = base + index
        task.status = TaskStatus.RUNNING
        task.assigned_node = node.node_id
        task.started_at = now
        if task.at_most_once or inherited:
            task.cause = "started"
            core.save(task, fx)
        items.append(
            BatchItem(
                task.task_id, task.payload, task.encoding, task.retry_count + task.deaths, task.timeout,
                task.deadline, task.checkpoint,
            )
        )  # fmt: skip
    batch = LiveBatch(base, node.node_id, node.incarnation, list(tasks), now)
    batch.quick = quick
    each = core.durations.estimate((lane.task_type, lane.options.handler))
    batch.estimate = (each if each is not None else _UNKNOWN_SECONDS) * len(tasks)
    _register(core, batch, seat, now)
    strategy = "spread" if core.index.strategy == "ray" else "affinity"
    fx.sends.append(
        Dispatch(
            node.node_id,
            node.incarnation,
            Batch(base, lane.task_type, lane.options, tuple(sorted(lane.key[2])), tuple(items), strategy),
        )
    )


def _register(core: CoordinatorCore, batch: LiveBatch, seat: Seat | None, now: float) -> None:
    queue = core.book.queues[batch.queue]
    core.batches[batch.fence] = batch
    core.by_node.setdefault(batch.node_id, {})[batch.fence] = batch
    queue.pending -= batch.open
    core.book.begin(queue, batch.load, batch.open, batch.estimate, now)
    if seat is not None:
        core.index.take(seat, batch.slots, quick=batch.quick)


def adopt(
    core: CoordinatorCore, node_id: str, incarnation: str, running: ev.RunningBatch, now: float, fx: Effects
) -> None:
    """Take over a batch that a node holds from before this coordinator, as far as it is still wanted."""
    tasks: list[DistributedTask | None] = [None] * len(running.task_ids)
    stale: list[int] = []
    for index in running.open:
        task = core.live(running.task_ids[index])
        fence = running.fence + index
        if task is None or not _wanted(core, task, fence):
            stale.append(index)
            continue
        if task.status is TaskStatus.RUNNING:
            _take_back(core, task, now, fx)
        lines.withdraw(core, task, Line.RUNNING)
        core.book.queues[task.queue].pending += 1  # _register counts it as started
        task.fence = fence
        task.status = TaskStatus.RUNNING
        task.assigned_node = node_id
        runs = index == running.current and running.ran is not None
        task.started_at = now - (running.ran or 0.0) if runs else now
        tasks[index] = task
    if stale:
        fx.sends.append(
            StopAttempts(node_id, incarnation, running.fence, tuple(stale), hard=True, cause="stale")
        )
    if any(t is not None for t in tasks):
        batch = LiveBatch(running.fence, node_id, incarnation, tasks, now)
        _register(core, batch, core.index.seats.get(node_id), now)
        core.count("adopted", batch.open)
        for index, task in enumerate(tasks):
            if task is not None and task.cancelling is not None:
                stopping.ask_to_stop(core, task, batch, index, now, fx)


def _wanted(core: CoordinatorCore, task: DistributedTask, fence: int) -> bool:
    """Return whether an attempt that a node reports is the newest one of its task."""
    orphan = task.status is TaskStatus.RUNNING and batch_of(core, task)[0] is None
    return fence > task.fence or (orphan and fence == task.fence)


def _take_back(core: CoordinatorCore, task: DistributedTask, now: float, fx: Effects) -> None:
    """Remove a running task from the batch that it is in, since a newer attempt of it has come to light."""
    batch, index = batch_of(core, task)
    if batch is None:
        return
    fx.sends.append(
        StopAttempts(batch.node_id, batch.incarnation, batch.fence, (index,), hard=True, cause="stale")
    )
    batch.tasks[index] = None
    batch.open -= 1
    if batch.open == 0:
        close(core, batch, now)


def batch_of(core: CoordinatorCore, task: DistributedTask) -> tuple[LiveBatch | None, int]:
    """Return the batch in which a running task is, and its index there."""
    for batch in core.by_node.get(task.assigned_node or "", {}).values():
        index = task.fence - batch.fence
        if 0 <= index < len(batch.tasks) and batch.tasks[index] is task:
            return batch, index
    return None, -1


def close(core: CoordinatorCore, batch: LiveBatch, now: float) -> None:
    """Forget a batch that holds nothing any more, and free its slots."""
    del core.batches[batch.fence]
    mates = core.by_node[batch.node_id]
    del mates[batch.fence]
    if not mates:
        del core.by_node[batch.node_id]
    queue = core.book.queues[batch.queue]
    core.book.finish(queue, batch.load, now)
    if batch.spent or batch.estimate:
        core.book.charge(queue, batch.spent - batch.estimate)
    seat = core.index.seats.get(batch.node_id)
    if seat is not None and seat.node.incarnation == batch.incarnation:
        core.index.give(seat, batch.slots, quick=batch.quick)
        unblock(core, seat.node)


def unblock(core: CoordinatorCore, node: NodeInfo) -> None:
    """Look again at signatures that a node might take."""
    for signature in [s for s in core.blocked if node.offers(s[0])]:
        del core.blocked[signature]
