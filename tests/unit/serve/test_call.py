"""Python clients over HTTP: the same verbs, on a real server on loopback; no code goes this way."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI

from omnimind import AsyncClient
from omnimind.client.protocol import IdsRequest, encode
from omnimind.client.via_http import MEDIA_TYPE, HttpTransport
from omnimind.errors import Forbidden, InvalidInput, NotFound, QueueFull, Unavailable
from omnimind.testing.fake import FakeCoordinator
from omnimind.tokens import Role
from serve.api.call import CLOSED, ROLES


@pytest.fixture
async def url(app: FastAPI) -> AsyncIterator[str]:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
        running = asyncio.create_task(server.serve([listening]))
        while not server.started:  # noqa: ASYNC110 (a few looks)
            await asyncio.sleep(0.01)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        server.should_exit = True
        await running


@pytest.fixture
async def far(url: str) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(transport=HttpTransport(url, "submitter", patience=5), timeout=5) as client:
        yield client


@pytest.fixture
async def add(om: AsyncClient) -> str:
    names = [h["task_type"] for h in await om.list_handlers()]
    return next(str(name) for name in names if name.endswith("add"))


async def test_the_verbs_are_the_same(far: AsyncClient, add: str, coordinator: FakeCoordinator) -> None:
    handle = await far.submit(add, a=20, b=22, key="k")
    assert await handle.result(5) == 42
    assert (await far.submit(add, a=20, b=22, key="k")).id == handle.id
    found = [r async for r in far.map(add, [{"a": i, "b": 0} for i in range(1000)], ordered=True)]
    assert found == list(range(1000))
    assert (await far.task(handle))["payload"] == {"a": 20, "b": 22}
    assert await far.cancel(handle) == "completed"
    assert [t["task_id"] async for t in far.list(limit=1)]
    actors = [call.actor for method, call in coordinator.calls if method == "submit"]
    assert actors[-1].startswith("http:the-submitter (python:")


async def test_a_function_and_a_pickle_are_refused_with_what_to_do(far: AsyncClient, add: str) -> None:
    with pytest.raises(Forbidden, match="inside the cluster"):
        _ = await far.submit(len, "abc")
    with pytest.raises(InvalidInput, match="JSON"):
        _ = await far.submit(add, a={1}, b=2)


async def test_errors_are_the_coordinators_own(
    far: AsyncClient, coordinator: FakeCoordinator, add: str
) -> None:
    with pytest.raises(NotFound):
        await far.task("tsk_" + "0" * 32)
    coordinator.faults["submit"] = [QueueFull("full", retry_after=0.1)]
    with pytest.raises(QueueFull, match="full"):
        _ = await far.submit(add, a=1, b=2)


async def test_roles_hold(url: str, add: str) -> None:
    async with AsyncClient(transport=HttpTransport(url, "viewer"), timeout=5) as viewer:
        assert (await viewer.cluster_status())["total_nodes"] == 1
        with pytest.raises(Forbidden, match="submitter"):
            _ = await viewer.submit(add, a=1, b=2)
        with pytest.raises(Forbidden, match="operator"):
            await viewer.queues.set("mail")


async def test_a_wrong_token_says_how_to_get_one(url: str) -> None:
    with pytest.raises(Forbidden, match="omnimind token create"):
        async with AsyncClient(address=url, token="wrong", timeout=5):
            pass


async def test_nobody_there_and_somebody_else_there(url: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    transport = HttpTransport(f"http://127.0.0.1:{port}", "x", patience=0.3)
    with pytest.raises(Unavailable, match="nobody answers"):
        await transport.connect()
    await transport.close()


async def test_a_call_waits_for_a_coordinator_that_is_away_for_a_moment(
    far: AsyncClient, coordinator: FakeCoordinator
) -> None:
    coordinator.faults["status"] = [Unavailable("away"), Unavailable("away")]
    assert (await far.cluster_status())["total_nodes"] == 1


async def test_what_may_not_be_done_twice_is_not_sent_again() -> None:
    came: list[bytes] = []

    def hang_up(listening: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listening.accept()
                with connection:
                    came.append(connection.recv(100))

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=hang_up, args=(listening,), daemon=True)
        thread.start()
        transport = HttpTransport(f"http://127.0.0.1:{listening.getsockname()[1]}", "x", patience=1)
        with pytest.raises(Unavailable, match="look before you repeat"):
            await transport.call("retry", b"")
        assert len(came) == 1
        with pytest.raises(Unavailable):
            await transport.call("status", b"")
        assert len(came) > 2, "a read is tried again"
        await transport.close()
        listening.shutdown(socket.SHUT_RDWR)
    await asyncio.to_thread(thread.join, 10)


@pytest.mark.parametrize("method", sorted(CLOSED))
async def test_the_closed_methods_are_closed_to_admins_too(
    web: Any, method: str, coordinator: FakeCoordinator
) -> None:
    before = len(coordinator.calls)
    headers = {"Content-Type": MEDIA_TYPE}
    problem = await web("admin").ask("POST", f"/api/v1/call/{method}", 403, content=b"\x80", headers=headers)
    assert problem.json()["code"] == "forbidden"
    assert len(coordinator.calls) == before


def test_every_method_of_the_protocol_has_a_role_or_is_closed() -> None:
    from omnimind.client.protocol import METHODS

    assert ROLES.keys() | CLOSED == METHODS.keys()
    assert not ROLES.keys() & CLOSED
    assert ROLES["tokens"] is Role.ADMIN


@pytest.mark.parametrize("content", [b"", b"\xff", b"\x91\x91" * 5000, encode({"ids": 5}), b"{}"])
async def test_a_body_that_is_none_is_a_problem(web: Any, content: bytes) -> None:
    headers = {"Content-Type": MEDIA_TYPE}
    await web("admin").ask("POST", "/api/v1/call/tasks", 400, content=content, headers=headers)
    body = encode(IdsRequest(ids=["x"]))
    await web("admin").ask("POST", "/api/v1/call/tasks", 415, content=body)
    await web("admin").ask("POST", "/api/v1/call/nonsense", 404, content=body, headers=headers)
