"""One key, one task, whatever queues it is sent with: the real `Keys` of several shards, thousands of orders.

Everything that takes time takes a number of turns of the loop that is drawn from a seed, and nothing else
decides the order. Coordinators are killed in the middle, replaced ones live on for a while, and clients
send again what was not answered.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from actors import keys as keys_module
from actors.keys import NO, UNDECIDED, Keys
from omnimind.client import protocol as p
from omnimind.cluster.events import Claimed, KnownTask
from omnimind.cluster.records import ClaimRemoved, ClaimSaved
from omnimind.cluster.sharding import bucket_of, home_of_key, shard_of_queue
from omnimind.cluster.task import DistributedTask
from omnimind.errors import LedgerFenced, OmniMindError, QueueFull, Unavailable
from omnimind.ids import new_slab, task_id

SHARDS = 3
QUEUES = ("default", "emails", "bills", "reports", "c", "e")
SUBMISSIONS = 12


class Disk:
    """What one shard has durably."""

    def __init__(self) -> None:
        self.epoch = 0
        self.held: dict[str, ClaimSaved] = {}
        self.tasks: dict[str, str] = {}
        """Keys by task id."""

    def claims(self, wanted: list[str]) -> dict[str, ClaimSaved]:
        return {key: self.held[key] for key in wanted if key in self.held}

    def known_ids(self, ids: list[str]) -> dict[str, KnownTask]:
        return {i: KnownTask(i, "pending") for i in ids if i in self.tasks}


class Life:
    """One life of a shard's coordinator, as far as `Keys` needs an engine."""

    def __init__(self, world: World, shard: int) -> None:
        self.world, self.shard = world, shard
        self.ledger = world.disks[shard]
        self.ledger.epoch += 1
        self.epoch = self.ledger.epoch
        self.dead = False
        self.keys = world.kind(self, SHARDS, self._ask)  # type: ignore[arg-type]

    clock = type("Clock", (), {"now": staticmethod(lambda: 1.0)})()

    async def read(self, call: Callable[..., Any], *args: Any) -> Any:
        await self.world.turns(self)
        found = call(*args)
        await self.world.turns(self)
        return found

    async def ask(self, make: Callable[[int], Any]) -> None:
        event = make(1)
        assert isinstance(event, Claimed)
        await self.commit(lambda: self._apply(event))

    async def commit(self, work: Callable[[], None]) -> None:
        await self.world.turns(self)
        if self.epoch != self.ledger.epoch:
            self.dead = True
            raise LedgerFenced
        work()
        await self.world.turns(self)

    def _apply(self, event: Claimed) -> None:
        for record in event.records:
            if isinstance(record, ClaimSaved):
                self.ledger.held[record.key] = record
            elif isinstance(record, ClaimRemoved):
                self.ledger.held.pop(record.key, None)

    async def _ask(self, shard: int, method: str, request: Any) -> Any:
        if shard != self.shard:
            await self.world.turns(self)
        # A call goes to whom it reaches: mostly the present life, sometimes one that was replaced.
        life = self if shard == self.shard else self.world.reached(shard)
        answer = await getattr(life.keys, method)(request)
        if shard != self.shard:
            await self.world.turns(self)
        return answer

    async def submit(self, task: DistributedTask, *, refuse: bool) -> str:
        """Accept a task; return the id of the one that stands under its key."""
        async with self.keys.owners([task]) as owners:
            assert task.key is not None
            if task.key in owners:
                return owners[task.key].task_id
            await self.world.turns(self)
            if refuse and task.task_id not in self.ledger.tasks:
                raise QueueFull
            await self.commit(lambda: self.ledger.tasks.update({task.task_id: task.key or ""}))
            return task.task_id


class Killed(BaseException):
    pass


class World:
    def __init__(self, seed: int, kind: type[Keys]) -> None:
        self.chance = random.Random(seed)
        self.kind = kind
        self.disks = [Disk() for _ in range(SHARDS)]
        self.lives = [Life(self, shard) for shard in range(SHARDS)]
        self.former: list[Life] = []
        self.answers: list[tuple[str, str]] = []

    async def turns(self, life: Life) -> None:
        for _ in range(self.chance.randrange(6)):
            await asyncio.sleep(0)
        if life.dead:
            raise Killed

    def reached(self, shard: int) -> Life:
        old = [life for life in self.former if life.shard == shard and not life.dead]
        return self.chance.choice(old) if old and self.chance.random() < 0.3 else self.lives[shard]

    def restart(self) -> None:
        shard = self.chance.randrange(SHARDS)
        life = self.lives[shard]
        life.dead = self.chance.random() < 0.5
        self.former.append(life)
        self.lives[shard] = Life(self, shard)

    async def client(self, number: int) -> None:
        """Send one task until it is answered; some give up, and their claims stay behind."""
        queue = self.chance.choice(QUEUES)
        key = f"k{self.chance.randrange(3)}"
        name = task_id(new_slab(bucket_of(queue)))
        patience = 1 if self.chance.random() < 0.2 else 60
        for _ in range(number * 3):
            await asyncio.sleep(0)
        for _ in range(patience):
            task = DistributedTask(name, "t", b"{}", queue=queue, key=key)
            try:
                life = self.reached(shard_of_queue(queue, SHARDS))
                found = await life.submit(task, refuse=self.chance.random() < 0.15)
            except (Killed, OmniMindError):
                for _ in range(self.chance.randrange(20)):
                    await asyncio.sleep(0)
            else:
                self.answers.append((key, found))
                return

    async def run(self) -> None:
        clients = [asyncio.ensure_future(self.client(n)) for n in range(SUBMISSIONS)]
        while not all(task.done() for task in clients):
            for _ in range(self.chance.randrange(5, 60)):
                await asyncio.sleep(0)
            if self.chance.random() < 0.3:
                self.restart()
        for task in clients:
            task.result()
        self.check()

    def check(self) -> None:
        for number in range(3):
            key = f"k{number}"
            tasks = [i for disk in self.disks for i, theirs in disk.tasks.items() if theirs == key]
            assert len(tasks) <= 1, f"{key} was accepted for {tasks}"
            answered = {found for theirs, found in self.answers if theirs == key}
            assert answered <= set(tasks), f"{key} was answered with {answered}, there is {tasks}"


