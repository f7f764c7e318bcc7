"""`Node`: the Ray actor around a `NodeAgent`. One on each Ray node, pinned there; owns the batch tasks.

A batch is a Ray task of this actor, so it outlives the coordinator, and ends with this actor (Ray ends
the tasks of an owner that has died). Ray never repeats it (`max_retries=0`): whether to repeat is the
coordinator's decision.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from pathlib import Path
from typing import Any

import msgspec
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from actors.packages import unpacked_uri
from actors.wire import Beat, Join, Report, Store, encode
from omnimind import worker
from omnimind.clock import SystemClock
from omnimind.cluster.agent import (
    Command,
    KillBatch,
    NodeAgent,
    SendHeartbeat,
    SendJoin,
    SendReport,
    StartBatch,
)
from omnimind.cluster.events import Outcome
from omnimind.cluster.node import NodeInfo
from omnimind.cluster.sends import Batch
from omnimind.registry import HandlerSpec
from omnimind.runner import Pulse

log = logging.getLogger("omnimind.node")

_TICK = 0.1
_ANSWER_TIMEOUT = 15.0
_BLOBS_KEPT = 64

_outcomes = msgspec.msgpack.Decoder(list[Outcome])
_batches = msgspec.msgpack.Decoder(Batch)
_pulses = msgspec.msgpack.Decoder(Pulse)


class Node:
    """The actor. facts: what Ray says of the node (see `membership`)."""

    def __init__(self, facts: dict[str, Any], coordinator: str, namespace: str) -> None:
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
        self._facts = facts
        self._where = (coordinator, namespace)
        self._clock = SystemClock()
        self._agent = NodeAgent(_incarnation())
        self._refs: dict[int, Any] = {}
        self._pids: dict[int, int] = {}
        self._specs: dict[str, bytes] = {}
        self._blobs: dict[str, bytes] = {}
        self._progress: dict[str, dict[str, Any]] = {}
        self._logs: list[tuple[str, int, list[tuple[float, str, str]]]] = []
        self._running: set[asyncio.Task[None]] = set()
        self._run = ray.remote(max_retries=0)(worker.run)
        self._me = ray.get_runtime_context().current_actor
        self._up: Any = None
        self._spawn(self._live())

    def _spawn(self, coroutine: Any) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    # --- called by the coordinator ------------------------------------------------------------------

    async def run(self, data: bytes, spec: bytes) -> None:
        """Start a batch."""
        batch = _batches.decode(data)
        if spec:
            self._specs[batch.options.handler] = spec
        self._do(self._agent.run(batch, self._clock.now()))

    async def stop(self, incarnation: str, fence: int, indexes: list[int], hard: bool, cause: str) -> None:
        """End items of a batch."""
        if incarnation == self._agent.incarnation:
            self._do(self._agent.stop(fence, tuple(indexes), hard=hard, cause=cause))

    async def register(self) -> None:
        """Report for work again."""
        self._do(self._agent.asked_to_register(self._clock.now()))

    async def fence(self, incarnation: str) -> None:
        """End everything and join as new: this life was given up."""
        if incarnation == self._agent.incarnation:
            log.warning("this node was given up: its batches end, it joins as new")
            self._do(self._agent.fenced(_incarnation(), self._clock.now()))

    async def pid(self) -> int:
        """Return this process's id."""
        return os.getpid()

    # --- called by workers --------------------------------------------------------------------------

    async def pulse(self, pid: int, data: bytes) -> bytes:
        """Take in a sign of life of a batch, and answer which items should end."""
        pulse = _pulses.decode(data)
        held = self._agent.held.get(pulse.fence)
        if held is not None:
            self._pids[pulse.fence] = pid
            items = held.batch.items
            for index, value in pulse.progress.items():
                self._progress[items[index].task_id] = value
            lines: dict[int, list[tuple[float, str, str]]] = {}
            for index, at, level, text in pulse.logs:
                lines.setdefault(index, []).append((at, level, text))
            for index, written in lines.items():
                self._logs.append((items[index].task_id, pulse.fence + index, written))
        commands, stops = self._agent.beat(
            pulse.fence, pulse.current, pulse.since, pulse.outcomes, self._clock.now()
        )
        self._do(commands)
        return encode(stops)

    async def blob(self, digest: str) -> bytes:
        """Return stored bytes; kept here for the next worker."""
        data = self._blobs.get(digest)
        if data is None:
            data = await self._ask("blob", digest)
            if len(self._blobs) >= _BLOBS_KEPT:
                del self._blobs[next(iter(self._blobs))]
            self._blobs[digest] = data
        return data

    async def checkpoint(self, task_id: str, fence: int, data: bytes) -> None:
        """Store a checkpoint of a running attempt; returns when it is durable."""
        await self._ask("up", "store", encode(Store(task_id, fence, data)))

    # --- commands -----------------------------------------------------------------------------------

    def _do(self, commands: list[Command]) -> None:
        for command in commands:
            match command:
                case StartBatch(batch):
                    self._spawn(self._carry(batch))
                case KillBatch(fence):
                    self._kill(fence)
                case SendReport() as report:
                    self._spawn(self._send_report(report))
                case SendJoin(incarnation, running):
                    self._spawn(self._join(incarnation, running))
                case SendHeartbeat(incarnation, batches):
                    self._spawn(self._beat(incarnation, batches))

    async def _carry(self, batch: Batch) -> None:
        fence = batch.fence
        try:
            ref = await self._submit(batch)
            self._refs[fence] = ref
            data = await ref
            outcomes, death = _outcomes.decode(data), None
        except asyncio.CancelledError:
            raise
        except ray.exceptions.RuntimeEnvSetupError as error:
            outcomes, death = _all(batch, "invalid", "RuntimeEnvError", str(error)), None
        except Exception as error:  # noqa: BLE001 (whatever Ray says, the batch is over)
            outcomes, death = [], _why_dead(error)
        finally:
            self._refs.pop(fence, None)
            self._pids.pop(fence, None)
        self._do(self._agent.ended(fence, outcomes, death, self._clock.now()))

    async def _submit(self, batch: Batch) -> Any:
        options = batch.options
        spec = self._specs.get(options.handler)
        if spec is None:
            spec = self._specs[options.handler] = await self._ask("spec", options.handler)
        chosen: dict[str, Any] = {
            "name": f"{batch.task_type}" + (f" x{len(batch.items)}" if len(batch.items) > 1 else ""),
            "num_cpus": options.num_cpus,
        }
        if options.num_gpus:
            chosen["num_gpus"] = options.num_gpus
        if options.memory:
            chosen["memory"] = options.memory
        if batch.strategy == "affinity":
            chosen["scheduling_strategy"] = NodeAffinitySchedulingStrategy(self._facts["node_id"], soft=True)
        else:
            chosen["scheduling_strategy"] = "SPREAD"
        package = msgspec.json.decode(spec, type=HandlerSpec).package
        if package is not None:
            chosen["runtime_env"] = {"working_dir": await unpacked_uri(package, self.blob)}
        return self._run.options(**chosen).remote(encode(batch), spec, self._me)

    def _kill(self, fence: int) -> None:
        ref = self._refs.get(fence)
        pid = self._pids.get(fence)
        if pid is not None and _is_worker(pid):
            os.kill(pid, signal.SIGKILL)
        elif ref is not None:
            ray.cancel(ref, force=True)

    # --- messages to the coordinator ----------------------------------------------------------------

    async def _ask(self, method: str, *args: Any) -> Any:
        if self._up is None:
            name, namespace = self._where
            self._up = ray.get_actor(name, namespace=namespace)
        ref = getattr(self._up, method).remote(*args)
        return await asyncio.wait_for(asyncio.wrap_future(ref.future()), _ANSWER_TIMEOUT)

    async def _send_report(self, report: SendReport) -> None:
        message = Report(
            self._facts["node_id"], report.incarnation, report.fence, report.outcomes, report.final
        )
        try:
            await self._ask("up", "report", encode(message))
        except Exception as error:  # noqa: BLE001 (the coordinator is away: sent again later)
            log.info("a report did not arrive: %s", _short(error))
            self._agent.failed(report.number, self._clock.now())
        else:
            self._agent.acknowledged(report.number)

    async def _join(self, incarnation: str, running: Any) -> None:
        facts = self._facts
        node = NodeInfo(
            facts["node_id"],
            facts["hostname"],
            facts["ip_address"],
            facts["port"],
            cpu_cores=facts["cpu_cores"],
            memory_gb=facts["memory_gb"],
            max_concurrent_tasks=facts["slots"],
            capabilities=set(facts["capabilities"]),
            incarnation=incarnation,
            pids={"node": os.getpid()},
        )
        try:
            epoch = await self._ask("up", "join", encode(Join(node, running)))
        except Exception as error:  # noqa: BLE001 (asked again later)
            log.info("the coordinator does not answer: %s", _short(error))
        else:
            if incarnation == self._agent.incarnation:
                self._do(self._agent.registered(epoch, self._clock.now()))

    async def _beat(self, incarnation: str, batches: Any) -> None:
        progress, self._progress = self._progress, {}
        logs, self._logs = self._logs, []
        beat = Beat(self._facts["node_id"], incarnation, batches, {"node": os.getpid()}, progress, logs)
        try:
            await self._ask("up", "beat", encode(beat))
        except Exception as error:  # noqa: BLE001 (the next beat is a second away)
            log.info("a heartbeat did not arrive: %s", _short(error))
            self._progress = progress | self._progress
            self._logs = (logs + self._logs)[-1000:]

    async def _live(self) -> None:
        while True:
            self._do(self._agent.tick(self._clock.now()))
            await asyncio.sleep(_TICK)


def _incarnation() -> str:
    return f"{time.time_ns():x}-{os.getpid()}"


def _is_worker(pid: int) -> bool:
    """Return whether a process is a Ray worker of this host: never signal a pid that was given to another."""
    try:
        return b"ray::" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def _all(batch: Batch, status: str, kind: str, message: str) -> list[Outcome]:
    error = {"type": kind, "message": message[:4096]}
    return [Outcome(i, status, error=error) for i in range(len(batch.items))]


def _why_dead(error: Exception) -> str:
    return f"{type(error).__name__}: {_short(error)}"


def _short(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
