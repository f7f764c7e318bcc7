"""What tasks can do, one by one, as a user's program asks for it, on one real instance. Nothing is faked.

Handlers and tests meet in files: a handler waits until a file exists, and writes down what it did. So the
tests say in which order and how often, and wait for what happens instead of for times.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import os
import pickle
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

import omnimind
from omnimind import AsyncClient, AsyncHandle, Client, Handle, TaskContext, TaskStatus, task
from omnimind.client.protocol import SubmitRequest
from omnimind.errors import (
    Conflict,
    CyclicDependency,
    InvalidInput,
    KeyConflict,
    NotFound,
    OmniMindError,
    PayloadTooLarge,
    TaskCancelled,
    TaskDead,
    TaskExpired,
    TaskFailed,
    UnknownQueue,
    UnknownTaskType,
    UnserialisableValue,
    WaitTimeout,
)
from omnimind.ids import new_slab, task_id

PATIENCE = 60.0
NO_TASK = "tsk_" + "0" * 32
SETTINGS = {
    "ray.object_store_memory": "80MiB",
    "ray.num_gpus": 1,
    "ray.labels": "disk=ssd,zone=a",
    "instance.start_timeout": "120s",
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def om(home: Path) -> Iterator[Client]:
    with omnimind.local(num_cpus=2, home=home, settings=SETTINGS) as client:
        # Due at the next full minute; the last test waits for it.
        client.schedules.set("minutely", nothing, cron="* * * * *")
        yield client


def nothing() -> None:
    return None


def write(path: str, word: str) -> None:
    """Add a line to a file that several processes write to."""
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, f"{word}\n".encode())
    os.close(file)


def words(path: Path | str) -> list[str]:
    return Path(path).read_text().split() if Path(path).exists() else []


def await_file(path: str) -> None:
    give_up = time.monotonic() + PATIENCE
    while not os.path.exists(path):  # noqa: PTH110 (runs in workers)
        assert time.monotonic() < give_up, f"nobody made {path}"
        time.sleep(0.01)


def until(condition: Callable[[], Any], what: str) -> Any:
    give_up = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < give_up, f"waited in vain for {what}"
        time.sleep(0.03)
    return found


def running(handle: Handle[Any]) -> None:
    until(lambda: handle.status() is TaskStatus.RUNNING, f"{handle.id} to run")


def held(started: str, gate: str) -> str:
    """Run until the gate opens."""
    write(started, "started")
    await_file(gate)
    return "through"


def note(path: str, word: str) -> None:
    write(path, word)


def fails(path: str) -> None:
    write(path, "run")
    raise LookupError("as asked")


def kill_coordinator(om: Client) -> None:
    was = om.cluster_status()["coordinator"]
    os.kill(was["pid"], signal.SIGKILL)

    def back() -> bool:
        now = om.cluster_status()["coordinator"]
        return now["epoch"] > was["epoch"] and not now["recovering"]

    until(back, "the next coordinator")


# --- handlers -----------------------------------------------------------------------------------------------


def test_async_handlers_run_at_the_same_time(om: Client, tmp_path: Path) -> None:
    async def meet(path: str, number: int, count: int) -> int:
        write(path, str(number))
        async with asyncio.timeout(PATIENCE):
            while len(words(path)) < count:  # noqa: ASYNC110 (they meet in a file)
                await asyncio.sleep(0.01)
        return number

    items = [(str(tmp_path / "met"), n, 12) for n in range(12)]
    # Each waits for all others: on two cores that ends only if they run together.
    assert [h.result(PATIENCE) for h in om.submit_many(meet, items)] == list(range(12))


def test_generators_report_progress(om: Client, tmp_path: Path) -> None:
    def steps(gate: str) -> Generator[tuple[int, int], None, str]:
        yield 1, 4
        yield 2, 4
        await_file(gate)
        yield 4, 4
        return "all four"

    async def async_steps(gate: str) -> AsyncIterator[str]:
        yield "half way"
        while not os.path.exists(gate):  # noqa: ASYNC110, ASYNC240, PTH110 (the gate is a file)
            await asyncio.sleep(0.02)
        yield "the last one is the result"

    gate = str(tmp_path / "gate")
    first, second = om.submit(steps, gate), om.submit(async_steps, gate)
    shown = until(lambda: om.progress(first)["progress"], "progress")
    assert (shown["done"], shown["total"]) == (2, 4)
    assert until(lambda: om.progress(second)["progress"], "progress")["message"] == "half way"
    Path(gate).touch()
    assert first.result(PATIENCE) == "all four"
    assert second.result(PATIENCE) == "the last one is the result"


def test_values_keep_their_types(om: Client) -> None:
    def same(value: Any) -> Any:
        return value

    moment = datetime(2024, 2, 29, tzinfo=UTC)
    for value in (
        None, {"a": [1, 2.5, "ü", True]}, (1, (2,)), {1, 2}, b"\0\xff", 2**80, 1j, Decimal("1.10"), moment,
        Path("a"), {1: "int key", (2,): 3}, "\ud800", range(3),
    ):  # fmt: skip
        back = om.submit(same, value).result(PATIENCE)
        assert (back, type(back)) == (value, type(value))
    assert om.task(om.submit(same, {"a": 1}))["payload"] == {"value": {"a": 1}}


def test_what_is_too_large_says_what_to_do(om: Client) -> None:
    def large(size: int) -> str:
        return "x" * size

    with pytest.raises(PayloadTooLarge, match="file or an object store") as caught:
        om.submit(large, "x" * (256 << 10))
    assert caught.value.field == "payload"
    assert len(om.submit(large, (1 << 20) - 2).result(PATIENCE)) == (1 << 20) - 2
    handle = om.submit(large, 1 << 20)
    with pytest.raises(TaskFailed, match="file or an object store") as failed:
        handle.result(PATIENCE)
    assert failed.value.details["error_type"] == "ResultTooLarge"
    assert len(om.attempts(handle)) == 1  # the same again would be as large


# --- order, shares and limits -------------------------------------------------------------------------------


def test_the_urgent_go_first(om: Client, tmp_path: Path) -> None:
    om.queues.set("in-order", concurrency=1, paused=True)
    path = str(tmp_path / "order")
    given = ["background", 5, "critical", "low", "medium", 1, "high", 10]
    handles = [
        om.submit(note, path, f"{place}:{word}", priority=word, queue="in-order")
        for place, word in enumerate(given)
    ]
    assert "paused" in handles[2].explain()["verdict"]
    om.queues.resume("in-order")
    om.wait(handles, timeout=PATIENCE)
    assert words(path) == [
        "2:critical", "5:1", "6:high", "1:5", "4:medium", "3:low", "0:background", "7:10",
    ]  # fmt: skip


def test_queues_share_by_weight(om: Client, tmp_path: Path) -> None:
    def short(path: str, word: str) -> None:
        write(path, word)
        time.sleep(0.02)

    path = str(tmp_path / "shares")
    [node] = om.nodes.list()
    om.nodes.cordon(node["node_id"])
    handles = []
    for name, weight in (("heavy", 3), ("light", 1)):
        om.queues.set(name, weight=weight)
        handles += om.submit_many(short, [(path, name)] * 80, queue=name)
    om.nodes.uncordon(node["node_id"])
    assert om.wait(handles, timeout=PATIENCE).pending == []
    # While both had work: three quarters to the heavy one.
    assert 0.6 <= words(path)[:80].count("heavy") / 80 <= 0.9
    assert len(words(path)) == 160


def test_concurrency_of_a_queue(om: Client, tmp_path: Path) -> None:
    def alone(path: str) -> None:
        write(path, "in")
        time.sleep(0.02)
        write(path, "out")

    async def alone_async(path: str) -> None:
        write(path, "in")
        await asyncio.sleep(0.02)
        write(path, "out")

    om.queues.set("one-at-a-time", concurrency=1)
    paths = [tmp_path / "sync", tmp_path / "async"]
    handles = []
    for path, handler in zip(paths, (alone, alone_async), strict=True):
        handles += om.submit_many(handler, [str(path)] * 8, queue="one-at-a-time")
    assert om.wait(handles, timeout=PATIENCE).pending == []
    for path in paths:
        assert words(path) == ["in", "out"] * 8


def test_rate_of_a_queue(om: Client, tmp_path: Path) -> None:
    om.queues.set("slowly", rate=4)
    path, began = str(tmp_path / "starts"), time.time()
    handles = om.submit_many(note, [(path, "x")] * 8, queue="slowly")
    assert "4 tasks a second" in until(
        lambda: next((v for h in handles if "second" in (v := h.explain()["verdict"])), None), "the rate"
    )
    assert om.wait(handles, timeout=PATIENCE).pending == []
    assert len(words(path)) == 8
    # A second's worth at once, then one each quarter of a second: never sooner.
    assert max(h.info()["started_at"] for h in handles) - began > 0.9


# --- where --------------------------------------------------------------------------------------------------


def test_needs_are_strict(om: Client) -> None:
    assert om.submit(nothing, needs="disk=ssd").result(PATIENCE) is None
    assert om.submit(nothing, needs=["disk", "zone=a"]).result(PATIENCE) is None
    waits = om.submit(nothing, needs=["disk=ssd", "tpu"])
    later = om.submit(nothing)
    assert later.result(PATIENCE) is None  # what cannot run holds up nobody
    told = waits.explain()
    [node] = om.nodes.list()
    assert told["status"] == "pending"
    assert node["node_id"] in told["verdict"]
    assert "lacks tpu" in told["verdict"]
    assert "lacks disk" not in told["verdict"]
    assert told["verdict"].endswith("add a node with disk=ssd, tpu")
    assert [(c["node"], c["ok"]) for c in told["checks"]] == [(node["node_id"], False)]
    assert waits.cancel() == "cancelled"


def test_resources_arrive_at_ray(om: Client) -> None:
    def assigned() -> dict[str, float]:
        import ray

        context: Any = ray.get_runtime_context()
        return dict(context.get_assigned_resources())

    assert om.submit(assigned).result(PATIENCE) == {"CPU": 1.0}
    asked = om.submit(assigned, num_cpus=2, num_gpus=0.5, memory=64 << 20).result(PATIENCE)
    assert asked == {"CPU": 2.0, "GPU": 0.5, "memory": float(64 << 20)}

    @task(num_cpus=0.5, num_gpus=1)
    def declared() -> Any:
        return assigned()

    assert om.submit(declared).result(PATIENCE) == {"CPU": 0.5, "GPU": 1.0}


def test_drain_of_the_only_node(om: Client, tmp_path: Path) -> None:
    [node] = [n["node_id"] for n in om.nodes.list()]
    started, gate = str(tmp_path / "started"), str(tmp_path / "gate")
    runs = om.submit(held, started, gate)
    until(lambda: words(started), "the first attempt")
    assert om.nodes.drain(node, plan=True)["attempts"] == 1
    assert om.nodes.get(node)["status"] == "active"
    om.nodes.drain(node)
    waits = om.submit(nothing)
    assert "drain" in waits.explain()["verdict"]
    assert "draining" in om.explain(node)["verdict"]
    assert runs.status() is TaskStatus.RUNNING
    om.nodes.uncordon(node)
    assert waits.result(PATIENCE) is None
    # With a deadline, what does not end is taken back, and starts again where there is room.
    om.nodes.drain(node, deadline=0)
    until(lambda: runs.status() is TaskStatus.PENDING, "the attempt to be taken back")
    assert words(started) == ["started"]
    om.nodes.uncordon(node)
    Path(gate).touch()
    assert runs.result(PATIENCE) == "through"
    assert len(words(started)) == 2


# --- when ---------------------------------------------------------------------------------------------------


def test_delay_and_not_before(om: Client) -> None:
    delayed = om.submit(nothing, delay=1)
    moment = datetime.now(UTC) + timedelta(seconds=1)
    later = om.submit(nothing, not_before=moment)
    told = delayed.explain()
    assert (told["status"], told["verdict"][:11]) == ("pending", "delayed for")
    om.wait([delayed, later], timeout=PATIENCE)
    info = delayed.info()
    assert info["started_at"] >= info["created_at"] + 1
    assert later.info()["started_at"] >= moment.timestamp()


def test_deadlines(om: Client) -> None:
    def listens(ctx: TaskContext) -> None:
        assert ctx.deadline is not None
        while True:
            ctx.check()
            time.sleep(0.02)

    om.queues.set("stopped", paused=True)
    waits = om.submit(nothing, queue="stopped", deadline=timedelta(seconds=0.5))
    runs = om.submit(listens, deadline=time.time() + 2)
    running(runs)
    for handle in (waits, runs):
        with pytest.raises(TaskExpired):
            handle.result(PATIENCE)
    assert waits.info()["started_at"] is None
    assert om.attempts(waits) == []
    assert "expired" in runs.explain()["verdict"]


def test_timeouts(om: Client, tmp_path: Path) -> None:
    def slow(path: str) -> None:
        write(path, "run")
        time.sleep(PATIENCE)

    async def slow_async(path: str) -> None:
        write(path, "run")
        await asyncio.sleep(PATIENCE)

    for number, handler in enumerate((slow, slow_async)):
        path = tmp_path / str(number)
        handle = om.submit(handler, str(path), timeout=0.3, retries=1, retry_base=0)
        with pytest.raises(TaskFailed, match=r"timeout of 0\.3 s"):
            handle.result(PATIENCE)
        assert words(path) == ["run", "run"]


# --- again --------------------------------------------------------------------------------------------------


def test_retries(om: Client, tmp_path: Path) -> None:
    @task(retries=3, retry_base=0)
    def third_time(ctx: TaskContext, path: str) -> int:
        write(path, str(ctx.attempt))
        if ctx.attempt < 2:
            raise ConnectionError("not yet")
        return ctx.attempt

    handle = om.submit(third_time, str(tmp_path / "runs"))
    assert handle.result(PATIENCE) == 2
    assert words(tmp_path / "runs") == ["0", "1", "2"]
    assert [a["cause"] for a in om.attempts(handle)] == ["ConnectionError: not yet"] * 2
    assert handle.info()["retry_count"] == 2

    waits = om.submit(fails, str(tmp_path / "backoff"), retry_base=1e6, retry_cap=1e6)
    until(lambda: waits.info()["retry_count"], "the first attempt to fail")
    assert "its next attempt" in waits.explain()["verdict"]
    assert "LookupError: as asked" in str(waits.explain()["story"])
    assert waits.cancel() == "cancelled"


def test_what_is_not_retried(om: Client, tmp_path: Path) -> None:
    cases: dict[str, dict[str, Any]] = {
        "no-retries": {"retries": 0},
        "the-class": {"non_retryable": [LookupError]},
        "its-base-by-name": {"non_retryable": ["Exception"]},
        "at-most-once": {"at_most_once": True, "retries": 3},
    }
    for name, options in cases.items():
        with pytest.raises(TaskFailed, match="LookupError: as asked"):
            om.submit(fails, str(tmp_path / name), retry_base=0, **options).result(PATIENCE)
        assert (name, words(tmp_path / name)) == (name, ["run"])
    with pytest.raises(TaskFailed):
        om.submit(fails, str(tmp_path / "other"), retries=1, retry_base=0, non_retryable=[KeyError]).result()
    assert words(tmp_path / "other") == ["run"] * 2


def test_retry_makes_a_new_task(om: Client, tmp_path: Path) -> None:
    def depends(gate: str) -> str:
        return Path(gate).read_text()

    gate = tmp_path / "gate"
    old = om.submit(depends, str(gate), retries=0)
    assert old.wait(PATIENCE) is TaskStatus.FAILED
    gate.write_text("now")
    new = om.retry(old)
    assert new != old
    assert new.result(PATIENCE) == "now"
    assert new.info()["origin"] == f"retry_of:{old.id}"
    assert old.status() is TaskStatus.FAILED
    waits = om.submit(nothing, delay=60)
    with pytest.raises(Conflict, match="not ended"):
        om.retry(waits)
    waits.cancel()


def test_dead_letters(om: Client, tmp_path: Path) -> None:
    def kills(path: str, cure: str) -> str:
        write(path, "run")
        if not os.path.exists(cure):  # noqa: PTH110 (runs in workers)
            os.kill(os.getpid(), signal.SIGKILL)
        return "cured"

    path, cure = tmp_path / "runs", tmp_path / "cure"
    handle = om.submit(kills, str(path), str(cure))
    with pytest.raises(TaskDead, match="deadletter replay"):
        handle.result(PATIENCE)
    assert words(path) == ["run"] * 3
    assert [t["task_id"] for t in om.deadletters.list()] == [handle.id]
    shown = om.deadletters.show(handle)
    assert shown["payload"] == {"path": str(path), "cure": str(cure)}
    assert len(shown["attempts"]) == 3
    assert "killed its worker 3 times" in handle.explain()["verdict"]
    cure.touch()
    replayed = om.deadletters.replay(handle, reason="cured")
    assert replayed.result(PATIENCE) == "cured"
    assert replayed.info()["origin"] == f"retry_of:{handle.id}"
    assert om.deadletters.discard(handle) == "discarded"
    assert list(om.deadletters.list()) == []
    assert handle.status() is TaskStatus.DEAD  # the record stays
    with pytest.raises(Conflict, match="not a dead letter"):
        om.deadletters.replay(replayed)


# --- together -----------------------------------------------------------------------------------------------


def test_a_task_comes_after_others(om: Client, tmp_path: Path) -> None:
    path, gate = str(tmp_path / "order"), str(tmp_path / "gate")
    first = om.submit(held, path, gate)
    second = om.submit(note, path, "second", after=first)
    third = om.submit(note, path, "third", after=[first, second.id])
    told = third.explain()
    assert told["verdict"].startswith("waits for 2 other tasks")
    assert told["facts"]["waits_for"] == [first.id, second.id]
    Path(gate).touch()
    assert third.result(PATIENCE) is None
    assert words(path) == ["started", "second", "third"]

    bad = om.submit(fails, str(tmp_path / "bad"), retries=0, delay=0.5)
    heir = om.submit(note, path, "never", after=[first, bad])
    grandchild = om.submit(note, path, "never", after=heir)
    with pytest.raises(TaskFailed, match=f"dependency {bad.id} ended failed"):
        heir.result(PATIENCE)
    with pytest.raises(TaskFailed, match=f"dependency {heir.id} ended failed"):
        grandchild.result(PATIENCE)
    assert "LookupError" in heir.info()["error"]["dependency_cause"]
    late = om.submit(note, path, "never", after=bad)  # one that has failed already
    with pytest.raises(TaskFailed, match=bad.id):
        late.result(PATIENCE)
    assert "never" not in words(path)


def test_wait_for_any_all_and_failure(om: Client, tmp_path: Path) -> None:
    started, gate = str(tmp_path / "started"), str(tmp_path / "gate")
    quick: Handle[Any] = om.submit(nothing)
    slow: Handle[Any] = om.submit(held, started, gate)
    some = om.wait([quick, slow], return_when="any", timeout=PATIENCE)
    assert (some.done, some.pending) == ([quick], [slow])
    bad: Handle[Any] = om.submit(fails, str(tmp_path / "bad"), retries=0)
    some = om.wait([slow, quick, bad], return_when="failure", timeout=PATIENCE)
    assert some.pending == [slow]
    assert om.wait([slow], timeout=0.01).pending == [slow]
    with pytest.raises(WaitTimeout, match="it goes on"):
        slow.result(0.01)
    Path(gate).touch()
    assert om.wait([slow, quick], timeout=PATIENCE).pending == []


def test_map(om: Client) -> None:
    def square(x: int) -> int:
        if x == 77:
            raise ArithmeticError(x)
        return x * x

    numbers = [x for x in range(300) if x != 77]
    assert list(om.map(square, numbers, ordered=True)) == [x * x for x in numbers]
    assert sorted(om.map(square, numbers)) == [x * x for x in numbers]
    whole = list(om.map(square, range(70, 80), ordered=True, return_exceptions=True, retries=0))
    assert [r.index for r in whole if not r.ok] == [7]
    assert "ArithmeticError: 77" in str(whole[7].error)
    with pytest.raises(TaskFailed, match="ArithmeticError: 77"):
        list(om.map(square, range(70, 80), retries=0))

    read = 0

    def endless() -> Iterator[int]:
        nonlocal read
        while True:
            read += 1
            yield 1

    for ordered in (True, False):
        read = 0
        results = om.map(square, endless(), window=50, ordered=ordered)
        for taken, _ in enumerate(itertools.islice(results, 400)):
            assert read <= taken + 100
        results.close()  # type: ignore[attr-defined]


def test_idempotency_keys(om: Client, tmp_path: Path) -> None:
    path = str(tmp_path / "once")
    first = om.submit(note, path, "x", key="ключ 1")
    assert om.submit(note, path, "x", key="ключ 1") == first
    first.result(PATIENCE)
    assert om.submit(note, path, "x", key="ключ 1") == first
    with pytest.raises(KeyConflict, match=first.id) as caught:
        om.submit(note, path, "y", key="ключ 1")
    assert caught.value.field == "key"
    assert "new key" in caught.value.hint
    assert len(list(om.map(note, [(path, "x"), (path, "x"), (path, "z")], keys=["ключ 1", "b", "c"]))) == 3
    assert sorted(words(path)) == ["x", "x", "z"]


# --- the context --------------------------------------------------------------------------------------------


def test_logs_progress_and_current_context(om: Client) -> None:
    def talks(ctx: TaskContext) -> bool:
        from omnimind.context import current

        ctx.log("by the context", "warning")
        logging.getLogger("users.own").error("by the library: %d", 7)
        ctx.progress(0.5, message="half")
        return current() is ctx

    # Whoever has the result has the last lines too, at once: again and again, since it could be by luck.
    for _ in range(20):
        handle = om.submit(talks)
        assert handle.result(PATIENCE) is True
        assert [(line.level.lower(), line.text) for line in handle.logs()] == [
            ("warning", "by the context"),
            ("error", "by the library: 7"),
        ]
        assert om.progress(handle)["progress"]["message"] == "half"


def test_a_retry_gets_the_checkpoint_also_from_the_next_coordinator(om: Client, tmp_path: Path) -> None:
    @task(retries=2, retry_base=0)
    def resumes(ctx: TaskContext, path: str, gate: str) -> list[Any]:
        seen = ctx.last_checkpoint
        if seen is None:
            ctx.checkpoint({"done": 1})
            raise OSError("once")
        if seen == {"done": 1}:
            ctx.checkpoint(("a tuple", 2))
            write(path, "saved")
            await_file(gate)
            raise OSError("twice")
        return [ctx.attempt, seen]

    path, gate = str(tmp_path / "saved"), str(tmp_path / "gate")
    handle = om.submit(resumes, path, gate)
    until(lambda: words(path), "the second checkpoint")
    kill_coordinator(om)
    Path(gate).touch()
    assert handle.result(PATIENCE) == [2, ("a tuple", 2)]


def test_cancel(om: Client, tmp_path: Path) -> None:
    def polite(ctx: TaskContext, path: str) -> str:
        write(path, "started")
        while not ctx.cancelled:
            time.sleep(0.02)
        write(path, "tidied")
        ctx.check()
        return "never"

    async def polite_async(path: str) -> None:
        write(path, "started")
        try:
            await asyncio.sleep(PATIENCE)
        finally:
            write(path, "tidied")

    om.queues.set("never-starts", paused=True)
    waits = om.submit(note, str(tmp_path / "waits"), "x", queue="never-starts")
    dependent = om.submit(nothing, after=waits)
    assert om.cancel(waits, plan=True) == "cancelled"
    assert waits.status() is TaskStatus.PENDING
    assert waits.cancel("no longer wanted") == "cancelled"
    assert waits.cancel() == "cancelled"
    with pytest.raises(TaskCancelled):
        waits.result(PATIENCE)
    with pytest.raises(TaskFailed, match=waits.id):
        dependent.result(PATIENCE)
    handlers: list[Any] = [polite, polite_async]
    for number, handler in enumerate(handlers):
        path = tmp_path / str(number)
        runs = om.submit(handler, str(path))
        until(partial(words, path), "the start")
        assert "runs on" in runs.explain()["verdict"]
        assert runs.cancel() == "cancelling"
        with pytest.raises(TaskCancelled):
            runs.result(PATIENCE)
        assert words(path) == ["started", "tidied"]
    done = om.submit(nothing)
    done.result(PATIENCE)
    assert done.cancel() == "completed"


# --- schedules ----------------------------------------------------------------------------------------------


def test_schedules(om: Client, tmp_path: Path) -> None:
    path, other = str(tmp_path / "runs"), str(tmp_path / "clock")
    om.schedules.set("often", note, path, "x", interval=0.2)
    om.schedules.set("clock", note, other, "x", interval=timedelta(seconds=0.2))
    until(lambda: len(words(path)) >= 3, "three runs")
    assert om.schedules.pause("often")["paused"]
    until(lambda: om.schedules.get("often")["runs"] <= len(words(path)), "runs under way to end")
    runs, clock = len(words(path)), len(words(other))
    until(lambda: len(words(other)) >= clock + 4, "four runs of the other")
    assert len(words(path)) == runs
    by_hand = om.schedules.run("often")  # also while it is paused
    assert by_hand.result(PATIENCE) is None
    assert by_hand.info()["origin"] == "schedule:often"
    assert len(words(path)) == runs + 1
    om.schedules.resume("often")
    until(lambda: len(words(path)) > runs + 1, "a run after the pause")
    for name in ("often", "clock"):
        om.schedules.remove(name)
        with pytest.raises(NotFound):
            om.schedules.get(name)
    night = om.schedules.set("nightly", nothing, cron="30 2 * * *", timezone="Asia/Tokyo")
    due = datetime.fromtimestamp(night["next_run"], ZoneInfo("Asia/Tokyo"))
    assert (due.hour, due.minute) == (2, 30)
    assert "nightly" in [s["name"] for s in om.schedules.list()]
    om.schedules.remove("nightly")


def test_runs_missed_during_a_restart_are_made_up_for_once(om: Client, tmp_path: Path) -> None:
    def logged(path: str) -> None:
        write(path, "x")

    path = tmp_path / "runs"
    om.schedules.set("missed", logged, str(path), interval=0.1)
    until(lambda: len(words(path)) >= 2, "two runs")
    kill_coordinator(om)
    before = len(words(path))
    until(lambda: len(words(path)) >= before + 4, "four more runs")
    om.schedules.remove("missed")
    made = sorted(t["created_at"] for t in om.list(task_type=_type_of(logged)))
    assert max(b - a for a, b in itertools.pairwise(made)) > 0.2  # some were missed indeed
    # One late run, then the grid again: three runs never lie within one interval.
    assert min(c - a for a, c in zip(made, made[2:], strict=False)) >= 0.09


def _type_of(handler: Callable[..., Any]) -> str:
    return f"{handler.__module__}.{handler.__qualname__}"


# --- reading ------------------------------------------------------------------------------------------------


def test_lists_and_pages(om: Client, tmp_path: Path) -> None:
    def listed(n: int) -> None:
        if n == 3:
            raise LookupError("as asked")

    om.queues.set("listed")
    since = time.time()
    handles = om.submit_many(listed, range(1100), queue="listed", retries=0)
    assert om.wait(handles, timeout=PATIENCE).pending == []
    found = [t["task_id"] for t in om.list(queue="listed")]
    assert found == [h.id for h in reversed(handles)]
    assert [t["task_id"] for t in om.list(queue="listed", status="failed")] == [handles[3].id]
    assert [t["task_id"] for t in om.list(task_type=_type_of(listed), limit=7)] == found[:7]
    assert len(list(om.list(queue="listed", since=since, until=time.time()))) == 1100
    assert list(om.list(queue="listed", until=since - 1)) == []
    [node] = om.nodes.list()
    assert len(list(om.list(queue="listed", node=node["node_id"], limit=600))) == 600
    held_up = om.submit(held, str(tmp_path / "s"), str(tmp_path / "gate"), queue="listed")
    running(held_up)
    assert [t["task_id"] for t in om.list(queue="listed", status=["running", "pending"])] == [held_up.id]
    (tmp_path / "gate").touch()
    held_up.result(PATIENCE)


def test_explain_of_a_failed_task(om: Client, tmp_path: Path) -> None:
    handle = om.submit(fails, str(tmp_path / "runs"), retries=1, retry_base=0)
    handle.wait(PATIENCE)
    told = handle.explain()
    assert told["verdict"].startswith("failed: retries used up (1): LookupError: as asked")
    story = [entry["what"] for entry in told["story"]]
    assert story[0] == "submitted to queue default"
    assert [what[:9] for what in story if what.startswith("attempt")] == ["attempt 1", "attempt 2"]


def test_the_async_client(home: Path, om: Client) -> None:
    async def program() -> list[Any]:
        async with AsyncClient(home) as aom:
            first = await aom.submit(nothing)
            second: AsyncHandle[Any] = await aom.submit(nothing, after=first)
            found: list[Any] = [await second, await aom.status(second)]
            waits = await aom.submit(nothing, delay=60)
            found += [(await aom.explain(waits))["status"], await aom.cancel(waits)]
            results = [r async for r in aom.map(abs, range(-5, 0), ordered=True)]
            with pytest.raises(UnknownQueue):
                _ = await aom.submit(nothing, queue="no-such-queue")
            return [*found, results, [t["task_id"] async for t in aom.list(limit=1)] != []]

    found = asyncio.run(program())
    assert found == [None, TaskStatus.COMPLETED, "pending", "cancelled", [5, 4, 3, 2, 1], True]
    assert om.ping()


# --- bad input ----------------------------------------------------------------------------------------------

LONG = "ü" * 10_000


def takes(value: Any = None) -> Any:
    return value


@pytest.mark.parametrize(
    ("kind", "field", "call"),
    [
        (UnknownTaskType, "task_type", lambda om: om.submit("no.such.handler", x=1)),
        (InvalidInput, "task", lambda om: om.submit(LONG)),
        (InvalidInput, "name", lambda _: task(name=LONG)(takes)),
        (InvalidInput, "task", lambda om: om.submit(7)),
        (UnserialisableValue, "payload.value.lock", lambda om: om.submit(takes, {"lock": threading.Lock()})),
        (InvalidInput, "payload.value[1]", lambda om: om.submit(takes, [1, math.nan])),
        (InvalidInput, "payload.value.x", lambda om: om.submit(takes, {"x": math.inf})),
        (InvalidInput, "deadline", lambda om: om.submit(takes, deadline=time.time() - 10)),
        (InvalidInput, "deadline", lambda om: om.submit(takes, deadline=datetime(2020, 1, 1, tzinfo=UTC))),
        (InvalidInput, "deadline", lambda om: om.submit(takes, deadline=timedelta(seconds=-1))),
        (InvalidInput, "deadline", lambda om: om.submit(takes, delay=60, deadline=timedelta(seconds=1))),
        (InvalidInput, "deadline", lambda om: om.submit(takes, deadline=math.nan)),
        (UnknownQueue, "queue", lambda om: om.submit(takes, queue="no-such-queue")),
        (UnknownQueue, "queue", lambda om: list(om.map(takes, [1], queue="no-such-queue"))),
        (InvalidInput, "queue", lambda om: om.submit(takes, queue=LONG)),
        (InvalidInput, "queue", lambda om: om.submit(takes, queue="")),
        (InvalidInput, "timeout", lambda om: om.submit(takes, timeout=-1)),
        (InvalidInput, "timeout", lambda om: om.submit(takes, timeout=math.nan)),
        (InvalidInput, "timeout", lambda om: om.submit(takes, timeout=0)),
        (InvalidInput, "timeout", lambda om: om.submit(takes, timeout="soon")),
        (InvalidInput, "timeout", lambda om: om.submit(task(timeout=-1)(takes))),
        (InvalidInput, "retries", lambda om: om.submit(task(retries=-1)(takes))),
        (InvalidInput, "num_cpus", lambda om: om.submit(task(num_cpus=math.nan)(takes))),
        (InvalidInput, "delay", lambda om: om.submit(takes, delay=-0.1)),
        (InvalidInput, "not_before", lambda om: om.submit(takes, not_before=math.inf)),
        (InvalidInput, "priority", lambda om: om.submit(takes, priority="urgent")),
        (InvalidInput, "priority", lambda om: om.submit(takes, priority=math.nan)),
        (InvalidInput, "priority", lambda om: om.submit(takes, priority=11)),
        (InvalidInput, "retries", lambda om: om.submit(takes, retries=-1)),
        (InvalidInput, "num_gpus", lambda om: om.submit(takes, num_gpus=-1)),
        (InvalidInput, "memory", lambda om: om.submit(takes, memory=1.5)),
        (InvalidInput, "needs", lambda om: om.submit(takes, needs=[LONG])),
        (InvalidInput, "key", lambda om: om.submit(takes, key=LONG)),
        (InvalidInput, "key", lambda om: om.submit(takes, key="")),
        (InvalidInput, "non_retryable", lambda om: om.submit(takes, non_retryable=[7])),
        (InvalidInput, "vaule", lambda om: om.submit(takes, vaule=1)),
        (InvalidInput, "after", lambda om: om.submit(takes, after="yesterday")),
        (NotFound, "after", lambda om: om.submit(takes, after=NO_TASK)),
        (InvalidInput, "task", lambda om: om.result("yesterday")),
        (InvalidInput, "status", lambda om: list(om.list(status="finished"))),
        (InvalidInput, "name", lambda om: om.queues.set(LONG)),
        (InvalidInput, "weight", lambda om: om.queues.set("bad", weight=0)),
        (InvalidInput, "weight", lambda om: om.queues.set("bad", weight=math.nan)),
        (InvalidInput, "concurrency", lambda om: om.queues.set("bad", concurrency=0)),
        (InvalidInput, "rate", lambda om: om.queues.set("bad", rate=-1)),
        (InvalidInput, "rate", lambda om: om.queues.set("bad", rate=math.nan)),
        (InvalidInput, "speed", lambda om: om.queues.set("bad", speed=1)),
        (InvalidInput, "name", lambda om: om.schedules.set(LONG, takes, interval=1)),
        (InvalidInput, "cron", lambda om: om.schedules.set("bad", takes)),
        (InvalidInput, "cron", lambda om: om.schedules.set("bad", takes, cron="every day")),
        (InvalidInput, "cron", lambda om: om.schedules.set("bad", takes, cron="0 0 31 2 *")),
        (InvalidInput, "timezone", lambda om: om.schedules.set("b", takes, cron="* * * * *", timezone="M")),
        (InvalidInput, "interval", lambda om: om.schedules.set("bad", takes, interval=-1)),
        (InvalidInput, "interval", lambda om: om.schedules.set("bad", takes, interval=math.nan)),
        (InvalidInput, "interval", lambda om: om.schedules.set("bad", takes, interval=0.001)),
        (InvalidInput, "window", lambda om: list(om.map(takes, [1], window=0))),
    ],
)  # fmt: skip
def test_bad_input_names_the_field_and_the_mend(
    om: Client, kind: type[OmniMindError], field: str, call: Callable[[Client], Any]
) -> None:
    with pytest.raises(kind) as caught:
        call(om)
    check_error(caught.value, kind, field)


def check_error(error: OmniMindError, kind: type[OmniMindError], field: str) -> None:
    assert type(error) is kind
    assert error.field == field
    assert error.hint, f"{error} does not say how to mend it"
    assert len(str(error)) < 1_000
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), again.field, again.hint) == (kind, str(error), field, error.hint)
    assert error.to_problem()["code"] == kind.code


def test_a_task_cannot_wait_for_itself(om: Client) -> None:
    om.submit(takes).result(PATIENCE)
    slab = new_slab()
    request = SubmitRequest(
        slab=slab, task_type=_type_of(takes), payloads=[b"{}"], after=[task_id(slab)], actor="test"
    )
    with pytest.raises(CyclicDependency) as caught:
        om.loop.run(om.inner.ask("submit", request))
    check_error(caught.value, CyclicDependency, "after")


def test_unknown_tasks(om: Client) -> None:
    for call in (om.result, om.task, om.cancel, om.retry, om.explain, om.attempts, om.progress):
        with pytest.raises(NotFound, match=NO_TASK):
            call(NO_TASK)


def test_names_in_any_script(om: Client) -> None:
    name = "очередь 🚀 " + "名" * 150
    om.queues.set(name, weight=2)
    named = task(name=f"{name}/обработчик")(takes)
    handle = om.submit(named, "ß", queue=name, key=name)
    assert handle.result(PATIENCE) == "ß"
    assert [t["task_id"] for t in om.list(queue=name)] == [handle.id]
    om.schedules.set(name, named, interval=3600, queue=name)
    assert om.schedules.run(name).result(PATIENCE) is None
    om.schedules.remove(name)
    with pytest.raises(UnknownTaskType, match="обработчик"):
        om.submit(f"{name}/обработчук")
    assert om.queues.remove(name)["name"] == name


# --- the last one -------------------------------------------------------------------------------------------


def test_the_cron_schedule_of_the_beginning_has_run(om: Client) -> None:
    schedule = until(lambda: (s := om.schedules.get("minutely"))["runs"] and s, "the full minute")
    assert schedule["last_run"] % 60 < 30
    assert schedule["next_run"] % 60 == 0
    assert any(t["origin"] == "schedule:minutely" for t in om.list(task_type=_type_of(nothing)))
