"""A long queue: a million tasks accepted while nothing runs, listed, drained; and the memory this takes."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import psutil

import omnimind
from benchmarks import handlers
from benchmarks.child import Emit, MeasurementFailedError, Message, run
from benchmarks.figures import Figure
from benchmarks.peers import SLOTS
from benchmarks.settings import Settings, Step, Suite, SuiteFailedError

QUEUE = "backlog"
_SLICE = 10_000
_WARM_UP = 5_000
_STEPS = 10
_POLL_SECONDS = 0.02
_SAMPLE_SECONDS = 0.1
_STALL_SECONDS = 120.0
_MIB = 2**20

Point = tuple[float, int]
"""A moment in seconds, and how many tasks had ended by then."""


def measure(request: Message, emit: Emit) -> Message:
    """Return what happened to `count` tasks, and when; see `evaluate`."""
    count: int = request["count"]
    with omnimind.local(num_cpus=SLOTS) as om:
        emit({"step": "warm-up"})
        # The handler's pace is known to the runtime then: the first 100,000 must not look slow by it.
        warm = sum(1 for _ in om.map(handlers.noop, ({"value": i} for i in range(_WARM_UP))))
        assert warm == _WARM_UP
        om.queues.set(QUEUE, paused=True)
        pid: int = om.cluster_status()["coordinator"]["pid"]
        with _highest_rss(pid) as highest:
            accepted, accepting = _accept(om, count, emit)
            emit({"step": "listing"})
            begin = time.perf_counter()
            listed = len({task["task_id"] for task in om.list(queue=QUEUE)})
            listing = time.perf_counter() - begin
            points = _drain(om, count, emit)
        emit({"step": "counting what completed"})
        drained = len({task["task_id"] for task in om.list(queue=QUEUE, status="completed")})
    return {
        "count": count,
        "accepted": accepted,
        "accepting": accepting,
        "listed": listed,
        "listing": listing,
        "points": points,
        "drained": drained,
        "rss": highest[0],
    }


def _accept(om: Any, count: int, emit: Emit) -> tuple[int, float]:
    """Submit into the paused queue; how many the runtime says stand there, and seconds it took."""
    begin = time.perf_counter()
    for first in range(0, count, _SLICE):
        if first % (count // _STEPS) < _SLICE:
            emit({"step": f"accepting, {first:,} so far"})
        slab = [{"value": index} for index in range(first, min(first + _SLICE, count))]
        om.submit_many(handlers.noop, slab, queue=QUEUE)
    seconds = time.perf_counter() - begin
    return _left(om), seconds


def _left(om: Any) -> int:
    queue = om.queues.get(QUEUE)
    return sum(int(queue[kind]) for kind in ("ready", "delayed", "waiting", "running"))


def _drain(om: Any, count: int, emit: Emit) -> list[Point]:
    """Let the queue run empty and watch it. Raises RuntimeError when nothing moves for two minutes."""
    points: list[Point] = []
    begin = moved = time.perf_counter()
    told = -1
    om.queues.resume(QUEUE)
    while True:
        ended, now = count - _left(om), time.perf_counter()
        if not points or ended > points[-1][1]:
            moved = now
        elif now - moved > _STALL_SECONDS:
            raise RuntimeError(f"the queue stands still at {ended:,} of {count:,}")
        points.append((now - begin, ended))
        if ended >= count:
            return points
        if (tenth := ended * _STEPS // count) > told:
            told = tenth
            emit({"step": f"draining, {ended:,} done"})
        time.sleep(_POLL_SECONDS)


@contextmanager
def _highest_rss(pid: int) -> Iterator[list[int]]:
    """Watch a process; the yielded list holds the most resident bytes that were seen."""
    process, highest, over = psutil.Process(pid), [0], threading.Event()

    def watch() -> None:
        while not over.wait(_SAMPLE_SECONDS):
            highest[0] = max(highest[0], process.memory_info().rss)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield highest
    finally:
        over.set()
        thread.join()


def moment(points: Sequence[Point], ended: int) -> float:
    """Return when `ended` tasks had ended, interpolated between two looks."""
    if points and points[0][1] >= ended:
        return points[0][0]
    for (before, fewer), (after, more) in pairwise(points):
        if fewer < ended <= more:
            return before + (after - before) * (ended - fewer) / (more - fewer)
    raise ValueError(f"{ended:,} tasks never ended")


def evaluate(answer: Message) -> list[Figure]:
    count: int = answer["count"]
    part = count // 10
    points: list[Point] = [(when, ended) for when, ended in answer["points"]]
    first = part / (moment(points, part) - points[0][0])
    last = part / (moment(points, count) - moment(points, count - part))
    whole = f"{count:,} no-op tasks in a paused queue, one node with {SLOTS} slots"
    return [
        Figure(
            name="backlog.accepted", value=answer["accepted"], unit="tasks", must=f"== {count}", note=whole
        ),
        Figure(
            name="backlog.listed",
            value=answer["listed"],
            unit="tasks",
            must=f"== {count}",
            note="distinct ids over all pages of the queue's list",
        ),
        Figure(
            name="backlog.drained",
            value=answer["drained"],
            unit="tasks",
            must=f"== {count}",
            note="distinct ids in the ledger that have completed",
        ),
        Figure(
            name="backlog.memory",
            value=answer["rss"] / _MIB,
            unit="MiB",
            must="< 600",
            note="highest resident set of the coordinator's process while it accepted, listed and drained",
        ),
        Figure(
            name="backlog.last_to_first",
            value=last / first,
            unit="share",
            must=">= 0.85",
            note=f"rate of the last {part:,} ({last:,.0f}/s) divided by that of the first ({first:,.0f}/s)",
        ),
        Figure(
            name="backlog.accept_rate",
            value=count / answer["accepting"],
            unit="tasks/s",
            note=f"submit_many in slices of {_SLICE:,}",
        ),
        Figure(name="backlog.list_rate", value=answer["listed"] / answer["listing"], unit="tasks/s"),
        Figure(
            name="backlog.drain_rate",
            value=count / (points[-1][0] - points[0][0]),
            unit="tasks/s",
            note="over all, results not read back",
        ),
    ]


def _run(settings: Settings, step: Step) -> list[Figure]:
    try:
        answer = run(
            "benchmarks.backlog",
            {"count": settings.backlog},
            folder=settings.folder / "backlog",
            watch=lambda message: step(message["step"]),
        )
    except MeasurementFailedError as error:
        raise SuiteFailedError(str(error)) from error
    return evaluate(answer)


def _steps(settings: Settings) -> int:
    return 3 + _STEPS + min(_STEPS, settings.backlog // _SLICE)


SUITE = Suite(name="backlog", title="A long queue", steps=_steps, run=_run)
