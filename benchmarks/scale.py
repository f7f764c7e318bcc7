"""What a task costs the coordinator's core in a cluster of 10 nodes and in one of 1,000, in simulation.

The real core, with the limits of production, sees whole lives: a long queue is submitted in slabs, goes to
disk beyond the window, comes back as it is needed, is placed, runs for its time, ends; and every node beats
once a second. What is simulated is only the world around it: time, the nodes, and a ledger that makes a row
again from its number, so that ten million of them take no memory. No task fails here.

Both clusters run in turns, a slice of the one, a slice of the other, so that what else happens on the machine
meets both. Times are CPU times of this thread, of the calls of `CoordinatorCore.handle` alone.
"""

from __future__ import annotations

import time
from collections import deque
from heapq import heappop, heappush

import psutil

from benchmarks.child import Emit, MeasurementFailedError, Message, run
from benchmarks.figures import Figure
from benchmarks.settings import Settings, Step, Suite, SuiteFailedError
from omnimind.cluster import events as ev
from omnimind.cluster.core import CoordinatorCore
from omnimind.cluster.node import NodeInfo
from omnimind.cluster.policies import QueuePolicy
from omnimind.cluster.queues import rank_of
from omnimind.cluster.sends import Batch, Dispatch, Fetch
from omnimind.cluster.states import Line
from omnimind.cluster.task import DistributedTask, TaskOptions

FEW, MANY = 10, 1_000
SHARE_OF_FEW = 10
"""The small cluster runs one task for every so many of the large one's: that is enough to know its cost."""
MOST_RATIO = 1.2
_SLICES = 20
_SLAB = 1_000
_SLOTS = 4
_CPUS = 8
_BEAT = 1.0
_TRAVEL = 0.001
_START = 1_800_000_000.0
_MIB = 1 << 20

_QUEUES = (("default", 5), ("imports", 7), ("mail", 3), ("reports", 9))
"""Queue and priority: of one priority each, a queue's order on disk is that of submission."""
_TYPES = (("send", 0.002), ("send", 0.002), ("send", 0.002), ("resize", 0.02), ("index", 0.2))
_NOTHING, _GPU = frozenset[str](), frozenset({"gpu"})
_NARROW, _WIDE = TaskOptions(), TaskOptions(num_cpus=2.0)
_SECONDS = dict(_TYPES)


