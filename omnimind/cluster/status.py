"""What people ask of the core: the cluster at a glance, queues, and why a task is where it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from omnimind.cluster.node import NodeInfo
from omnimind.cluster.placement import OPEN
from omnimind.cluster.states import Line, NodeStatus, TaskStatus, priority_class
from omnimind.cluster.task import DistributedTask

if TYPE_CHECKING:
    from omnimind.cluster.core import CoordinatorCore

Explanation = dict[str, Any]


def cluster_status(core: CoordinatorCore) -> dict[str, Any]:
    """Return the cluster at a glance: `get_cluster_status`."""
    nodes = list(core.nodes.values())
    alive = [n for n in nodes if n.status is not NodeStatus.OFFLINE]
    capacity = sum(max(0, n.max_concurrent_tasks) for n in alive)
    load = sum(n.current_tasks for n in alive)
    return {
        "coordinator_node_id": core.node_id,
        "total_nodes": len(nodes),
        "active_nodes": sum(1 for n in nodes if n.status in OPEN),
        "offline_nodes": len(nodes) - len(alive),
        "total_capacity": capacity,
        "current_load": load,
        "load_percentage": 100.0 * load / capacity if capacity else 0.0,
        "pending_tasks": sum(q.pending for q in core.book.queues.values()),
        "running_tasks": sum(b.open for b in core.batches.values()) + len(core.orphans),
        "nodes": [n.to_dict() for n in nodes],
    }


def queue_status(core: CoordinatorCore, name: str) -> dict[str, Any]:
    """Return a queue's policy with what it holds."""
    queue = core.book.queues[name]
    policy = queue.policy
    waiting = sum(1 for i in core.remaining if (t := core.tasks.get(i)) is not None and t.queue == name)
    ready = queue.ready + queue.tail
    heads = [h for lane in queue.lanes.values() if (h := lane.head()) is not None]
    return {
        "name": policy.name,
        "weight": policy.weight,
        "concurrency": policy.concurrency,
        "rate": policy.rate,
        "max_pending": policy.max_pending,
        "paused": policy.paused,
        "ready": ready,
        "delayed": max(0, queue.pending - ready - waiting),
        "waiting": waiting,
        "running": sum(b.open for b in core.batches.values() if b.queue == name),
        "gated": queue.gated,
        "oldest": min((h.created_at for h in heads), default=None),
    }


def explain_task(core: CoordinatorCore, task: DistributedTask, now: float) -> Explanation:
    """Return where a task stands and why. Rows of ended attempts are the shell's to add to `story`."""
    story = [{"at": task.created_at, "what": f"submitted to queue {task.queue}" + _by(task)}]
    facts: dict[str, Any] = {
        "queue": task.queue,
        "priority": f"{task.priority} ({priority_class(task.priority).name.lower()})",
        "needs": sorted(task.needs),
        "attempts": _attempts(task),
        "cause": task.cause,
    }
    checks: list[dict[str, Any]] = []
    if task.terminal:
        verdict = task.cause if task.cause == task.status else f"{task.status.value}: {task.cause}"
        if task.started_at is not None and task.assigned_node is not None:
            story.append({"at": task.started_at, "what": f"started on {task.assigned_node}"})
            verdict += f", on {task.assigned_node[:12]}"
        story.append({"at": task.completed_at, "what": verdict})
    elif task.status is TaskStatus.RUNNING:
        verdict = f"runs on {task.assigned_node} for {now - (task.started_at or now):.1f} s"
        if task.cancelling:
            verdict += f"; asked to end ({task.cancelling})"
        story.append({"at": task.started_at, "what": f"started on {task.assigned_node}"})
    else:
        verdict = _why_waiting(core, task, now, facts, checks)
        if task.cause != "submitted":
            story.append({"at": None, "what": task.cause})
    return {
        "kind": "task",
        "id": task.task_id,
        "status": task.status.value,
        "verdict": verdict,
        "facts": facts,
        "checks": checks,
        "story": story,
    }


def _attempts(task: DistributedTask) -> int:
    """Return how often a task has started, as far as attempts count against it."""
    last = task.started_at is not None and task.status is not TaskStatus.DEAD
    return task.retry_count + task.deaths + last


def _by(task: DistributedTask) -> str:
    return f" ({task.origin})" if task.origin else ""


