"""A Node actor's connection to the coordinator's unix socket: calls up, pushes down.

Frames are those of `omnimind.client.protocol`; a frame with the number 0 from the coordinator is a push
``[0, true, [kind, data]]``. A connection that breaks ends its calls; the owner dials again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from omnimind.client.protocol import MAX_FRAME, Hello
from omnimind.errors import OmniMindError, Unavailable, from_problem

_HEAD = 4
_encode = msgspec.msgpack.Encoder().encode
_frame = msgspec.msgpack.Decoder(tuple[int, bool, bytes])
_push = msgspec.msgpack.Decoder(tuple[str, bytes])


class Link:
    """One connection. pushed: hears (kind, data) of each push."""

    def __init__(self, pushed: Callable[[str, bytes], None]) -> None:
        self._pushed = pushed
        self._writer: asyncio.StreamWriter | None = None
        self._calls: dict[int, asyncio.Future[bytes]] = {}
        self._number = 0
        self._reading: asyncio.Task[None] | None = None

    @property
    def open(self) -> bool:
        """Return whether calls can be made."""
        return self._writer is not None

    async def dial(self, path: Path, token: str, node_id: str) -> None:
        """Connect, and attach as a node's line. Raises OSError or OmniMindError."""
        reader, self._writer = await asyncio.open_unix_connection(str(path), limit=MAX_FRAME)
        self._reading = asyncio.create_task(self._read(reader))
        await self.call("hello", _encode(Hello(token)))
        await self.call("attach", _encode(node_id))

    def close(self) -> None:
        """Drop the connection; calls under way end with Unavailable."""
        if self._writer is not None:
            self._writer.close()

    async def call(self, method: str, body: bytes) -> bytes:
        """Call and return the answer; raises what the coordinator raises, Unavailable for a broken line."""
        if self._writer is None:
            raise Unavailable("the line to the coordinator is down")
        self._number += 1
        number = self._number
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._calls[number] = future
        data = _encode((number, method, body))
        self._writer.write(len(data).to_bytes(_HEAD, "big") + data)
        try:
            return await future
        finally:
            self._calls.pop(number, None)

    async def _read(self, reader: asyncio.StreamReader) -> None:
        try:
            while True:
                size = int.from_bytes(await reader.readexactly(_HEAD), "big")
                number, good, body = _frame.decode(await reader.readexactly(size))
                if number == 0:
                    self._pushed(*_push.decode(body))
                    continue
                future = self._calls.get(number)
                if future is None or future.done():
                    continue
                if good:
                    future.set_result(body)
                else:
                    future.set_exception(_error(body))
        except (asyncio.IncompleteReadError, ConnectionError, msgspec.MsgspecError):
            pass
        finally:
            if self._writer is not None:
                self._writer.close()
                self._writer = None
            for future in self._calls.values():
                if not future.done():
                    future.set_exception(Unavailable("the line to the coordinator broke"))


def _error(body: bytes) -> OmniMindError:
    problem: dict[str, Any] = msgspec.msgpack.decode(body)
    return from_problem(problem)
