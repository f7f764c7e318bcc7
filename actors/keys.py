"""`Keys`: for which task a key stands, whatever shard the task is in. See docs/explain/shards.md.

A key has a home, by its hash. Whoever accepts a task with a key *claims* the key there first, for the task's
id; the claim is durable before it is answered. So of two submissions one is first, wherever they went.
A claim may be left over from a submission that was refused afterwards, or whose coordinator died: then the
task does not exist. Before the home gives such a key to another task it asks the shard that would have
the task, which answers

- ``yes``: it is there, durably;
- ``no``: it is not, and no submission of it is under way there; or
- ``undecided``: one is under way. Who asked has to come again.

While a key is asked about it is locked at its home, so nobody can be told meanwhile that it is theirs;
and ``no`` is answered only after a write of that shard's own epoch, so a coordinator that was replaced
cannot answer it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from actors.engine import Engine
from omnimind.client import protocol as p
from omnimind.cluster import events as ev
from omnimind.cluster.events import KnownTask
from omnimind.cluster.records import ClaimRemoved, ClaimSaved
from omnimind.cluster.sharding import home_of_key, shards_of_id
from omnimind.cluster.task import DistributedTask, payload_digest
from omnimind.errors import OmniMindError, Unavailable

_AGAIN = 0.05
_PATIENCE = 10.0
_TIDY_STEP = 200

YES, NO, UNDECIDED = "yes", "no", "undecided"

Ask = Callable[[int, str, Any], Awaitable[Any]]
"""(shard, method, request) -> answer; for this shard itself too."""


class Keys:
    """One shard's part: it claims for its own submissions, and decides for the keys whose home it is."""

    def __init__(self, engine: Engine, shards: int, ask: Ask) -> None:
        self._engine = engine
        self._shards = shards
        self._ask = ask
        self._locks: dict[str, tuple[asyncio.Lock, list[None]]] = {}
        """By key, with one entry for each who holds it or waits for it."""
        self._coming: dict[str, int] = {}
        """Tasks with keys whose submission is under way here."""
        self._looking = 0
        self._passed: dict[str, None] = {}
        """Tasks whose submission has ended while somebody looked whether they are here."""
        self._tidied = (0.0, "")

    # ------------------------------------------------------------------------------ for submissions

    @contextlib.asynccontextmanager
    async def owners(self, tasks: list[DistributedTask]) -> AsyncIterator[dict[str, KnownTask]]:
        """Claim the tasks' keys; give those that stand for other tasks. Accept the tasks inside."""
        first: dict[str, DistributedTask] = {}
        for task in tasks:
            if task.key is not None:
                if task.digest is None:
                    task.digest = payload_digest(task)
                first.setdefault(task.key, task)
        ids = [task.task_id for task in first.values()]
        for task_id in ids:
            self._coming[task_id] = self._coming.get(task_id, 0) + 1
        try:
            yield await self._claim_all(first)
        finally:
            for task_id in ids:
                self._coming[task_id] -= 1
                if not self._coming[task_id]:
                    del self._coming[task_id]
                if self._looking:
                    self._passed[task_id] = None

    async def _claim_all(self, tasks: dict[str, DistributedTask]) -> dict[str, KnownTask]:
        homes: dict[int, list[str]] = {}
        for key in tasks:
            homes.setdefault(home_of_key(key, self._shards), []).append(key)
        owners: dict[str, KnownTask] = {}
        # One home after the other, in order: two submissions with the same keys cannot wait for each other.
        for home in sorted(homes):
            keys = homes[home]
            wants = [(key, tasks[key].task_id, tasks[key].digest or b"") for key in keys]
            for key, (task_id, digest) in zip(keys, await self._insist(home, wants), strict=True):
                if task_id != tasks[key].task_id:
                    owners[key] = KnownTask(task_id, "pending", digest)
        return owners

    async def _insist(self, home: int, wants: list[tuple[str, str, bytes]]) -> list[tuple[str, bytes]]:
        loop = asyncio.get_running_loop()
        give_up = loop.time() + _PATIENCE
        while True:
            answer = await self._ask(home, "claim", p.ClaimRequest(wants))
            if answer is not None:
                return [(task_id, digest) for task_id, digest in answer]
            if loop.time() > give_up:
                msg = "another submission with the same key is under way"
                raise Unavailable(msg, field="key", hint="send it again", retry_after=1.0)
            await asyncio.sleep(_AGAIN)

    # ----------------------------------------------------------------------------------- as the home

    async def claim(self, request: p.ClaimRequest) -> list[tuple[str, bytes | None]] | None:
        """Let keys stand for tasks, unless they stand for others; None: come again."""
        wants = request.wants
        async with contextlib.AsyncExitStack() as held:
            for key in sorted({key for key, _, _ in wants}):
                await held.enter_async_context(self._locked(key))
            known = await self._engine.read(self._engine.ledger.claims, [key for key, _, _ in wants])
            others = {
                key: known[key] for key, task_id, _ in wants if key in known and known[key].task_id != task_id
            }
            there = await self.there([claim.task_id for claim in others.values()])
            if UNDECIDED in there.values():
                return None
            now = self._engine.clock.now()
            found: list[tuple[str, bytes | None]] = []
            fresh: list[Any] = []
            for key, task_id, digest in wants:
                other = others.get(key)
                if other is not None and there[other.task_id] == YES:
                    found.append((other.task_id, other.digest))
                else:
                    fresh.append(ClaimSaved(key, task_id, digest, now))
                    found.append((task_id, digest))
            if fresh:
                await self._engine.ask(lambda n: ev.Claimed(n, fresh))
            return found

    async def there(self, ids: list[str]) -> dict[str, str]:
        """Ask the shards that would have these tasks whether they have them."""
        answers = dict.fromkeys(ids, NO)
        by_shard: dict[int, list[str]] = {}
        for task_id in ids:
            for shard in shards_of_id(task_id, self._shards):
                by_shard.setdefault(shard, []).append(task_id)
        rank = (NO, UNDECIDED, YES)
        for shard, asked in by_shard.items():
            for task_id, word in (await self._ask(shard, "exists", p.IdsRequest(asked))).items():
                answers[task_id] = max(answers[task_id], word, key=rank.index)
        return answers

    @contextlib.asynccontextmanager
    async def _locked(self, key: str) -> AsyncIterator[None]:
        lock, users = self._locks.setdefault(key, (asyncio.Lock(), []))
        users.append(None)
        try:
            async with lock:
                yield
        finally:
            users.pop()
            if not users:
                del self._locks[key]

    async def tidy(self, before: float) -> None:
        """Forget some claims that are older than `before` and whose task is gone."""
        claims = await self._engine.read(self._engine.ledger.old_claims, before, self._tidied, _TIDY_STEP)
        self._tidied = (claims[-1].at, claims[-1].key) if len(claims) == _TIDY_STEP else (0.0, "")
        for old in claims:
            async with self._locked(old.key):
                found = (await self._engine.read(self._engine.ledger.claims, [old.key])).get(old.key)
                if found != old:
                    continue
                with contextlib.suppress(OmniMindError):  # that shard may be away: later
                    if (await self.there([old.task_id]))[old.task_id] == NO:
                        await self._engine.ask(lambda n, k=old.key: ev.Claimed(n, [ClaimRemoved(k)]))  # type: ignore[misc]

    # ------------------------------------------------------------- as the shard that has the tasks

    async def exists(self, request: p.IdsRequest) -> dict[str, str]:
        """Say of each task whether it is here, durably."""
        self._looking += 1
        try:
            coming = {i for i in request.ids if i in self._coming}
            # Proves that this coordinator is not replaced, and commits whatever was taken in before.
            await self._engine.ask(lambda n: ev.Claimed(n, [ClaimRemoved("")]))
            known = await self._engine.read(self._engine.ledger.known_ids, request.ids)
            coming |= {i for i in request.ids if i in self._coming or i in self._passed}
            return {i: YES if i in known else UNDECIDED if i in coming else NO for i in request.ids}
        finally:
            self._looking -= 1
            if not self._looking:
                self._passed.clear()
