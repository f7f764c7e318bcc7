"""The coordinator's unix socket: the methods of the protocol for programs on the same host.

Every connection begins with `hello` and the instance's token, compared in constant time. The socket's
file has mode 0600. Frames are those of `omnimind.client.protocol`.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

from omnimind.client.protocol import MAX_FRAME
from omnimind.errors import Forbidden, InvalidInput, OmniMindError

Push = Callable[[str, bytes], None]
Call = Callable[[str, bytes, Push], Awaitable[bytes]]
"""(method, body, way to push messages to this connection) -> answer"""

_HEAD = 4
_IN_FLIGHT = 1_024
_encode = msgspec.msgpack.Encoder().encode
_frame = msgspec.msgpack.Decoder(tuple[int, str, bytes])


class SocketServer:
    """Serves `call` on a unix socket. gone: hears of connections that have ended, by their `push`."""

    def __init__(self, path: Path, token: str, call: Call, gone: Callable[[Push], None]) -> None:
        self._path = path
        self._token = token
        self._call = call
        self._gone = gone
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen. A socket file that a predecessor left is replaced in one step."""
        fresh = self._path.with_name(f".{os.getpid()}.sock")
        fresh.unlink(missing_ok=True)
        old_mask = os.umask(0o177)
        try:
            self._server = await asyncio.start_unix_server(self._serve, str(fresh), limit=MAX_FRAME)
        finally:
            os.umask(old_mask)
        fresh.replace(self._path)

    async def stop(self) -> None:
        """Listen no more; connections end with their clients."""
        if self._server is not None:
            self._server.close()
            self._path.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        calls: set[asyncio.Task[None]] = set()
        room = asyncio.Semaphore(_IN_FLIGHT)
        known = False

        def push(kind: str, data: bytes) -> None:
            self._answer(writer, 0, True, _encode((kind, data)))

        try:
            while True:
                head = await reader.readexactly(_HEAD)
                size = int.from_bytes(head, "big")
                if size > MAX_FRAME:
                    break
                number, method, body = _frame.decode(await reader.readexactly(size))
                if not known:
                    known = self._greet(method, body)
                    if not known:
                        refused = Forbidden(
                            "the token is not this instance's", field="token", hint="see OMNIMIND_HOME/token"
                        )
                        self._answer(writer, number, False, _encode(refused.to_problem()))
                        await writer.drain()
                        break
                await room.acquire()
                task = asyncio.ensure_future(self._one(writer, number, method, body, push))
                calls.add(task)
                task.add_done_callback(calls.discard)
                task.add_done_callback(lambda _done: room.release())
        except (asyncio.IncompleteReadError, ConnectionError, msgspec.MsgspecError):
            pass
        finally:
            self._gone(push)
            for task in calls:
                task.cancel()
            writer.close()
            with contextlib.suppress(ConnectionError, BrokenPipeError):
                await writer.wait_closed()

    def _greet(self, method: str, body: bytes) -> bool:
        if method != "hello":
            return False
        try:
            given = msgspec.msgpack.decode(body).get("token", "")
        except (msgspec.MsgspecError, AttributeError):
            return False
        return isinstance(given, str) and hmac.compare_digest(given.encode(), self._token.encode())

    async def _one(
        self, writer: asyncio.StreamWriter, number: int, method: str, body: bytes, push: Push
    ) -> None:
        try:
            answer, good = await self._call(method, body, push), True
        except OmniMindError as error:
            answer, good = _encode(error.to_problem()), False
        if not writer.is_closing():
            self._answer(writer, number, good, answer)
            with contextlib.suppress(ConnectionError):
                await writer.drain()

    @staticmethod
    def _answer(writer: asyncio.StreamWriter, number: int, good: bool, body: bytes) -> None:
        data = _encode((number, good, body))
        if len(data) > MAX_FRAME:
            # The client would break the connection, and ask again for ever.
            refused = InvalidInput(
                f"the answer would have {len(data) >> 20} MiB", hint="ask for less at a time"
            )
            data = _encode((number, False, _encode(refused.to_problem())))
        writer.write(len(data).to_bytes(_HEAD, "big") + data)
