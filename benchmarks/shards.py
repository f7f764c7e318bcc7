"""What a second shard brings: lives of tasks through a core, its gate and its ledger, in a process each.

One shard alone, then two side by side, in turns. Each process is what a coordinator does without Ray and
sockets: a slab of tasks is submitted, committed to the shard's own SQLite file and dispatched; the outcomes
are taken in and committed. Measured are tasks a second by the clock, and CPU time a task. On a machine with
two cores that does other things too, the clock says little; what a task costs in CPU time when two shards
run side by side says whether they hold each other up.
"""

from __future__ import annotations

import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import median

from benchmarks.child import Emit, MeasurementFailedError, Message, run
from benchmarks.figures import Figure
from benchmarks.settings import Settings, Step, Suite, SuiteFailedError
from omnimind.cluster import events as ev
from omnimind.cluster.core import CoordinatorCore
from omnimind.cluster.gate import CommitGate
from omnimind.cluster.node import NodeInfo
from omnimind.cluster.policies import QueuePolicy
from omnimind.cluster.sends import Dispatch, Send
from omnimind.cluster.sharding import bucket_of
from omnimind.cluster.task import DistributedTask
from omnimind.ids import new_slab, task_id
from omnimind.ledger.opening import sqlite_path
from omnimind.ledger.sqlite import SqliteLedger

LEAST_SPEEDUP = 1.6
_REPETITIONS = 3
_SLAB = 256
_SLABS = 120
_QUEUES = ("images", "emails")
"""One of shard 0, one of shard 1."""


def lives(folder: str, shard: int, shards: int, begin: float) -> tuple[float, float, float]:
    """Run one shard from `begin` (Unix seconds) on; return its end, its CPU seconds and its tasks."""
    core = CoordinatorCore("bench", seed=1, shard=shard, shards=shards)
    ledger = SqliteLedger(sqlite_path(Path(folder), shard))
    gate = CommitGate()
    queue = _QUEUES[shard]
    core.handle(ledger.open(1000), time.time())
    core.handle(ev.QueueSet(0, QueuePolicy(queue)), time.time())
    core.handle(ev.NodeJoined(NodeInfo("node", max_concurrent_tasks=2, incarnation="1")), time.time())
    time.sleep(max(0.0, begin - time.time()))
    cpu, done = time.process_time(), 0

    def take(event: ev.Event) -> list[Send]:
        gate.add(core.handle(event, time.time()))
        records = gate.take()
        if records:
            ledger.write(records)
        return gate.committed()

    for number in range(_SLABS):
        take(ev.Heartbeat("node", "1"))
        slab = new_slab(bucket_of(queue))
        tasks = [DistributedTask(task_id(slab, i), "noop", b"{}", queue=queue) for i in range(_SLAB)]
        waiting = [send for send in take(ev.Submit(number, tasks)) if isinstance(send, Dispatch)]
        while waiting:
            batch = waiting.pop().batch
            outcomes = [ev.Outcome(i, "ok", b"null", "json", None, 2e-6) for i in range(len(batch.items))]
            done += len(outcomes)
            ended = ev.Outcomes(number, "node", "1", batch.fence, outcomes, final=True)
            waiting += [send for send in take(ended) if isinstance(send, Dispatch)]
    over, used = time.time(), time.process_time() - cpu
    ledger.close()
    assert done == _SLAB * _SLABS, f"{done} tasks ended"
    return over, used, done


def _side_by_side(shards: int, folder: Path) -> tuple[float, float]:
    """Return tasks a second of all shards together, and CPU seconds a task."""
    with (
        tempfile.TemporaryDirectory(dir=folder) as home,
        ProcessPoolExecutor(shards, mp_context=get_context("spawn")) as pool,
    ):
        list(
            pool.map(time.sleep, [0.2] * shards)
        )  # the processes are there, and have imported what they need
        begin = time.time() + 1.0
        found = [pool.submit(lives, home, shard, shards, begin) for shard in range(shards)]
        ended = [future.result() for future in found]
    tasks = sum(done for _, _, done in ended)
    return tasks / (max(over for over, _, _ in ended) - begin), sum(cpu for _, cpu, _ in ended) / tasks


def measure(request: Message, emit: Emit) -> Message:
    """Return tasks a second and CPU seconds a task, by the number of shards."""
    rates: dict[str, list[float]] = {"1": [], "2": []}
    costs: dict[str, list[float]] = {"1": [], "2": []}
    for number in range(_REPETITIONS):
        for shards in (1, 2):
            emit({"step": f"{shards} side by side, repetition {number + 1} of {_REPETITIONS}"})
            rate, cost = _side_by_side(shards, Path(request["folder"]))
            rates[str(shards)].append(rate)
            costs[str(shards)].append(cost)
    return {"rates": rates, "costs": costs}


def evaluate(answer: Message) -> list[Figure]:
    rates = {int(n): median(found) for n, found in answer["rates"].items()}
    costs = {int(n): median(found) for n, found in answer["costs"].items()}
    middle = f"median of {_REPETITIONS}; core, gate and SQLite ledger, without Ray; slabs of {_SLAB}"
    return [
        *(Figure(name=f"shards.rate.{n}", value=rates[n], unit="tasks/s", note=middle) for n in rates),
        *(
            Figure(name=f"shards.cost_per_task.{n}", value=costs[n], unit="s", note=f"{middle}; CPU time")
            for n in costs
        ),
        Figure(
            name="shards.speedup",
            value=rates[2] / rates[1],
            unit="share",
            note=f"{middle}; two shards side by side to one, by the clock: only where two cores are free",
        ),
        Figure(
            name="shards.speedup_by_cpu",
            value=2 * costs[1] / costs[2],
            unit="share",
            must=f">= {LEAST_SPEEDUP:g}",
            note=f"{middle}; two shards to one where cores allow, by what a task costs them in CPU time",
        ),
    ]


def _run(settings: Settings, step: Step) -> list[Figure]:
    folder = settings.folder / "shards"
    try:
        answer = run(
            "benchmarks.shards",
            {"folder": str(folder)},
            folder=folder,
            watch=lambda message: step(message["step"]),
        )
    except MeasurementFailedError as error:
        raise SuiteFailedError(str(error)) from error
    return evaluate(answer)


def _steps(settings: Settings) -> int:
    del settings
    return 2 * _REPETITIONS


SUITE = Suite(name="shards", title="One shard and two side by side", steps=_steps, run=_run)
