"""A client with several shards: each call goes where it belongs, and answers are put together."""

from __future__ import annotations

from typing import Any

import pytest

from omnimind.client import protocol as p
from omnimind.client import routing
from omnimind.client.merging import DONE, cursors_of, page
from omnimind.client.routing import RoutedTransport
from omnimind.cluster.policies import QueuePolicy
from omnimind.cluster.sharding import bucket_of, shard_of_queue, shards_of_id
from omnimind.errors import InvalidInput, NotFound, Unavailable, WrongShard
from omnimind.ids import new_slab, task_id

QUEUES = ("default", "emails", "images", "bills", "reports", "c", "e")


class Shard:
    """A coordinator that notes what it is asked, and answers from its tasks."""

    def __init__(self, number: int, world: World) -> None:
        self.number, self.world = number, world
        self.info: dict[str, Any] = {"shards": 1}
        self.asked: list[tuple[str, Any]] = []
        self.tasks: dict[str, dict[str, Any]] = {}
        self.handlers: set[str] = set()
        self.away = False

    async def connect(self) -> dict[str, Any]:
        self.info = {"shards": self.world.shards, "shard": self.number}
        return self.info

    async def close(self) -> None:
        pass

    async def call(self, method: str, body: bytes, timeout: float | None = None) -> bytes:
        request = p.decode(body)
        self.asked.append((method, request))
        if self.away:
            raise Unavailable("away")
        return p.encode(getattr(self, method)(request))

    def submit(self, request: dict[str, Any]) -> dict[str, Any]:
        queue = request["queue"] or "reports"
        shard = shard_of_queue(queue, self.world.shards)
        if shard != self.number:
            raise WrongShard(shard=shard, queue=queue)
        for index in range(len(request["payloads"])):
            name = task_id(request["slab"], index)
            self.world.clock += 1
            times = {"created_at": float(self.world.clock), "seq": len(self.tasks) + 1}
            self.tasks[name] = {"task_id": name, "queue": queue, **times}
        return {"count": len(request["payloads"]), "existing": {}}

    def states(self, request: dict[str, Any]) -> list[Any]:
        return [[i, "pending", ""] for i in request["ids"] if i in self.tasks]

    def cancel(self, request: dict[str, Any]) -> dict[str, str]:
        if any(i not in self.tasks for i in request["ids"]):
            raise NotFound("there is no such task")
        return dict.fromkeys(request["ids"], "cancelled")

    def attempts(self, request: dict[str, Any]) -> list[str]:
        if request["name"] not in self.tasks:
            raise NotFound("there is no such task")
        return [f"of shard {self.number}"]

    def list(self, request: dict[str, Any]) -> dict[str, Any]:
        found = [t for t in self.tasks.values() if request["cursor"] is None or t["seq"] < request["cursor"]]
        found.sort(key=lambda t: -t["seq"])
        rows = found[: request["limit"]]
        after = rows[-1]["seq"] if len(found) > len(rows) else None
        return {"items": rows, "next": after, "truncated_before": None}

    def queue_set(self, request: dict[str, Any]) -> str:
        return str(request["policy"]["name"])

    def register(self, _request: dict[str, Any]) -> dict[str, Any]:
        return {"digest": "d", "missing": [f"b{self.number}"]}

    def ping(self, _request: dict[str, Any]) -> dict[str, float]:
        return {"now": 1.0}


class World:
    def __init__(self, shards: int) -> None:
        self.shards = shards
        self.clock = 0
        self.all = [Shard(n, self) for n in range(shards)]
        self.transport = RoutedTransport(self.all[0], lambda n: self.all[n])

    async def ask(self, method: str, request: Any) -> Any:
        return p.decode(await self.transport.call(method, p.encode(request)))

    async def submit(self, queue: str | None, *, routed: bool = True, count: int = 1) -> list[str]:
        slab = new_slab(bucket_of(queue) if routed and queue else None)
        await self.ask("submit", p.SubmitRequest(slab, "t", [b"1"] * count, queue=queue))
        return [task_id(slab, n) for n in range(count)]

    def askers(self, method: str) -> list[int]:
        found = [shard.number for shard in self.all for name, _ in shard.asked if name == method]
        for shard in self.all:
            shard.asked.clear()
        return found


@pytest.fixture
async def world() -> World:
    made = World(3)
    await made.transport.connect()
    return made


async def test_a_submission_goes_to_its_queues_shard_and_nowhere_else(world: World) -> None:
    for queue in QUEUES:
        await world.submit(queue)
        assert world.askers("submit") == [shard_of_queue(queue, 3)]
        await world.submit(queue, routed=False)
        assert world.askers("submit") == [shard_of_queue(queue, 3)]


async def test_a_queue_that_only_the_coordinator_knows_is_found(world: World) -> None:
    await world.submit(None)
    assert world.askers("submit") == [0, shard_of_queue("reports", 3)]


