"""The core alone: placement decisions at growing lengths of the queue, and a thousand nodes that beat.

No ledger, no Ray, one thread. Everything goes through the one door, `CoordinatorCore.handle`. Times are CPU
times of this thread, since the core neither waits nor sleeps: with a core to itself they equal the wall time,
on a busy machine they still tell what the core costs, not what others took from it.

Placement: tasks of mixed type, priority, queue and needs stand in line before 1,000 idle nodes, held back by
the rate limits of their queues; then the time comes when the rates allow them all, and the core places what
it can. Only the handling of this one event is timed. `batch_max=1`, so that each decision is about one task,
and a window that holds all tasks, so that nothing is left out on disk: the hardest case of both.
"""

from __future__ import annotations

import gc
import math
import random
import time
from collections.abc import Mapping
from statistics import median

from benchmarks.child import Emit, MeasurementFailedError, Message, run
from benchmarks.figures import Figure
from benchmarks.settings import Settings, Step, Suite, SuiteFailedError
from omnimind.cluster import events as ev
from omnimind.cluster.core import CoordinatorCore
from omnimind.cluster.node import NodeInfo
from omnimind.cluster.policies import CoreLimits, QueuePolicy
from omnimind.cluster.sends import Dispatch, Effects
from omnimind.cluster.task import DistributedTask

NODES = 1_000
LENGTHS = (100, 1_000, 10_000, 100_000, 1_000_000)
_SLOTS = 64
_DECISIONS = 20_000
_REPETITIONS = 3
_BEATS = 30
_HELD = 4
_CYCLES = 200
_SLAB = 256
_QUEUES = ("default", "imports", "mail", "reports")
_TYPES = ("index", "resize", "send")
_GPU, _NOTHING = frozenset({"gpu"}), frozenset[str]()
_START = 1_800_000_000.0
_OPEN = _START + 0.5


def measure(request: Message, emit: Emit) -> Message:
    """Return seconds a decision by length, shares of one core by beats, tasks a second by whole cycles."""
    placement: dict[str, list[float]] = {str(length): [] for length in LENGTHS}
    beats: list[float] = []
    cycles: list[float] = []
    for number in range(_REPETITIONS):
        rng = random.Random(f"{request['seed']}:{number}")
        for length in LENGTHS:
            emit({"step": f"queue of {length:,}, repetition {number + 1} of {_REPETITIONS}"})
            placement[str(length)].append(_placement(length, rng))
        emit({"step": f"{NODES:,} nodes beating, repetition {number + 1} of {_REPETITIONS}"})
        beats.append(_beating(rng))
        cycles.append(_cycling())
    return {"placement": placement, "beats": beats, "cycles": cycles}


def _nodes(slots: int) -> list[NodeInfo]:
    return [
        NodeInfo(
            f"node{index}",
            max_concurrent_tasks=slots,
            capabilities={"gpu"} if index % 4 == 0 else set(),
            incarnation="1",
        )
        for index in range(NODES)
    ]


def _mixed(count: int, rng: random.Random) -> list[DistributedTask]:
    return [
        DistributedTask(
            f"tsk_{number:032x}",
            rng.choice(_TYPES),
            b"{}",
            priority=rng.randint(1, 10),
            queue=rng.choice(_QUEUES),
            needs=_GPU if rng.random() < 0.1 else _NOTHING,
        )
        for number in range(count)
    ]


def _waiting_core(slots: int, tasks: list[DistributedTask]) -> CoordinatorCore:
    """Return a core with these tasks in line; it begins to place them at `_OPEN`."""
    core = CoordinatorCore("bench", CoreLimits(window=10**9, batch_max=1), seed=1)
    core.handle(ev.Recovered(epoch=1, last_seq=0), _START)
    for node in _nodes(slots):
        core.handle(ev.NodeJoined(node), _START)
    for name in _QUEUES:
        core.handle(ev.QueueSet(0, QueuePolicy(name, rate=1e9)), _START)
    # A queue begins with one start that its rate allows. It is used up here, and what a core builds at its
    # first decision is built.
    first = [
        DistributedTask(f"tsk_first{place}", _TYPES[0], b"{}", queue=name, needs=needs)
        for place, (name, needs) in enumerate(zip(_QUEUES, (_GPU, _NOTHING) * 2, strict=True))
    ]
    assert len(_batches(core.handle(ev.Submit(1, first), _START))) == len(_QUEUES)
    assert not _batches(core.handle(ev.Submit(2, tasks), _START))
    return core


def _batches(effects: Effects) -> list[Dispatch]:
    return [send for send in effects.sends if isinstance(send, Dispatch)]


def _placement(length: int, rng: random.Random) -> float:
    """Return seconds a decision with a line of this length; short lines are set up again and again."""
    seconds, decisions = 0.0, 0
    while decisions < min(_DECISIONS, NODES * _SLOTS):
        core = _waiting_core(_SLOTS, _mixed(length, rng))
        # What was set up stays alive throughout: the collector need not walk over it again and again.
        gc.collect()
        gc.freeze()
        start = time.thread_time()
        effects = core.handle(ev.Tick(), _OPEN)
        seconds += time.thread_time() - start
        placed = len(_batches(effects))
        assert placed >= 0.8 * min(length, NODES * _SLOTS), f"{placed} of {length} were placed"
        decisions += placed
        gc.unfreeze()
    return seconds / decisions


