"""Calls over the coordinator's unix socket: pipelined, and kept up while the coordinator restarts."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import msgspec

from omnimind.client.protocol import MAX_FRAME, Hello, decode, encode
from omnimind.client.transport import UNREPEATABLE
from omnimind.errors import InvalidInput, OmniMindError, Unavailable, from_problem

_decode_frame = msgspec.msgpack.Decoder(tuple[int, bool, bytes]).decode

_BACKOFF_FIRST = 0.05
_BACKOFF_LAST = 1.0
_HELLO_TIMEOUT = 10.0


class _Call:
    """A call that waits for its answer. `sent`: it went out on a connection that may have broken since."""

    __slots__ = ("frame", "future", "method", "sent")

    def __init__(self, method: str, frame: bytes, future: asyncio.Future[bytes]) -> None:
        self.method = method
        self.frame = frame
        self.future = future
        self.sent = False


class _Frames(asyncio.Protocol):
    """Cuts the stream into frames and tells its owner; knows nothing of calls."""

    def __init__(self, answered: Callable[[int, bool, bytes], None], lost: Callable[[_Frames], None]) -> None:
        self._answered = answered
        self._lost = lost
        self._buffer = bytearray()
        self.transport: asyncio.Transport
        self.open = True
        self.gone = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's are no subclass

    def connection_lost(self, _error: Exception | None) -> None:
        self.open = False
        self.gone.set()
        self._lost(self)

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer
        buffer += data
        start, size = 0, len(buffer)
        while size - start >= 4:  # noqa: PLR2004
            end = start + 4 + int.from_bytes(buffer[start : start + 4], "big")
            if end - start > MAX_FRAME:
                self.transport.abort()
                return
            if end > size:
                break
            try:
                number, good, body = _decode_frame(bytes(buffer[start + 4 : end]))
            except msgspec.MsgspecError:
                # Whatever is at the other end, it is no coordinator: the calls end by the reconnection.
                self.transport.abort()
                return
            self._answered(number, good, body)
            start = end
        if start:
            del buffer[:start]

    def send(self, frame: bytes) -> None:
        self.transport.write(frame)


class SocketTransport:
    """A `Transport` over a unix socket.

    token: read anew for each connection, since it may have been changed. patience: seconds for which
    calls wait for a coordinator that went away before they end with Unavailable.
    """

    def __init__(self, path: Path, token: Callable[[], str], *, patience: float = 30.0) -> None:
        self._path = path
        self._token = token
        self._patience = patience
        self._calls: dict[int, _Call] = {}
        self._number = 0
        self._frames: _Frames | None = None
        self._dialling: asyncio.Task[None] | None = None
        self._closed = False
        self.info: dict[str, Any] = {}
        """The last answer of `hello`: version, epoch and pid of the coordinator."""

    async def connect(self) -> dict[str, Any]:
        if self._frames is None:
            await self._dial()
        return self.info

    async def call(self, method: str, body: bytes, timeout: float | None = None) -> bytes:
        if self._closed:
            raise Unavailable("this client is closed", hint="")
        loop = asyncio.get_running_loop()
        number, frame = self._frame(method, body)
        call = _Call(method, frame, loop.create_future())
        self._calls[number] = call
        timer = None if timeout is None else loop.call_later(timeout, self._overdue, number, timeout)
        try:
            frames = self._frames
            if frames is None:
                self._redial()
            else:
                call.sent = True
                frames.send(frame)
            return await call.future
        finally:
            self._calls.pop(number, None)
            if timer is not None:
                timer.cancel()

    async def close(self) -> None:
        self._closed = True
        if self._dialling is not None:
            self._dialling.cancel()
        frames = self._frames
        if frames is not None:
            frames.transport.abort()
            await frames.gone.wait()
        self._fail_all(Unavailable("this client was closed", hint=""))

    def _frame(self, method: str, body: bytes) -> tuple[int, bytes]:
        self._number += 1
        packed = encode((self._number, method, body))
        if len(packed) > MAX_FRAME:
            msg = f"a request has at most {MAX_FRAME >> 20} MiB, this one has {len(packed) >> 20}"
            raise InvalidInput(msg, field="payload")
        return self._number, len(packed).to_bytes(4, "big") + packed

    # What the connection tells.

    def _answer(self, number: int, good: bool, body: bytes) -> None:
        call = self._calls.get(number)
        if call is None or call.future.done():
            return
        if good:
            call.future.set_result(body)
        else:
            call.future.set_exception(from_problem(decode(body)))

    def _overdue(self, number: int, timeout: float) -> None:
        call = self._calls.get(number)
        if call is not None and not call.future.done():
            call.future.set_exception(_no_answer(call, f"no answer to `{call.method}` within {timeout:g} s"))

    def _lost(self, frames: _Frames) -> None:
        if self._frames is not frames:
            return
        self._frames = None
        for call in list(self._calls.values()):
            if call.sent and call.method in UNREPEATABLE and not call.future.done():
                call.future.set_exception(_no_answer(call, f"the connection broke during `{call.method}`"))
        if self._calls and not self._closed:
            self._redial()

    def _fail_all(self, error: OmniMindError) -> None:
        for call in list(self._calls.values()):
            if not call.future.done():
                call.future.set_exception(error)

    # Dialling.

    def _redial(self) -> None:
        if self._dialling is None or self._dialling.done():
            self._dialling = asyncio.get_running_loop().create_task(self._keep_dialling())

    async def _keep_dialling(self) -> None:
        loop = asyncio.get_running_loop()
        give_up = loop.time() + self._patience
        pause = _BACKOFF_FIRST
        while True:
            try:
                await self._dial()
            except OmniMindError as error:
                if not error.retryable or loop.time() + pause > give_up:
                    self._fail_all(error)
                    return
            else:
                return
            await asyncio.sleep(pause)
            pause = min(pause * 1.6, _BACKOFF_LAST)

    async def _dial(self) -> None:
        """Connect, greet, and send again what waits. Raises Unavailable, or the coordinator's refusal."""
        greeted: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

        def answered(number: int, good: bool, body: bytes) -> None:
            if number:
                self._answer(number, good, body)
            elif not greeted.done() and good:
                greeted.set_result(body)
            elif not greeted.done():
                greeted.set_exception(from_problem(decode(body)))

        def lost(frames: _Frames) -> None:
            if not greeted.done():
                greeted.set_exception(Unavailable("the coordinator hung up"))
            self._lost(frames)

        frames = await self._reach(answered, lost)
        try:
            hello = encode((0, "hello", encode(Hello(token=self._token()))))
            frames.send(len(hello).to_bytes(4, "big") + hello)
            async with asyncio.timeout(_HELLO_TIMEOUT):
                self.info = decode(await greeted)
        except BaseException as error:
            greeted.cancel()
            frames.transport.abort()
            if isinstance(error, TimeoutError):
                raise Unavailable("the coordinator does not greet back") from error
            raise
        if not frames.open:
            raise Unavailable("the coordinator hung up")
        self._frames = frames
        for call in self._calls.values():
            if not call.future.done():
                call.sent = True
                frames.send(call.frame)

    async def _reach(
        self, answered: Callable[[int, bool, bytes], None], lost: Callable[[_Frames], None]
    ) -> _Frames:
        loop = asyncio.get_running_loop()
        try:
            _, frames = await loop.create_unix_connection(lambda: _Frames(answered, lost), str(self._path))
        except OSError as error:
            msg = f"no coordinator answers on {self._path}"
            raise Unavailable(msg) from error
        return frames


def _no_answer(call: _Call, what: str) -> Unavailable:
    if not call.sent:
        return Unavailable(what)
    hint = "it may have been done all the same: look before you repeat it"
    if call.method == "submit":
        hint = "it may have been accepted all the same: with a `key` it is safe to submit it again"
    return Unavailable(what, hint=hint)


def token_file(path: Path) -> Callable[[], str]:
    """Return a reader of a token file, which says plainly when there is none."""

    def read() -> str:
        with contextlib.suppress(FileNotFoundError):
            return path.read_text(encoding="utf-8").strip()
        msg = f"there is no token at {path}"
        raise Unavailable(msg)

    return read
