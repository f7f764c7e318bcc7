"""The way from HTTP to the coordinator: one client for a replica, one call for a request."""

from __future__ import annotations

from typing import Any

import msgspec
from fastapi import Request
from starlette.responses import Response

from omnimind.client.client import AsyncClient

_encode = msgspec.json.Encoder().encode
_pack = msgspec.msgpack.Encoder().encode


def client_of(request: Request) -> AsyncClient:
    """Return the replica's client."""
    client: AsyncClient = request.app.state.client
    return client


async def ask(request: Request, method: str, body: msgspec.Struct | None = None) -> Any:
    """Call a method of the coordinator's protocol."""
    client = client_of(request)
    return await (client.ask(method) if body is None else client.ask(method, body))


async def forward(request: Request, method: str, body: msgspec.Struct, timeout: float) -> bytes:
    """Call a method and return its answer as it came."""
    transport = await client_of(request).transport()
    return await transport.call(method, _pack(body), timeout)


def answer(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Return plain values as JSON; they were made by `views`."""
    return Response(_encode(value), status, headers=headers, media_type="application/json")
