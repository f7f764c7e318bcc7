from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from omnimind import AsyncClient, Client, task
from omnimind.client import via_socket
from omnimind.client.protocol import Empty, IdsRequest, NameRequest, decode, encode
from omnimind.client.via_socket import SocketTransport, token_file
from omnimind.errors import Forbidden, InvalidInput, NotFound, OmniMindError, Unavailable
from omnimind.ids import new_slab, task_id
from omnimind.testing.fake import FakeCoordinator
from omnimind.testing.transport import FakeServer

Until = Callable[[Callable[[], Any]], Coroutine[Any, Any, Any]]


@task
def double(x: int) -> int:
    return 2 * x


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "s"


@pytest.fixture
async def server(fake: FakeCoordinator, path: Path) -> AsyncIterator[FakeServer]:
    async with FakeServer(fake, path) as found:
        yield found


@pytest.fixture
async def transport(server: FakeServer, path: Path) -> AsyncIterator[SocketTransport]:
    found = SocketTransport(path, lambda: "secret", patience=5)
    yield found
    await found.close()


def client(transport: SocketTransport) -> AsyncClient:
    return AsyncClient(transport=transport, timeout=5)


async def ping(transport: SocketTransport, timeout: float | None = 5) -> Any:
    return decode(await transport.call("ping", encode(Empty()), timeout))


async def test_a_task_goes_there_and_back(transport: SocketTransport) -> None:
    async with client(transport) as om:
        handle = await om.submit(double, 21)
        assert await handle.result(5) == 42
        assert [r async for r in om.map(double, range(1000), ordered=True)] == [2 * x for x in range(1000)]


async def test_who_answers_is_known(transport: SocketTransport) -> None:
    info = await transport.connect()
    assert info["omnimind"] == "fake"
    assert await transport.connect() == info


async def test_answers_find_their_calls(transport: SocketTransport, fake: FakeCoordinator) -> None:
    async with client(transport) as om:
        handles = await om.submit_many(double, range(50))
        infos = await asyncio.gather(*[handle.info() for handle in handles])
    assert [info["task_id"] for info in infos] == [handle.id for handle in handles]


async def test_errors_arrive_as_themselves(transport: SocketTransport) -> None:
    with pytest.raises(NotFound, match="no task"):
        await transport.call("tasks", encode(IdsRequest(ids=[task_id(new_slab())])), 5)


async def test_large_frames_in_pieces(transport: SocketTransport, fake: FakeCoordinator) -> None:
    @task
    def large(n: int) -> str:
        return "x" * n

    async with client(transport) as om:
        assert [len(r) async for r in om.map(large, [1_000_000] * 12)] == [1_000_000] * 12


async def test_a_wrong_token_is_said_at_once(server: FakeServer, path: Path) -> None:
    transport = SocketTransport(path, lambda: "wrong", patience=60)
    with pytest.raises(Forbidden):
        await transport.connect()
    with pytest.raises(Forbidden):
        await ping(transport)
    await transport.close()


async def test_nobody_there(path: Path) -> None:
    transport = SocketTransport(path, lambda: "secret", patience=0.1)
    with pytest.raises(Unavailable, match="no coordinator answers"):
        await transport.connect()
    with pytest.raises(Unavailable):
        await ping(transport)
    await transport.close()


async def test_a_token_file_that_is_not_there(server: FakeServer, path: Path, tmp_path: Path) -> None:
    transport = SocketTransport(path, token_file(tmp_path / "token"), patience=0.1)
    with pytest.raises(Unavailable, match="there is no token"):
        await transport.connect()
    (tmp_path / "token").write_text("secret\n")
    assert await transport.connect()
    await transport.close()


async def test_a_restart_is_waited_for(transport: SocketTransport, server: FakeServer) -> None:
    await ping(transport)
    await server.stop()
    waiting = asyncio.create_task(ping(transport))
    await asyncio.sleep(0.02)
    assert not waiting.done()
    await server.start()
    assert (await waiting)["now"]


async def test_calls_under_way_are_sent_again(
    transport: SocketTransport, server: FakeServer, fake: FakeCoordinator, until: Until
) -> None:
    async with client(transport) as om:
        await (await om.submit(double, 1))
        server.mute = True
        submitting = asyncio.create_task(om.submit(double, 2))
        await until(lambda: len(fake.tasks) == 2)
        server.mute = False
        server.drop()
        handle = await submitting
        assert await handle.result(5) == 4
    assert len(fake.tasks) == 2, "the submission that came twice was recognised"
    assert len(fake.called("submit")) == 3


async def test_what_must_not_happen_twice_is_not_sent_again(
    transport: SocketTransport, server: FakeServer, fake: FakeCoordinator, until: Until
) -> None:
    async with client(transport) as om:
        handle = await om.submit(double, 1)
        await handle.result(5)
        server.mute = True
        retrying = asyncio.create_task(handle.retry())
        await until(lambda: fake.called("retry"))
        server.mute = False
        server.drop()
        with pytest.raises(Unavailable, match="may have been done"):
            _ = await retrying
        assert await om.ping()
    assert len(fake.called("retry")) == 1


