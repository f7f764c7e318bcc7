"""Tasks: submit, list, look, wait, cancel, retry, explain."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Header, Path, Query, Request, status
from starlette.exceptions import HTTPException
from starlette.responses import Response

from omnimind import ids
from omnimind.client.options import request_fields
from omnimind.client.protocol import (
    IdsRequest,
    ListRequest,
    LogsRequest,
    NameRequest,
    SubmitRequest,
    WatchRequest,
)
from omnimind.cluster.sharding import bucket_of
from omnimind.errors import InvalidInput, NotFound, WaitTimeout
from serve import schemas as s
from serve.api.common import Limit, Plan, cursor_in, cursor_out, errors
from serve.auth import Submitter, Viewer
from serve.backend import answer, ask
from serve.streams import Answer, Batch
from serve.views import explain_view, json_value, rfc3339, summary_view, task_view, with_times

router = APIRouter(prefix="/tasks", tags=["tasks"])

WAIT_MAX = 60.0
NDJSON = "application/x-ndjson"

Id = Annotated[s.TaskId, Path()]


def submission(
    body: s.Submission, actor: str, key: str | None = None, slab: str | None = None
) -> SubmitRequest:
    """Return a body as the coordinator takes it. Raises InvalidInput."""
    wanted = key if key is not None else body.key
    if key is not None and body.key is not None and key != body.key:
        raise InvalidInput("the header and the body give different keys", field="key")
    options: dict[str, Any] = {
        "priority": body.priority,
        "queue": body.queue,
        "needs": body.needs,
        "retries": body.retries,
        "timeout": body.timeout,
        "delay": body.delay,
        "not_before": body.not_before,
        "deadline": body.deadline,
        "after": body.after or None,
        "at_most_once": body.at_most_once,
    }
    return SubmitRequest(
        slab=ids.new_slab(bucket_of(body.queue) if body.queue else None) if slab is None else slab,
        task_type=body.type,
        payloads=[msgspec.json.encode(body.payload)],
        keys=None if wanted is None else [wanted],
        actor=actor,
        **request_fields(options),
    )


def page_view(page: dict[str, Any]) -> dict[str, Any]:
    """Return a page of the coordinator's as lists show it."""
    return {
        "items": [summary_view(task) for task in page["items"]],
        "next_cursor": cursor_out(page["next"]),
        "truncated_before": rfc3339(page["truncated_before"]),
    }


async def _task(request: Request, name: str) -> dict[str, Any]:
    found = await ask(request, "tasks", IdsRequest(ids=[name]))
    if not found:
        raise NotFound(f"there is no task {name}")
    return task_view(found[0])


@router.post(
    "",
    operation_id="submitTask",
    status_code=status.HTTP_201_CREATED,
    responses={
        200: {"model": s.Task, "description": "The task that stood under this key already."},
        201: {"model": s.Task, "description": "It is on disk."},
        **errors(404, 409, 413, 507),
    },
)
async def submit(
    request: Request,
    who: Submitter,
    body: s.Submission,
    idempotency_key: Annotated[str | None, Header(min_length=1, max_length=1024)] = None,
) -> Response:
    """Submit one task. It is answered when the task is on disk.

    The same key with the same payload returns the same task, however often it is sent, for as long as the
    task's record is kept (7 days by default), also when the task has failed: a new run wants a new key, or
    `retry`. The same key with another payload is refused with 409.
    """
    wanted = submission(body, who.actor, idempotency_key)
    done = await ask(request, "submit", wanted)
    existing = done["existing"].get(0)
    name = existing or ids.task_id(wanted.slab)
    location = f"{request.url.path.rstrip('/')}/{name}"
    return answer(await _task(request, name), 200 if existing else 201, {"Location": location})


