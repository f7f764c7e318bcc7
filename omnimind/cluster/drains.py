"""Cordons and drains: who wants a node to get no work, and how far its drain is.

A drain goes in three steps, each looked at once a second, so that a coordinator which takes over goes on
with it: no new work from the start; what still runs is asked to stop one `cancel_grace` before the deadline,
so that it can leave a checkpoint; at the deadline it is fenced and requeued elsewhere. When nothing runs
any more the node counts as drained: it stays cordoned, and the shell hears of it by `ReleaseNode`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from omnimind.cluster import attempts, outcomes
from omnimind.cluster import events as ev
from omnimind.cluster.node import NodeInfo
from omnimind.cluster.placement import OPEN
from omnimind.cluster.records import node_saved
from omnimind.cluster.sends import Acknowledged, Effects, ReleaseNode, Reply, StopAttempts
from omnimind.cluster.states import NodeStatus
from omnimind.cluster.task import DistributedTask
from omnimind.errors import Conflict, InvalidInput, NotFound

if TYPE_CHECKING:
    from omnimind.cluster.core import CoordinatorCore

_WAITS_SHOWN = 20


def control(core: CoordinatorCore, event: ev.NodeControl, now: float, fx: Effects) -> None:
    """Cordon, drain or uncordon a node. Replied with how many attempts run there."""
    node = core.nodes.get(event.node_id)
    if node is None:
        core.refuse(event.request, NotFound(f"there is no node {event.node_id}", field="node_id"), fx)
        return
    if node.status is NodeStatus.OFFLINE:
        core.refuse(event.request, Conflict(f"node {event.node_id} is offline", field="node_id"), fx)
        return
    running = sum(b.open for b in core.by_node.get(node.node_id, {}).values())
    match event.verb:
        case "cordon":
            _order(node, NodeStatus.CORDONED, event)
        case "drain":
            _order(node, NodeStatus.DRAINING, event)
            node.drain_deadline, node.drain_started, node.drain_attempts = event.deadline, now, running
            set_timer(core, node)
        case "uncordon":
            _order(node, None, event)
        case other:
            error = InvalidInput(
                f"a node knows no {other!r}", field="verb", hint="use cordon, drain or uncordon"
            )
            core.refuse(event.request, error, fx)
            return
    if node.status is not NodeStatus.SUSPECT:
        node.status = node.ordered or NodeStatus.ACTIVE
    core.index.refresh(node)
    attempts.unblock(core, node)
    fx.records.others.append(node_saved(node))
    drained(core, node, now, fx)
    fx.sends.append(Reply(event.request, Acknowledged({"attempts": running, "status": node.status.value})))


def _order(node: NodeInfo, status: NodeStatus | None, event: ev.NodeControl) -> None:
    node.ordered = status
    node.ordered_by, node.order_reason = (event.by, event.reason) if status else ("", "")
    node.drain_deadline = node.drain_started = node.drained_at = None
    node.drain_attempts = 0
    node.drain_asked = False


def set_timer(core: CoordinatorCore, node: NodeInfo) -> None:
    """Look at a drain when its attempts are to be asked to stop, and at its deadline."""
    if node.ordered is NodeStatus.DRAINING and node.drain_deadline is not None:
        core.timers.set(node.drain_deadline - core.limits.cancel_grace, "drain", node.node_id)
        core.timers.set(node.drain_deadline, "drain", node.node_id)


def drained(core: CoordinatorCore, node: NodeInfo, now: float, fx: Effects) -> None:
    """End a drain when nothing runs on its node any more, as far as is known: not before it has reported."""
    if node.ordered is not NodeStatus.DRAINING or node.node_id in core.by_node:
        return
    if core.recovering or (node.status is not NodeStatus.DRAINING and node.node_id not in core.joined):
        return
    node.ordered, node.drained_at = NodeStatus.CORDONED, now
    if node.status is NodeStatus.DRAINING:
        node.status = NodeStatus.CORDONED
    fx.records.others.append(node_saved(node))
    fx.sends.append(ReleaseNode(node.node_id))


def step(core: CoordinatorCore, node: NodeInfo, now: float, fx: Effects) -> None:
    """Do what is due in a node's drain."""
    if node.ordered is not NodeStatus.DRAINING or node.status is NodeStatus.OFFLINE or core.recovering:
        return
    deadline = node.drain_deadline
    if deadline is not None and now >= deadline:
        for batch in list(core.by_node.get(node.node_id, {}).values()):
            fx.sends.append(
                StopAttempts(
                    node.node_id, batch.incarnation, batch.fence, (), hard=True, cause="drain deadline"
                )
            )
            outcomes.lose(core, batch, "moved by a drain", now, fx)
    elif deadline is not None and now >= deadline - core.limits.cancel_grace and not node.drain_asked:
        node.drain_asked = True
        for batch in core.by_node.get(node.node_id, {}).values():
            fx.sends.append(
                StopAttempts(node.node_id, batch.incarnation, batch.fence, (), hard=False, cause="drain")
            )
    drained(core, node, now, fx)


