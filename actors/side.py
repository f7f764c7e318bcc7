"""`Side`: what a Node actor has for one shard: its agent, the way to its coordinator, what it will tell."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import ray

from actors.blocking import Lane
from actors.link import Link
from actors.names import NAMESPACE, coordinator_actor
from actors.wire import Up, encode
from omnimind.clock import SystemClock
from omnimind.cluster.agent import NodeAgent
from omnimind.errors import LedgerFull, LedgerUnavailable, OmniMindError, Unavailable
from omnimind.instance import shard_socket

log = logging.getLogger("omnimind.node")

_ANSWER_TIMEOUT = 15.0
_DIAL_TIMEOUT = 5.0
_PATIENCE = 25.0
_TICK = 0.1
_LEDGER_TICK = 1.0
_LOGS_KEPT = 1000

Lines = list[tuple[float, str, str]]


class Side:
    """A node's side towards one shard. pushed: hears (kind, data) of what its coordinator sends."""

    def __init__(
        self,
        shard: int,
        agent: NodeAgent,
        node_id: str,
        *,
        socket: Path,
        token_file: Path,
        pushed: Callable[[str, bytes], None],
    ) -> None:
        self.shard = shard
        self.agent = agent
        self.progress: dict[str, dict[str, Any]] = {}
        self.logs: list[tuple[str, int, Lines]] = []
        self.told_full = False
        """Whether the log says that the agent's outcomes are too many."""
        self._node_id = node_id
        self._socket, self._token_file = shard_socket(socket, shard), token_file
        self._pushed = pushed
        self._link = Link(pushed)
        self._clock = SystemClock()
        self._dialling = False
        self._up: Any = None
        self._finding = Lane("find", _ANSWER_TIMEOUT)

    async def insist(self, kind: str, message: Up) -> Any:
        """Do as `ask`, and wait for a coordinator that is being restarted: no attempt may fail for that.

        For what may be asked twice. Gives up on a coordinator that does not answer before the worker that
        waits for it does; while one says that its ledger is away, it waits as long as that takes.
        """
        give_up = self._clock.now() + _PATIENCE
        while True:
            try:
                return await self.ask(kind, message)
            except (LedgerUnavailable, LedgerFull) as error:
                give_up = self._clock.now() + _PATIENCE
                await asyncio.sleep(min(error.retry_after or _TICK, _LEDGER_TICK))
            except (Unavailable, TimeoutError, ray.exceptions.RayActorError):
                if self._clock.now() > give_up:
                    raise
                await asyncio.sleep(_TICK)

    async def ask(self, kind: str, message: Up) -> Any:
        """Send a message up, by the socket where that is possible, and return its answer."""
        data = encode(message)
        async with asyncio.timeout(_ANSWER_TIMEOUT):
            if self._link.open:
                return msgspec.msgpack.decode(await self._link.call(kind, data))
            if self._up is None:
                self._up = await self._finding.call(_find_coordinator, self.shard)
            try:
                return await asyncio.wrap_future(self._up.up.remote(kind, data).future())
            except ray.exceptions.ActorDiedError:
                self._up = None  # for good: there is another one of this name, or will be
                raise

    @property
    def lacks_line(self) -> bool:
        """Return whether there might be a line to the coordinator, and is none."""
        return not self._link.open and not self._dialling and self._socket.exists()

    async def dial(self) -> None:
        """Open the line to the coordinator, when it is on this host and there is none."""
        if not self.lacks_line:
            return
        self._dialling = True
        link = Link(self._pushed)
        try:
            token = self._token_file.read_text().strip()
            async with asyncio.timeout(_DIAL_TIMEOUT):
                await link.dial(self._socket, token, self._node_id)
        except (OSError, OmniMindError) as error:
            log.debug("no line to the coordinator: %s", error)
            link.close()
        else:
            self._link = link
        finally:
            self._dialling = False

    def take_along(self) -> tuple[dict[str, dict[str, Any]], list[tuple[str, int, Lines]]]:
        """Return the progress and the log lines that the next heartbeat takes along."""
        progress, self.progress = self.progress, {}
        logs, self.logs = self.logs, []
        return progress, logs

    def bring_back(self, progress: dict[str, dict[str, Any]], logs: list[tuple[str, int, Lines]]) -> None:
        """Keep for the next heartbeat what one took along that did not arrive."""
        self.progress = progress | self.progress
        self.logs = (logs + self.logs)[-_LOGS_KEPT:]


def _find_coordinator(shard: int) -> Any:
    """Return a shard's coordinator. Blocks while the GCS is away. Raises Unavailable."""
    try:
        return ray.get_actor(coordinator_actor(shard), namespace=NAMESPACE)
    except ValueError:
        raise Unavailable("there is no coordinator") from None
