"""Nodes: they join, beat, fall silent, are cordoned and drained, and are given up."""

from __future__ import annotations

from typing import TYPE_CHECKING

from omnimind.cluster import attempts, drains, lines, outcomes
from omnimind.cluster import events as ev
from omnimind.cluster.node import NodeInfo
from omnimind.cluster.records import NodeRemoved, node_saved
from omnimind.cluster.sends import (
    Acknowledged,
    AskRegister,
    Effects,
    FenceNode,
    Reply,
    StopAttempts,
)
from omnimind.cluster.states import Line, NodeStatus

if TYPE_CHECKING:
    from omnimind.cluster.core import CoordinatorCore

_MAX_OFFLINE = 100
IDLE = "idle"
"""Who has ordered the drain of a node that was let go since it had nothing to do: gone when it is back."""


def joined(core: CoordinatorCore, event: ev.NodeJoined, now: float, fx: Effects) -> None:
    """Take a node in, adopting what it runs; a life of it that was given up is fenced instead."""
    node = event.node
    known = core.nodes.get(node.node_id)
    if known is not None and known.incarnation == node.incarnation and known.status is NodeStatus.OFFLINE:
        fx.sends.append(FenceNode(node.node_id, node.incarnation))
        _answer(event, fx)
        return
    if known is not None:
        if known.incarnation != node.incarnation:
            give_up(core, known, "the node joined again, as new", now, fx)
        node.total_tasks_completed += known.total_tasks_completed
        # What a person has ordered outlasts the node's restart.
        if known.ordered_by != IDLE:
            _keep_order(known, node)
        node.status = node.ordered or NodeStatus.ACTIVE
    node.last_heartbeat = now
    again = known is not None and core.joined.get(node.node_id) == node.incarnation
    if again and known is not None:
        known.last_heartbeat = now
        known.pids = node.pids
        core.index.resize(known, node.max_concurrent_tasks)
        node = known
    else:
        node.current_tasks = 0
        core.nodes[node.node_id] = node
        core.joined[node.node_id] = node.incarnation
        core.index.refresh(node)
        fx.records.others.append(node_saved(node))
        core.count("joined")
    core.awaited.pop(node.node_id, None)
    rows = {t.task_id: t for t in event.tasks}
    for running in event.running:
        if running.fence in core.batches:
            continue
        for task_id in running.task_ids:
            row = rows.get(task_id)
            if row is not None and not row.terminal and task_id not in core.tasks:
                lines.into_memory(core, row)
        attempts.adopt(core, node.node_id, node.incarnation, running, now, fx)
    attempts.unblock(core, node)
    if core.recovering and not core.awaited:
        _end_recovery(core, now, fx)
    _answer(event, fx)


def _keep_order(known: NodeInfo, node: NodeInfo) -> None:
    node.ordered, node.ordered_by, node.order_reason = known.ordered, known.ordered_by, known.order_reason
    node.drain_deadline, node.drain_started = known.drain_deadline, known.drain_started
    node.drain_attempts, node.drain_asked = known.drain_attempts, known.drain_asked
    node.drained_at = known.drained_at


def _answer(event: ev.NodeJoined, fx: Effects) -> None:
    if event.request:
        fx.sends.append(Reply(event.request, Acknowledged()))


def heartbeat(core: CoordinatorCore, event: ev.Heartbeat, now: float, fx: Effects) -> None:
    """Note that a node lives, how many slots it gives, and what it holds."""
    node = core.nodes.get(event.node_id)
    if node is None or core.joined.get(event.node_id) != event.incarnation:
        if node is not None and node.incarnation == event.incarnation and node.status is NodeStatus.OFFLINE:
            fx.sends.append(FenceNode(event.node_id, event.incarnation))
        elif node is None or node.incarnation == event.incarnation or event.node_id not in core.joined:
            fx.sends.append(AskRegister(event.node_id, event.incarnation))
        else:
            # An earlier life of a node that has joined again since.
            fx.sends.append(FenceNode(event.node_id, event.incarnation))
        return
    if node.status is NodeStatus.OFFLINE:
        fx.sends.append(FenceNode(event.node_id, event.incarnation))
        return
    node.last_heartbeat = now
    if event.pids is not None:
        node.pids = event.pids
    if node.status is NodeStatus.SUSPECT:
        node.status = node.ordered or NodeStatus.ACTIVE
        core.index.refresh(node)
        attempts.unblock(core, node)
    if event.slots is not None and event.slots != node.max_concurrent_tasks:
        core.index.resize(node, event.slots)
        attempts.unblock(core, node)
    _compare(core, event, now, fx)


def _compare(core: CoordinatorCore, event: ev.Heartbeat, now: float, fx: Effects) -> None:
    """Compare what a node holds with what it should hold."""
    held = {fence: (current, ran) for fence, current, ran in event.batches}
    mine = core.by_node.get(event.node_id, {})
    for fence in held:
        if fence not in mine:
            fx.sends.append(
                StopAttempts(event.node_id, event.incarnation, fence, (), hard=True, cause="stale")
            )
    for batch in list(mine.values()):
        if batch.fence in held:
            current, ran = held[batch.fence]
            batch.current = current
            _note_start(core, batch, current, ran, now, fx)
        elif now - batch.sent_at > core.limits.dispatch_grace:
            outcomes.lose(core, batch, "the node does not hold the batch", now, fx)