def _beating(rng: random.Random) -> float:
    """Return the share of one core that 1,000 nodes with full slots take by beating each second."""
    core = _waiting_core(_HELD, _mixed(2 * NODES * _HELD, rng))
    held: dict[str, list[int]] = {}
    for send in _batches(core.handle(ev.Tick(), _OPEN)):
        held.setdefault(send.node_id, []).append(send.batch.fence)
    assert len(held) == NODES
    used = 0.0
    for second in range(1, _BEATS + 1):
        beats = [
            ev.Heartbeat(node, "1", tuple((fence, 0, _START) for fence in fences))
            for node, fences in held.items()
        ]
        begin_cpu = time.thread_time()
        for number, beat in enumerate(beats):
            core.handle(beat, _START + second + number / NODES)
        core.handle(ev.Tick(), _START + second + 0.9999)
        used += time.thread_time() - begin_cpu
    return used / _BEATS


def _cycling() -> float:
    """Return tasks a second from submission to outcome, in slabs, with the limits of production."""
    core = CoordinatorCore("bench", seed=1)
    core.handle(ev.Recovered(epoch=1, last_seq=0), _START)
    core.handle(ev.NodeJoined(NodeInfo("node", max_concurrent_tasks=2, incarnation="1")), _START)
    slabs = [
        [DistributedTask(f"tsk_{slab:028x}{index:04x}", "noop", b"{}") for index in range(_SLAB)]
        for slab in range(_CYCLES)
    ]
    done = 0
    start = time.thread_time()
    for number, slab in enumerate(slabs):
        now = _START + number / 100
        waiting = _batches(core.handle(ev.Submit(number, slab), now))
        while waiting:
            batch = waiting.pop().batch
            outcomes = [
                ev.Outcome(index, "ok", b"null", "json", None, 2e-6) for index in range(len(batch.items))
            ]
            done += len(outcomes)
            event = ev.Outcomes(number, "node", "1", batch.fence, outcomes, final=True)
            waiting += _batches(core.handle(event, now))
    seconds = time.thread_time() - start
    assert done == _CYCLES * _SLAB, f"{done} tasks ended"
    return done / seconds


def growth(costs: Mapping[int, float]) -> float:
    """Return the largest cost beyond the shortest line's, relative to what growth with log n allows it."""
    first = min(costs)
    return max(
        (cost / costs[first]) / (math.log(length) / math.log(first))
        for length, cost in costs.items()
        if length != first
    )


def evaluate(answer: Message) -> list[Figure]:
    costs = {int(length): median(seconds) for length, seconds in answer["placement"].items()}
    middle = f"median of {_REPETITIONS}"
    lengths = f"{min(costs):,} to {max(costs):,} queued tasks"
    return [
        *(
            Figure(
                name=f"core.decisions.{length}",
                value=1 / cost,
                unit="1/s",
                note=f"{middle}; {length:,} queued tasks of 3 types, 4 queues, 10 priorities, 10 % of them "
                f"with needs; {NODES:,} nodes; one task a decision",
            )
            for length, cost in costs.items()
        ),
        Figure(
            name="core.decisions",
            value=1 / max(costs.values()),
            unit="1/s",
            must=">= 50000",
            note=f"the slowest of {lengths}, {NODES:,} nodes, one task a decision, by CPU time",
        ),
        Figure(
            name="core.growth",
            value=growth(costs),
            unit="share",
            must="<= 1",
            note=f"largest cost of a decision over {lengths}, divided by the cost at {min(costs):,} times "
            f"log n / log {min(costs):,}: 1 is growth with log n",
        ),
        Figure(
            name="core.beats",
            value=float(median(answer["beats"])),
            unit="share",
            must="<= 0.2",
            note=f"{middle}; CPU time of the core for {NODES:,} nodes that beat each second, "
            f"each with {_HELD} running batches, of one core",
        ),
        Figure(
            name="core.cycles",
            value=float(median(answer["cycles"])),
            unit="tasks/s",
            note=f"{middle}; from submission (slabs of {_SLAB}) to outcome, core alone, by CPU time",
        ),
    ]


def _run(settings: Settings, step: Step) -> list[Figure]:
    try:
        answer = run(
            "benchmarks.core",
            {"seed": settings.seed},
            folder=settings.folder / "core",
            watch=lambda message: step(message["step"]),
        )
    except MeasurementFailedError as error:
        raise SuiteFailedError(str(error)) from error
    return evaluate(answer)


def _steps(settings: Settings) -> int:
    del settings
    return _REPETITIONS * (len(LENGTHS) + 1)


SUITE = Suite(name="core", title="The core alone", steps=_steps, run=_run)
