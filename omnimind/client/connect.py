"""Finding the coordinator: the unix socket of an instance, or Ray."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from omnimind.client import roaming
from omnimind.client.code import Folder
from omnimind.client.options import seconds_of
from omnimind.client.package import pack_folder
from omnimind.client.routing import RoutedTransport
from omnimind.client.transport import Transport
from omnimind.client.via_http import HttpTransport
from omnimind.client.via_ray import RayTransport, in_ray, job_folder
from omnimind.client.via_socket import token_file
from omnimind.errors import InvalidInput, OmniMindError, Unavailable
from omnimind.instance import Paths, home_path, ray_environment, running

_HTTP = ("http://", "https://")

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
        if isinstance(home, str) and home.startswith(_HTTP) and address is None:
            home, address = None, home
        self._home = home
        self._address = address
        self._token = token
        self._working_dir = working_dir
        self._patience = seconds_of(patience, "timeout", zero=False)
        if address is not None:
            _check_address(address)
            if home is not None and address != "ray":
                hint = "a home's instance is found by its socket, or with address='ray'"
                raise InvalidInput("give `home` or `address`, not both", field="address", hint=hint)

    async def open(self, transport: Transport | None = None) -> tuple[Transport, Folder | None]:
        """Return a connected transport, and the packed working folder where there is one."""
        if transport is None:
            transport = await self._find()
        else:
            await transport.connect()
        if self._working_dir is None:
            return transport, await asyncio.to_thread(job_folder)
        return transport, await asyncio.to_thread(pack_folder, Path(self._working_dir))

    async def _find(self) -> Transport:
        if self._address == "ray":
            return await self._ray(None)
        if self._address is not None and self._address.startswith(_HTTP):
            return await self._http(self._address)
        if self._address is not None:
            return await self._ray(self._address)
        paths = Paths(home_path(self._home))
        if paths.socket.exists() or roaming.roams(paths):
            token = self._token
            read = token_file(paths.token) if token is None else lambda: token
            transport = roaming.transport(paths, read, patience=self._patience)
            try:
                await _insist(transport)
            except Unavailable:
                await transport.close()
                if self._home is not None or not in_ray():
                    raise
            else:
                return RoutedTransport(
                    transport,
                    lambda shard: roaming.transport(paths, read, patience=self._patience, shard=shard),
                )
        if self._home is None and in_ray():
            return await self._ray(None)
        msg = f"no instance of OmniMind runs in {paths.home}"
        raise Unavailable(msg, hint=_start_hint(paths))

    async def _http(self, address: str) -> Transport:
        """Go by the HTTP API, which knows the way to all shards."""
        token = self._token or os.environ.get("OMNIMIND_TOKEN")
        if not token:
            hint = "omnimind token create NAME makes one; give it as connect(token=…) or OMNIMIND_TOKEN"
            raise InvalidInput("the HTTP API wants a token", field="token", hint=hint)
        transport = HttpTransport(address, token, patience=self._patience)
        try:
            await transport.connect()
        except OmniMindError:
            await transport.close()
            raise
        return transport

    async def _ray(self, address: str | None) -> Transport:
        """Go by Ray: to an address, to what this process belongs to, or to the instance of the home."""
        environment: dict[str, str] = {}
        if address is not None:
            environment["RAY_ADDRESS"] = address
        elif not in_ray() or self._home is not None:
            paths = Paths(home_path(self._home))
            record = running(paths)
            if record is None:
                msg = f"no instance of OmniMind runs in {paths.home}, and this process is in no Ray cluster"
                raise Unavailable(msg, hint=_start_hint(paths))
            environment = ray_environment(paths, record)
        if self._token is not None:
            environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self._token}
        transport = RayTransport(environment, patience=self._patience)
        await transport.connect()
        return RoutedTransport(
            transport, lambda shard: RayTransport(environment, patience=self._patience, shard=shard)
        )


def _check_address(address: str) -> None:
    address = str(address)
    if address.startswith(_HTTP):
        return
    if address.startswith("ray://"):
        hint = "use address='ray' on a machine of the cluster"
        raise InvalidInput("Ray's client mode is not supported", field="address", hint=hint)
    if address != "ray" and ":" not in address:
        hint = "leave it out, or use 'ray' or the 'host:port' of a Ray cluster"
        raise InvalidInput(f"{address!r} is no address", field="address", hint=hint)


def _start_hint(paths: Paths) -> str:
    flag = "" if paths.home == home_path(None) else f" --home {paths.home}"
    return f"start one with: omnimind up --detach{flag}"


async def _insist(transport: Transport) -> None:
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