def _why_waiting(
    core: CoordinatorCore,
    task: DistributedTask,
    now: float,
    facts: dict[str, Any],
    checks: list[dict[str, Any]],
) -> str:
    match task.line:
        case Line.WAITING:
            remaining = list(core.remaining.get(task.task_id, ()))
            facts["waits_for"] = remaining[:20]
            return f"waits for {len(remaining)} other tasks to complete, first {remaining[0]}"
        case Line.DELAYED:
            facts["not_before"] = task.not_before
            why = "its next attempt" if task.retry_count else "it was asked to wait"
            return f"delayed for {max(0.0, task.not_before - now):.1f} s more ({why})"
        case Line.READY | Line.RUNNING | Line.NONE:
            pass
    queue = core.book.queues[task.queue]
    if core.recovering:
        return f"the coordinator has just started and waits for {len(core.awaited)} nodes to report"
    checks += [_check_node(core, task, node) for node in core.nodes.values()]
    if queue.policy.paused:
        return f"queue {task.queue} is paused"
    able = [c for c in checks if c["able"]]
    if not able:
        if not checks:
            return "there is no node"
        return f"no node can take it: {checks[0]['node']}: {checks[0]['detail']}"
    gate = queue.gate(now)
    if gate == "concurrency":
        return f"queue {task.queue} runs {queue.running} attempts, its limit is {queue.policy.concurrency}"
    if gate == "rate":
        return f"queue {task.queue} may start {queue.policy.rate:g} tasks a second; the next one soon"
    on_disk = task.task_id not in core.tasks
    ahead = queue.ahead_of((task.rank, task.seq))
    facts["ahead_in_queue"] = f"at least {ahead}" if on_disk else ahead
    if not any(c["ok"] for c in able):
        return f"all slots of capable nodes are taken; {facts['ahead_in_queue']} tasks are before it"
    return f"about to start; {facts['ahead_in_queue']} tasks are before it"


def _check_node(core: CoordinatorCore, task: DistributedTask, node: NodeInfo) -> dict[str, Any]:
    missing = node.lacking(task.needs)
    seat = core.index.seats.get(node.node_id)
    free = seat.free(quick=False) if seat is not None else 0
    wide = task.options.slots
    ok = able = False
    if missing:
        check, detail = "needs", f"lacks {', '.join(missing)}"
    elif node.status not in OPEN:
        check, detail = "status", f"is {node.status.value}"
    elif wide > max(node.max_concurrent_tasks, node.cpu_cores):
        check, detail = "size", f"has {node.cpu_cores} CPUs, it takes {wide}"
    elif free < wide and not (seat is not None and seat.whole(wide)):
        able = True
        check, detail = "slots", f"{free} of {node.max_concurrent_tasks} slots free, it takes {wide}"
    else:
        ok = able = True
        check, detail = "slots", f"{free} slots free"
    return {"node": node.node_id, "check": check, "ok": ok, "able": able, "detail": detail}


def explain_node(core: CoordinatorCore, node: NodeInfo, now: float) -> Explanation:
    """Return what a node may be given and why."""
    batches = core.by_node.get(node.node_id, {}).values()
    running = sum(b.open for b in batches)
    silent = now - node.last_heartbeat
    verdict = _node_verdict(core, node, running, silent)
    return {
        "kind": "node",
        "id": node.node_id,
        "status": node.status.value,
        "verdict": verdict,
        "facts": {
            "hostname": node.hostname,
            "batches": len(batches),
            "running_attempts": running,
            "last_heartbeat": node.last_heartbeat,
            "capabilities": sorted(node.capabilities),
            "completed": node.total_tasks_completed,
        },
        "checks": [],
        "story": [],
    }


def _node_verdict(core: CoordinatorCore, node: NodeInfo, running: int, silent: float) -> str:
    status = node.status
    match status:
        case NodeStatus.ACTIVE:
            return f"takes work: {node.current_tasks} of {node.max_concurrent_tasks} slots are taken"
        case NodeStatus.BUSY:
            return f"all {node.max_concurrent_tasks} slots are taken"
        case NodeStatus.DEGRADED:
            return "gets no new work while it is degraded"
        case NodeStatus.CORDONED:
            return f"cordoned: gets no new work until `omnimind node uncordon`; {running} attempts run on"
        case NodeStatus.DRAINING:
            return f"draining: {running} attempts are left"
        case NodeStatus.SUSPECT:
            return f"silent for {silent:.1f} s; given up after {core.limits.heartbeat_timeout:g} s"
        case NodeStatus.OFFLINE:
            return f"offline for {silent:.0f} s; its attempts were requeued elsewhere"


def running_tasks(core: CoordinatorCore) -> list[DistributedTask]:
    """Return the tasks that run, newest first. All of them are in memory, however many wait on disk."""
    held = (t for b in core.batches.values() for t in b.tasks if t is not None)
    return sorted([*held, *core.orphans.values()], key=lambda t: -t.seq)


def attempts_on(core: CoordinatorCore, node_id: str) -> list[dict[str, Any]]:
    """Return the attempts that run on a node."""
    return [
        {"task_id": t.task_id, "task_type": t.task_type, "started_at": t.started_at}
        for b in core.by_node.get(node_id, {}).values()
        for t in b.tasks
        if t is not None
    ]
