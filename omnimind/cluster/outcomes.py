"""Attempts end: by an outcome that carries the newest fence, or lost. And what becomes of the task then."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from omnimind.cluster import attempts, drains, lines
from omnimind.cluster import events as ev
from omnimind.cluster.events import Outcome
from omnimind.cluster.records import CheckpointSaved, attempt_row
from omnimind.cluster.retry import backoff, retryable
from omnimind.cluster.sends import Acknowledged, AskRegister, Effects, Reply
from omnimind.cluster.states import Line, NodeStatus, TaskStatus
from omnimind.cluster.task import DistributedTask
from omnimind.errors import Conflict, Unavailable

if TYPE_CHECKING:
    from omnimind.cluster.core import CoordinatorCore

_CAUSE_MAX = 500


class _Where(NamedTuple):
    """Where an attempt was: on which node, and whether it was alone in its worker."""

    node_id: str
    alone: bool


def outcomes(core: CoordinatorCore, event: ev.Outcomes, now: float, fx: Effects) -> None:
    """Take in what a node reports of a batch; what carries an old fence changes nothing."""
    if core.awaited.get(event.node_id) == event.incarnation:
        # Of an attempt that the predecessor started, perhaps without a record of it. Until the node has said
        # what it holds, nothing is known of it here: to acknowledge the outcome would be to lose it.
        fx.sends.append(AskRegister(event.node_id, event.incarnation))
        error = Unavailable("this node has to report to the new coordinator first", hint="", retry_after=0.2)
        core.refuse(event.request, error, fx)
        return
    batch = core.batches.get(event.batch)
    if batch is None or batch.node_id != event.node_id or batch.incarnation != event.incarnation:
        core.count("stale", len(event.outcomes))
        fx.sends.append(Reply(event.request, Acknowledged()))
        return
    where = _Where(batch.node_id, len(batch.tasks) == 1)
    done = completed = 0
    seconds = 0.0
    kind: tuple[str, str] | None = None
    for outcome in event.outcomes:
        task = batch.tasks[outcome.index] if 0 <= outcome.index < len(batch.tasks) else None
        if task is None or task.fence != batch.fence + outcome.index:
            core.count("stale")
            continue
        batch.tasks[outcome.index] = None
        batch.open -= 1
        if outcome.status in {"ok", "error"}:
            done += 1
            completed += outcome.status == "ok"
            seconds += outcome.seconds
            kind = attempts.pace_of(task)
        apply(core, task, outcome, where, now, fx)
    batch.spent += seconds
    if kind is not None:
        core.durations.observe(kind, done, seconds)
    if event.final and batch.open:
        _lose_rest(core, batch, where, now, fx)
    if batch.open == 0:
        attempts.close(core, batch, now)
    node = core.nodes.get(event.node_id)
    if node is not None:
        node.total_tasks_completed += completed
        if node.ordered is NodeStatus.DRAINING:
            drains.drained(core, node, now, fx)
    fx.sends.append(Reply(event.request, Acknowledged()))


def _lose_rest(
    core: CoordinatorCore, batch: attempts.LiveBatch, where: _Where, now: float, fx: Effects
) -> None:
    """End the attempts of which a batch's last report says nothing."""
    for index, task in enumerate(batch.tasks):
        if task is not None:
            batch.tasks[index] = None
            batch.open -= 1
            apply(core, task, Outcome(index, "lost"), where, now, fx)


def apply(
    core: CoordinatorCore,
    task: DistributedTask,
    outcome: Outcome,
    where: _Where,
    now: float,
    fx: Effects,
) -> None:
    """End a task by its outcome, or decide what becomes of it."""
    if outcome.status == "ok":
        task.result, task.result_encoding = outcome.value, outcome.encoding
        task.started_at = now - outcome.seconds
        core.end(task, TaskStatus.COMPLETED, "completed", now, fx)
        return
    error = outcome.error
    cause = _cause(outcome, where)
    _note_attempt(core, task, outcome, cause, now, fx)
    if task.cancelling is not None and outcome.status != "invalid":
        status = TaskStatus.EXPIRED if task.cancelling == "deadline" else TaskStatus.CANCELLED
        core.end(task, status, task.cancelling, now, fx, error)
        return
    match outcome.status:
        case "error" | "timeout":
            _after_error(core, task, error or {}, cause, now, fx)
        case "invalid":
            core.end(task, TaskStatus.FAILED, cause, now, fx, error)
        case "crashed":
            _after_crash(core, task, cause, alone=where.alone, now=now, fx=fx)
        case _:
            if task.at_most_once:
                core.end(task, TaskStatus.FAILED, "lost", now, fx, _lost_error(cause))
            else:
                core.count("lost")
                requeue(core, task, cause, now, fx)


