"""Attempts that must end early: cancelled, or past their deadline. Asked first, killed after a grace."""

from __future__ import annotations

from typing import TYPE_CHECKING

from omnimind.cluster import attempts
from omnimind.cluster import events as ev
from omnimind.cluster.records import STOPPING
from omnimind.cluster.sends import Acknowledged, Effects, Reply, StopAttempts
from omnimind.cluster.states import Line, TaskStatus
from omnimind.cluster.task import DistributedTask

if TYPE_CHECKING:
    from omnimind.cluster.core import CoordinatorCore


def cancel(core: CoordinatorCore, event: ev.Cancel, now: float, fx: Effects) -> None:
    """End tasks: at once those that wait, co-operatively those that run. Replied with what was done."""
    on_disk = {t.task_id: t for t in event.tasks}
    done: dict[str, str] = {}
    for task_id in event.task_ids:
        task = core.live(task_id)
        if task is None and task_id not in core.tasks:
            task = on_disk.get(task_id)
        if task is None or task.terminal:
            done[task_id] = "ended before"
        elif task.status is TaskStatus.RUNNING:
            if task.cancelling is None:
                stop_running(core, task, "cancelled", now, fx)
            done[task_id] = "stopping"
        else:
            task.stored = task.line if task.stored is Line.NONE else task.stored
            core.end(task, TaskStatus.CANCELLED, "cancelled", now, fx)
            done[task_id] = "cancelled"
    fx.sends.append(Reply(event.request, Acknowledged(done)))


def stop_running(core: CoordinatorCore, task: DistributedTask, why: str, now: float, fx: Effects) -> None:
    """Ask a running attempt to end, and set the time after which its worker is killed.

    It is written down: whoever has asked is answered, so a successor has to know of it too.
    """
    task.cancelling = why
    task.cause = f"{STOPPING}{why}"
    core.save(task, fx)
    batch, index = attempts.batch_of(core, task)
    if batch is not None:
        ask_to_stop(core, task, batch, index, now, fx)


def ask_to_stop(
    core: CoordinatorCore,
    task: DistributedTask,
    batch: attempts.LiveBatch,
    index: int,
    now: float,
    fx: Effects,
) -> None:
    """Send the request to end one item of a batch, and set the alarm for the end of its grace."""
    fx.sends.append(
        StopAttempts(
            batch.node_id, batch.incarnation, batch.fence, (index,), hard=False, cause=task.cancelling or ""
        )
    )
    core.timers.set(now + core.limits.cancel_grace, "grace", task.task_id, task.fence)


def grace_over(core: CoordinatorCore, task_id: str, fence: int, fx: Effects) -> None:
    """Kill the worker of an attempt that was asked to end and has not."""
    task = core.live(task_id)
    if task is None or task.status is not TaskStatus.RUNNING or task.fence != fence or not task.cancelling:
        return
    batch, index = attempts.batch_of(core, task)
    if batch is not None:
        fx.sends.append(
            StopAttempts(
                batch.node_id, batch.incarnation, batch.fence, (index,), hard=True, cause=task.cancelling
            )
        )


def deadline(core: CoordinatorCore, task_id: str, now: float, fx: Effects) -> None:
    """End a task whose deadline has passed."""
    task = core.live(task_id)
    if task is None or task.deadline is None or task.deadline > now:
        return
    if task.status is TaskStatus.RUNNING:
        if task.cancelling is None:
            stop_running(core, task, "deadline", now, fx)
        return
    core.end(task, TaskStatus.EXPIRED, "deadline passed before it could run", now, fx)


def expire_on_disk(core: CoordinatorCore, task: DistributedTask, now: float, fx: Effects) -> None:
    """End a task that is on disk only and whose deadline has passed."""
    if not task.terminal and task.status is TaskStatus.PENDING:
        core.end(task, TaskStatus.EXPIRED, "deadline passed before it could run", now, fx)
