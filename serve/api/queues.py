"""Queues: named lines of tasks with a weight and limits."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Path, Request
from starlette.responses import Response

from omnimind.client.protocol import NameRequest, QueueRequest
from omnimind.cluster.policies import QueuePolicy
from omnimind.errors import InvalidInput, UnknownQueue
from serve import schemas as s
from serve.api.common import Plan, errors
from serve.auth import Operator, Viewer
from serve.backend import answer, ask
from serve.views import queue_view

router = APIRouter(prefix="/queues", tags=["queues"])

Name = Annotated[s.Name, Path(alias="name")]
_POLICY = QueuePolicy.__struct_fields__


async def _all(request: Request) -> dict[str, dict[str, Any]]:
    return {queue["name"]: queue for queue in await ask(request, "queues")}


@router.get("", operation_id="listQueues", responses={200: {"model": list[s.Queue]}, **errors()})
async def list_queues(request: Request, _who: Viewer) -> Response:
    """Return all queues, with their limits and how many tasks stand in them."""
    return answer([queue_view(queue) for queue in (await _all(request)).values()])


@router.get("/{name}", operation_id="getQueue", responses={200: {"model": s.Queue}, **errors(404)})
async def get(request: Request, _who: Viewer, name: Name) -> Response:
    """Return one queue."""
    found = (await _all(request)).get(name)
    if found is None:
        raise UnknownQueue(f"there is no queue {name!r}", field="name")
    return answer(queue_view(found))


@router.put("/{name}", operation_id="setQueue", responses={200: {"model": s.Queue}, **errors(409, 507)})
async def put(
    request: Request, who: Operator, name: Name, body: s.QueuePolicy, plan: Plan = False
) -> Response:
    """Create a queue, or change what is given of it and leave the rest."""
    now = (await _all(request)).get(name, {"name": name})
    given = body.model_dump(exclude_unset=True)
    wanted = {key: value for key, value in {**now, **given}.items() if key in _POLICY}
    try:
        policy = msgspec.convert(wanted, QueuePolicy)
    except msgspec.ValidationError as error:
        raise InvalidInput(str(error), field="queue") from None
    return answer(
        queue_view(await ask(request, "queue_set", QueueRequest(policy, plan=plan, actor=who.actor)))
    )


@router.delete(
    "/{name}", operation_id="removeQueue", responses={200: {"model": s.Queue}, **errors(404, 409, 507)}
)
async def remove(request: Request, who: Operator, name: Name, plan: Plan = False) -> Response:
    """Remove an empty queue, and return what it was."""
    removed = await ask(request, "queue_remove", NameRequest(name=name, plan=plan, actor=who.actor))
    return answer(queue_view(removed))
