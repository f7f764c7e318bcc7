"""`SocketServer` with the client's own transport."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from actors import socket_server
from actors.socket_server import Push, SocketServer
from omnimind.client.protocol import decode, encode
from omnimind.client.via_socket import SocketTransport
from omnimind.errors import InvalidInput, NotFound, OmniMindError


async def answers(method: str, body: bytes, _push: Push) -> bytes:
    match method:
        case "hello":
            return encode({"version": 1})
        case "echo":
            return body
        case "repeat":
            return encode(b"x" * decode(body))
        case _:
            raise NotFound(f"there is no method {method!r}")


@pytest.fixture
def gone() -> list[Push]:
    return []


@pytest.fixture
async def path(tmp_path: Path, gone: list[Push]) -> AsyncIterator[Path]:
    server = SocketServer(tmp_path / "s", "secret", answers, gone.append)
    await server.start()
    yield tmp_path / "s"
    await server.stop()


@pytest.fixture
async def transport(path: Path) -> AsyncIterator[SocketTransport]:
    found = SocketTransport(path, lambda: "secret", patience=2)
    yield found
    await found.close()


async def test_calls_and_errors(path: Path, transport: SocketTransport) -> None:
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600  # noqa: PTH116
    assert await transport.call("echo", b"body", 5) == b"body"
    with pytest.raises(NotFound, match="no method 'x'"):
        await transport.call("x", b"", 5)


@pytest.mark.parametrize("token", ["", "secre", "wrong", "sécret"])
async def test_a_wrong_token_ends_the_connection(path: Path, token: str) -> None:
    transport = SocketTransport(path, lambda: token, patience=0.1)
    with pytest.raises(OmniMindError) as caught:
        await transport.connect()
    assert not caught.value.retryable
    await transport.close()


async def test_an_answer_beyond_a_frame_is_an_error_of_that_call(
    transport: SocketTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket_server, "MAX_FRAME", 1 << 20)
    with pytest.raises(InvalidInput, match="ask for less"):
        await transport.call("repeat", encode(1 << 20), 5)
    assert await transport.call("repeat", encode(3), 5) == encode(b"xxx")


async def test_a_connection_that_ends_is_told(transport: SocketTransport, gone: list[Push]) -> None:
    await transport.connect()
    assert gone == []
    await transport.close()
    async with asyncio.timeout(5):
        while not gone:  # noqa: ASYNC110 (another task's doing)
            await asyncio.sleep(0.01)
    assert len(gone) == 1