async def test_what_was_never_sent_is_sent_later_whatever_it_is(
    transport: SocketTransport, server: FakeServer, fake: FakeCoordinator
) -> None:
    async with client(transport) as om:
        handle = await om.submit(double, 1)
        await handle.result(5)
        await server.stop()
        await asyncio.sleep(0)
        retrying = asyncio.create_task(handle.retry())
        await asyncio.sleep(0.02)
        await server.start()
        assert (await retrying).id != handle.id
    assert len(fake.called("retry")) == 1


async def test_waiting_survives_restarts(
    path: Path, transport: SocketTransport, server: FakeServer, fake: FakeCoordinator, until: Until
) -> None:
    def watched(times: int) -> bool:
        return len(fake.called("watch")) == times

    fake.run = False
    async with client(transport) as om:
        handle = await om.submit(double, 1)
        waiting = asyncio.create_task(handle.result(10))
        for n in range(1, 4):
            await until(partial(watched, n))
            await server.stop()
            await server.start()
        fake.end(handle.id, 2)
        assert await waiting == 2


async def test_a_map_goes_on_over_restarts(
    transport: SocketTransport, server: FakeServer, fake: FakeCoordinator
) -> None:
    async with client(transport) as om:
        seen = []
        async for result in om.map(double, range(3000), window=512, ordered=True):
            seen.append(result)
            if len(seen) % 700 == 0:
                await server.stop()
                await server.start()
    assert seen == [2 * x for x in range(3000)]
    assert len(fake.tasks) == 3000


async def test_silence_has_an_end(
    transport: SocketTransport, server: FakeServer, fake: FakeCoordinator
) -> None:
    await ping(transport)
    server.mute = True
    with pytest.raises(Unavailable, match=r"no answer to `ping` within 0\.05 s"):
        await ping(transport, 0.05)


async def test_an_unanswered_submission_says_how_to_repeat_it(
    transport: SocketTransport, server: FakeServer
) -> None:
    async with AsyncClient(transport=transport, timeout=0.2) as om:
        await (await om.submit(double, 1))
        server.mute = True
        with pytest.raises(Unavailable, match="with a `key` it is safe"):
            _ = await om.submit(double, 2)


async def test_patience_has_an_end(
    transport: SocketTransport, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "_patience", 0.1)
    await ping(transport)
    await server.stop()
    with pytest.raises(Unavailable):
        await ping(transport, 30)
    await server.start()
    assert await ping(transport)


@asynccontextmanager
async def listening(path: Path, greeting: bytes) -> AsyncIterator[None]:
    """Something on the socket that says the same to everybody and then listens only."""
    speaking: set[asyncio.Task[Any]] = set()

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        current = asyncio.current_task()
        assert current is not None
        speaking.add(current)
        writer.write(greeting)
        with contextlib.suppress(ConnectionError):
            await reader.read()
        writer.close()

    server = await asyncio.start_unix_server(speak, path)
    yield
    server.close()
    await asyncio.gather(*speaking)


async def test_what_speaks_otherwise_is_no_coordinator(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    transport = SocketTransport(path, lambda: "secret", patience=0.1)
    async with listening(path, b"\x00\x00\x00\x03abc"):
        with pytest.raises(Unavailable, match="hung up"):
            await transport.connect()
        monkeypatch.setattr(via_socket, "MAX_FRAME", 2)
        with pytest.raises(Unavailable, match="hung up"):
            await transport.connect()
        await transport.close()


async def test_who_does_not_greet_back(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(via_socket, "_HELLO_TIMEOUT", 0.05)
    transport = SocketTransport(path, lambda: "secret", patience=0.1)
    async with listening(path, b""):
        with pytest.raises(Unavailable, match="does not greet"):
            await transport.connect()
        await transport.close()


async def test_a_request_beyond_a_frame_is_refused_here(
    transport: SocketTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ping(transport)
    monkeypatch.setattr(via_socket, "MAX_FRAME", 100)
    with pytest.raises(InvalidInput, match="at most"):
        await transport.call("find", encode(NameRequest(name="x" * 200)), 5)


async def test_a_closed_transport_says_so(transport: SocketTransport, server: FakeServer) -> None:
    await ping(transport)
    server.mute = True
    waiting = asyncio.create_task(ping(transport))
    await asyncio.sleep(0.01)
    await transport.close()
    with pytest.raises(Unavailable, match="closed"):
        await waiting
    with pytest.raises(Unavailable, match="closed"):
        await ping(transport)


async def test_a_sync_client_over_the_socket(server: FakeServer, path: Path) -> None:
    def program() -> list[int]:
        with Client(transport=SocketTransport(path, lambda: "secret")) as om:
            first = om.submit(double, 21).result(5)
            return [first, *om.map(double, range(5), ordered=True)]

    assert await asyncio.to_thread(program) == [42, 0, 2, 4, 6, 8]


def test_the_error_of_an_unknown_code_is_still_ours() -> None:
    assert issubclass(Forbidden, OmniMindError)


def test_it_works_on_uvloop_too(path: Path) -> None:
    """Transports of uvloop are no subclass of asyncio's; Ray Serve and many web servers run on it."""
    import uvloop

    async def scenario() -> int:
        async with FakeServer(FakeCoordinator(), path):
            transport = SocketTransport(path, lambda: "secret", patience=5)
            async with AsyncClient(transport=transport, timeout=5) as om:
                found: int = await (await om.submit(double, 21)).result(5)
            return found

    assert uvloop.run(scenario()) == 42