def _note_start(
    core: CoordinatorCore,
    batch: attempts.LiveBatch,
    current: int | None,
    ran: float | None,
    now: float,
    fx: Effects,
) -> None:
    """Write down the start of an attempt that runs for more than a second, once."""
    if current is None or ran is None or ran < 1.0 or not 0 <= current < len(batch.tasks):
        return
    task = batch.tasks[current]
    if task is not None and task.stored is not task.line:
        task.started_at = now - ran
        task.cause = "started"
        core.save(task, fx)


def gone(core: CoordinatorCore, event: ev.NodeGone, now: float, fx: Effects) -> None:
    """Give a node up, on the word of somebody who knows that it is dead."""
    node = core.nodes.get(event.node_id)
    if node is not None and node.status is not NodeStatus.OFFLINE:
        give_up(core, node, event.cause, now, fx)


def give_up(core: CoordinatorCore, node: NodeInfo, cause: str, now: float, fx: Effects) -> None:
    """Fence a node: none of its attempts may publish any more, all of them are requeued."""
    node.status = NodeStatus.OFFLINE
    core.index.drop(node.node_id)
    core.joined.pop(node.node_id, None)
    for batch in list(core.by_node.get(node.node_id, {}).values()):
        outcomes.lose(core, batch, f"{cause} ({node.node_id})", now, fx)
    node.current_tasks = 0
    core.count("nodes_lost")
    fx.records.others.append(node_saved(node))
    core.awaited.pop(node.node_id, None)
    if core.recovering and not core.awaited:
        _end_recovery(core, now, fx)


def excuse(core: CoordinatorCore, late: float, now: float) -> None:
    """Blame nobody for a stall of the coordinator itself: what was sent meanwhile is still to be read."""
    core.count("stalls")
    core.recover_until += late
    for node in core.nodes.values():
        if node.status is not NodeStatus.OFFLINE:
            node.last_heartbeat = min(now, node.last_heartbeat + late)
    for batch in core.batches.values():
        batch.sent_at = min(now, batch.sent_at + late)


def check(core: CoordinatorCore, now: float, fx: Effects) -> None:
    """Look at the time of each node's last heartbeat."""
    limits = core.limits
    gone = [node for node in core.nodes.values() if node.status is NodeStatus.OFFLINE]
    gone.sort(key=lambda node: (-node.last_heartbeat, node.node_id))
    for place, node in enumerate(gone):
        # What a person has ordered holds for a node that is back, so it is not forgotten by the clock alone.
        old = now - node.last_heartbeat > limits.keep_offline and node.ordered is None
        if old or place >= _MAX_OFFLINE:
            del core.nodes[node.node_id]
            fx.records.others.append(NodeRemoved(node.node_id))
    for node in list(core.nodes.values()):
        silent = now - node.last_heartbeat
        if node.status is NodeStatus.OFFLINE:
            pass
        elif silent > limits.heartbeat_timeout and node.node_id in core.joined:
            give_up(core, node, f"no heartbeat for {silent:.1f} s", now, fx)
        elif silent > limits.suspect_after and node.status is not NodeStatus.SUSPECT:
            node.status = NodeStatus.SUSPECT
            core.index.refresh(node)
        drains.step(core, node, now, fx)


def restore(core: CoordinatorCore, event: ev.Recovered, now: float) -> None:
    """Take in the predecessor's nodes and tasks that were running, and wait for the nodes' reports."""
    for node in event.nodes:
        core.nodes[node.node_id] = node
        node.current_tasks = 0
        if node.status is not NodeStatus.OFFLINE:
            node.last_heartbeat = now
            core.awaited[node.node_id] = node.incarnation
            node.status = NodeStatus.SUSPECT
            drains.set_timer(core, node)
    for task in event.running:
        task.stored = Line.RUNNING
        core.remember(task)
        lines.queue_of(core, task)
        if task.deadline is not None:
            core.timers.set(task.deadline, "deadline", task.task_id)
    core.orphans = {t.task_id: t for t in event.running}
    core.recovering = bool(core.awaited)
    if core.recovering:
        core.recover_until = now + core.limits.recovery_grace
        core.timers.set(core.recover_until, "recovery", "")


def recovery_over(core: CoordinatorCore, now: float, fx: Effects) -> None:
    """Stop waiting: nodes that have not reported are given up."""
    if core.recovering and now < core.recover_until:
        core.timers.set(core.recover_until, "recovery", "")
        return
    for node_id in list(core.awaited):
        give_up(core, core.nodes[node_id], "the node did not report to the new coordinator", now, fx)
    if core.recovering or core.orphans:
        _end_recovery(core, now, fx)


def _end_recovery(core: CoordinatorCore, now: float, fx: Effects) -> None:
    """Requeue what was running at the predecessor's end and no node has reported."""
    core.recovering = False
    orphans, core.orphans = core.orphans, {}
    for task in orphans.values():
        # One that was adopted may have been lost or retried since: then it stands in its line already.
        waits = core.live(task.task_id) is task and task.line is Line.RUNNING
        if waits and attempts.batch_of(core, task)[0] is None:
            outcomes.orphaned(core, task, now, fx)
