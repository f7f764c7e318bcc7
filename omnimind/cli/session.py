"""`Session`: what every command gets: the instance's home and calls to its coordinator.

The calls go over the instance's unix socket with the client's own transport, on a private event loop that
runs only while a call is under way. Nothing is opened before the first call.
"""

from __future__ import annotations

import getpass
import os
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from omnimind.errors import OmniMindError, Unavailable

if TYPE_CHECKING:
    import msgspec

    from omnimind.client.transport import Transport

RESTART_PATIENCE = 10.0
"""Seconds that a command waits for a coordinator whose instance lives: it is being restarted."""


class Link(Protocol):
    """Calls to a coordinator, one at a time. `hello`: how it greeted."""

    hello: dict[str, Any]

    def call(self, method: str, request: msgspec.Struct, timeout: float | None = None) -> Any:
        """Return the answer as plain values. Raises the coordinator's error, or Unavailable."""

    def close(self) -> None:
        """Drop the connection."""


class SocketLink:
    """A `Link` over an async transport."""

    def __init__(self, transport: Transport) -> None:
        import asyncio  # noqa: PLC0415 - `--help` and most completions do without

        self._loop = asyncio.new_event_loop()
        self._transport = transport
        self.hello: dict[str, Any] = {}

    def connect(self, patience: float) -> None:
        """Connect, trying again for `patience` seconds. Raises Unavailable."""
        import time  # noqa: PLC0415

        give_up = time.monotonic() + patience
        while True:
            try:
                self.hello = self._loop.run_until_complete(self._transport.connect())
            except Unavailable:
                if time.monotonic() >= give_up:
                    raise
                time.sleep(0.1)
            else:
                return

    def call(self, method: str, request: msgspec.Struct, timeout: float | None = None) -> Any:
        from omnimind.client.protocol import decode, encode  # noqa: PLC0415

        body = self._loop.run_until_complete(self._transport.call(method, encode(request), timeout))
        return decode(body)

    def close(self) -> None:
        self._loop.run_until_complete(self._transport.close())
        self._loop.close()


class Session:
    """One run of the command.

    home: the folder of the instance, as given by `--home` or OMNIMIND_HOME, else the XDG state folder.
    connect: makes the link; tests pass their own.
    """

    def __init__(
        self,
        home: str | os.PathLike[str] | None = None,
        connect: Callable[[Session], Link] | None = None,
    ) -> None:
        self._home = home
        self._connect = connect or open_link
        self._link: Link | None = None
        self.assume_yes = False

    @property
    def home(self) -> Path:
        """Return the instance's folder, absolute; it need not exist."""
        from omnimind.instance import home_path  # noqa: PLC0415

        return home_path(self._home)

    @property
    def home_origin(self) -> str:
        """Return where the home's path came from: ``flag``, ``OMNIMIND_HOME`` or ``default``."""
        if self._home:
            return "flag"
        return "OMNIMIND_HOME" if os.environ.get("OMNIMIND_HOME") else "default"

    def use_home(self, home: str | os.PathLike[str]) -> None:
        """Take another instance: `--home` after the command's name."""
        self._home = home
        self.close()

    def call(self, method: str, request: msgspec.Struct | None = None, timeout: float | None = None) -> Any:
        """Call a method of the coordinator; `request` None stands for `Empty`."""
        from omnimind.client.protocol import Empty  # noqa: PLC0415

        return self._linked().call(method, Empty() if request is None else request, timeout)

    def hello(self) -> dict[str, Any]:
        """Return how the coordinator greeted: {"version", "omnimind", "epoch", "pid"}."""
        return self._linked().hello

    def _linked(self) -> Link:
        if self._link is None:
            self._link = self._connect(self)
        return self._link

    def close(self) -> None:
        """Drop the connection, if there is one."""
        if self._link is not None:
            link, self._link = self._link, None
            link.close()


def actor() -> str:
    """Return who acts, for the audit."""
    try:
        return f"cli:{getpass.getuser()}"
    except (OSError, KeyError):
        return f"cli:{os.getuid()}"


def open_link(session: Session, patience: float | None = None) -> SocketLink:
    """Connect to the instance of `session`. Raises Unavailable, naming the home.

    patience: seconds; None waits for a coordinator that restarts, but only where an instance lives.
    """
    from omnimind.client import roaming  # noqa: PLC0415
    from omnimind.client.routing import RoutedTransport  # noqa: PLC0415
    from omnimind.client.via_socket import SocketTransport, token_file  # noqa: PLC0415
    from omnimind.instance import Paths, running, shard_socket  # noqa: PLC0415

    paths = Paths(session.home)
    record = running(paths)
    lives = record is not None
    is_host = record is not None and "ray" in record.children and "job" not in record.children
    if record is not None and is_host and not roaming.roams(paths):
        msg = f"this machine is a host of the cluster at {record.ray_address}"
        raise Unavailable(msg, hint="give this command on the head")
    if not lives and not paths.socket.exists():
        msg = f"no instance of OmniMind runs in {paths.home}"
        raise Unavailable(msg, hint=start_hint(paths.home))
    read = token_file(paths.token)

    def way(shard: int) -> Transport:
        if lives and roaming.roams(paths):
            return roaming.transport(paths, read, patience=RESTART_PATIENCE, shard=shard)
        return SocketTransport(shard_socket(paths.socket, shard), read)

    link = SocketLink(RoutedTransport(way(0), way))
    wait = (RESTART_PATIENCE if lives else 0.0) if patience is None else patience
    try:
        link.connect(wait)
    except OmniMindError as error:
        link.close()
        if isinstance(error, Unavailable):
            error.hint = start_hint(paths.home) if not lives else "see what is wrong with: omnimind doctor"
        raise
    return link


def start_hint(home: Path) -> str:
    """Return the line that says how to start this instance."""
    from omnimind.instance import home_path  # noqa: PLC0415

    flag = "" if home == home_path(None) else f" --home {shlex.quote(str(home))}"
    return f"start one with: omnimind up --detach{flag}"
