"""Recurring submissions. A run that was missed is made up for once, however many were missed."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
from cronsim import CronSim, CronSimError

from omnimind.cluster import events as ev
from omnimind.cluster import submission
from omnimind.cluster.policies import MAX_NAME, Schedule
from omnimind.cluster.records import AuditSaved, ScheduleRemoved, ScheduleSaved, task_from_row
from omnimind.cluster.sends import Effects, Reply
from omnimind.cluster.sharding import bucket_of
from omnimind.errors import Conflict, InvalidInput, NotFound, OmniMindError
from omnimind.ids import derived_task_id

if TYPE_CHECKING:
    from omnimind.cluster.core import CoordinatorCore

_SHORTEST = 0.1
_WHEN_FULL = 5.0


def next_run(schedule: Schedule, after: float) -> float:
    """Return the schedule's first time after `after`; raises InvalidInput for one that cannot be."""
    if schedule.cron is None:
        interval = schedule.interval or 0.0
        if schedule.next_run and schedule.last_run is not None:
            # Stay on the grid of the first run; skip what was missed.
            missed = max(0, int((after - schedule.next_run) // interval))
            return schedule.next_run + (missed + 1) * interval
        return after + interval
    try:
        zone = ZoneInfo(schedule.timezone)
        return next(CronSim(schedule.cron, datetime.fromtimestamp(after, UTC).astimezone(zone))).timestamp()
    except (ZoneInfoNotFoundError, ValueError) as error:
        if isinstance(error, ZoneInfoNotFoundError):
            raise InvalidInput(
                f"there is no time zone {schedule.timezone[:80]!r}",
                field="timezone",
                hint="give an IANA name, such as Europe/Berlin",
            ) from None
        raise InvalidInput(f"{schedule.cron!r}: {error}", field="cron", hint="give other fields") from None
    except CronSimError as error:
        raise InvalidInput(
            f"{schedule.cron!r} is no cron expression: {error}",
            field="cron",
            hint="five fields: minute hour day month weekday, e.g. */5 * * * *",
        ) from None
    except StopIteration:
        raise InvalidInput(f"{schedule.cron!r} never fires", field="cron") from None


def upcoming(schedule: Schedule, count: int) -> list[float]:
    """Return the next times of a schedule, for people to look at."""
    times = [schedule.next_run]
    while len(times) < count:
        moved = msgspec.structs.replace(schedule, next_run=times[-1], last_run=times[-1])
        times.append(next_run(moved, times[-1]))
    return times


def put(core: CoordinatorCore, event: ev.ScheduleSet, now: float, fx: Effects) -> None:
    """Create or replace a schedule."""
    schedule = event.schedule
    try:
        _check(schedule)
        old = core.schedules.get(schedule.name)
        schedule = msgspec.structs.replace(
            schedule,
            next_run=next_run(msgspec.structs.replace(schedule, last_run=None), now),
            last_run=old.last_run if old else None,
            runs=old.runs if old else 0,
        )
    except OmniMindError as error:
        core.refuse(event.request, error, fx)
        return
    _save(core, schedule, fx)
    fx.sends.append(Reply(event.request, schedule))


def _check(schedule: Schedule) -> None:
    if not 0 < len(schedule.name) <= MAX_NAME:
        raise InvalidInput(
            f"a schedule's name has 1 to {MAX_NAME} characters", field="name", hint="give a shorter one"
        )
    if (schedule.cron is None) == (schedule.interval is None):
        raise InvalidInput("give a cron expression or an interval, one of them", field="cron")
    if schedule.interval is not None and not _SHORTEST <= schedule.interval < float("inf"):
        raise InvalidInput(
            f"an interval is at least {_SHORTEST} seconds",
            field="interval",
            hint="submit more tasks in each run rather than more often",
        )


def _save(core: CoordinatorCore, schedule: Schedule, fx: Effects) -> None:
    core.schedules[schedule.name] = schedule
    fx.records.others.append(ScheduleSaved(schedule))
    if not schedule.paused:
        core.timers.set(schedule.next_run, "schedule", schedule.name)


def restore(core: CoordinatorCore, schedule: Schedule) -> None:
    """Take in a recovered schedule; times that were missed are due at once, together."""
    core.schedules[schedule.name] = schedule
    if not schedule.paused:
        core.timers.set(schedule.next_run, "schedule", schedule.name)


def remove(core: CoordinatorCore, event: ev.ScheduleRemove, _now: float, fx: Effects) -> None:
    """Remove a schedule; tasks that it has submitted stay."""
    if core.schedules.pop(event.name, None) is None:
        core.refuse(event.request, NotFound(f"there is no schedule {event.name!r}", field="name"), fx)
        return
    fx.records.others.append(ScheduleRemoved(event.name))
    fx.sends.append(Reply(event.request, event.name))


def due(core: CoordinatorCore, name: str, now: float, fx: Effects) -> None:
    """Submit what a schedule is for, when its time has come."""
    schedule = core.schedules.get(name)
    if schedule is None or schedule.paused or schedule.next_run > now:
        return
    if core.full:
        # Coalesced like any other run that could not be: once, when there is room.
        core.timers.set(now + _WHEN_FULL, "schedule", name)
        return
    _submit(core, schedule, now, fx)
    moved = msgspec.structs.replace(schedule, last_run=now, runs=schedule.runs + 1)
    _save(core, msgspec.structs.replace(moved, next_run=next_run(moved, now)), fx)


def run_now(core: CoordinatorCore, event: ev.ScheduleRun, now: float, fx: Effects) -> None:
    """Submit what a schedule is for, besides its times. Replied with the task's id."""
    schedule = core.schedules.get(event.name)
    if schedule is None:
        core.refuse(event.request, NotFound(f"there is no schedule {event.name!r}", field="name"), fx)
        return
    task_id = _submit(core, schedule, now, fx)
    if task_id is None:
        error = Conflict(f"the queue of schedule {event.name!r} is gone or full", field="queue")
        core.refuse(event.request, error, fx)
        return
    fx.sends.append(Reply(event.request, task_id))


def _submit(core: CoordinatorCore, schedule: Schedule, now: float, fx: Effects) -> str | None:
    task = task_from_row(tuple(msgspec.msgpack.decode(schedule.task)))
    queue = core.book.queues.get(task.queue)
    if queue is None or queue.pending >= queue.policy.max_pending:
        why = f"queue {task.queue!r} " + ("is gone" if queue is None else f"is full ({queue.pending} tasks)")
        core.count("schedule_skipped")
        fx.records.others.append(
            AuditSaved(now, f"schedule:{schedule.name}", "skip", schedule.name, f"no run: {why}")
        )
        return None
    core.counter += 1
    task.task_id = derived_task_id(now, core.epoch, core.counter, bucket_of(task.queue))
    task.origin = f"schedule:{schedule.name}"
    if task.deadline is not None:
        # A template's deadline is seconds from each run.
        task.deadline += now
    submission.accept(core, [task], {}, now, fx)
    core.count("scheduled")
    return task.task_id
