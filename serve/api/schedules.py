"""Schedules: submissions that recur by cron expression or interval."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Request, status
from starlette.responses import Response

from omnimind.client.protocol import NameRequest, ScheduleRequest
from omnimind.errors import InvalidInput
from serve import schemas as s
from serve.api.common import Plan, errors
from serve.api.tasks import submission
from serve.auth import Operator, Viewer
from serve.backend import answer, ask
from serve.views import schedule_view

router = APIRouter(prefix="/schedules", tags=["schedules"])

Name = Annotated[s.Name, Path(alias="name")]
_FOR_ONE_RUN = ("key", "not_before", "delay", "deadline", "after")


@router.get("", operation_id="listSchedules", responses={200: {"model": list[s.Schedule]}, **errors()})
async def list_schedules(request: Request, _who: Viewer) -> Response:
    """Return all schedules."""
    return answer([schedule_view(schedule) for schedule in await ask(request, "schedules")])


@router.get("/{name}", operation_id="getSchedule", responses={200: {"model": s.Schedule}, **errors(404)})
async def get(request: Request, _who: Viewer, name: Name) -> Response:
    """Return one schedule."""
    return answer(schedule_view(await ask(request, "schedule", NameRequest(name=name))))


@router.put("/{name}", operation_id="setSchedule", responses={200: {"model": s.Schedule}, **errors(404, 507)})
async def put(
    request: Request, who: Operator, name: Name, body: s.ScheduleIn, plan: Plan = False
) -> Response:
    """Create or replace a schedule. Runs that were missed are made up for by one."""
    if (body.cron is None) == (body.interval is None):
        raise InvalidInput("give a cron expression or an interval, one of them", field="cron")
    for field in _FOR_ONE_RUN:
        if field in body.task.model_fields_set:
            raise InvalidInput("it makes no sense for runs that recur", field=f"task.{field}")
    wanted = ScheduleRequest(
        name,
        submission(body.task, who.actor, slab=""),
        cron=body.cron,
        interval=body.interval,
        timezone=body.timezone,
        paused=body.paused,
        plan=plan,
        actor=who.actor,
    )
    return answer(schedule_view(await ask(request, "schedule_set", wanted)))


@router.post(
    "/{name}/run",
    operation_id="runSchedule",
    status_code=status.HTTP_201_CREATED,
    responses={201: {"model": dict[str, str]}, **errors(404, 507)},
)
async def run(request: Request, who: Operator, name: Name) -> Response:
    """Submit its task once, now."""
    done = await ask(request, "schedule_run", NameRequest(name=name, actor=who.actor))
    return answer(done, 201, {"Location": f"/api/v1/tasks/{done['task_id']}"})


@router.post(
    "/{name}/pause", operation_id="pauseSchedule", responses={200: {"model": s.Schedule}, **errors(404, 507)}
)
async def pause(request: Request, who: Operator, name: Name, plan: Plan = False) -> Response:
    """Submit nothing until it is resumed."""
    return await _change(request, "schedule_pause", name, who.actor, plan)


@router.post(
    "/{name}/resume",
    operation_id="resumeSchedule",
    responses={200: {"model": s.Schedule}, **errors(404, 507)},
)
async def resume(request: Request, who: Operator, name: Name, plan: Plan = False) -> Response:
    """Submit again at its times."""
    return await _change(request, "schedule_resume", name, who.actor, plan)


@router.delete(
    "/{name}", operation_id="removeSchedule", responses={200: {"model": s.Schedule}, **errors(404, 507)}
)
async def remove(request: Request, who: Operator, name: Name, plan: Plan = False) -> Response:
    """Remove a schedule, and return what it was."""
    return await _change(request, "schedule_remove", name, who.actor, plan)


async def _change(request: Request, method: str, name: str, actor: str, plan: bool) -> Response:
    changed = await ask(request, method, NameRequest(name=name, plan=plan, actor=actor))
    return answer(schedule_view(changed))
