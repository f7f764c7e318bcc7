"""What waits and cannot run: work that no node may take, and work that waits for want of slots.

It is counted in batches that should run at one time, so that a backlog is worked off within a given time:
ten thousand tasks of a millisecond need one slot, ten of a minute need ten. What runs now counts too, since
an autoscaler is asked for a whole size, not for an addition.
"""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING

import msgspec

from omnimind.cluster.node import NodeInfo
from omnimind.cluster.states import NodeStatus
from omnimind.cluster.task import AT_LEAST, DistributedTask, TaskOptions

if TYPE_CHECKING:
    from omnimind.cluster.core import CoordinatorCore
    from omnimind.cluster.queues import Lane, QueueState

UNKNOWN_SECONDS = 1.0
"""What a task of a handler that has not ended one yet is taken to last."""
_PRESENT = (NodeStatus.ACTIVE, NodeStatus.BUSY, NodeStatus.SUSPECT)


class Shape(msgspec.Struct, frozen=True, order=True):
    """What one batch asks of a node. needs: sorted. memory: in bytes."""

    needs: tuple[str, ...] = ()
    cpus: float = 1.0
    gpus: float = 0.0
    memory: int = 0


class Unmet(msgspec.Struct, frozen=True):
    """Work of one shape that waits. slots: batches that should run at one time. since: Unix seconds.

    capable: how many nodes are there that could take it, were they free.
    """

    shape: Shape
    tasks: int
    slots: int
    since: float
    capable: int


def shape_of(needs: frozenset[str], options: TaskOptions) -> Shape:
    """Return the shape of a task's batch."""
    # Amounts among the needs are those of the options, which the shape has by themselves.
    named = tuple(sorted(need for need in needs if AT_LEAST not in need))
    return Shape(named, options.num_cpus, options.num_gpus, options.memory)


def takes(node: NodeInfo, shape: Shape) -> bool:
    """Return whether a node could take a batch of a shape if it were idle and open."""
    return (
        not node.lacking(shape.needs)
        and ceil(shape.cpus) <= max(node.max_concurrent_tasks, node.cpu_cores)
        and (not shape.gpus or shape.gpus <= node.resources.get("GPU", shape.gpus))
        and (not shape.memory or shape.memory <= node.memory_gb * 2**30)
    )


def capable(core: CoordinatorCore, shape: Shape) -> list[NodeInfo]:
    """Return the nodes that are there, may be given work, and could take a batch of a shape."""
    return [n for n in core.nodes.values() if n.status in _PRESENT and n.ordered is None and takes(n, shape)]


def unmet(core: CoordinatorCore, now: float, *, hold: float, within: float) -> list[Unmet]:
    """Return what waits, by shape: at once what no node can take, after `hold` seconds what lacks slots.

    within: seconds in which what waits should be worked off. O(lanes + shapes * nodes).
    """
    waiting: dict[Shape, list[float]] = {}
    for queue in core.book.queues.values():
        if queue.policy.paused or not queue.ready:
            continue
        for lane in queue.lanes.values():
            head = lane.head()
            if head is None:
                continue
            tasks, slots = _size(core, queue, lane, within)
            since = max(head.created_at, head.not_before)
            entry = waiting.setdefault(shape_of(lane.key[2], lane.options), [0, 0.0, since])
            entry[0] += tasks
            entry[1] += slots
            entry[2] = min(entry[2], since)
    found = []
    for shape in sorted(waiting):
        count, at_once, oldest = waiting[shape]
        able = capable(core, shape)
        if able and now - oldest < hold:
            continue
        found.append(Unmet(shape, int(count), max(1, ceil(at_once - 1e-6)), oldest, len(able)))
    return found


def _size(core: CoordinatorCore, queue: QueueState, lane: Lane, within: float) -> tuple[int, float]:
    """Return the tasks of a lane, those on disk included, and the slots that work them off in time."""
    tasks = lane.count if queue.tail == 0 else lane.count * (queue.ready + queue.tail) // queue.ready
    each = core.durations.estimate((lane.task_type, lane.options.handler))
    seconds = (UNKNOWN_SECONDS if each is None else each) * tasks
    at_once = core.limits.async_batch if lane.options.kind == "async" else 1
    slots = min(tasks / at_once, seconds / within / at_once)
    limit = queue.policy.concurrency
    if limit is not None:
        slots = min(slots, max(0, limit - queue.running) / at_once)
    if queue.policy.rate is not None:
        slots = min(slots, queue.policy.rate * (UNKNOWN_SECONDS if each is None else each))
    return tasks, slots


def load(core: CoordinatorCore, within: float) -> dict[Shape, float]:
    """Return the slots that what runs now keeps taken, by shape: hardly any for batches that end soon."""
    found: dict[Shape, float] = {}
    for batch in core.batches.values():
        task: DistributedTask | None = next((t for t in batch.tasks if t is not None), None)
        if task is not None:
            shape = shape_of(task.needs, task.options)
            found[shape] = found.get(shape, 0.0) + (min(1.0, batch.estimate / within) if batch.quick else 1.0)
    return found