@router.post(
    "/batch",
    operation_id="submitTasks",
    responses={
        200: {
            "description": "One line for each line, in order: `task_id`, or a `problem`.",
            "content": {NDJSON: {"schema": {"type": "string"}}},
        },
        **errors(413, 415),
    },
    openapi_extra={
        "requestBody": {
            "required": True,
            "description": "One submission a line, as POST /tasks takes it.",
            "content": {NDJSON: {"schema": {"type": "string"}}},
        }
    },
)
async def submit_many(request: Request, who: Submitter) -> Response:
    """Submit many tasks: NDJSON in, NDJSON out, while the body still comes.

    A line's answer means that its task is on disk. A line that is refused does not hold up the others.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != NDJSON:
        raise HTTPException(415, f"the body is {NDJSON}: one JSON object a line")
    batch = Batch(
        lambda body: submission(body, who.actor),
        lambda wanted: ask(request, "submit", wanted),
    )
    return Answer(batch.run(request.stream()), media_type=NDJSON)


@router.get("", operation_id="listTasks", responses={200: {"model": s.TaskPage}, **errors()})
async def list_tasks(  # noqa: PLR0913, PLR0917 (each is a query parameter)
    request: Request,
    _who: Viewer,
    task_status: Annotated[list[s.Status] | None, Query(alias="status")] = None,
    queue: s.Name | None = None,
    task_type: Annotated[s.Name | None, Query(alias="type")] = None,
    node: s.Name | None = None,
    since: Annotated[datetime | None, Query(description="Submitted at or after.")] = None,
    until: Annotated[datetime | None, Query(description="Submitted before.")] = None,
    cursor: Annotated[str | None, Query(max_length=100)] = None,
    limit: Limit = 50,
) -> Response:
    """List tasks, newest first, without payloads and results."""
    wanted = ListRequest(
        status=list(task_status) if task_status else None,
        queue=queue,
        task_type=task_type,
        node=node,
        since=since.timestamp() if since else None,
        until=until.timestamp() if until else None,
        cursor=cursor_in(cursor),
        limit=limit,
    )
    page = await ask(request, "list", wanted)
    following = cursor_out(page["next"])
    headers = {}
    if following:
        url = request.url.include_query_params(cursor=following)
        headers["Link"] = f'<{url.path}?{url.query}>; rel="next"'
    return answer(page_view(page), headers=headers)


@router.get("/{task_id}", operation_id="getTask", responses={200: {"model": s.Task}, **errors(404, 410)})
async def get(request: Request, _who: Viewer, task_id: Id) -> Response:
    """Return all that is kept of a task."""
    return answer(await _task(request, task_id))


@router.get(
    "/{task_id}/wait",
    operation_id="waitForTask",
    responses={200: {"model": s.TaskEnd}, **errors(404, 410, 504)},
)
async def wait(
    request: Request,
    _who: Viewer,
    task_id: Id,
    timeout: Annotated[float, Query(ge=0, le=WAIT_MAX, description="Seconds.")] = 30.0,
) -> Response:
    """Wait until a task has ended and return how. 504 when it has not within `timeout`: ask again."""
    until = time.monotonic() + timeout
    while True:
        left = until - time.monotonic()
        found = await ask(request, "watch", WatchRequest(ids=[task_id], timeout=max(0.0, left)))
        if found["results"]:
            _, ended, value, tag, error, cause = found["results"][0]
            result = json_value(value, tag)
            return answer(
                {
                    "task_id": task_id,
                    "status": ended,
                    "result": result,
                    "result_encoding": tag,
                    "error": error,
                    "cause": cause,
                }
            )
        if left <= 0:
            raise WaitTimeout(f"task {task_id} has not ended within {timeout:g} s", hint="ask again")


@router.post(
    "/{task_id}/cancel",
    operation_id="cancelTask",
    responses={200: {"model": s.TaskChange}, **errors(404, 410)},
)
async def cancel(
    request: Request, who: Submitter, task_id: Id, body: s.Reason | None = None, plan: Plan = False
) -> Response:
    """End a task: `cancelled` when it was waiting, `cancelling` when it runs and was asked to stop."""
    reason = body.reason if body else ""
    done = await ask(request, "cancel", IdsRequest([task_id], plan=plan, actor=who.actor, reason=reason))
    return answer({"task_id": task_id, "outcome": done[task_id], "plan": plan})


@router.post(
    "/{task_id}/retry",
    operation_id="retryTask",
    status_code=status.HTTP_201_CREATED,
    responses={200: {"model": s.NewTask}, 201: {"model": s.NewTask}, **errors(404, 409, 410, 507)},
)
async def retry(
    request: Request, who: Submitter, task_id: Id, body: s.Reason | None = None, plan: Plan = False
) -> Response:
    """Submit a task that has ended again, as a new one."""
    return await again(request, "retry", task_id, who.actor, body, plan)


async def again(
    request: Request, method: str, task_id: str, actor: str, body: s.Reason | None, plan: bool
) -> Response:
    """Retry or replay; answer with the new task's id."""
    reason = body.reason if body else ""
    done = await ask(request, method, IdsRequest([task_id], plan=plan, actor=actor, reason=reason))
    value = {"task_id": task_id, "new_task_id": done[task_id] or None, "plan": plan}
    headers = {} if plan else {"Location": f"/api/v1/tasks/{done[task_id]}"}
    return answer(value, 200 if plan else 201, headers)


@router.get(
    "/{task_id}/explain",
    operation_id="explainTask",
    responses={200: {"model": s.Explanation}, **errors(404, 410)},
)
async def explain(request: Request, _who: Viewer, task_id: Id) -> Response:
    """Say why a task is where it is."""
    return answer(explain_view(await ask(request, "explain", NameRequest(name=task_id))))


@router.get(
    "/{task_id}/attempts",
    operation_id="listAttempts",
    responses={200: {"model": list[s.Attempt]}, **errors(404, 410)},
)
async def attempts(request: Request, _who: Viewer, task_id: Id) -> Response:
    """Return the attempts that did not succeed, oldest first."""
    found = await ask(request, "attempts", NameRequest(name=task_id))
    times = ("started_at", "ended_at", "at")
    return answer([with_times(attempt, times) for attempt in found])


@router.get(
    "/{task_id}/progress",
    operation_id="getProgress",
    responses={200: {"model": s.Progress}, **errors(404, 410)},
)
async def progress(request: Request, _who: Viewer, task_id: Id) -> Response:
    """Return the handler's last word on its progress."""
    return answer(with_times(await ask(request, "progress", NameRequest(name=task_id)), ("at",)))


@router.get(
    "/{task_id}/logs",
    operation_id="listLogs",
    responses={200: {"model": list[s.LogEntry]}, **errors(404, 410)},
)
async def logs(
    request: Request,
    _who: Viewer,
    task_id: Id,
    after: Annotated[int, Query(ge=0, lt=1 << 63, description="Lines beyond this number.")] = 0,
    limit: Limit = 500,
) -> Response:
    """Return lines that the handler logged."""
    found = await ask(request, "logs", LogsRequest(task_id=task_id, after=after, limit=limit))
    names = ("number", "at", "level", "text")
    return answer([with_times(dict(zip(names, line, strict=True)), ("at",)) for line in found])
