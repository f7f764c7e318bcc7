"""`RoamingTransport`: the way to a coordinator that may be on this host today and on another one tomorrow.

With `coordinator.nodes` Ray may start the coordinator on any node with these labels. Its unix socket is to be
had on its own host only, so the way is the socket where it answers, and Ray elsewhere.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from omnimind import config
from omnimind.client.transport import UNREPEATABLE, Transport
from omnimind.client.via_ray import RayTransport
from omnimind.client.via_socket import SocketTransport
from omnimind.errors import Unavailable
from omnimind.instance import Paths, ray_environment, running, shard_socket

_NEAR_PATIENCE = 2.0
"""Seconds that a coordinator on this host gets to come back before it is looked for elsewhere."""
_PAUSE = 0.2


class RoamingTransport:
    """A `Transport` that goes by `near` where that answers, else by `far`.

    patience: seconds for which calls look for a coordinator, on both ways.
    """

    def __init__(self, near: Transport, far: Transport, *, patience: float) -> None:
        self._ways = [near, far]
        self._patience = patience
        self._connected = False

    @property
    def info(self) -> dict[str, Any]:
        return self._ways[0].info

    async def connect(self) -> dict[str, Any]:
        """Find the coordinator. Raises Unavailable when it is on neither way."""
        first, second = self._ways
        try:
            found = await first.connect()
        except Unavailable:
            found = await second.connect()
            self._ways = [second, first]
        self._connected = True
        return found

    async def call(self, method: str, body: bytes, timeout: float | None = None) -> bytes:
        loop = asyncio.get_running_loop()
        give_up = loop.time() + (self._patience if timeout is None else timeout)
        while True:
            try:
                if not self._connected:
                    await self.connect()
                left = None if timeout is None else max(0.0, give_up - loop.time())
                return await self._ways[0].call(method, body, left)
            except Unavailable:
                self._connected = False
                # What may have been done must not be sent again by the other way.
                if method in UNREPEATABLE or loop.time() + _PAUSE > give_up:
                    raise
            await asyncio.sleep(_PAUSE)

    async def close(self) -> None:
        for way in self._ways:
            await way.close()


def transport(paths: Paths, token: Callable[[], str], *, patience: float, shard: int = 0) -> Transport:
    """Return the way to the coordinator of a home's instance: by its socket, unless it may be elsewhere."""
    path = shard_socket(paths.socket, shard)
    if not roams(paths):
        return SocketTransport(path, token, patience=patience)
    near = SocketTransport(path, token, patience=min(_NEAR_PATIENCE, patience))
    far = RayTransport(ray_environment(paths, running(paths)), patience=patience, shard=shard)
    return RoamingTransport(near, far, patience=patience)


def roams(paths: Paths) -> bool:
    """Return whether an instance runs in this home whose coordinator may be on another host."""
    return running(paths) is not None and bool(config.effective(paths.settings).coordinator.nodes)