def _cause(outcome: Outcome, where: _Where) -> str:
    error = outcome.error or {}
    match outcome.status:
        case "error":
            return f"{error.get('type', 'error')}: {error.get('message', '')}"[:_CAUSE_MAX]
        case "timeout":
            return "timeout"
        case "crashed":
            return f"worker died on {where.node_id[:12]}: {error.get('message', 'no reason given')}"[
                :_CAUSE_MAX
            ]
        case "cancelled":
            return "stopped"
        case "invalid":
            return f"{error.get('type', 'invalid')}: {error.get('message', '')}"[:_CAUSE_MAX]
        case _:
            return str(error.get("message") or f"lost on {where.node_id}")[:_CAUSE_MAX]


def _lost_error(cause: str) -> dict[str, Any]:
    return {
        "type": "Lost",
        "message": f"the attempt was lost and at_most_once forbids another: {cause}",
    }


def _note_attempt(
    core: CoordinatorCore, task: DistributedTask, outcome: Outcome, cause: str, now: float, fx: Effects
) -> None:
    core.count(f"attempt_{outcome.status}")
    fx.records.attempts.append(attempt_row(task, outcome, cause, now))


def _after_error(
    core: CoordinatorCore, task: DistributedTask, error: dict[str, Any], cause: str, now: float, fx: Effects
) -> None:
    if task.at_most_once:
        core.end(
            task, TaskStatus.FAILED, f"{cause} (at most once: not repeated)"[:_CAUSE_MAX], now, fx, error
        )
    elif not retryable(task, error.get("bases", ())):
        core.end(task, TaskStatus.FAILED, f"not to be retried: {cause}"[:_CAUSE_MAX], now, fx, error)
    elif task.retry_count >= task.max_retries:
        core.end(
            task,
            TaskStatus.FAILED,
            f"retries used up ({task.max_retries}): {cause}"[:_CAUSE_MAX],
            now,
            fx,
            error,
        )
    else:
        wait = backoff(task, core.random)
        task.retry_count += 1
        task.error = error
        task.not_before = now + wait
        core.count("retries")
        requeue(
            core, task, f"retry {task.retry_count} of {task.max_retries} after {cause}"[:_CAUSE_MAX], now, fx
        )


def _after_crash(
    core: CoordinatorCore, task: DistributedTask, cause: str, *, alone: bool, now: float, fx: Effects
) -> None:
    error = {"type": "WorkerDied", "message": cause}
    if task.at_most_once:
        core.end(task, TaskStatus.FAILED, "lost", now, fx, _lost_error(cause))
        return
    task.solo = True
    if alone:
        # Only a task that was alone in its worker can be blamed for the worker's death.
        task.deaths += 1
        if task.deaths >= core.limits.max_deaths:
            core.end(
                task,
                TaskStatus.DEAD,
                f"killed its worker {task.deaths} times: {cause}"[:_CAUSE_MAX],
                now,
                fx,
                error,
            )
            return
    task.error = error
    requeue(core, task, cause, now, fx)


def requeue(core: CoordinatorCore, task: DistributedTask, cause: str, now: float, fx: Effects) -> None:
    """Stand a task whose attempt has ended in its line again."""
    task.move(TaskStatus.PENDING)
    task.cause = cause
    task.assigned_node = None
    task.started_at = None
    # Whatever its row says is out of date, also when it leads to the line where it stood before.
    task.line, task.stored = Line.NONE, Line.RUNNING
    queue = core.book.queues[task.queue]
    queue.pending += 1
    lines.enter(core, task, now, fx)
    if task.task_id in core.tasks:
        core.save(task, fx)


def lose(core: CoordinatorCore, batch: attempts.LiveBatch, cause: str, now: float, fx: Effects) -> None:
    """Take back everything that a batch still holds: nobody will hear of it again."""
    where = _Where(batch.node_id, len(batch.tasks) == 1)
    for index, task in enumerate(batch.tasks):
        if task is not None:
            batch.tasks[index] = None
            batch.open -= 1
            outcome = Outcome(index, "lost", error={"type": "Lost", "message": cause})
            apply(core, task, outcome, where, now, fx)
    attempts.close(core, batch, now)


def orphaned(core: CoordinatorCore, task: DistributedTask, now: float, fx: Effects) -> None:
    """Decide about a task that was running when the predecessor died, and that no node has reported."""
    error = {"type": "Lost", "message": "lost with the coordinator: no node has reported it"}
    where = _Where(task.assigned_node or "", alone=True)
    apply(core, task, Outcome(0, "lost", error=error), where, now, fx)


def checkpoint(core: CoordinatorCore, event: ev.Checkpoint, fx: Effects) -> None:
    """Keep what a running attempt wants its successor to know."""
    task = core.live(event.task_id)
    if task is None or task.status is not TaskStatus.RUNNING or task.fence != event.fence:
        error = Conflict(f"another attempt of {event.task_id} has taken over", field="fence")
        core.refuse(event.request, error, fx)
        return
    task.checkpoint = event.data
    fx.records.others.append(CheckpointSaved(task.seq, event.data))
    fx.sends.append(Reply(event.request, Acknowledged()))