def task_of(number: int) -> DistributedTask:
    """Return the task of a number: the same one each time."""
    queue, priority = _QUEUES[number % len(_QUEUES)]
    task_type, _ = _TYPES[number // 7 % len(_TYPES)]
    return DistributedTask(
        f"tsk_{number:032x}",
        task_type,
        b"{}",
        priority=priority,
        queue=queue,
        needs=_GPU if number // 3 % 10 == 0 else _NOTHING,
        options=_WIDE if number // 11 % 20 == 0 else _NARROW,
    )


class _Machine:
    """A simulated node: a batch runs while slots are free, else it waits its turn."""

    __slots__ = ("free", "held", "waiting")

    def __init__(self) -> None:
        self.free = _SLOTS
        self.held: dict[int, int] = {}
        """Fences of the batches that it holds, with the slots that each takes."""
        self.waiting: deque[Batch] = deque()


class Cluster:
    """A simulated cluster before a queue of `count` tasks. `cost` is CPU seconds of the core so far."""

    def __init__(self, nodes: int, count: int) -> None:
        self.core = CoordinatorCore("bench", seed=1)
        self.count = count
        self.now = _START
        self.cost = 0.0
        self.done = 0
        self.fetched = 0
        """Tasks that came back from disk."""
        self.highest = 0
        """Most tasks that the core held in memory at one time."""
        self._submitted = 0
        self._happens: list[tuple[float, int, ev.Event]] = []
        self._order = 0
        self._machines = {f"node{n}": _Machine() for n in range(nodes)}
        self._feed(ev.Recovered(epoch=1, last_seq=0))
        for name, _ in _QUEUES:
            self._feed(ev.QueueSet(0, QueuePolicy(name, max_pending=10**9)))

    def submit(self, upto: int) -> None:
        """Submit the tasks up to a number, a slab each millisecond."""
        while self._submitted < upto:
            numbers = range(self._submitted, min(upto, self._submitted + _SLAB))
            slab = [task_of(number) for number in numbers]
            self.now = _submitted_at(numbers.start)
            self._feed(ev.Submit(1, slab))
            self._submitted = numbers.stop

    def open(self) -> None:
        """Let the nodes join; a quarter of them have a GPU. They beat one after the other within a second."""
        for place, name in enumerate(self._machines):
            node = NodeInfo(
                name,
                cpu_cores=_CPUS,
                max_concurrent_tasks=_SLOTS,
                capabilities={"gpu"} if place % 4 == 0 else set(),
                incarnation="1",
            )
            self._feed(ev.NodeJoined(node))
            self._later(self.now + (place + 1) * _BEAT / len(self._machines), ev.Heartbeat(name, "1"))

    def run(self, upto: int) -> None:
        """Let time pass until so many tasks have ended."""
        while self.done < upto:
            at, _, event = heappop(self._happens)
            self.now = max(self.now, at)
            match event:
                case ev.Heartbeat():
                    held = self._machines[event.node_id].held
                    beats = tuple((fence, None, None) for fence in held)
                    self._feed(ev.Heartbeat(event.node_id, "1", beats))
                    self._later(self.now + _BEAT, event)
                case ev.Outcomes():
                    machine = self._machines[event.node_id]
                    machine.free += machine.held.pop(event.batch)
                    self.done += len(event.outcomes)
                    self._feed(event)
                    self._start_waiting(event.node_id, machine)
                case _:
                    self._feed(event)

    def check(self) -> None:
        """Raise AssertionError unless every task ran exactly once and nothing is left."""
        core = self.core
        core.validate()
        ended = core.counts.get("completed", 0)
        assert ended == self.done == self.count, f"{ended} completed, {self.done} ran, of {self.count}"
        assert not core.batches, f"{len(core.batches)} batches are left"

    def _later(self, at: float, event: ev.Event) -> None:
        self._order += 1
        heappush(self._happens, (at, self._order, event))

    def _feed(self, event: ev.Event) -> None:
        begin = time.thread_time()
        effects = self.core.handle(event, self.now)
        self.cost += time.thread_time() - begin
        self.highest = max(self.highest, len(self.core.tasks))
        for send in effects.sends:
            if isinstance(send, Dispatch):
                machine = self._machines[send.node_id]
                machine.held[send.batch.fence] = send.batch.options.slots
                machine.waiting.append(send.batch)
                self._start_waiting(send.node_id, machine)
            elif isinstance(send, Fetch):
                self._later(self.now + _TRAVEL, self._read(send))

    def _start_waiting(self, node: str, machine: _Machine) -> None:
        while machine.waiting and machine.waiting[0].options.slots <= machine.free:
            batch = machine.waiting.popleft()
            machine.free -= batch.options.slots
            each = _SECONDS[batch.task_type]
            outcomes = [ev.Outcome(i, "ok", b"null", "json", None, each) for i in range(len(batch.items))]
            ended = ev.Outcomes(1, node, "1", batch.fence, outcomes, final=True)
            self._later(self.now + _TRAVEL + each * len(outcomes), ended)

    def _read(self, fetch: Fetch) -> ev.Loaded:
        """Read a part of a queue's ready line, as the ledger would: rows beyond a place, in order."""
        if fetch.line != "ready":
            return ev.Loaded(fetch.line, fetch.queue, [], more=False)
        step = len(_QUEUES)
        place = next(i for i, (name, _) in enumerate(_QUEUES) if name == fetch.queue)
        # The task of number n has the sequence number n + 1.
        first = max(0, fetch.after[1])
        first += (place - first) % step
        numbers = range(first, min(self._submitted, first + step * fetch.limit), step)
        rows = [self._row(number) for number in numbers]
        self.fetched += len(rows)
        return ev.Loaded("ready", fetch.queue, rows, more=len(rows) >= fetch.limit)

    def _row(self, number: int) -> DistributedTask:
        task = task_of(number)
        task.seq = number + 1
        task.created_at = _submitted_at(number)
        task.rank = rank_of(task, self.core.limits.ageing)
        task.line = task.stored = Line.READY
        return task


def _submitted_at(number: int) -> float:
    return _START + (number // _SLAB + 1) * _TRAVEL


def measure(request: Message, emit: Emit) -> Message:
    """Return CPU seconds a task with few and with many nodes, and what was held in memory at most."""
    count: int = request["count"]
    many = Cluster(MANY, count)
    few = Cluster(FEW, max(1, count // SHARE_OF_FEW))
    both = (many, few)
    for part in range(1, _SLICES + 1):
        emit({"step": f"submitting, {part} of {_SLICES}"})
        for cluster in both:
            cluster.submit(cluster.count * part // _SLICES)
    accepting = [cluster.cost / cluster.count for cluster in both]
    for cluster in both:
        cluster.open()
    for part in range(1, _SLICES + 1):
        emit({"step": f"running, {part} of {_SLICES}"})
        for cluster in both:
            cluster.run(cluster.count * part // _SLICES)
    for cluster in both:
        cluster.check()
    return {
        "count": count,
        "few": few.cost / few.count,
        "many": many.cost / many.count,
        "accepting": accepting,
        "seconds": many.now - _START,
        "fetched": many.fetched,
        "highest": many.highest,
        "rss": psutil.Process().memory_info().rss,
    }


def evaluate(answer: Message) -> list[Figure]:
    """Return the figures of an answer of `measure`."""
    count = answer["count"]
    about = (
        "tasks of 3 types in 4 queues, 10 % with needs, 5 % with 2 CPUs, submitted before the nodes join; "
        "whole lives by CPU time of the core alone, in simulation"
    )
    return [
        Figure(
            name=f"scale.cost_per_task.{FEW}",
            value=answer["few"] * 1e6,
            unit="us",
            note=f"{FEW} nodes of {_SLOTS} slots; {count // SHARE_OF_FEW:,} {about}",
        ),
        Figure(
            name=f"scale.cost_per_task.{MANY}",
            value=answer["many"] * 1e6,
            unit="us",
            note=f"{MANY:,} nodes of {_SLOTS} slots; {count:,} {about}",
        ),
        Figure(
            name="scale.cost_per_task.ratio",
            value=answer["many"] / answer["few"],
            unit="share",
            must=f"<= {MOST_RATIO:g}",
            note=f"cost of a task with {MANY:,} nodes over that with {FEW}, measured in turns",
        ),
        Figure(
            name="scale.in_memory",
            value=float(answer["highest"]),
            unit="tasks",
            must="<= 300000",
            note=f"most tasks that the core held at one time ({len(_QUEUES)} windows and what runs); "
            f"{count:,} in line, {MANY:,} nodes; "
            f"{answer['fetched']:,} came back from disk; the process took {answer['rss'] / _MIB:.0f} MiB",
        ),
    ]


def _run(settings: Settings, step: Step) -> list[Figure]:
    try:
        answer = run(
            "benchmarks.scale",
            {"count": settings.scale},
            folder=settings.folder / "scale",
            watch=lambda message: step(message["step"]),
        )
    except MeasurementFailedError as error:
        raise SuiteFailedError(str(error)) from error
    return evaluate(answer)


def _steps(settings: Settings) -> int:
    del settings
    return 2 * _SLICES


SUITE = Suite(name="scale", title="A thousand nodes in simulation", steps=_steps, run=_run)
