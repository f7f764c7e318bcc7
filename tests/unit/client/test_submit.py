from __future__ import annotations

import asyncio
import enum
import hashlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from omnimind import AsyncClient, Client, InvalidInput, TaskStatus, task
from omnimind.client.protocol import PAYLOAD_MAX
from omnimind.context import TaskContext
from omnimind.errors import (
    KeyConflict,
    NotFound,
    PayloadTooLarge,
    QueueFull,
    TaskCancelled,
    TaskFailed,
    UnknownQueue,
    UnknownTaskType,
    UnserialisableValue,
    WaitTimeout,
)
from omnimind.testing.fake import FakeCoordinator


@task
def add(a: int, b: int = 1) -> int:
    return a + b


@task
def echo(value: Any) -> Any:
    return value


@task(name="shop.resize", retries=1, priority="high", queue="default", needs="cpu", timeout=30)
def resize(path: str, width: int) -> str:
    return f"{path}@{width}"


@task(retries=0)
def fail(message: str) -> None:
    raise LookupError(message)


@task
async def later(value: int) -> int:
    await asyncio.sleep(0)
    return value


@task
def steps(n: int) -> Iterator[int]:
    yield from range(n)
    return


@task
async def asteps(n: int) -> AsyncIterator[int]:
    for i in range(n):
        yield i


@task
def with_context(context: TaskContext, name: str) -> list[str]:
    return [name, context.task_id]


@task
def wants_timeout(timeout: float) -> float:
    return timeout


@task
def only_positions(a: int, b: int, /, *rest: int) -> list[int]:
    return [a, b, *rest]


def test_a_plain_function_is_a_handler(om: Client) -> None:
    def double(x: int) -> int:
        return 2 * x

    assert om.submit(double, 21).result(5) == 42


def test_arguments_bind_as_in_a_call(om: Client, fake: FakeCoordinator) -> None:
    assert om.submit(add, 2, b=3).result(5) == 5
    assert om.submit(add, a=2).result(5) == 3
    [request, _] = fake.called("submit")
    assert request.payloads == [b'{"a":2,"b":3}']


def test_positional_only_parameters_travel_as_positions(om: Client) -> None:
    assert om.submit(only_positions, 1, 2, 3).result(5) == [1, 2, 3]


def test_the_context_is_no_parameter_of_the_caller(om: Client) -> None:
    handle = om.submit(with_context, "x")
    assert handle.result(5) == ["x", handle.id]


@pytest.mark.parametrize(
    ("args", "kwargs", "field"),
    [
        ((), {}, "a"),
        ((1, 2, 3), {}, "payload"),
        ((1,), {"a": 2}, "a"),
        ((1,), {"c": 2}, "c"),
    ],
)
def test_what_does_not_fit_the_handler_is_refused_before_it_travels(
    om: Client, fake: FakeCoordinator, args: tuple[Any, ...], kwargs: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        om.submit(add, *args, **kwargs)
    assert caught.value.field == field
    assert not fake.called("submit")


def test_a_misspelt_option_is_named(om: Client) -> None:
    with pytest.raises(InvalidInput, match="did you mean the option of submit 'retries'"):
        om.submit(add, a=1, retires=3)


def test_handlers_of_every_kind(om: Client) -> None:
    assert om.submit(later, 7).result(5) == 7
    assert om.submit(steps, 3).result(5) is None
    assert om.submit(asteps, 3).result(5) == 2


class Colour(enum.Enum):
    RED = 1


@dataclass
class Point:
    x: int
    y: tuple[int, ...]


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        "ünïcode \U0001f40d",
        2**80,
        1.5,
        [1, [2.0, {"k": None}]],
        (1, 2),
        {1, 2},
        frozenset({"a"}),
        b"\x00\xff",
        {1: "a"},
        {"a": (1,)},
        datetime(2026, 1, 2, tzinfo=UTC),
        timedelta(seconds=3),
        Colour.RED,
        Point(1, (2, 3)),
        "\ud800",
    ],
    ids=repr,
)
def test_values_come_back_as_the_type_that_went(om: Client, value: Any) -> None:
    back = om.submit(echo, value=value).result(5)
    assert back == value
    assert type(back) is type(value)


