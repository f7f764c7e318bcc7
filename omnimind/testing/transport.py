"""How tests reach a coordinator, fake or real, without Ray: in the process, or over a unix socket."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import msgspec

from omnimind.client.protocol import MAX_FRAME, Hello, decode, encode
from omnimind.errors import Forbidden, OmniMindError, Unavailable, from_problem


class Answers(Protocol):
    """Something that answers calls: a `FakeCoordinator`, or a shell around the real one."""

    async def call(self, method: str, body: bytes) -> bytes:
        """Return the body of the answer, or raise the error."""


class FakeTransport:
    """A `client.transport.Transport` without a wire; errors still travel as problem documents."""

    def __init__(self, coordinator: Answers) -> None:
        self._coordinator = coordinator
        self.closed = False
        self.info: dict[str, Any] = {}

    async def connect(self) -> dict[str, Any]:
        hello = await self.call("hello", encode(Hello(token="")))
        self.info = decode(hello)
        return self.info

    async def call(self, method: str, body: bytes, timeout: float | None = None) -> bytes:
        if self.closed:
            raise Unavailable("this transport is closed")
        try:
            async with asyncio.timeout(timeout):
                return await self._coordinator.call(method, body)
        except OmniMindError as error:
            raise from_problem(decode(encode(error.to_problem()))) from None
        except TimeoutError:
            raise Unavailable(f"no answer to `{method}` within {timeout:g} s") from None

    async def close(self) -> None:
        self.closed = True


class FakeServer:
    """The protocol on a unix socket: ``async with FakeServer(fake, path, token):``.

    `stop` breaks all connections and goes off the socket, `start` comes back, as a restart does.
    """

    def __init__(self, coordinator: Answers, path: Path, token: str = "secret") -> None:  # noqa: S107 (a test's)
        self._coordinator = coordinator
        self._path = path
        self._token = token
        self._server: asyncio.Server | None = None
        self._connections: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self.mute = False
        """Carry calls out, but send no answers: what a crash right before the answer looks like."""

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen. Raises OSError when the socket cannot be made."""
        self._path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._serve, self._path, limit=MAX_FRAME)

    async def stop(self) -> None:
        """Break all connections and listen no more."""
        if self._server is not None:
            self._server.close()
        self.drop()
        await asyncio.gather(*self._connections, return_exceptions=True)
        self._path.unlink(missing_ok=True)

    def drop(self) -> None:
        """Break all connections, and go on listening."""
        for task, writer in list(self._connections.items()):
            writer.transport.abort()
            task.cancel()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections[task] = writer
        answering: set[asyncio.Task[None]] = set()
        greeted = False
        try:
            while True:
                number, method, body = await _read(reader)
                if not greeted:
                    greeted = self._greet(method, body)
                    if not greeted:
                        refusal = Forbidden("say hello first, with the right token").to_problem()
                        _write(writer, (number, False, encode(refusal)))
                        await writer.drain()
                        return
                answer = asyncio.get_running_loop().create_task(self._answer(writer, number, method, body))
                answering.add(answer)
                answer.add_done_callback(answering.discard)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            for answer in answering:
                answer.cancel()
            self._connections.pop(task, None)
            writer.close()

    def _greet(self, method: str, body: bytes) -> bool:
        return method == "hello" and msgspec.msgpack.decode(body, type=Hello).token == self._token

    async def _answer(self, writer: asyncio.StreamWriter, number: int, method: str, body: bytes) -> None:
        try:
            frame = (number, True, await self._coordinator.call(method, body))
        except OmniMindError as error:
            frame = (number, False, encode(error.to_problem()))
        if not self.mute:
            _write(writer, frame)


async def _read(reader: asyncio.StreamReader) -> tuple[int, str, bytes]:
    size = int.from_bytes(await reader.readexactly(4), "big")
    return msgspec.msgpack.decode(await reader.readexactly(size), type=tuple[int, str, bytes])


def _write(writer: asyncio.StreamWriter, frame: tuple[int, bool, bytes]) -> None:
    packed = encode(frame)
    writer.write(len(packed).to_bytes(4, "big") + packed)
