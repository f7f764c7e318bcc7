"""What a request may cost before anybody has looked at it: an ASGI layer around the app."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from starlette.exceptions import HTTPException

from serve.problems import problem, problem_response, unexpected

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

MAX_BODY = 8 << 20
MAX_STREAM = 256 << 20
BODY_SECONDS = 30.0
_STREAMS = frozenset({"application/x-ndjson", "application/ndjson", "application/jsonl"})

_SAFE_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
]


class Limits:
    """Refuses bodies that are too large (413) or come too slowly (408), and adds the headers that protect.

    Faults of ours leave it as problems too.

    max_body: bytes of an ordinary body; max_stream: of an NDJSON stream, which is read as it comes.
    body_seconds: longest wait for the next piece of a body.
    """

    def __init__(
        self,
        app: Any,
        *,
        max_body: int = MAX_BODY,
        max_stream: int = MAX_STREAM,
        body_seconds: float = BODY_SECONDS,
    ) -> None:
        self._app = app
        self._max_body = max_body
        self._max_stream = max_stream
        self._body_seconds = body_seconds

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        kind = headers.get(b"content-type", b"").split(b";")[0].strip().lower().decode("latin-1")
        most = self._max_stream if kind in _STREAMS else self._max_body
        hint = "send large data as a file's address, and many tasks as NDJSON to /api/v1/tasks/batch"
        too_large = HTTPException(413, f"a body may have {most} bytes here: {hint}")
        started, complete, taken = False, False, 0

        async def limited() -> Message:
            nonlocal complete, taken
            if complete:  # what still comes is a disconnect
                return await receive()
            try:
                async with asyncio.timeout(self._body_seconds):
                    message = await receive()
            except TimeoutError:
                raise HTTPException(408, "the body of the request did not come") from None
            taken += len(message.get("body", b""))
            if taken > most:
                raise too_large
            complete = not message.get("more_body", False)
            return message

        async def answer(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message["headers"] = [*message.get("headers", ()), *_SAFE_HEADERS]
            await send(message)

        declared = headers.get(b"content-length", b"0")
        if not declared.isdigit() or int(declared) > most:
            refusal = problem(413, "body_too_large", too_large.detail)
            await problem_response(refusal, {"Connection": "close"})(scope, receive, answer)
            return
        try:
            await self._app(scope, limited, answer)
        except Exception as error:
            if started:
                raise  # half an answer is out: breaking off tells that it is not whole
            await unexpected(scope["method"], scope["path"], error)(scope, receive, answer)