async def test_an_id_leads_to_its_shard_without_a_question(world: World) -> None:
    for queue in QUEUES:
        [name] = await world.submit(queue)
        world.askers("submit")
        assert await world.ask("attempts", p.NameRequest(name)) == [f"of shard {shard_of_queue(queue, 3)}"]
        assert world.askers("states") == []


async def test_an_id_from_before_is_asked_for_once(world: World) -> None:
    [name] = await world.submit("emails", routed=False)
    for _ in range(2):
        assert await world.ask("attempts", p.NameRequest(name)) == [f"of shard {shard_of_queue('emails', 3)}"]
    assert sorted(world.askers("states")) == [0, 1, 2]


async def test_what_concerns_many_tasks_is_split_and_put_together(world: World) -> None:
    names = [name for queue in QUEUES for name in await world.submit(queue, count=2)]
    assert await world.ask("cancel", p.IdsRequest(names)) == dict.fromkeys(names, "cancelled")
    for shard in world.all:
        given = {i for method, request in shard.asked if method == "cancel" for i in request["ids"]}
        assert given == {i for i in names if shards_of_id(i, 3) == (shard.number,)}


async def test_what_one_shard_refuses_is_begun_in_none(world: World) -> None:
    names = [(await world.submit(queue))[0] for queue in QUEUES]
    unknown = task_id(new_slab(bucket_of("emails")))
    with pytest.raises(NotFound):
        await world.ask("cancel", p.IdsRequest([*names, unknown]))
    assert all(r["plan"] for shard in world.all for method, r in shard.asked if method == "cancel")


async def test_listings_are_put_together_by_time_page_by_page(world: World) -> None:
    names = [(await world.submit(QUEUES[n % len(QUEUES)]))[0] for n in range(50)]
    seen: list[str] = []
    cursor: int | str | None = None
    while True:
        answer = await world.ask("list", p.ListRequest(limit=7, cursor=cursor))
        seen += [task["task_id"] for task in answer["items"]]
        assert all("seq" not in task for task in answer["items"])
        cursor = answer["next"]
        if cursor is None:
            break
    assert seen == names[::-1]


async def test_a_handler_is_registered_with_all_that_answer(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routing, "_LATE", 0.01)
    answer = await world.ask("register", p.HandlerRequest(b"{}"))
    assert sorted(answer["missing"]) == ["b0", "b1", "b2"]
    world.all[1].away = True
    assert sorted((await world.ask("register", p.HandlerRequest(b"{}")))["missing"]) == ["b0", "b2"]


async def test_a_shard_that_is_away_is_missed_only_where_it_is_needed(world: World) -> None:
    world.all[1].away = True
    assert shard_of_queue("images", 3) != 1
    await world.submit("images")
    assert await world.ask("queue_set", p.QueueRequest(QueuePolicy("images"))) == "images"
    with pytest.raises(Unavailable):
        await world.ask("ping", p.Empty())


async def test_with_one_shard_nothing_is_looked_at() -> None:
    world = World(1)
    await world.transport.connect()
    [name] = await world.submit(None)
    assert await world.ask("attempts", p.NameRequest(name)) == ["of shard 0"]
    assert world.askers("states") == []
    assert world.transport.split(["a", "b"]) == [["a", "b"]]


async def test_who_was_connected_before_the_number_changed_finds_the_way() -> None:
    world = World(3)
    world.all[0].info = {"shards": 1}

    def submit_and_reconnect(request: dict[str, Any]) -> dict[str, Any]:
        world.all[0].info = {"shards": 3}  # a connection that was made again says so
        return Shard.submit(world.all[0], request)

    world.all[0].submit = submit_and_reconnect  # type: ignore[method-assign]
    await world.submit("emails")
    assert list(world.all[shard_of_queue("emails", 3)].tasks) != []


def test_cursors_of_another_number_of_shards_are_refused() -> None:
    assert cursors_of(None, 2) == [None, None]
    assert cursors_of("5..-1", 3) == [5, None, DONE]
    for wrong in ("5", "5.6.7", "x.y", 7):
        with pytest.raises(InvalidInput):
            cursors_of(wrong, 2)


def test_a_page_takes_from_each_what_is_newest() -> None:
    def items(*times: int) -> dict[str, Any]:
        return {
            "items": [{"created_at": t, "seq": t, "task_id": str(t)} for t in times],
            "next": 1, "truncated_before": None,
        }  # fmt: skip

    found = page({0: items(9, 5, 4), 1: items(8, 7, 6)}, [None, None], 4, numbered=False)
    assert [item["task_id"] for item in found["items"]] == ["9", "8", "7", "6"]
    assert found["next"] == "9.1"


# ---------------------------------------------------------------------------------------- planted bugs


async def test_a_wrong_route_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The promise of the third test above, with ids that lead to the next shard."""
    monkeypatch.setattr(routing, "shards_of_id", lambda i, n: ((shards_of_id(i, n)[0] + 1) % n,))
    world = World(3)
    await world.transport.connect()
    [name] = await world.submit("emails")
    with pytest.raises(NotFound):
        await world.ask("attempts", p.NameRequest(name))