def tried(kind: type[Keys], seeds: range) -> None:
    loop = asyncio.new_event_loop()
    try:
        for seed in seeds:
            world = World(seed, kind)
            try:
                loop.run_until_complete(asyncio.wait_for(world.run(), 60))
            except AssertionError as error:
                msg = f"seed {seed}: {error}"
                raise AssertionError(msg) from None
    finally:
        loop.close()


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys_module, "_AGAIN", 0.0)


def test_a_key_stands_for_one_task_whatever_dies() -> None:
    tried(Keys, range(400))


def test_a_claim_whose_task_was_refused_is_given_to_the_next() -> None:
    async def story() -> None:
        world = World(1, Keys)
        first, second = (
            DistributedTask(task_id(new_slab(bucket_of(q))), "t", b"{}", queue=q, key="k") for q in QUEUES[:2]
        )
        one, two = (world.lives[shard_of_queue(q, SHARDS)] for q in QUEUES[:2])
        assert one is not two
        with pytest.raises(QueueFull):
            await one.submit(first, refuse=True)
        assert await two.submit(second, refuse=False) == second.task_id
        assert await one.submit(first, refuse=False) == second.task_id

    asyncio.run(story())


def test_old_claims_go_when_their_task_has_gone() -> None:
    async def story() -> None:
        world = World(1, Keys)
        home = home_of_key("k", SHARDS)
        kept, gone = (task_id(new_slab(bucket_of("emails"))) for _ in range(2))
        shard = shard_of_queue("emails", SHARDS)
        world.disks[shard].tasks[kept] = "k"
        held = world.disks[home].held
        held["k"] = ClaimSaved("k", kept, b"", 0.5)
        held["x"] = ClaimSaved("x", gone, b"", 0.5)
        life = world.lives[home]
        world.disks[home].old_claims = lambda _before, _after, _limit: list(held.values())  # type: ignore[attr-defined]
        await life.keys.tidy(1.0)
        assert list(held) == ["k"]

    asyncio.run(story())


# ---------------------------------------------------------------------------------------- planted bugs


class NoLock(Keys):
    """Two claims of one key are looked at side by side."""

    def _locked(self, _key: str) -> Any:
        class Open:
            async def __aenter__(self) -> None: ...
            async def __aexit__(self, *_: object) -> None: ...

        return Open()


class Hasty(Keys):
    """Takes a submission that is under way for none."""

    async def exists(self, request: p.IdsRequest) -> dict[str, str]:
        words = await super().exists(request)
        return {i: NO if word == UNDECIDED else word for i, word in words.items()}


class Unproven(Keys):
    """Answers for tasks without a write of its own epoch: a replaced one answers too."""

    async def exists(self, request: p.IdsRequest) -> dict[str, str]:
        ask, self._engine.ask = self._engine.ask, _nothing  # type: ignore[method-assign, assignment]
        try:
            return await super().exists(request)
        finally:
            self._engine.ask = ask  # type: ignore[method-assign]


class AtHome(Keys):
    """Decides in the task's own shard: the same key with another queue is another key."""

    async def _claim_all(self, tasks: dict[str, DistributedTask]) -> dict[str, KnownTask]:
        found = await self.claim(p.ClaimRequest([(k, t.task_id, t.digest or b"") for k, t in tasks.items()]))
        if found is None:
            raise Unavailable("again")
        pairs = zip(tasks.items(), found, strict=True)
        return {key: KnownTask(i, "pending", d) for (key, task), (i, d) in pairs if i != task.task_id}


class Trusting(Keys):
    """Takes every claim for a task that is there."""

    async def there(self, ids: list[str]) -> dict[str, str]:
        return dict.fromkeys(ids, "yes")


async def _nothing(_make: Callable[[int], Any]) -> None:
    return None


Make = Callable[[], Awaitable[None]]


@pytest.mark.parametrize("kind", [NoLock, Hasty, Unproven, AtHome, Trusting])
def test_planted_bugs_are_seen(kind: type[Keys]) -> None:
    with pytest.raises(AssertionError, match="seed"):
        tried(kind, range(4000))
