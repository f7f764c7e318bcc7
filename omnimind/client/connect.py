"""Finding the coordinator: the unix socket of an instance, or Ray."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from omnimind.client.code import Folder
from omnimind.client.package import pack_folder
from omnimind.client.transport import Transport
from omnimind.client.via_socket import SocketTransport, token_file
from omnimind.errors import InvalidInput, Unavailable

FIRST_TRY = 2.0
"""Seconds that `connect` gives a coordinator that is just being restarted."""


class Target:
    """What a client connects to; see `omnimind.connect` for the arguments."""

    def __init__(
        self,
        home: str | os.PathLike[str] | None,
        *,
        address: str | None,
        token: str | None,
        working_dir: str | os.PathLike[str] | None,
        patience: float,
    ) -> None:
        if home is not None and address is not None:
            raise InvalidInput("give `home` or `address`, not both", field="address")
        self._home = home
        self._address = address
        self._token = token
        self._working_dir = working_dir
        self._patience = patience

    async def open(self, transport: Transport | None = None) -> tuple[Transport, Folder | None]:
        """Return a connected transport, and the packed working folder where there is one."""
        folder = None
        if self._working_dir is not None:
            folder = await asyncio.to_thread(pack_folder, Path(self._working_dir))
        if transport is None:
            transport = await self._find()
        else:
            await transport.connect()
        return transport, folder

    async def _find(self) -> Transport:
        match self._address:
            case None:
                return await self._nearest()
            case "ray":
                return await self._ray(None)
            case str() as address if address.startswith(("http://", "https://")):
                hint = "run on a machine of the cluster and leave the address out, or use address='ray'"
                msg = "connecting over HTTP is not part of this version"
                raise InvalidInput(msg, field="address", hint=hint)
            case str() as address if address.startswith("ray://"):
                hint = "use address='ray' on a machine of the cluster"
                raise InvalidInput("Ray's client mode is not supported", field="address", hint=hint)
            case str() as address if ":" in address:
                return await self._ray(address)
            case other:
                hint = "leave it out, or use 'ray' or the 'host:port' of a Ray cluster"
                raise InvalidInput(f"{other!r} is no address", field="address", hint=hint)

    async def _nearest(self) -> Transport:
        """Return the home's socket when it answers, else Ray when this process belongs to a cluster."""
        from omnimind.client.via_ray import in_ray  # noqa: PLC0415
        from omnimind.instance import Paths, home_path  # noqa: PLC0415

        paths = Paths(home_path(self._home))
        if paths.socket.exists():
            token = self._token
            read = token_file(paths.token) if token is None else lambda: token
            transport = SocketTransport(paths.socket, read, patience=self._patience)
            try:
                await _insist(transport)
            except Unavailable:
                await transport.close()
                if self._home is not None or not in_ray():
                    raise
            else:
                return transport
        if self._home is None and in_ray():
            return await self._ray(None)
        msg = f"no instance of OmniMind runs in {paths.home}"
        raise Unavailable(msg)

    async def _ray(self, address: str | None) -> Transport:
        from omnimind.client.via_ray import RayTransport  # noqa: PLC0415

        transport = RayTransport(address, self._token, patience=self._patience)
        await transport.connect()
        return transport


async def _insist(transport: SocketTransport) -> None:
    """Connect, trying again for a moment: the socket is there, so its coordinator may just restart."""
    loop = asyncio.get_running_loop()
    give_up = loop.time() + FIRST_TRY
    while True:
        try:
            await transport.connect()
        except Unavailable:
            if loop.time() >= give_up:
                raise
            await asyncio.sleep(0.1)
        else:
            return
