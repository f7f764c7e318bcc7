"""Who may do what, by a table of every route; sessions, failed tries, limits of a request."""

from __future__ import annotations

import re
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from omnimind.tokens import Role, Token, digest_of, new_secret
from serve.auth import FAILURES, Failures, Sessions

ID = "tsk_" + "0" * 32

# Every route of /api and the least role that it needs. A route that is not here fails the test below.
ROLES = """
viewer     GET /tasks
submitter  POST /tasks
submitter  POST /tasks/batch
viewer     GET /tasks/{task_id}
viewer     GET /tasks/{task_id}/wait
submitter  POST /tasks/{task_id}/cancel
submitter  POST /tasks/{task_id}/retry
viewer     GET /tasks/{task_id}/explain
viewer     GET /tasks/{task_id}/attempts
viewer     GET /tasks/{task_id}/progress
viewer     GET /tasks/{task_id}/logs
viewer     GET /deadletters
submitter  POST /deadletters/{task_id}/replay
submitter  POST /deadletters/{task_id}/discard
viewer     GET /queues
viewer     GET /queues/{name}
operator   PUT /queues/{name}
operator   DELETE /queues/{name}
viewer     GET /schedules
viewer     GET /schedules/{name}
operator   PUT /schedules/{name}
operator   POST /schedules/{name}/run
operator   POST /schedules/{name}/pause
operator   POST /schedules/{name}/resume
operator   DELETE /schedules/{name}
viewer     GET /nodes
viewer     GET /nodes/{node_id}
viewer     GET /nodes/{node_id}/explain
operator   POST /nodes/{node_id}/cordon
operator   POST /nodes/{node_id}/drain
operator   POST /nodes/{node_id}/uncordon
viewer     GET /cluster/status
viewer     GET /handlers
operator   GET /audit
admin      GET /tokens
admin      POST /tokens
admin      DELETE /tokens/{token_id}
viewer     POST /call/{method}
viewer     POST /session
viewer     GET /session
viewer     DELETE /session
"""
TABLE = [tuple(line.split()) for line in ROLES.strip().splitlines()]


def _routes(app: FastAPI) -> set[tuple[str, str]]:
    paths = app.openapi()["paths"]
    found = {(m.upper(), p.removeprefix("/api/v1")) for p, ms in paths.items() for m in ms}
    return {(m, p) for m, p in found if p not in {"/healthz", "/readyz"}}


def test_the_table_names_every_route(app: FastAPI) -> None:
    assert {(method, path) for _, method, path in TABLE} == _routes(app)


@pytest.mark.parametrize(("role", "method", "path"), TABLE)
async def test_a_route_needs_its_role(
    web: Any, http: httpx.AsyncClient, role: str, method: str, path: str
) -> None:
    url = "/api/v1" + re.sub(r"\{.*?\}", lambda m: ID if m[0] == "{task_id}" else "x", path)
    assert (await http.request(method, url)).status_code == 401
    wrong = await http.request(method, url, headers={"Authorization": "Bearer nobody"})
    assert wrong.status_code == 401
    assert "www-authenticate" in wrong.headers
    for other in Role:
        answer = await http.request(method, url, headers=web(other.label).headers)
        if other < Role[role.upper()]:
            assert answer.status_code == 403, (other, answer.text)
            assert answer.json()["code"] == "forbidden"
        else:
            assert answer.status_code not in {401, 403, 500}, (other, answer.text)


async def test_probes_need_no_token_and_tell_nothing(http: httpx.AsyncClient) -> None:
    assert (await http.get("/healthz")).json() == {"status": "ok"}
    assert (await http.get("/readyz")).json() == {"status": "ok"}


async def test_not_ready_without_a_coordinator(
    http: httpx.AsyncClient, app: FastAPI, coordinator: Any
) -> None:
    await app.state.client.close()
    answer = await http.get("/readyz")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    refused = await http.get("/api/v1/tasks", headers={"Authorization": "Bearer viewer"})
    assert (refused.status_code, refused.json()["code"]) == (503, "unavailable")
    assert refused.headers["retry-after"] == "1"


# ------------------------------------------------------------------------------------------ sessions


async def _sign_in(http: httpx.AsyncClient, role: str) -> tuple[httpx.Response, str]:
    answer = await http.post("/api/v1/session", headers={"Authorization": f"Bearer {role}"})
    assert answer.status_code == 201
    return answer, answer.json()["csrf"]


async def test_a_session_reads_and_changes_only_with_its_header(http: httpx.AsyncClient) -> None:
    answer, csrf = await _sign_in(http, "operator")
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert (await http.get("/api/v1/queues")).status_code == 200
    refused = await http.put("/api/v1/queues/q", json={})
    assert refused.status_code == 403
    wrong = await http.put("/api/v1/queues/q", json={}, headers={"X-Omnimind-Csrf": "x" * 64})
    assert wrong.status_code == 403
    allowed = await http.put("/api/v1/queues/q", json={}, headers={"X-Omnimind-Csrf": csrf})
    assert allowed.status_code == 200
    assert (await http.get("/api/v1/session")).json()["csrf"] == csrf


