"""Many tasks in one request: NDJSON in, one line of answer for each line, in order, as they are committed.

Lines that are alike but for payload and key travel to the coordinator together. A line that is refused
does not hold up the others: its answer is a problem.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec
from pydantic import ValidationError
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from omnimind import ids
from omnimind.client.protocol import PAYLOAD_MAX, SubmitRequest
from omnimind.errors import OmniMindError, PayloadTooLarge
from serve import schemas
from serve.problems import problem

LINE_MAX = PAYLOAD_MAX + (64 << 10)
GROUP = 512
"""Most tasks that travel together."""

IN_FLIGHT = 8
"""Groups on the way at one time: beyond that the request's body is read no further."""

LINGER = 0.02
"""Seconds for which an unfinished group waits for more of a slow body."""

Line = dict[str, Any]
Submit = Callable[[SubmitRequest], Awaitable[Any]]
Translate = Callable[[schemas.Submission], SubmitRequest]

_UNPROCESSABLE = 422
_encode = msgspec.json.Encoder(enc_hook=str).encode


class Answer(StreamingResponse):
    """An answer that is sent while the body still comes.

    Starlette's own listens for a disconnect by the same `receive`, and would swallow pieces of the body.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 (ASGI)
        await self.stream_response(send)


class Batch:
    """One request. translate: a line as the coordinator takes it; submit: the way there."""

    def __init__(self, translate: Translate, submit: Submit) -> None:
        self._translate = translate
        self._submit = submit
        self._sent: deque[asyncio.Future[list[Line]]] = deque()
        self._group: list[tuple[int, SubmitRequest]] = []
        self._shape: Any = None
        self._count = 0

    async def run(self, body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Yield the answer's lines while the body is read."""
        lines = _lines(body)
        pending: asyncio.Task[bytes | None] | None = None
        try:
            while True:
                pending = pending or asyncio.ensure_future(anext(lines, None))
                done, _ = await asyncio.wait({pending}, timeout=LINGER if self._group else None)
                if not done:
                    self._flush()
                    continue
                line, pending = pending.result(), None
                if line is None:
                    break
                self._take(line)
                while len(self._sent) >= IN_FLIGHT or (self._sent and self._sent[0].done()):
                    yield _text(await self._sent.popleft())
            self._flush()
            while self._sent:
                yield _text(await self._sent.popleft())
        finally:
            if pending is not None:
                pending.cancel()
            for left in self._sent:
                left.cancel()

    def _take(self, line: bytes) -> None:
        number = self._count
        self._count += 1
        try:
            request = self._read(line)
        except OmniMindError as error:
            self._refuse(number, error.to_problem())
            return
        except ValidationError as error:
            found = [
                {"field": ".".join(map(str, e["loc"])) or "line", "detail": e["msg"]} for e in error.errors()
            ]
            detail = f"{found[0]['field']}: {found[0]['detail']}"
            self._refuse(number, problem(_UNPROCESSABLE, "invalid_request", detail, errors=found))
            return
        shape = msgspec.structs.replace(request, slab="", payloads=[], keys=None)
        if shape != self._shape or len(self._group) >= GROUP:
            self._flush()
            self._shape = shape
        self._group.append((number, request))

    def _read(self, line: bytes) -> SubmitRequest:
        if len(line) > LINE_MAX:
            raise PayloadTooLarge(f"a line has at most {LINE_MAX:,} bytes", field="line")
        return self._translate(schemas.Submission.model_validate_json(line))

    def _refuse(self, number: int, found: dict[str, Any]) -> None:
        """Answer a line that cannot be sent, at its place."""
        self._flush()
        refused: asyncio.Future[list[Line]] = asyncio.get_running_loop().create_future()
        refused.set_result([{"index": number, "problem": found}])
        self._sent.append(refused)

    def _flush(self) -> None:
        if self._group:
            group, self._group = self._group, []
            self._sent.append(asyncio.ensure_future(self._send(group)))
        self._shape = None

    async def _send(self, group: list[tuple[int, SubmitRequest]]) -> list[Line]:
        requests = [request for _, request in group]
        keys = [request.keys[0] if request.keys else None for request in requests]
        whole = msgspec.structs.replace(
            requests[0],
            payloads=[request.payloads[0] for request in requests],
            keys=keys if any(key is not None for key in keys) else None,
        )
        try:
            existing = (await self._submit(whole))["existing"]
        except OmniMindError as error:
            if error.status < 500 and len(group) > 1:  # noqa: PLR2004 (one of them is to blame: find out which)
                return [line for one in group for line in await self._send([one])]
            found = error.to_problem()
            return [{"index": number, "problem": found} for number, _ in group]
        return [
            {
                "index": number,
                "task_id": existing.get(place) or ids.task_id(whole.slab, place),
                "existing": place in existing,
            }
            for place, (number, _) in enumerate(group)
        ]


async def _lines(body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Cut a body into lines that are not empty; one that is too long is handed on cut, its rest dropped."""
    rest = b""
    dropping = False
    async for piece in body:
        *whole, rest = (rest + piece).split(b"\n")
        for line in whole:
            if dropping:
                dropping = False
            elif line.strip():
                yield line
        if len(rest) > LINE_MAX:
            if not dropping:
                yield rest
            dropping, rest = True, b""
    if rest.strip() and not dropping:
        yield rest


def _text(lines: list[Line]) -> bytes:
    return b"".join(_encode(line) + b"\n" for line in lines)
