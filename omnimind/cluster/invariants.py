"""What must be true of a core after every event."""

from __future__ import annotations

from typing import TYPE_CHECKING

from omnimind.cluster.placement import OPEN
from omnimind.cluster.states import Line, TaskStatus

if TYPE_CHECKING:
    from omnimind.cluster.core import CoordinatorCore
    from omnimind.cluster.queues import QueueState
    from omnimind.cluster.task import DistributedTask


def validate(core: CoordinatorCore) -> None:
    """Check the structure of a core; raises AssertionError with the story of what is wrong. O(tasks)."""
    ready: dict[str, int] = {}
    pending: dict[str, int] = {}
    delayed = 0
    running: dict[str, int] = {}
    for task in core.tasks.values():
        _check_task(core, task)
        match task.line:
            case Line.READY:
                ready[task.queue] = ready.get(task.queue, 0) + 1
            case Line.DELAYED:
                delayed += 1
            case Line.RUNNING:
                running[task.queue] = running.get(task.queue, 0) + 1
            case Line.WAITING | Line.NONE:
                pass
        if task.line in {Line.READY, Line.DELAYED, Line.WAITING}:
            pending[task.queue] = pending.get(task.queue, 0) + 1
    assert delayed == core.delayed.count, f"{delayed} delayed, counted {core.delayed.count}"
    assert core.delayed.tail >= 0
    disk_delayed = core.delayed.tail
    for name, queue in core.book.queues.items():
        assert queue.ready == ready.get(name, 0), f"{name}: {ready.get(name, 0)} ready, counted {queue.ready}"
        assert queue.tail >= 0, f"{name}: tail {queue.tail}"
        assert queue.ready == sum(lane.count for lane in queue.lanes.values()), f"{name}: lanes"
        _check_turns(core, queue)
        disk = queue.pending - pending.get(name, 0) - queue.tail
        assert 0 <= disk <= disk_delayed, f"{name}: {queue.pending} pending do not add up ({disk})"
        disk_delayed -= disk
        loads = [b.load for b in core.batches.values() if b.queue == name]
        assert queue.running == sum(loads), f"{name}: {queue.running} running, batches say {sum(loads)}"
    assert core.book.ready == sum(q.ready for q in core.book.queues.values())
    held = sum(b.open for b in core.batches.values())
    orphans = sum(1 for t in core.tasks.values() if t.line is Line.RUNNING) - held
    assert orphans == 0 or core.recovering, f"{orphans} running tasks are in no batch"
    for node_id, seat in core.index.seats.items():
        mine = core.by_node.get(node_id, {}).values()
        taken = sum(b.slots for b in mine)
        assert seat.taken == taken, f"{node_id}: {seat.taken} slots taken, its batches say {taken}"
    for (needs, slots), why in core.blocked.items():
        for seat in core.index.seats.values():
            room = seat.node.status in OPEN and seat.node.offers(needs) and seat.free(quick=False) >= slots
            assert not room, f"{seat.node.node_id} has room for {sorted(needs)} x {slots}, blocked: {why}"
    for batch in core.batches.values():
        assert batch.open == sum(t is not None for t in batch.tasks) > 0, f"batch {batch.fence}: open"
        assert core.by_node[batch.node_id][batch.fence] is batch
    assert len(core.batches) == sum(len(b) for b in core.by_node.values())


def _check_turns(core: CoordinatorCore, queue: QueueState) -> None:
    """Whatever stands in a ready line must be found when it is its turn."""
    if queue.gated is not None:
        return
    for lane in queue.lanes.values():
        head = lane.head()
        story = f"{queue.policy.name}: lane {lane.task_type} of {lane.count}"
        assert head is not None, f"{story} has no head"
        places = [entry[0] for entry in queue.signatures.get(lane.signature, []) if entry[2] is lane]
        assert (head.rank, head.seq) in places, f"{story} is not listed with its head"
        offers = core.book.groups.get(lane.signature, [])
        assert any(offer[2] is queue and offer[0] == queue.vtime for offer in offers), (
            f"{story} is not offered"
        )


def _check_task(core: CoordinatorCore, task: DistributedTask) -> None:
    story = f"{task.task_id} ({task.status}, {task.line.name}, {task.cause})"
    match task.line:
        case Line.NONE:
            assert task.terminal, f"{story}: in no line"
        case Line.RUNNING:
            assert task.status is TaskStatus.RUNNING, story
        case Line.WAITING:
            assert core.remaining.get(task.task_id), f"{story}: waits for nothing"
        case Line.READY | Line.DELAYED:
            assert task.status is TaskStatus.PENDING, story
    if task.line is not Line.WAITING:
        assert task.task_id not in core.remaining, f"{story}: still waits"
    if task.terminal:
        assert task.cause, f"{story}: ended without a cause"
