"""`Foreign`: tasks of other shards that tasks of this one come after, asked about until they have ended.

What waits for what is in the rows of the waiting tasks, so nothing here needs to be kept: after a restart
the core says again which ids it waits for, and those that other shards keep are asked about anew.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from actors.engine import Engine
from omnimind.client import protocol as p
from omnimind.cluster import events as ev
from omnimind.cluster.core import CoordinatorCore
from omnimind.cluster.events import KnownTask
from omnimind.cluster.sharding import shards_of_id
from omnimind.cluster.states import TERMINAL
from omnimind.errors import OmniMindError

log = logging.getLogger("omnimind.coordinator")

_LOOK_EVERY = 0.2
_PORTION = 500

Ask = Callable[[int, str, Any], Awaitable[Any]]


class Foreign:
    """One shard's questions about tasks of the others. ask: see `Keys`."""

    def __init__(self, engine: Engine, shard: int, shards: int, ask: Ask) -> None:
        self._engine = engine
        self._shard, self._shards = shard, shards
        self._ask = ask
        self._awaited: dict[str, None] = {}
        self._core: CoordinatorCore | None = None

    async def facts(self, ids: Iterable[str]) -> dict[str, KnownTask]:
        """Return the states of tasks that other shards keep; none of those that are nowhere.

        Raises Unavailable when a shard does not answer that may keep one of them.
        """
        by_shard: dict[int, list[str]] = {}
        for task_id in dict.fromkeys(ids):
            for shard in shards_of_id(task_id, self._shards):
                if shard != self._shard:
                    by_shard.setdefault(shard, []).append(task_id)
        found: dict[str, KnownTask] = {}
        for shard, asked in by_shard.items():
            for start in range(0, len(asked), _PORTION):
                portion = asked[start : start + _PORTION]
                for task_id, status, cause in await self._ask(shard, "states", p.IdsRequest(portion)):
                    found[task_id] = KnownTask(task_id, status, cause=cause)
        return found

    def follow(self, ids: Iterable[str]) -> None:
        """Ask about these from now on, as long as anything waits for them."""
        self._awaited.update(dict.fromkeys(ids))

    async def states(self, request: p.IdsRequest) -> list[tuple[str, str, str]]:
        """Return id, status and cause of the tasks that are here, as they are on disk."""
        known = await self._engine.read(self._engine.ledger.known_ids, request.ids)
        return [(fact.task_id, fact.status, fact.cause) for fact in known.values()]

    async def watch(self) -> None:
        """Ask for ever."""
        while True:
            await asyncio.sleep(_LOOK_EVERY)
            if self._engine.trouble is not None:
                continue
            core = self._engine.core
            if core is not self._core:
                self._core = core
                self.follow(i for i in core.dependents if self._shards_but_mine(i))
            waited = [i for i in self._awaited if i in core.dependents]
            self._awaited = dict.fromkeys(waited)
            if waited:
                try:
                    await self._look(core, waited)
                except OmniMindError as error:
                    log.info("tasks of another shard cannot be asked about yet: %s", error)

    def _shards_but_mine(self, task_id: str) -> bool:
        assert self._core is not None
        return shards_of_id(task_id, self._shards) != (self._shard,) and self._core.live(task_id) is None

    async def _look(self, core: CoordinatorCore, waited: list[str]) -> None:
        # One that is kept here after all (its id does not say where) is the core's own business.
        here = await self._engine.read(self._engine.ledger.known_ids, waited)
        facts = await self.facts(i for i in waited if i not in here)
        ended: list[KnownTask] = []
        for task_id in waited:
            fact = facts.get(task_id) or here.get(task_id)
            if fact is None:
                cause = "its record is gone, nobody knows how it ended"
                ended.append(KnownTask(task_id, "failed", cause=cause))
            elif fact.status in TERMINAL:
                ended.append(fact)
        if ended and self._engine.core is core:
            self._engine.feed(ev.Settled(ended))
