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
from omnimind.client.routing import RoutedTransport
from omnimind.client.transport import Transport
from omnimind.client.watching import Watcher
from omnimind.cluster.sharding import bucket_of
from omnimind.errors import InvalidInput, NotFound, UnknownTaskType
from omnimind.ids import new_slab

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
        self.handlers = Handlers(self.ask, lambda: self._folder, lambda: self._routed is not None)
        self.watcher = Watcher(self.watch, self._split)

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

    @property
    def _routed(self) -> RoutedTransport | None:
        """Return the transport when there are several shards."""
        transport = self._transport
        return transport if isinstance(transport, RoutedTransport) and transport.shards > 1 else None

    def _split(self, ids: list[str]) -> list[list[str]]:
        routed = self._routed
        return [ids] if routed is None else routed.split(ids)

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
        except InvalidInput as error:
            # By the type's name alone: it was registered anew, for another queue, since this was asked.
            if error.field != "slab" or known.code is not None or request.queue is not None:
                raise
            await self.handlers.look_up_queue(known)
            request.slab = new_slab(None if known.queue is None else bucket_of(known.queue))
        request.handler = known.digest
        return _submit_answer(await transport.call("submit", encode(request), self._timeout))


def _who() -> str:
    try:
        return f"python:{getpass.getuser()}"
    except (OSError, KeyError):  # a user id without a name, as in many containers
        return f"python:{os.getuid()}"
