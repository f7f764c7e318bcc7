"""`AsyncClient`: every verb of OmniMind for a program with an event loop. `Client` is its sync form."""

from __future__ import annotations

import os
from typing import Any

from omnimind.client.admin import AsyncDeadLetters, AsyncNodes, AsyncQueues, AsyncSchedules
from omnimind.client.connect import Target
from omnimind.client.protocol import NameRequest
from omnimind.client.submitting import Submitting
from omnimind.client.transport import Transport

TIMEOUT = 30.0

Info = dict[str, Any]


class AsyncClient(Submitting):
    """A client for asyncio programs: ``async with omnimind.AsyncClient() as om``.

    It connects at its entry (or first call), reconnects by itself, and belongs to the event loop that
    connected it. Arguments: see `omnimind.connect`. transport: one made elsewhere, as in tests.
    """

    def __init__(
        self,
        home: str | os.PathLike[str] | None = None,
        *,
        address: str | None = None,
        token: str | None = None,
        working_dir: str | os.PathLike[str] | None = None,
        timeout: float = TIMEOUT,
        actor: str | None = None,
        transport: Transport | None = None,
    ) -> None:
        target = Target(home, address=address, token=token, working_dir=working_dir, patience=timeout)
        super().__init__(lambda: target.open(transport), timeout, actor)
        self.queues = AsyncQueues(self)
        self.schedules = AsyncSchedules(self)
        self.nodes = AsyncNodes(self)
        self.deadletters = AsyncDeadLetters(self)

    async def cluster_status(self) -> Info:
        """Return the cluster's state: nodes, capacity, load, tasks by status, the coordinator."""
        answer: Info = await self.ask("status")
        return answer

    async def list_handlers(self) -> list[Info]:
        """Return the registered task types with their records."""
        answer: list[Info] = await self.ask("handlers")
        return answer

    async def find(self, prefix: str, limit: int = 20) -> list[str]:
        """Return ids of tasks that begin with `prefix`."""
        answer: list[str] = await self.ask("find", NameRequest(name=prefix, limit=limit))
        return answer

    async def ping(self) -> float:
        """Return the coordinator's time in Unix seconds; that it answers is the point."""
        answer: float = (await self.ask("ping"))["now"]
        return answer
