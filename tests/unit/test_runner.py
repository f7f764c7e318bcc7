"""The runner, without Ray: what a batch of handlers comes to in one worker."""

from __future__ import annotations

import asyncio
import itertools
import logging
import threading
import time
from collections.abc import Callable, Generator
from typing import Any

import cloudpickle
import msgspec

from omnimind import TaskContext, encoding, pulse, runner
from omnimind.cluster.events import Outcome
from omnimind.cluster.sends import Batch, BatchItem
from omnimind.cluster.task import TaskOptions
from omnimind.registry import HandlerSpec, kind_of


class FakeWire:
    """Stands for the node: keeps what it hears, stops what the test wants stopped."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function: bytes = cloudpickle.dumps(function)
        self.pulses: list[pulse.Pulse] = []
        self.stops: dict[int, str] | None = {}
        self.checkpoints: list[tuple[str, int, bytes]] = []

    def pulse(self, data: bytes) -> bytes:
        self.pulses.append(msgspec.msgpack.decode(data, type=pulse.Pulse))
        return msgspec.msgpack.encode(self.stops)

    def blob(self, digest: str) -> bytes:
        return self.function

    def checkpoint(self, task_id: str, fence: int, data: bytes) -> None:
        self.checkpoints.append((task_id, fence, data))


_numbers = itertools.count()


def run(
    function: Callable[..., Any],
    *payloads: Any,
    timeout: float | None = None,
    wire: FakeWire | None = None,
    checkpoint: bytes | None = None,
) -> list[Outcome]:
    digest = f"handler-{next(_numbers)}"
    spec = HandlerSpec("kind", kind_of(function), "value", blob="b")
    items = tuple(
        BatchItem(f"t{i}", *encoding.encode(p, "payload"), 0, timeout, None, checkpoint)
        for i, p in enumerate(payloads)
    )
    batch = Batch(100, "kind", TaskOptions(handler=digest, kind=spec.kind), (), items)
    wire = wire or FakeWire(function)
    return runner.run_batch(batch, spec, wire)


def value(outcome: Outcome) -> Any:
    assert outcome.status == "ok", outcome.error
    assert outcome.value is not None
    return encoding.decode(outcome.value, outcome.encoding)


def test_each_item_has_an_outcome_of_its_own() -> None:
    def half(n: int) -> float:
        if n % 2:
            msg = f"{n} is odd"
            raise ValueError(msg)
        return n / 2

    good, bad, again = run(half, {"n": 4}, {"n": 3}, {"n": 6})
    assert (value(good), value(again)) == (2.0, 3.0)
    assert bad.status == "error"
    assert bad.error is not None
    assert bad.error["type"] == "ValueError"
    assert bad.error["message"] == "3 is odd"
    assert "builtins.ValueError" in bad.error["bases"]
    assert "half" in bad.error["traceback"]


def test_results_keep_their_python_types() -> None:
    [outcome] = run(lambda: (1, {2, 3}), {})
    assert outcome.encoding == "pickle"
    assert value(outcome) == (1, {2, 3})


def test_async_handlers_of_a_batch_run_together() -> None:
    peak = 0
    running = 0

    async def wait(n: int) -> int:
        nonlocal peak, running
        running += 1
        peak = max(peak, running)
        await asyncio.sleep(0.02)
        running -= 1
        return n

    outcomes = run(wait, *({"n": i} for i in range(10)))
    assert sorted(value(o) for o in outcomes) == list(range(10))
    assert len({o.index for o in outcomes}) == 10


def test_a_generator_reports_progress_and_returns_its_result() -> None:
    def steps() -> Generator[tuple[int, int], None, str]:
        yield 1, 3
        time.sleep(0.3)
        yield 2, 3
        time.sleep(0.3)
        return "done"

    wire = FakeWire(steps)
    [outcome] = run(steps, {}, wire=wire)
    assert value(outcome) == "done"
    seen = [(p.progress[0]["done"], p.progress[0]["total"]) for p in wire.pulses if p.progress]
    assert seen
    assert seen[-1] == (2, 3)


def test_a_timeout_interrupts_what_sleeps_and_what_computes() -> None:
    def sleep() -> None:
        time.sleep(30)

    def compute() -> None:
        while True:
            pass

    async def wait() -> None:
        await asyncio.sleep(30)

    for function in (sleep, compute, wait):
        [outcome] = run(function, {}, timeout=0.05)
        assert outcome.status == "timeout"
        assert outcome.error is not None
        assert "0.05" in outcome.error["message"]


def test_what_a_worker_cannot_do_is_not_retried() -> None:
    def big() -> str:
        return "x" * (2 << 20)

    def lock() -> Any:
        return threading.Lock()

    def takes(n: int) -> int:
        return n

    def inner() -> None:
        takes()  # type: ignore[call-arg]

    assert [o.error["type"] for o in run(big, {})] == ["ResultTooLarge"]  # type: ignore[index]
    assert [o.error["type"] for o in run(lock, {})] == ["UnserialisableValue"]  # type: ignore[index]
    [misfit] = run(takes, {"m": 1})
    assert (misfit.status, misfit.error["type"]) == ("invalid", "PayloadMismatch")  # type: ignore[index]
    # The same exception from inside the handler is the handler's own, and may pass.
    assert [o.status for o in run(inner, {})] == ["error"]


def test_code_that_cannot_be_loaded_says_what_to_do() -> None:
    spec = HandlerSpec("kind", "sync", "name", "no_such_module", "f")
    batch = Batch(1, "kind", TaskOptions(handler="nowhere"), (), (BatchItem("t", b"{}", "json", 0),))
    [outcome] = runner.run_batch(batch, spec, FakeWire(print))
    assert outcome.status == "invalid"
    assert outcome.error is not None
    assert "no_such_module" in outcome.error["message"]
    assert "working_dir" in outcome.error["hint"]


def test_even_an_exit_is_only_an_outcome() -> None:
    def leave() -> None:
        raise SystemExit(3)

    assert [o.status for o in run(leave, {}, {})] == ["error", "error"]


def test_long_batches_speak_and_deliver_each_outcome_once() -> None:
    def nap(n: int) -> int:
        time.sleep(0.2)
        return n

    wire = FakeWire(nap)
    rest = run(nap, *({"n": i} for i in range(5)), wire=wire)
    early = [o for p in wire.pulses for o in p.outcomes]
    assert early
    assert sorted(o.index for o in early + rest) == list(range(5))
    assert any(p.current is not None and p.ran is not None and 0 <= p.ran < 1 for p in wire.pulses)


def test_a_stop_reaches_the_handler_and_spares_its_mates() -> None:
    def patient(ctx: TaskContext, n: int) -> int:
        for _ in range(200):
            ctx.check()
            time.sleep(0.02)
        return n

    wire = FakeWire(patient)
    wire.stops = {0: "cancelled", 1: "cancelled"}
    first, second = run(patient, {"n": 0}, {"n": 1}, wire=wire)
    assert [first.status, second.status] == ["cancelled", "cancelled"]


def test_async_handlers_are_cancelled_at_once() -> None:
    async def forever() -> None:
        await asyncio.sleep(60)

    wire = FakeWire(forever)
    wire.stops = {0: "cancelled"}
    [outcome] = run(forever, {}, wire=wire)
    assert outcome.status == "cancelled"


def test_logs_of_both_kinds_travel_with_their_task() -> None:
    def chatty(ctx: TaskContext) -> None:
        ctx.log("from the context")
        logging.getLogger("user").warning("from %s", "logging")

    wire = FakeWire(chatty)
    run(chatty, {}, wire=wire)
    lines = [(level, text) for p in wire.pulses for _, _, level, text in p.logs]
    assert lines == [("info", "from the context"), ("warning", "from logging")]


def test_a_checkpoint_is_stored_at_once_and_found_by_the_next_attempt() -> None:
    def resume(ctx: TaskContext) -> Any:
        before = ctx.last_checkpoint
        ctx.checkpoint({"at": 7})
        return before

    wire = FakeWire(resume)
    [first] = run(resume, {}, wire=wire)
    assert value(first) is None
    [(task_id, fence, data)] = wire.checkpoints
    assert (task_id, fence) == ("t0", 100)
    [second] = run(resume, {}, checkpoint=data)
    assert value(second) == {"at": 7}


def test_a_handler_knows_its_fence() -> None:
    def fence(ctx: TaskContext) -> int:
        return ctx.fence

    assert [value(outcome) for outcome in run(fence, {}, {})] == [100, 101]
