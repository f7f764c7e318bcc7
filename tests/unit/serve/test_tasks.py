"""Tasks over HTTP, against a coordinator in memory."""

from __future__ import annotations

import json
from typing import Any

import pytest

from omnimind import AsyncClient
from omnimind.errors import QueueFull
from omnimind.testing.fake import FakeCoordinator


@pytest.fixture
async def types(admin: Any) -> dict[str, str]:
    names = [h["task_type"] for h in await admin.get("/api/v1/handlers")]
    return {name.rpartition(".")[2]: name for name in names}


async def test_a_task_is_submitted_and_its_result_is_read(admin: Any, types: dict[str, str]) -> None:
    answer = await admin.ask(
        "POST", "/api/v1/tasks", 201, json={"type": types["add"], "payload": {"a": 20, "b": 22}}
    )
    task = answer.json()
    assert answer.headers["location"] == f"/api/v1/tasks/{task['task_id']}"
    end = await admin.get(f"/api/v1/tasks/{task['task_id']}/wait")
    assert (end["status"], end["result"]) == ("completed", 42)
    kept = await admin.get(f"/api/v1/tasks/{task['task_id']}")
    assert kept["payload"] == {"a": 20, "b": 22}
    assert kept["created_at"].endswith("Z")


async def test_the_same_key_is_the_same_task_and_another_payload_is_refused(
    admin: Any, types: dict[str, str]
) -> None:
    body = {"type": types["add"], "payload": {"a": 1, "b": 1}}
    key = {"Idempotency-Key": "k1"}
    first = await admin.post("/api/v1/tasks", body, 201, headers=key)
    again = await admin.post("/api/v1/tasks", body, 200, headers=key)
    assert again["task_id"] == first["task_id"]
    other = body | {"payload": {"a": 2, "b": 2}}
    assert (await admin.post("/api/v1/tasks", other, 409, headers=key))["code"] == "key_conflict"
    both = body | {"key": "k2"}
    assert (await admin.post("/api/v1/tasks", both, 400, headers=key))["errors"][0]["field"] == "key"


async def test_the_priority_and_queue_reach_the_coordinator(
    admin: Any, types: dict[str, str], coordinator: FakeCoordinator
) -> None:
    task = await admin.post(
        "/api/v1/tasks",
        {"type": types["add"], "payload": {"a": 1, "b": 2}, "priority": "critical", "retries": 7},
        201,
    )
    kept = coordinator.tasks[task["task_id"]]
    assert (kept.priority, kept.max_retries) == (1, 7)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"payload": {}}, "type"),
        ({"type": "x", "payload": [1]}, "payload"),
        ({"type": "x", "colour": 1}, "colour"),
        ({"type": "x", "timeout": -1}, "timeout"),
        ({"type": "x", "priority": 11}, "priority"),
        ({"type": "x", "after": ["nonsense"]}, "after.0"),
        ({"type": "x", "deadline": "yesterday"}, "deadline"),
        ({"type": "", "payload": {}}, "type"),
    ],
)
async def test_a_bad_body_names_its_field(admin: Any, body: dict[str, Any], field: str) -> None:
    problem = await admin.post("/api/v1/tasks", body, 422)
    assert any(e["field"].startswith(field) for e in problem["errors"]), problem


async def test_an_unknown_task_type_is_404_with_a_hint(admin: Any) -> None:
    problem = await admin.post("/api/v1/tasks", {"type": "no.such"}, 404)
    assert problem["code"] == "unknown_task_type"


async def test_a_pickle_is_never_read_here(admin: Any, om: AsyncClient) -> None:
    def shapes(value: object) -> object:
        return value

    handle = await om.submit(shapes, {1, 2})
    await handle.result(5)
    task = await admin.get(f"/api/v1/tasks/{handle.id}")
    assert (task["payload"], task["payload_encoding"]) == (None, "pickle")
    end = await admin.get(f"/api/v1/tasks/{handle.id}/wait")
    assert (end["result"], end["result_encoding"]) == (None, "pickle")


async def test_a_wait_that_ends_too_soon_says_so(admin: Any, types: dict[str, str], om: AsyncClient) -> None:
    om_coordinator = FakeCoordinator(run=False)
    from omnimind.testing.transport import FakeTransport  # a second one, whose tasks nobody runs

    async with AsyncClient(transport=FakeTransport(om_coordinator)) as idle:
        handle = await idle.submit(print, "x")
        app = admin.http._transport.app
        app.state.client = idle
        problem = await admin.get(f"/api/v1/tasks/{handle.id}/wait?timeout=0", 504)
        assert problem["code"] == "wait_timeout"


async def test_pages_follow_each_other_without_gap_or_double(admin: Any, types: dict[str, str]) -> None:
    made = [
        (await admin.post("/api/v1/tasks", {"type": types["add"], "payload": {"a": i, "b": 0}}, 201))[
            "task_id"
        ]
        for i in range(7)
    ]
    seen: list[str] = []
    path = "/api/v1/tasks?limit=3"
    while True:
        answer = await admin.ask("GET", path)
        page = answer.json()
        seen += [t["task_id"] for t in page["items"]]
        assert all("payload" not in t for t in page["items"])
        if page["next_cursor"] is None:
            break
        path = answer.headers["link"].partition(">")[0].removeprefix("<")
    assert [i for i in seen if i in made] == made[::-1]
    assert len(seen) == len(set(seen))