async def test_a_session_ends_with_its_token(http: httpx.AsyncClient, book: Any) -> None:
    await _sign_in(http, "operator")
    del book.known[digest_of("operator")]
    assert (await http.get("/api/v1/queues")).status_code == 401


async def test_a_cookie_is_no_token(http: httpx.AsyncClient) -> None:
    answer, _ = await _sign_in(http, "admin")
    digest = answer.cookies["omnimind_session"].split(".")[1]
    http.cookies.clear()
    for stolen in (digest, answer.cookies["omnimind_session"]):
        refused = await http.get("/api/v1/queues", headers={"Authorization": f"Bearer {stolen}"})
        assert refused.status_code == 401


def test_a_session_cookie_is_ours_and_has_an_end() -> None:
    now = [1000.0]
    sessions = Sessions(b"key", lambda: now[0])
    cookie = sessions.seal("d" * 64)
    assert sessions.open(cookie) == "d" * 64
    expires, digest, sign = cookie.split(".")
    assert sessions.open(f"{int(expires) + 9999}.{digest}.{sign}") is None
    assert sessions.open(f"{expires}.{'e' * 64}.{sign}") is None
    assert Sessions(b"other", lambda: now[0]).open(cookie) is None
    assert sessions.open("") is None
    now[0] += 13 * 3600
    assert sessions.open(cookie) is None


# -------------------------------------------------------------------------------------- failed tries


async def test_too_many_wrong_tokens_lock_an_address_out(http: httpx.AsyncClient) -> None:
    for _ in range(FAILURES):
        answer = await http.get("/api/v1/tasks", headers={"Authorization": "Bearer guess"})
        assert answer.status_code == 401
    answer = await http.get("/api/v1/tasks", headers={"Authorization": "Bearer admin"})
    assert answer.status_code == 429
    assert int(answer.headers["retry-after"]) > 0
    assert answer.json()["retryable"]


def test_failures_are_forgotten_and_bounded() -> None:
    now = [0.0]
    failures = Failures(lambda: now[0])
    for _ in range(FAILURES):
        failures.failed("a")
    assert failures.wait("a") > 0
    assert failures.wait("b") == 0
    now[0] = 61.0
    assert failures.wait("a") == 0
    for number in range(20_000):
        failures.failed(str(number))
    assert len(failures._seen) <= 10_000


def test_tokens_are_kept_as_hashes() -> None:
    secret = new_secret()
    assert len(secret) > 40
    assert new_secret() != secret
    token = Token("tok_1", "ci", Role.SUBMITTER, digest_of(secret), expires_at=10.0)
    assert digest_of(secret) == token.digest
    assert token.digest not in str(token.view())
    assert token.valid(9.0)
    assert not token.valid(10.0)
    assert secret not in repr(token)


# ------------------------------------------------------------------------------- limits of a request


async def test_a_body_that_is_too_large_is_refused_before_it_is_read(admin: Any) -> None:
    answer = await admin.ask(
        "POST", "/api/v1/tasks", 413, content=b"x", headers={"Content-Length": "99999999"}
    )
    assert answer.json()["code"] == "body_too_large"


async def test_a_body_that_grows_too_large_is_cut_off(admin: Any) -> None:
    read = 0

    async def endless() -> Any:
        nonlocal read
        for _ in range(1000):
            read += 1
            yield b"x" * (1 << 20)

    await admin.ask(
        "POST", "/api/v1/tasks", 413, content=endless(), headers={"Content-Type": "application/json"}
    )
    assert read < 20


async def test_headers_that_protect_are_on_every_answer(http: httpx.AsyncClient) -> None:
    for path in ("/healthz", "/api/v1/tasks", "/nowhere"):
        answer = await http.get(path)
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"


async def test_no_other_site_may_read_by_default(http: httpx.AsyncClient) -> None:
    answer = await http.get("/healthz", headers={"Origin": "https://evil.example"})
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("path", ["/api/v1/tasks/../../etc/passwd", "/..%2f..%2fetc/passwd", "/nope"])
async def test_unknown_paths_are_problems(admin: Any, path: str) -> None:
    assert (await admin.get(path, 404))["code"] == "no_such_route"


async def test_a_fault_of_ours_is_a_problem_without_its_secrets(admin: Any, app: FastAPI) -> None:
    async def broken(*_: Any) -> Any:
        raise RuntimeError("password=hunter2")

    app.state.client.ask = broken
    answer = await admin.ask("GET", "/api/v1/tasks", 500)
    assert "hunter2" not in answer.text
    assert answer.headers["x-content-type-options"] == "nosniff"
