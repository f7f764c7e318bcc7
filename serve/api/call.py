"""The door of Python clients: the coordinator's own protocol over HTTP, so that they have the same verbs.

What carries code is not let in (P8), and each method has its role. People and other languages use the
routes beside this one, which say the same in JSON.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Path, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response

from omnimind.client.protocol import METHODS, ScheduleRequest, SubmitRequest, WatchRequest, encode
from omnimind.client.via_http import MEDIA_TYPE
from omnimind.errors import Forbidden, InvalidInput, NotFound
from omnimind.tokens import Role
from serve.api.common import errors
from serve.api.tasks import WAIT_MAX
from serve.auth import Viewer
from serve.backend import ask, forward

CALL_SECONDS = 30.0
"""How long a call may wait for a coordinator that is being restarted."""

router = APIRouter(prefix="/call", tags=["python client"])

_READS = (
    "hello", "ping", "status", "queues", "schedules", "schedule", "nodes", "node", "handlers", "usage",
    "metrics", "tasks", "list", "find", "attempts", "logs", "progress", "explain", "watch",
)  # fmt: skip
_WORK = ("submit", "cancel", "retry", "replay", "discard")
_CHANGES = (
    "audit", "check", "queue_set", "queue_remove", "schedule_set", "schedule_remove", "schedule_run",
    "schedule_pause", "schedule_resume", "node_control",
)  # fmt: skip
_TOKENS = ("tokens", "token_create", "token_revoke")

ROLES: dict[str, Role] = (
    dict.fromkeys(_READS, Role.VIEWER)
    | dict.fromkeys(_WORK, Role.SUBMITTER)
    | dict.fromkeys(_CHANGES, Role.OPERATOR)
    | dict.fromkeys(_TOKENS, Role.ADMIN)
)
CLOSED = frozenset(
    {"register", "blob_get", "blob_put", "shutdown", "tokens_used", "claim", "exists", "states"}
)
"""What nobody may do over HTTP: bring code in, take it out, end the coordinator, act as one of its parts."""


@router.post(
    "/{method}",
    operation_id="callMethod",
    responses={
        200: {"description": "The answer.", "content": {MEDIA_TYPE: {"schema": {"type": "string"}}}},
        **errors(404, 409, 410, 413, 415, 504, 507),
    },
    openapi_extra={
        "requestBody": {"required": True, "content": {MEDIA_TYPE: {"schema": {"type": "string"}}}}
    },
)
async def call(
    request: Request, who: Viewer, method: Annotated[str, Path(pattern="^[a-z_]{1,40}$")]
) -> Response:
    """Carry out a method of the coordinator's protocol, as Python clients call it (msgpack in and out)."""
    role = ROLES.get(method)
    if role is None:
        if method in CLOSED:
            hint = "run it inside the cluster; over HTTP a task names a registered task type"
            raise Forbidden(f"{method} is not for HTTP", hint=hint)
        raise NotFound(f"there is no method {method!r}")
    if who.role < role:
        raise Forbidden(f"{method} needs the role {role.label}; {who.name} has {who.role.label}")
    if request.headers.get("content-type", "").partition(";")[0].strip() != MEDIA_TYPE:
        raise HTTPException(415, f"the body is {MEDIA_TYPE}")
    try:
        body: Any = msgspec.msgpack.decode(await request.body(), type=METHODS[method])
    except (msgspec.MsgspecError, RecursionError) as error:
        raise InvalidInput(f"{method}: {error}", field="body") from None
    if method == "hello":
        return _raw(encode({"version": 1, "shards": 1, "via": "http"} | await ask(request, "ping")))
    _check(body)
    if hasattr(body, "actor"):
        body.actor = f"{who.actor} ({body.actor})" if body.actor else who.actor
    timeout = CALL_SECONDS
    if isinstance(body, WatchRequest):
        body.timeout = min(body.timeout, WAIT_MAX)
        timeout += body.timeout
    return _raw(await forward(request, method, body, timeout))


def _check(body: Any) -> None:
    """Let no pickle in: it is code."""
    submission = body.task if isinstance(body, ScheduleRequest) else body
    if isinstance(submission, SubmitRequest):
        if submission.encoding != "json":
            hint = "give None, bool, int, float, str, list and dict only, or submit inside the cluster"
            raise InvalidInput("over HTTP a payload is JSON", field="payload", hint=hint)
        for payload in submission.payloads:
            try:
                msgspec.json.decode(payload, type=msgspec.Raw)
            except msgspec.MsgspecError as error:
                raise InvalidInput(f"it is no JSON: {error}", field="payload") from None


def _raw(data: bytes) -> Response:
    return Response(data, media_type=MEDIA_TYPE)
