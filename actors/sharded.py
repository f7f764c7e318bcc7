"""`Sharded`: what a coordinator does as one of several: it keeps to its own queues, and asks the others."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from actors.engine import Engine
from actors.foreign import Foreign
from actors.keys import Keys
from actors.peers import Peers
from omnimind.client import protocol as p
from omnimind.cluster.sharding import shard_of_queue, shards_of_id
from omnimind.cluster.task import DistributedTask
from omnimind.errors import OmniMindError, WrongShard

log = logging.getLogger("omnimind.coordinator")

_GOODBYE = 3.0


class Sharded:
    """One of several shards. peers: the way to the others."""

    def __init__(self, engine: Engine, shard: int, shards: int, peers: Peers) -> None:
        self.shard, self.shards = shard, shards
        self._engine = engine
        self._peers = peers
        self.keys = Keys(engine, shards, self._ask)
        self.foreign = Foreign(engine, shard, shards, self._ask)

    async def _ask(self, shard: int, method: str, request: Any) -> Any:
        if shard == self.shard:
            return await self.methods()[method](request)
        return await self._peers.ask(shard, method, request)

    def mine(self, queue: str) -> bool:
        """Return whether this shard keeps a queue."""
        return shard_of_queue(queue, self.shards) == self.shard

    def check_queue(self, queue: str) -> None:
        """Raise WrongShard for a queue that another shard keeps."""
        if not self.mine(queue):
            shard = shard_of_queue(queue, self.shards)
            msg = f"shard {shard} keeps queue {queue!r}, this is shard {self.shard}"
            raise WrongShard(msg, shard=shard, queue=queue)

    def check_id(self, task_id: str) -> None:
        """Raise WrongShard for a task that another shard keeps, by its id."""
        shards = shards_of_id(task_id, self.shards)
        if self.shard not in shards:
            msg = f"shard {shards[0]} keeps task {task_id}, this is shard {self.shard}"
            raise WrongShard(msg, shard=shards[0])

    async def submit(self, tasks: list[DistributedTask]) -> Any:
        """Submit tasks, having asked the other shards what must be known of keys and dependencies."""
        self.check_queue(tasks[0].queue)
        own = {task.task_id for task in tasks}
        after = {i: None for task in tasks for i in task.after if i not in own}
        elsewhere = [i for i in after if shards_of_id(i, self.shards) != (self.shard,)]
        facts = await self.foreign.facts(elsewhere) if elsewhere else {}
        if all(task.key is None for task in tasks):
            accepted = await self._engine.submit(tasks, facts)
        else:
            async with self.keys.owners(tasks) as owners:
                accepted = await self._engine.submit(tasks, facts, owners)
            # What comes after a task that stood under its key elsewhere already waits for that one.
            existing = accepted.existing.values()
            self.foreign.follow(i for i in existing if shards_of_id(i, self.shards) != (self.shard,))
        self.foreign.follow(facts)
        return accepted

    async def part(self) -> None:
        """Tell the other shards to end, as shard 0 does when the instance ends."""
        if self.shard == 0:
            others = range(1, self.shards)
            await asyncio.gather(*(self._farewell(shard) for shard in others))
        await self._peers.close()

    async def _farewell(self, shard: int) -> None:
        with contextlib.suppress(OmniMindError):
            await self._peers.ask(shard, "shutdown", p.Empty(), _GOODBYE)

    def methods(self) -> dict[str, Callable[[Any], Awaitable[Any]]]:
        """Return this object's part of the protocol, by method name."""
        return {
            "claim": self.keys.claim,
            "exists": self.keys.exists,
            "states": self.foreign.states,
        }
