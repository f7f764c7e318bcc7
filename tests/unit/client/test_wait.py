from __future__ import annotations

import asyncio
from typing import Any

import pytest

from omnimind import AsyncClient, Client, InvalidInput, NotFound, task
from omnimind.client import watching
from omnimind.client.protocol import Result, WatchAnswer, WatchRequest
from omnimind.client.watching import Watcher
from omnimind.errors import Unavailable, WaitTimeout
from omnimind.ids import new_slab, task_id
from omnimind.testing.fake import FakeCoordinator


@task
def double(x: int) -> int:
    return 2 * x


async def test_all_any_failure(idle_om: AsyncClient, idle: FakeCoordinator) -> None:
    handles = await idle_om.submit_many(double, range(4))
    done, pending = await idle_om.wait(handles, timeout=0.01)
    assert (done, pending) == ([], handles)
    idle.end(handles[2].id, 4)
    assert await idle_om.wait(handles, "any", timeout=5) == (
        [handles[2]],
        [handles[0], handles[1], handles[3]],
    )
    waiting = asyncio.create_task(idle_om.wait(handles, "failure", timeout=5))
    idle.end(handles[0].id, 0)
    await asyncio.sleep(0.02)
    assert not waiting.done()
    idle.end(handles[1].id, status="failed")
    assert (await waiting).done == handles[:3]
    idle.end(handles[3].id, 6)
    assert await idle_om.wait(handles, timeout=5) == (handles, [])


async def test_what_was_waited_for_is_not_asked_again(idle_om: AsyncClient, idle: FakeCoordinator) -> None:
    [handle] = await idle_om.submit_many(double, [1])
    idle.end(handle.id, 2)
    await idle_om.wait([handle])
    asked = len(idle.calls)
    assert await handle == 2
    assert (await handle.status()).value == "completed"
    assert len(idle.calls) == asked


def test_waiting_by_id_and_for_nothing(om: Client) -> None:
    handle = om.submit(double, 1)
    assert om.wait([handle.id]).done == [handle.id]
    assert om.wait([]) == ([], [])
    with pytest.raises(InvalidInput):
        om.wait([handle], "some")  # type: ignore[arg-type]


async def test_an_unknown_task_among_many_hurts_nobody_else(aom: AsyncClient) -> None:
    handles = await aom.submit_many(double, range(20))
    unknown = aom.handle(task_id(new_slab()))
    ends = await asyncio.gather(*handles[:10], unknown, *handles[10:], return_exceptions=True)
    assert isinstance(ends.pop(10), NotFound)
    assert ends == [2 * x for x in range(20)]
    with pytest.raises(NotFound):
        await aom.wait([*handles, unknown])


class Bench:
    """A coordinator of nothing but `watch`: ends what it is told to, counts the calls."""

    def __init__(self) -> None:
        self.ended: set[str] = set()
        self.changed = asyncio.Event()
        self.asked: list[WatchRequest] = []
        self.open = 0
        self.trouble: Exception | None = None

    def end(self, *ids: str) -> None:
        self.ended.update(ids)
        self.changed.set()
        self.changed = asyncio.Event()

    async def watch(self, request: WatchRequest) -> WatchAnswer:
        self.asked.append(request)
        if self.trouble is not None:
            raise self.trouble
        self.open += 1
        try:
            async with asyncio.timeout(request.timeout):
                while not self.ended.intersection(request.ids):
                    await self.changed.wait()
        except TimeoutError:
            pass
        finally:
            self.open -= 1
        found = [name for name in request.ids if name in self.ended]
        return WatchAnswer([Result(name, "completed", b"1", "json", None, "ok") for name in found])


async def test_what_is_asked_in_one_turn_goes_in_one_call() -> None:
    bench = Bench()
    watcher = Watcher(bench.watch)
    waiting = [asyncio.create_task(watcher.result(f"t{i}")) for i in range(100)]
    await asyncio.sleep(0.01)
    assert [len(request.ids) for request in bench.asked] == [100]
    bench.end(*(f"t{i}" for i in range(100)))
    assert len(await asyncio.gather(*waiting)) == 100


async def test_thousands_of_waiters_keep_few_calls_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "_SHORT_SECONDS", 0.02)
    bench = Bench()
    watcher = Watcher(bench.watch)
    waiting = []
    for i in range(400):
        waiting.append(asyncio.create_task(watcher.result(f"t{i}")))
        await asyncio.sleep(0)
    await asyncio.sleep(0.1)
    assert bench.open <= watching._LONG_ROUNDS * 2
    bench.end(*(f"t{i}" for i in range(400)))
    assert len(await asyncio.gather(*waiting)) == 400


async def test_who_gives_up_is_forgotten() -> None:
    bench = Bench()
    watcher = Watcher(bench.watch)
    patient = asyncio.create_task(watcher.result("a"))
    with pytest.raises(WaitTimeout):
        await watcher.result("b", 0.01)
    bench.end("a")
    await patient
    await asyncio.sleep(0.01)
    assert bench.open == 0, "nobody waits for b, so it is not asked for again"
    watcher.close()


async def test_two_wait_for_one() -> None:
    bench = Bench()
    watcher = Watcher(bench.watch)
    first = asyncio.create_task(watcher.result("a"))
    await asyncio.sleep(0.01)
    second = asyncio.create_task(watcher.result("a"))
    await asyncio.sleep(0.01)
    assert len(bench.asked) == 1
    bench.end("a")
    assert await first == await second


async def test_trouble_reaches_everybody_and_passes() -> None:
    bench = Bench()
    bench.trouble = Unavailable("away")
    watcher = Watcher(bench.watch)
    ends: list[Any] = await asyncio.gather(*[watcher.result(n) for n in "abc"], return_exceptions=True)
    assert all(isinstance(end, Unavailable) for end in ends)
    bench.trouble = None
    bench.end("a")
    assert (await watcher.result("a")).value == b"1"
