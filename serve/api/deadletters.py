"""Dead letters: tasks that were parked because they kept killing their workers."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, status
from starlette.responses import Response

from omnimind.client.protocol import IdsRequest, ListRequest
from serve import schemas as s
from serve.api.common import Limit, Plan, cursor_in, errors
from serve.api.tasks import Id, again, page_view
from serve.auth import Submitter, Viewer
from serve.backend import answer, ask

router = APIRouter(prefix="/deadletters", tags=["dead letters"])


@router.get("", operation_id="listDeadLetters", responses={200: {"model": s.TaskPage}, **errors()})
async def list_dead(
    request: Request,
    _who: Viewer,
    queue: s.Name | None = None,
    cursor: Annotated[str | None, Query(max_length=100)] = None,
    limit: Limit = 50,
) -> Response:
    """List parked tasks, newest first."""
    page = await ask(
        request, "list", ListRequest(status=["dead"], queue=queue, cursor=cursor_in(cursor), limit=limit)
    )
    return answer(page_view(page))


@router.post(
    "/{task_id}/replay",
    operation_id="replayDeadLetter",
    status_code=status.HTTP_201_CREATED,
    responses={200: {"model": s.NewTask}, 201: {"model": s.NewTask}, **errors(404, 409, 410, 507)},
)
async def replay(
    request: Request, who: Submitter, task_id: Id, body: s.Reason | None = None, plan: Plan = False
) -> Response:
    """Run a parked task again, as a new one."""
    return await again(request, "replay", task_id, who.actor, body, plan)


@router.post(
    "/{task_id}/discard",
    operation_id="discardDeadLetter",
    responses={200: {"model": s.TaskChange}, **errors(404, 409, 410)},
)
async def discard(
    request: Request, who: Submitter, task_id: Id, body: s.Reason | None = None, plan: Plan = False
) -> Response:
    """Take a parked task off the list; its record stays."""
    reason = body.reason if body else ""
    done = await ask(request, "discard", IdsRequest([task_id], plan=plan, actor=who.actor, reason=reason))
    return answer({"task_id": task_id, "outcome": done[task_id], "plan": plan})
