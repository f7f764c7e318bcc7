from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any

import pytest

from omnimind import AsyncClient, Client, InvalidInput, TaskResult, task
from omnimind.client import mapping
from omnimind.errors import LedgerFull, LedgerUnavailable, QueueFull, TaskDead, TaskFailed, Unavailable
from omnimind.testing.fake import FakeCoordinator
from omnimind.testing.transport import FakeTransport

Until = Callable[[Callable[[], Any]], Coroutine[Any, Any, Any]]


@task
def double(x: int, plus: int = 0) -> int:
    return 2 * x + plus


@task(retries=0)
def odd_fails(x: int) -> int:
    if x % 2:
        raise ValueError(x)
    return x


@task
def echo(value: Any) -> Any:
    return value


def test_items_are_keywords_positions_or_the_first_argument(om: Client) -> None:
    items = [{"x": 1}, (2,), (3, 100), 4, {"x": 5, "plus": 1}]
    assert list(om.map(double, items, ordered=True)) == [2, 4, 106, 8, 11]


def test_results_come_unordered_and_complete(om: Client) -> None:
    assert sorted(om.map(double, range(2000))) == [2 * x for x in range(2000)]


def test_ordered_means_the_order_of_the_payloads(om: Client) -> None:
    assert list(om.map(double, range(2000), ordered=True)) == [2 * x for x in range(2000)]


def test_nothing_in_nothing_out(om: Client) -> None:
    assert list(om.map(double, [])) == []


async def test_the_same_for_asyncio(aom: AsyncClient) -> None:
    async def source() -> AsyncIterator[int]:
        for x in range(600):
            yield x

    assert [r async for r in aom.map(double, source(), ordered=True)] == [2 * x for x in range(600)]
    assert sorted([r async for r in aom.map(double, range(600))]) == [2 * x for x in range(600)]
    assert [r async for r in aom.map(double, [])] == []


def test_slabs_are_bounded_in_number_and_bytes(om: Client, fake: FakeCoordinator) -> None:
    assert len(list(om.map(echo, ["x" * 100_000] * 90 + ["y"] * 600))) == 690
    for request in fake.called("submit"):
        assert len(request.payloads) <= 256
        assert sum(map(len, request.payloads)) <= (4 << 20) + (256 << 10)
    assert all(request.watch for request in fake.called("submit"))


def test_what_is_no_json_goes_in_slabs_of_its_own(om: Client, fake: FakeCoordinator) -> None:
    items = [(i,) if i % 2 else i for i in range(100)]
    payloads = [{"value": item} for item in items]
    assert list(om.map(echo, payloads, ordered=True)) == items
    assert sorted(r.encoding for r in fake.called("submit")) == ["json", "pickle"]


def test_the_first_failure_ends_the_iteration(om: Client) -> None:
    with pytest.raises(TaskFailed, match="ValueError"):
        list(om.map(odd_fails, range(10)))


def test_failures_can_be_had_as_results(om: Client) -> None:
    found: dict[int, TaskResult[int]] = {
        r.index: r for r in om.map(odd_fails, range(10), return_exceptions=True)
    }
    assert sorted(found) == list(range(10))
    assert [found[i].result for i in range(0, 10, 2)] == [0, 2, 4, 6, 8]
    assert [found[i].status for i in (1, 2)] == ["failed", "completed"]
    assert found[2].ok
    assert found[2].error is None
    assert isinstance(found[3].error, TaskFailed)
    with pytest.raises(TaskFailed):
        found[3].result  # noqa: B018
    assert found[3].task_id in repr(found[3])


async def test_other_ends_have_errors_of_their_own(
    idle_om: AsyncClient, idle: FakeCoordinator, until: Until
) -> None:
    async def collect() -> list[TaskResult[int]]:
        return [r async for r in idle_om.map(double, [1], return_exceptions=True)]

    waiting = asyncio.create_task(collect())
    [name] = await until(lambda: list(idle.tasks))
    idle.end(name, status="dead", cause="killed its workers")
    [result] = await waiting
    assert isinstance(result.error, TaskDead)
    assert f"deadletter replay {name}" in result.error.hint


class Counted:
    """An endless input that knows how far it was read."""

    def __init__(self) -> None:
        self.taken = 0

    def __iter__(self) -> Iterator[int]:
        while True:
            self.taken += 1
            yield self.taken


def test_an_endless_input_is_read_as_far_as_the_window_goes(om: Client) -> None:
    source = Counted()
    results = om.map(double, source, window=64)
    got = list(itertools.islice(results, 500))
    assert len(set(got)) == 500
    assert source.taken <= 500 + 64


def test_ordered_results_count_until_they_are_given_out(om: Client) -> None:
    source = Counted()
    results = om.map(double, source, window=16, ordered=True)
    assert list(itertools.islice(results, 100)) == [2 * x for x in range(1, 101)]
    assert source.taken <= 100 + 16


async def test_the_window_holds_for_asyncio_too(
    idle_om: AsyncClient, idle: FakeCoordinator, until: Until
) -> None:
    source = Counted()
    results = idle_om.map(double, source, window=40)
    first = asyncio.ensure_future(anext(results))
    await until(lambda: len(idle.tasks) == 40)
    await asyncio.sleep(0.02)
    assert len(idle.tasks) == source.taken == 40
    idle.end(next(iter(idle.tasks)), 2)
    assert await first == 2
    await results.aclose()  # type: ignore[attr-defined]


