"""`Peers`: the way from one shard's coordinator to the others."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import ray

from actors.blocking import Lane
from actors.names import NAMESPACE, coordinator_actor
from actors.settings import CoordinatorSettings
from omnimind.client.protocol import decode, encode
from omnimind.client.via_socket import SocketTransport, token_file
from omnimind.errors import OmniMindError, Unavailable, from_problem
from omnimind.instance import shard_socket

_LOOK_UP = 5.0


class Peers:
    """Calls of the protocol to other shards, over their sockets where they are on this host, else by Ray."""

    def __init__(self, settings: CoordinatorSettings) -> None:
        self._settings = settings
        self._links: dict[int, SocketTransport] = {}
        self._actors: dict[int, Any] = {}
        self._finding = Lane("peer", _LOOK_UP)

    async def ask(self, shard: int, method: str, request: msgspec.Struct, timeout: float = 5.0) -> Any:
        """Return the answer as plain values. Raises what the other one raises, or Unavailable."""
        body = encode(request)
        try:
            async with asyncio.timeout(timeout):
                return decode(await self._call(shard, method, body))
        except (Unavailable, TimeoutError, ray.exceptions.RayError) as error:
            msg = f"shard {shard} does not answer `{method}`"
            hint = "its coordinator may just be restarted; see: omnimind doctor"
            raise Unavailable(msg, hint=hint, retry_after=1.0, shard=shard) from error

    async def _call(self, shard: int, method: str, body: bytes) -> bytes:
        path = shard_socket(Path(self._settings.socket), shard)
        if path.exists():
            link = self._links.get(shard)
            if link is None:
                link = SocketTransport(path, token_file(Path(self._settings.token_file)), patience=0.0)
                self._links[shard] = link
            try:
                return await link.call(method, body)
            except Unavailable:
                # The file may be left over from a coordinator that Ray has restarted on another host.
                return await self._by_ray(shard, method, body)
        return await self._by_ray(shard, method, body)

    async def _by_ray(self, shard: int, method: str, body: bytes) -> bytes:
        actor = self._actors.get(shard)
        if actor is None:
            actor = self._actors[shard] = await self._finding.call(_find, shard)
        try:
            good, answer = await asyncio.wrap_future(actor.call_ray.remote(method, body).future())
        except ray.exceptions.RayError:
            self._actors.pop(shard, None)
            raise
        if not good:
            raise _error(answer)
        data: bytes = answer
        return data

    async def close(self) -> None:
        """Drop the connections."""
        for link in self._links.values():
            await link.close()
        self._links.clear()


def _find(shard: int) -> Any:
    try:
        return ray.get_actor(coordinator_actor(shard), namespace=NAMESPACE)
    except ValueError:
        msg = f"there is no coordinator of shard {shard}"
        raise Unavailable(msg) from None


def _error(answer: bytes) -> OmniMindError:
    return from_problem(decode(answer))