@pytest.mark.parametrize("cursor", ["x", "czE", "c2F", "c-3", "%00"])
async def test_a_cursor_that_is_none_is_refused_or_read(admin: Any, cursor: str) -> None:
    answer = await admin.http.get(f"/api/v1/tasks?cursor={cursor}", headers=admin.headers)
    assert answer.status_code in {200, 400}


async def test_cancel_retry_and_explain(admin: Any, types: dict[str, str]) -> None:
    task = await admin.post("/api/v1/tasks", {"type": types["fail"], "retries": 0}, 201)
    path = f"/api/v1/tasks/{task['task_id']}"
    assert (await admin.get(f"{path}/wait"))["error"]["message"] == "as planned"
    assert (await admin.post(f"{path}/cancel"))["outcome"] == "failed"
    plan = await admin.post(f"{path}/retry?plan=true")
    assert plan["new_task_id"] is None
    again = await admin.post(f"{path}/retry", {"reason": "try"}, 201)
    assert again["new_task_id"] != task["task_id"]
    assert (await admin.get(f"{path}/explain"))["kind"] == "task"
    assert isinstance(await admin.get(f"{path}/attempts"), list)
    assert (await admin.get(f"{path}/logs")) == []


async def test_who_did_it_stands_in_the_audit(admin: Any, web: Any, types: dict[str, str]) -> None:
    task = await web("submitter").post(
        "/api/v1/tasks", {"type": types["add"], "payload": {"a": 1, "b": 2}}, 201
    )
    await web("submitter").post(f"/api/v1/tasks/{task['task_id']}/cancel", {"reason": "a mistake"})
    audit = await admin.get("/api/v1/audit")
    [entry] = [e for e in audit if e["verb"] == "task.cancel"]
    assert entry["actor"] == "http:the-submitter"


def _ndjson(lines: list[Any]) -> bytes:
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


async def _batch(admin: Any, content: Any, status: int = 200) -> Any:
    answer = await admin.ask(
        "POST",
        "/api/v1/tasks/batch",
        status,
        content=content,
        headers={"Content-Type": "application/x-ndjson"},
    )
    return [json.loads(line) for line in answer.text.splitlines()] if status == 200 else answer.json()


async def test_a_batch_answers_each_line_in_order(
    admin: Any, types: dict[str, str], coordinator: FakeCoordinator
) -> None:
    lines: list[Any] = [{"type": types["add"], "payload": {"a": i, "b": 0}} for i in range(1200)]
    lines[5] = {"type": "no.such"}
    lines[700] = {"type": types["add"], "colour": 1}
    lines[900]["priority"] = "high"
    answers = await _batch(admin, _ndjson(lines))
    assert [a["index"] for a in answers] == list(range(1200))
    assert [a["index"] for a in answers if "problem" in a] == [5, 700]
    for index in (0, 511, 512, 899, 900, 1199):
        task = coordinator.tasks[answers[index]["task_id"]]
        assert json.loads(task.payload)["a"] == index
    assert coordinator.tasks[answers[900]["task_id"]].priority < 5


async def test_one_bad_key_in_a_batch_does_not_take_the_others_along(
    admin: Any, types: dict[str, str]
) -> None:
    await admin.post("/api/v1/tasks", {"type": types["add"], "payload": {"a": 0, "b": 0}, "key": "k"}, 201)
    lines = [{"type": types["add"], "payload": {"a": i, "b": 1}, "key": f"k{i or ''}"} for i in range(4)]
    answers = await _batch(admin, _ndjson(lines))
    assert [a.get("problem", {}).get("code") for a in answers] == ["key_conflict", None, None, None]
    again = await _batch(admin, _ndjson(lines[1:]))
    assert all(a["existing"] for a in again)
    assert [a["task_id"] for a in again] == [a["task_id"] for a in answers[1:]]


async def test_a_batch_with_broken_lines(admin: Any, types: dict[str, str]) -> None:
    good = json.dumps({"type": types["add"], "payload": {"a": 1, "b": 2}}).encode()
    content = b"\n" + good + b"\n{nonsense\n\xff\xfe\n" + b"x" * 400_000 + b"\n" + good
    answers = await _batch(admin, content)
    assert ["problem" in a for a in answers] == [False, True, True, True, False]
    assert answers[3]["problem"]["code"] == "payload_too_large"


async def test_a_batch_of_another_kind_is_415(admin: Any) -> None:
    answer = await admin.ask("POST", "/api/v1/tasks/batch", 415, json=[])
    assert answer.json()["code"] == "unsupported_media_type"


async def test_a_full_queue_is_429_with_retry_after(admin: Any, types: dict[str, str]) -> None:
    client = admin.http._transport.app.state.client

    async def full(_method: str, _request: Any = None) -> Any:
        raise QueueFull("queue default is full", retry_after=2.5)

    client.ask = full
    answer = await admin.ask("POST", "/api/v1/tasks", 429, json={"type": types["add"]})
    assert answer.headers["retry-after"] == "3"
    assert answer.json()["retryable"]