def due(core: CoordinatorCore, node_id: str, now: float, fx: Effects) -> None:
    """Look at a drain whose timer has rung."""
    node = core.nodes.get(node_id)
    if node is not None:
        step(core, node, now, fx)


def progress(core: CoordinatorCore, node: NodeInfo, now: float) -> dict[str, Any] | None:
    """Return how far a node's drain is, None when it is in none. Times in seconds from now."""
    if node.drain_started is None:
        return None
    left = sum(b.open for b in core.by_node.get(node.node_id, {}).values())
    deadline = node.drain_deadline
    return {
        "since": node.drain_started,
        "by": node.ordered_by,
        "reason": node.order_reason,
        "attempts": node.drain_attempts,
        "left": left,
        "asked_to_stop": node.drain_asked,
        "deadline_in": None if deadline is None else max(0.0, deadline - now),
        "drained_at": node.drained_at,
    }


def plan(core: CoordinatorCore, node: NodeInfo, now: float) -> dict[str, Any]:
    """Return what a drain of a node would do: attempts that run there, and what would find no other node.

    `waits`: what runs here or stands in line and no other node could take, by needs and CPUs.
    """
    running = [t for b in core.by_node.get(node.node_id, {}).values() for t in b.tasks if t is not None]
    others = [n for n in core.nodes.values() if n is not node and n.status in OPEN]
    waits: dict[tuple[tuple[str, ...], int], dict[str, Any]] = {}

    def count(needs: frozenset[str], slots: int, tasks: int, what: str) -> None:
        if not _takes(node, needs, slots) or any(_takes(other, needs, slots) for other in others):
            return
        key = (tuple(sorted(needs)), slots)
        entry = waits.setdefault(key, {"needs": list(key[0]), "slots": slots, "running": 0, "pending": 0})
        entry[what] += tasks

    for task in running:
        count(task.needs, task.options.slots, 1, "running")
    for queue in core.book.queues.values():
        for lane in queue.lanes.values():
            count(lane.key[2], lane.options.slots, lane.count, "pending")
    return {
        "attempts": [_attempt(core, task, now) for task in running],
        "waits": [waits[key] for key in sorted(waits)][:_WAITS_SHOWN],
        "others": len(others),
    }


def _takes(node: NodeInfo, needs: frozenset[str], slots: int) -> bool:
    return node.offers(needs) and slots <= max(node.max_concurrent_tasks, node.cpu_cores)


def _attempt(core: CoordinatorCore, task: DistributedTask, now: float) -> dict[str, Any]:
    """Return an attempt with how long it may still take, by its handler's usual time, where that is known."""
    usual = core.durations.estimate(attempts.pace_of(task))
    ran = max(0.0, now - (task.started_at or now))
    return {
        "task_id": task.task_id,
        "task_type": task.task_type,
        "running": ran,
        "usual": usual,
        "at_most_once": task.at_most_once,
    }