def test_json_travels_as_json_and_the_rest_as_a_pickle(om: Client, fake: FakeCoordinator) -> None:
    om.submit(echo, value={"a": [1]}).result(5)
    om.submit(echo, value=(1,)).result(5)
    assert [request.encoding for request in fake.called("submit")] == ["json", "pickle"]


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize(
    ("wrap", "place"),
    [
        (lambda x: x, "payload.value"),
        (lambda x: [1, x], "payload.value[1]"),
        (lambda x: {"k": {"n": x}}, "payload.value.k.n"),
        (lambda x: ("t", {x}), "payload.value[1][0]"),
    ],
)
def test_nan_is_refused_with_its_place(om: Client, number: float, wrap: Any, place: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        om.submit(echo, value=wrap(number))
    assert caught.value.field == place


def test_a_payload_may_have_256_kib_and_not_a_byte_more(om: Client) -> None:
    frame = len(b'{"value":""}')
    assert len(om.submit(echo, value="x" * (PAYLOAD_MAX - frame)).result(5)) == PAYLOAD_MAX - frame
    with pytest.raises(PayloadTooLarge, match="pass its address"):
        om.submit(echo, value="x" * (PAYLOAD_MAX - frame + 1))


def test_what_cannot_be_pickled_is_named(om: Client) -> None:
    with pytest.raises(UnserialisableValue) as caught:
        om.submit(echo, value={"fine": (1,), "file": [1, (x for x in "ab")]})
    assert caught.value.field == "payload.value.file[1]"
    assert "generator" in str(caught.value)


def test_options_reach_the_coordinator(om: Client, fake: FakeCoordinator) -> None:
    first = om.submit(resize, path="a", width=1)
    om.submit(
        resize,
        path="a",
        width=2,
        priority=2,
        needs=["gpu", "cpu", "gpu"],
        retries=0,
        timeout=timedelta(minutes=1),
        delay=1.5,
        deadline=timedelta(hours=1),
        after=[first],
        at_most_once=True,
        retry_base=0.1,
        non_retryable=[ValueError, "pkg.Odd"],
        num_cpus=0.5,
        memory=1 << 20,
    )
    request = fake.called("submit")[1]
    assert (request.priority, request.needs, request.max_retries, request.timeout) == (
        2,
        ["cpu", "gpu"],
        0,
        60.0,
    )
    assert (request.delay, request.ttl, request.after, request.at_most_once) == (
        1.5,
        3600.0,
        [first.id],
        True,
    )
    assert request.options == {
        "retry_base": 0.1,
        "non_retryable": ["builtins.ValueError", "pkg.Odd"],
        "num_cpus": 0.5,
        "memory": 1 << 20,
    }
    assert request.actor == "test"


def test_what_is_not_said_is_left_to_the_handlers_record(om: Client, fake: FakeCoordinator) -> None:
    handle = om.submit(resize, "a", 1)
    request = fake.called("submit")[0]
    assert request.priority is request.needs is request.max_retries is request.timeout is None
    info = handle.info()
    assert (info["priority"], info["needs"], info["max_retries"], info["timeout"]) == (3, ["cpu"], 1, 30)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"timeout": -1}, "timeout"),
        ({"timeout": 0}, "timeout"),
        ({"timeout": "10"}, "timeout"),
        ({"timeout": float("nan")}, "timeout"),
        ({"delay": -0.1}, "delay"),
        ({"delay": float("inf")}, "delay"),
        ({"retries": -1}, "retries"),
        ({"retries": 1.5}, "retries"),
        ({"retries": True}, "retries"),
        ({"retries": 1 << 60}, "retries"),
        ({"priority": 11}, "priority"),
        ({"priority": "urgent"}, "priority"),
        ({"deadline": 1.0}, "deadline"),
        ({"deadline": datetime(2020, 1, 1, tzinfo=UTC)}, "deadline"),
        ({"deadline": timedelta(seconds=-1)}, "deadline"),
        ({"deadline": timedelta(seconds=5), "delay": 10}, "deadline"),
        ({"deadline": timedelta(days=1), "not_before": datetime(2200, 1, 1, tzinfo=UTC)}, "deadline"),
        ({"queue": "x" * 10_000}, "queue"),
        ({"queue": ""}, "queue"),
        ({"queue": "a\nb"}, "queue"),
        ({"queue": 3}, "queue"),
        ({"needs": ["gpu", 3]}, "needs"),
        ({"key": ""}, "key"),
        ({"key": "k" * 10_000}, "key"),
        ({"key": 17}, "key"),
        ({"after": ["nonsense"]}, "after"),
        ({"after": [17]}, "after"),
        ({"at_most_once": "yes"}, "at_most_once"),
        ({"non_retryable": [3]}, "non_retryable"),
        ({"num_cpus": -1}, "num_cpus"),
        ({"memory": 1.5}, "memory"),
        ({"payload": [1]}, "payload"),
        ({"payload": {"a": 1}}, "payload"),
    ],
    ids=repr,
)
def test_a_bad_option_is_named(
    om: Client, fake: FakeCoordinator, options: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        om.submit(add, a=1, **options)
    assert caught.value.field == field
    assert len(str(caught.value)) < 500
    assert not fake.called("submit")


def test_unicode_names_and_keys_are_fine(om: Client) -> None:
    om.queues.set("Würfel-\U0001f3b2")
    handle = om.submit(add, a=1, queue="Würfel-\U0001f3b2", key="ключ")
    assert handle.info()["queue"] == "Würfel-\U0001f3b2"
    assert handle.result(5) == 2


def test_a_parameter_with_the_name_of_an_option(om: Client, fake: FakeCoordinator) -> None:
    with pytest.raises(InvalidInput, match="is an option of submit and a parameter"):
        om.submit(wants_timeout, timeout=3)
    with pytest.raises(InvalidInput, match="payload="):
        om.submit(wants_timeout)
    assert om.submit(wants_timeout, timeout=3, payload={"timeout": 9}).result(5) == 9
    assert fake.called("submit")[-1].timeout == 3
    assert om.submit(wants_timeout, 4).result(5) == 4


def test_the_same_key_is_the_same_task(om: Client, fake: FakeCoordinator) -> None:
    first = om.submit(add, a=1, key="k")
    assert om.submit(add, a=1, key="k") == first
    assert len(fake.tasks) == 1
    with pytest.raises(KeyConflict):
        om.submit(add, a=2, key="k")


def test_a_failure_carries_what_the_handler_said(om: Client) -> None:
    handle = om.submit(fail, message="no such page")
    with pytest.raises(TaskFailed, match="LookupError: no such page") as caught:
        handle.result(5)
    error = caught.value
    assert error.details["task_id"] == handle.id
    assert error.details["error_type"] == "LookupError"
    assert "raise LookupError" in error.__notes__[0]
    assert f"omnimind explain {handle.id}" in error.hint
    assert isinstance(handle.exception(5), TaskFailed)
    assert handle.wait(5) is handle.status() is TaskStatus.FAILED
    assert om.submit(add, a=1).exception(5) is None


def test_a_handler_by_name(om: Client) -> None:
    with pytest.raises(UnknownTaskType):
        om.submit("shop.resize", path="a", width=1)
    om.submit(resize, "a", 1)
    assert om.submit("shop.resize", path="b", width=2).result(5) == "b@2"
    with pytest.raises(InvalidInput):
        om.submit("x" * 10_000)


@pytest.mark.parametrize("nonsense", [None, 3, object()])
def test_what_is_no_handler_is_refused(om: Client, nonsense: Any) -> None:
    with pytest.raises(InvalidInput) as caught:
        om.submit(nonsense)
    assert caught.value.field == "task"


def test_a_handler_is_registered_once(om: Client, fake: FakeCoordinator) -> None:
    for i in range(3):
        om.submit(add, a=i)
    assert len(fake.called("register")) == 1


def test_a_handler_that_the_coordinator_forgot_is_registered_again(om: Client, fake: FakeCoordinator) -> None:
    om.submit(add, a=1).result(5)
    fake.specs.clear()
    fake.types.clear()
    fake.blobs.clear()
    assert om.submit(add, a=2).result(5) == 3
    assert len(fake.called("register")) == 2


def test_refusals_of_the_coordinator_arrive_as_they_are(om: Client, fake: FakeCoordinator) -> None:
    with pytest.raises(UnknownQueue, match="queue set"):
        om.submit(add, a=1, queue="nowhere")
    fake.faults["submit"] = [QueueFull("full", retry_after=3.0)]
    with pytest.raises(QueueFull) as caught:
        om.submit(add, a=1)
    assert caught.value.retry_after == 3.0


async def test_an_async_handle_is_awaited(aom: AsyncClient) -> None:
    handle = await aom.submit(add, a=1)
    assert await handle == 2
    assert await handle.result() == 2
    assert await asyncio.gather(*[await aom.submit(add, a=i) for i in range(5)]) == [1, 2, 3, 4, 5]


async def test_waiting_has_its_time(idle_om: AsyncClient, idle: FakeCoordinator) -> None:
    handle = await idle_om.submit(add, a=1)
    with pytest.raises(WaitTimeout, match="it goes on"):
        await handle.result(0.01)
    assert issubclass(WaitTimeout, TimeoutError)
    idle.end(handle.id, 5)
    assert await handle.result(5) == 5


async def test_submit_many_keeps_the_order(aom: AsyncClient, fake: FakeCoordinator) -> None:
    handles = await aom.submit_many(add, ({"a": i} for i in range(1000)), keys=(f"k{i}" for i in range(1000)))
    assert len({handle.id for handle in handles}) == 1000
    assert await handles[777].result(5) == 778
    assert max(len(request.payloads) for request in fake.called("submit")) <= 256
    again = await aom.submit_many(add, [{"a": i} for i in range(1000)], keys=lambda item: f"k{item['a']}")
    assert again == handles


def test_a_handle_can_be_made_from_an_id(om: Client) -> None:
    handle = om.submit(add, a=1)
    assert om.handle(handle.id) == handle
    assert om.result(handle.id, 5) == 2
    unknown = handle.id[:-8] + hashlib.sha256(b"x").hexdigest()[:8]
    with pytest.raises(NotFound):
        om.result(unknown, 5)
    with pytest.raises(InvalidInput):
        om.handle("x" * 10_000)


async def test_cancel_says_what_was_done(idle_om: AsyncClient, idle: FakeCoordinator) -> None:
    handle = await idle_om.submit(add, a=1)
    other = await idle_om.submit(add, a=2)
    assert await idle_om.cancel(handle, plan=True) == "cancelled"
    assert await handle.status() is TaskStatus.PENDING
    assert await handle.cancel(reason="not needed") == "cancelled"
    with pytest.raises(TaskCancelled):
        await handle.result(5)
    assert await idle_om.cancel_many([handle, other.id]) == {handle.id: "cancelled", other.id: "cancelled"}
    assert idle.called("cancel")[1].reason == "not needed"


def test_retry_makes_a_new_task(om: Client) -> None:
    handle = om.submit(add, a=1)
    handle.result(5)
    again = handle.retry()
    assert again.id != handle.id
    assert again.result(5) == 2
    assert again.info()["origin"] == f"retry_of:{handle.id}"


def test_info_decodes_payload_and_result(om: Client) -> None:
    handle = om.submit(echo, value=(1, 2))
    handle.result(5)
    info = om.task(handle)
    assert info["payload"] == {"value": (1, 2)}
    assert info["result"] == (1, 2)
