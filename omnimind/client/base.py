"""`Caller`: a client's one connection, and the calls that every verb is made of."""

from __future__ import annotations

import asyncio
import getpass
import os
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Self

import msgspec

from omnimind.client.code import Folder
from omnimind.client.handlers import Handlers, Known
from omnimind.client.protocol import (
    Empty,
    SubmitAnswer,
    SubmitRequest,
    WatchAnswer,
    WatchRequest,
    decode,
    encode,
)
from omnimind.client.transport import Transport
from omnimind.client.watching import Watcher
from omnimind.errors import NotFound, UnknownTaskType

_submit_answer = msgspec.msgpack.Decoder(SubmitAnswer).decode
_watch_answer = msgspec.msgpack.Decoder(WatchAnswer).decode

Opener = Callable[[], Awaitable[tuple[Transport, Folder | None]]]
_EMPTY = Empty()


class Caller:
    """A connection, opened at the first call or by ``async with``, used from one event loop.

    open_: makes the transport, and packs the working folder. timeout: seconds without an answer of the
    coordinator after which a call ends with Unavailable.
    """

    def __init__(self, open_: Opener, timeout: float, actor: str | None = None) -> None:
        self._open = open_
        self._timeout = timeout
        self._transport: Transport | None = None
        self._opening = asyncio.Lock()
        self._folder: Folder | None = None
        self.actor = actor or _who()
        self.handlers = Handlers(self.ask, lambda: self._folder)
        self.watcher = Watcher(self.watch)

    async def __aenter__(self) -> Self:
        await self.transport()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Drop the connection; tasks go on. Who still waits for a result gets CancelledError."""
        self.watcher.close()
        if self._transport is not None:
            await self._transport.close()

    async def transport(self) -> Transport:
        """Return the connected transport. Raises Unavailable when there is no coordinator."""
        if self._transport is None:
            async with self._opening:
                if self._transport is None:
                    self._transport, self._folder = await self._open()
        return self._transport

    async def ask(self, method: str, request: msgspec.Struct = _EMPTY, timeout: float | None = None) -> Any:
        """Call a method of the protocol and return its answer as plain values."""
        transport = self._transport or await self.transport()
        return decode(await transport.call(method, encode(request), timeout or self._timeout))

    async def watch(self, request: WatchRequest) -> WatchAnswer:
        """Return how some of the tasks have ended."""
        transport = self._transport or await self.transport()
        body = encode(request)
        return _watch_answer(await transport.call("watch", body, self._timeout + request.timeout))

    async def send(self, known: Known, request: SubmitRequest) -> SubmitAnswer:
        """Submit a slab; a handler that the coordinator has forgotten is registered again."""
        transport = self._transport or await self.transport()
        request.handler = known.digest
        try:
            return _submit_answer(await transport.call("submit", encode(request), self._timeout))
        except (UnknownTaskType, NotFound) as error:
            if error.field not in ("task_type", "handler") or not await self.handlers.renew(known):
                raise
        request.handler = known.digest
        return _submit_answer(await transport.call("submit", encode(request), self._timeout))


def _who() -> str:
    try:
        return f"python:{getpass.getuser()}"
    except (OSError, KeyError):  # a user id without a name, as in many containers
        return f"python:{os.getuid()}"
