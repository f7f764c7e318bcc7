"""New tasks: checked, recognised when they came before, accepted or refused as one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from omnimind.cluster import events as ev
from omnimind.cluster import lines
from omnimind.cluster.events import KnownTask
from omnimind.cluster.sends import Accepted, Effects, Reply
from omnimind.cluster.states import TERMINAL, Line, TaskStatus
from omnimind.cluster.task import DistributedTask, payload_digest
from omnimind.errors import (
    CyclicDependency,
    InvalidInput,
    KeyConflict,
    LedgerFull,
    NotFound,
    OmniMindError,
    QueueFull,
    UnknownQueue,
)

if TYPE_CHECKING:
    from omnimind.cluster.core import CoordinatorCore

_RETRY_AFTER = 1.0
_ROOM_AFTER = 10.0
_FAILED = tuple(status for status in TERMINAL if status is not TaskStatus.COMPLETED)


def submit(core: CoordinatorCore, event: ev.Submit, now: float, fx: Effects) -> None:
    """Accept a submission, or refuse it with the first thing that is wrong with it."""
    tasks = event.tasks
    existing: dict[int, str] = {}
    if _resent(core, event):
        # The same submission again: its answer was lost. What it made is what it is answered with.
        for index, task in enumerate(tasks):
            owner = None if task.key is None else _owner(core, event, task.key)
            if owner is not None and owner[0] != task.task_id:
                existing[index] = owner[0]
        fx.sends.append(Reply(event.request, Accepted(len(tasks) - len(existing), existing)))
        return
    try:
        if core.full:
            raise LedgerFull(retry_after=_ROOM_AFTER)
        _check(core, event, now)
        fresh = _without_known_keys(core, event, existing)
        _check_room(core, fresh)
    except OmniMindError as error:
        core.count("refused")
        core.refuse(event.request, error, fx)
        return
    accept(core, fresh, _renamed(event, fresh, existing), now, fx)
    fx.sends.append(Reply(event.request, Accepted(len(fresh), existing)))


def _renamed(
    event: ev.Submit, fresh: list[DistributedTask], existing: dict[int, str]
) -> dict[str, KnownTask]:
    """Let what comes after a task that stood under its key already come after that one; return the facts."""
    if not existing:
        return event.known_ids
    names = {event.tasks[index].task_id: other for index, other in existing.items()}
    for task in fresh:
        if task.after:
            task.after = tuple(names.get(dependency, dependency) for dependency in task.after)
    return event.known_ids | {fact.task_id: fact for fact in event.known_keys.values()}


def _resent(core: CoordinatorCore, event: ev.Submit) -> bool:
    """Return whether the submission was accepted before.

    Then the first of its tasks that it did not find under a key exists, under its own id.
    """
    for task in event.tasks:
        if task.key is None:
            return event.resent or task.task_id in core.tasks
    owners = (_owner(core, event, task.key) for task in event.tasks if task.key is not None)
    ids = {task.task_id: None for task in event.tasks}
    return any(owner is not None and owner[0] in ids for owner in owners)


def _owner(core: CoordinatorCore, event: ev.Submit, key: str) -> tuple[str, bytes | None] | None:
    """Return the id and the digest of the task that stands under a key."""
    held = core.tasks.get(core.keys.get(key, ""))
    if held is not None:
        return held.task_id, held.digest
    fact = event.known_keys.get(key)
    return None if fact is None else (fact.task_id, fact.digest)


def accept(
    core: CoordinatorCore,
    tasks: list[DistributedTask],
    known: dict[str, KnownTask],
    now: float,
    fx: Effects,
) -> None:
    """Give new tasks their numbers, stand them in line and note them for the ledger."""
    inserted: list[DistributedTask] = []
    for task in tasks:
        task.created_at = now
        task.seq = core.next_seq()
        core.book.queues[task.queue].pending += 1
        if task.deadline is not None:
            core.timers.set(task.deadline, "deadline", task.task_id)
        if task.after:
            # In memory at once, so that a later task of this submission can wait for it.
            core.remember(task)
            task.line = Line.WAITING
            inserted.append(task)
            continue
        lines.enter(core, task, now, fx)
        core.insert(task, fx)
    _wait(core, inserted, known, now, fx)
    core.count("submitted", len(tasks))


def _wait(
    core: CoordinatorCore,
    tasks: list[DistributedTask],
    known: dict[str, KnownTask],
    now: float,
    fx: Effects,
) -> None:
    """Let tasks wait for those of their dependencies that have not ended.

    All of them wait before the first is ended for a dependency that failed: they may wait for each other.
    """
    doomed: list[tuple[DistributedTask, KnownTask]] = []
    for task in tasks:
        failed: KnownTask | None = None
        remaining: dict[str, None] = {}
        for dependency in dict.fromkeys(task.after):
            held = core.tasks.get(dependency)
            fact = known.get(dependency)
            if held is not None:
                fact = KnownTask(dependency, held.status, cause=held.cause)
            if fact is not None and fact.status in _FAILED:
                failed = failed or fact
                remaining[dependency] = None
            elif fact is None or fact.status != TaskStatus.COMPLETED:
                remaining[dependency] = None
                core.dependents.setdefault(dependency, []).append(task.task_id)
        if failed is not None:
            doomed.append((task, failed))
        if remaining:
            core.remaining[task.task_id] = remaining
            if task.stored is Line.NONE:
                core.insert(task, fx)
        else:
            _go_on(core, task, now, fx)
    for task, failed in doomed:
        if core.live(task.task_id) is task:
            cause = f"dependency {failed.task_id} ended {failed.status}"
            error = {
                "type": "DependencyFailed",
                "message": cause,
                "dependency": failed.task_id,
                "dependency_cause": failed.cause,
            }
            core.end(task, TaskStatus.FAILED, cause, now, fx, error)


def _go_on(core: CoordinatorCore, task: DistributedTask, now: float, fx: Effects) -> None:
    """Stand a task that waits for nothing any more in its line."""
    fresh = task.stored is Line.NONE
    task.line = Line.NONE
    lines.enter(core, task, now, fx)
    if fresh:
        core.insert(task, fx)
    elif task.task_id in core.tasks:
        core.save(task, fx)


def restore_waiting(core: CoordinatorCore, event: ev.Recovered, now: float, fx: Effects) -> None:
    """Let recovered tasks wait again for what they waited for."""
    for task in event.waiting:
        task.stored = Line.WAITING
        core.remember(task)
        (core.book.queues.get(task.queue) or lines.queue_of(core, task)).pending += 1
        if task.deadline is not None:
            core.timers.set(task.deadline, "deadline", task.task_id)
    _wait(core, event.waiting, event.known_ids, now, fx)


def _check(core: CoordinatorCore, event: ev.Submit, now: float) -> None:
    seen: dict[str, DistributedTask] = {}
    for index, task in enumerate(event.tasks):
        where = f"[{index}]" if len(event.tasks) > 1 else ""
        if task.queue not in core.book.queues:
            raise UnknownQueue(f"there is no queue {task.queue!r}", field=f"queue{where}")
        if task.deadline is not None and task.deadline <= now:
            ago = now - task.deadline
            raise InvalidInput(
                f"the deadline passed {ago:.1f} s ago",
                field=f"deadline{where}",
                hint="give a time in the future",
            )
        if task.timeout is not None and not 0 < task.timeout < float("inf"):
            raise InvalidInput(
                f"a timeout is a positive number of seconds, not {task.timeout!r}",
                field=f"timeout{where}",
                hint="leave it out for none",
            )
        if task.max_retries < 0:
            raise InvalidInput(f"retries are 0 or more, not {task.max_retries}", field=f"max_retries{where}")
        if task.task_id in seen or (index and task.task_id in core.tasks):
            raise InvalidInput(f"the id {task.task_id} is used twice", field=f"task_id{where}")
        seen[task.task_id] = task
    for index, task in enumerate(event.tasks):
        for dependency in task.after:
            if dependency not in seen and dependency not in core.tasks and dependency not in event.known_ids:
                raise NotFound(
                    f"there is no task {dependency} to come after",
                    field="after" if len(event.tasks) == 1 else f"after[{index}]",
                    hint="it may have been pruned; leave out tasks that ended long ago",
                )
    _check_cycles(seen)


def _check_cycles(tasks: dict[str, DistributedTask]) -> None:
    """Only tasks of one submission can wait for each other in a circle: others exist already."""
    done: dict[str, bool] = {}
    for start, first in tasks.items():
        path = [(start, iter(first.after))]
        if start in done:
            continue
        done[start] = False
        while path:
            current, rest = path[-1]
            for dependency in rest:
                if dependency not in tasks:
                    continue
                if done.get(dependency) is False:
                    names = [name for name, _ in path]
                    circle = " -> ".join([*names[names.index(dependency) :], dependency])
                    raise CyclicDependency(
                        f"these tasks wait for each other: {circle}",
                        field="after",
                        hint="leave one of these dependencies out",
                    )
                if dependency not in done:
                    done[dependency] = False
                    path.append((dependency, iter(tasks[dependency].after)))
                    break
            else:
                done[current] = True
                path.pop()


def _without_known_keys(
    core: CoordinatorCore, event: ev.Submit, existing: dict[int, str]
) -> list[DistributedTask]:
    fresh: list[DistributedTask] = []
    new_keys: dict[str, DistributedTask] = {}
    for index, task in enumerate(event.tasks):
        if task.key is None:
            fresh.append(task)
            continue
        if task.digest is None:
            task.digest = payload_digest(task)
        owner = _owner(core, event, task.key)
        if owner is None:
            first = new_keys.setdefault(task.key, task)
            if first is task:
                fresh.append(task)
                continue
            owner = first.task_id, first.digest
        other, digest = owner
        if digest != task.digest:
            raise KeyConflict(
                f"the key {task.key[:80]!r} stands for task {other}, which has another payload",
                field="key" if len(event.tasks) == 1 else f"keys[{index}]",
                task_id=other,
            )
        existing[index] = other
    return fresh


def _check_room(core: CoordinatorCore, fresh: list[DistributedTask]) -> None:
    wanted: dict[str, int] = {}
    waiting = 0
    for task in fresh:
        wanted[task.queue] = wanted.get(task.queue, 0) + 1
        waiting += bool(task.after)
    for name, count in wanted.items():
        queue = core.book.queues[name]
        if queue.pending + count > queue.policy.max_pending:
            raise QueueFull(
                f"queue {name!r} holds {queue.pending} tasks; its bound is {queue.policy.max_pending}",
                field="queue",
                hint=f"try again later, or raise it: omnimind queue set {name} --max-pending N",
                retry_after=_RETRY_AFTER,
            )
    if waiting and len(core.remaining) + waiting > core.limits.max_waiting:
        raise QueueFull(
            f"{len(core.remaining)} tasks wait for others; the bound is {core.limits.max_waiting}",
            field="after",
            hint="submit dependents when what they wait for is nearly done",
            retry_after=_RETRY_AFTER,
        )