async def test_results_come_while_the_input_is_slow(aom: AsyncClient) -> None:
    gate = asyncio.Event()

    async def slow() -> AsyncIterator[int]:
        yield 1
        await gate.wait()
        yield 2

    results = aom.map(double, slow())
    assert await asyncio.wait_for(anext(results), 5) == 2
    gate.set()
    assert await asyncio.wait_for(anext(results), 5) == 4


@pytest.mark.parametrize("window", [0, -1, 1.5, True, None])
def test_a_window_is_a_positive_number(om: Client, window: Any) -> None:
    with pytest.raises(InvalidInput) as caught:
        om.map(double, [1], window=window)
    assert caught.value.field == "window"


def test_bad_options_are_refused_at_the_call(om: Client) -> None:
    bad: list[dict[str, Any]] = [{"timeout": -1}, {"key": "k"}, {"payload": {}}, {"retires": 1}]
    for options in bad:
        with pytest.raises(InvalidInput) as caught:
            om.map(double, [1], **options)
        assert caught.value.field in options


def test_a_bad_payload_is_named_by_its_place(om: Client) -> None:
    with pytest.raises(InvalidInput) as caught:
        list(om.map(double, [{"x": 1}, {"x": float("nan")}]))
    assert caught.value.field == "payloads[1].x"
    with pytest.raises(InvalidInput) as caught:
        list(om.map(double, [{"x": 1}, {"y": 1}]))
    assert caught.value.field == "payloads[1].y"


def test_an_error_of_the_input_comes_through(om: Client) -> None:
    def broken() -> Iterator[int]:
        yield 1
        msg = "no more"
        raise OSError(msg)

    with pytest.raises(OSError, match="no more"):
        list(om.map(double, broken()))


async def test_an_error_of_an_async_input_comes_through(aom: AsyncClient) -> None:
    async def broken() -> AsyncIterator[int]:
        yield 1
        msg = "no more"
        raise OSError(msg)

    with pytest.raises(OSError, match="no more"):
        [r async for r in aom.map(double, broken())]


def test_keys_make_a_map_repeatable(om: Client, fake: FakeCoordinator) -> None:
    keys = [f"k{x}" for x in range(300)]
    first = list(om.map(double, range(300), keys=keys, ordered=True))
    again = list(om.map(double, range(300), keys=lambda x: f"k{x}", ordered=True))
    assert first == again
    assert len(fake.tasks) == 300


def test_two_payloads_under_one_key_are_one_task_with_two_results(om: Client, fake: FakeCoordinator) -> None:
    assert list(om.map(double, [1, 1, 2], keys=["a", "a", "b"])).count(2) == 2
    assert len(fake.tasks) == 2


def test_keys_are_checked(om: Client) -> None:
    with pytest.raises(InvalidInput, match="fewer keys"):
        list(om.map(double, range(3), keys=["a"]))
    with pytest.raises(InvalidInput) as caught:
        list(om.map(double, range(3), keys=["a", ""]))
    assert caught.value.field == "payloads[1].key"


def test_what_is_refused_for_the_moment_is_tried_again(
    om: Client, fake: FakeCoordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mapping, "_PAUSE", 0.001)
    fake.faults["submit"] = [QueueFull(retry_after=0.001), LedgerUnavailable(), Unavailable()]
    fake.faults["watch"] = [Unavailable()]
    assert sorted(om.map(double, range(100))) == [2 * x for x in range(100)]
    slabs = [request.slab for request in fake.called("submit")]
    assert len(slabs) == 4
    assert len(set(slabs)) == 1


def test_a_full_disk_ends_the_map(om: Client, fake: FakeCoordinator) -> None:
    fake.faults["submit"] = [LedgerFull()]
    with pytest.raises(LedgerFull):
        list(om.map(double, range(10)))


def test_a_coordinator_that_stays_away_ends_the_map(
    om: Client, fake: FakeCoordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mapping, "_PAUSE", 0.001)
    monkeypatch.setattr(mapping, "_PATIENCE", 0.01)
    fake.faults["submit"] = [Unavailable() for _ in range(10_000)]
    with pytest.raises(Unavailable):
        list(om.map(double, range(10)))


async def test_many_open_slabs_keep_few_calls_open(
    fake: FakeCoordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mapping, "_LOOKS_MAX", 2)
    open_calls: list[int] = []
    now = 0

    class Counting(FakeTransport):
        async def call(self, method: str, body: bytes, timeout: float | None = None) -> bytes:
            nonlocal now
            now += method == "watch"
            open_calls.append(now)
            try:
                return await super().call(method, body, timeout)
            finally:
                now -= method == "watch"

    async with AsyncClient(transport=Counting(fake)) as client:
        results = [r async for r in client.map(double, range(64), window=32, ordered=True)]
    assert results == [2 * x for x in range(64)]
    assert max(open_calls) <= 2


def test_a_map_by_a_types_name_takes_keywords(om: Client) -> None:
    om.submit(double, 1).result(5)
    name = double.name
    assert sorted(om.map(name, [{"x": 1}, (2, 3)])) == [2, 7]
    with pytest.raises(InvalidInput, match="dicts of keywords"):
        list(om.map(name, [1]))
