"""`Node`: the Ray actor around a `NodeAgent`. One on each Ray node, pinned there; owns the batch tasks.

A batch is a Ray task of this actor, so it outlives the coordinator, and ends with this actor (Ray ends
the tasks of an owner that has died). Ray never repeats it (`max_retries=0`): whether to repeat is the
coordinator's decision.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import platform
import signal
import time
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from actors.doorbell import Doorbell
from actors.names import NAMESPACE, node_actor
from actors.packages import session_folder, unpacked_uri
from actors.scheduling import ray_options
from actors.side import Side
from actors.wire import Beat, Down, Fence, Fetch, Join, Register, Report, Run, Stop, Store, decode, encode
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
from omnimind.cluster.sharing import SlotShare
from omnimind.errors import NotFound, Refused
from omnimind.ids import shard_of_fence
from omnimind.pulse import Pulse
from omnimind.registry import HandlerSpec

log = logging.getLogger("omnimind.node")

_TICK = 0.1
_OWED_MOST = 64 << 20
"""Bytes of outcomes that wait for a coordinator, beyond which the node starts nothing more."""
_BLOBS_KEPT = 64
_PREPARED_KEPT = 2_000
_WARM_SECONDS = 0.1
_WARM_MOST = 64

_outcomes = msgspec.msgpack.Decoder(list[Outcome])
_pulses = msgspec.msgpack.Decoder(Pulse)


class _Handler:
    """A handler's record as it travels, and the package that it needs."""

    def __init__(self, spec: bytes) -> None:
        self.spec = spec
        self.package = msgspec.json.decode(spec, type=HandlerSpec).package


class Node:
    """The actor. facts: what Ray says of the node (see `membership`)."""

    def __init__(self, facts: dict[str, Any], socket: str, token_file: str) -> None:
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
        self._facts = facts
        self._clock = SystemClock()
        shards = facts.get("shards", 1)
        self._share = SlotShare(facts["slots"], shards) if shards > 1 else None
        """Between the shards; one alone has all slots, and starts its batches at once."""
        self._sides = [
            Side(
                shard,
                NodeAgent(_incarnation(shard), bound=_OWED_MOST // shards, all_slots=facts["slots"]),
                facts["node_id"],
                socket=Path(socket),
                token_file=Path(token_file),
                pushed=partial(self._take, shard),
            )
            for shard in range(shards)
        ]
        self._lend()
        self._refs: dict[int, Any] = {}
        self._waiting: dict[int, Batch] = {}
        """Batches that wait for slots of this node."""
        self._pids: dict[int, int] = {}
        self._handlers: dict[str, _Handler] = {}
        self._blobs: dict[str, bytes] = {}
        self._running: set[asyncio.Task[None]] = set()
        self._run = ray.remote(max_retries=0)(worker.run)
        self._prepared: dict[tuple[str, int, str], Any] = {}
        bell = session_folder() / "sockets" / f"om-{facts['node_id'][:8]}"
        self._doorbell = Doorbell(bell, self._rung)
        self._owner = encode(
            worker.Owner(node_actor(facts["node_id"]), NAMESPACE, str(bell), self._doorbell.token)
        )
        self._warming: list[Any] = []
        self._spawn(self._live())

    def _spawn(self, coroutine: Any) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    # --- messages from the coordinator --------------------------------------------------------------

    async def down(self, kind: str, data: bytes, shard: int = 0) -> None:
        """Take in a message of a shard's coordinator that came as a Ray call."""
        if shard < len(self._sides):
            self._take(shard, kind, data)

    def _take(self, shard: int, kind: str, data: bytes) -> None:
        side, now = self._sides[shard], self._clock.now()
        agent = side.agent
        message: Down = decode(kind, data)
        match message:
            case Run(batch, incarnation, spec):
                if spec and batch.options.handler not in self._handlers:
                    self._handlers[batch.options.handler] = _Handler(spec)
                self._do(side, agent.run(batch, incarnation, now))
            case Stop(incarnation, fence, indexes, hard, cause):
                if incarnation == agent.incarnation:
                    self._do(side, agent.stop(fence, indexes, hard=hard, cause=cause))
            case Register():
                self._do(side, agent.asked_to_register(now))
            case Fence(incarnation):
                if incarnation == agent.incarnation:
                    log.warning("this node was given up: its batches end, it joins as new")
                    self._do(side, agent.fenced(_incarnation(shard), now))

    async def warmed(self) -> int:
        """Return the number of warm workers, once they are."""
        return len(await asyncio.gather(*(asyncio.wrap_future(ref.future()) for ref in self._warming)))

    # --- called by workers --------------------------------------------------------------------------

    async def pulse(self, pid: int, data: bytes) -> bytes:
        """Take in a sign of life of a batch, and answer which items should end."""
        pulse = _pulses.decode(data)
        side = self._side_of(pulse.fence)
        held = side.agent.held.get(pulse.fence)
        if held is not None:
            self._pids[pulse.fence] = pid
            items = held.batch.items
            for index, value in pulse.progress.items():
                side.progress[items[index].task_id] = value
            lines: dict[int, list[tuple[float, str, str]]] = {}
            for index, at, level, text in pulse.logs:
                lines.setdefault(index, []).append((at, level, text))
            for index, written in lines.items():
                side.logs.append((items[index].task_id, pulse.fence + index, written))
        commands, stops = side.agent.beat(
            pulse.fence, pulse.current, pulse.ran, pulse.outcomes, self._clock.now()
        )
        self._do(side, commands)
        return encode(stops)

    async def blob(self, digest: str) -> bytes:
        """Return stored bytes; kept here for the next worker."""
        data = self._blobs.get(digest)
        if data is None:
            data = await self._fetch_blob(digest)
            if len(self._blobs) >= _BLOBS_KEPT:
                del self._blobs[next(iter(self._blobs))]
            self._blobs[digest] = data
        return data

    async def _fetch_blob(self, digest: str) -> bytes:
        """Ask the shards one after the other: a blob is stored with each shard that has tasks for it."""
        for side in self._sides[:-1]:
            with contextlib.suppress(NotFound):
                return await side.insist("fetch", Fetch("blob", digest))  # type: ignore[no-any-return]
        return await self._sides[-1].insist("fetch", Fetch("blob", digest))  # type: ignore[no-any-return]

    async def checkpoint(self, task_id: str, fence: int, data: bytes) -> None:
        """Store a checkpoint of a running attempt; returns when it is durable."""
        await self._side_of(fence).insist("store", Store(task_id, fence, data))

    # --- commands -----------------------------------------------------------------------------------

    def _side_of(self, fence: int) -> Side:
        """Return the side of the shard that granted a fence."""
        return self._sides[shard_of_fence(fence)]

    def _do(self, side: Side, commands: list[Command]) -> None:
        for command in commands:
            match command:
                case StartBatch(batch):
                    if self._share is None:
                        self._spawn(self._carry(side, batch))
                    else:
                        self._waiting[batch.fence] = batch
                        self._begin(self._share.offer(side.shard, batch.fence, batch.options.slots))
                case KillBatch(fence):
                    self._kill(fence)
                case SendReport() as report:
                    self._spawn(self._send_report(side, report))
                case SendJoin(incarnation, running):
                    self._spawn(self._join(side, incarnation, running))
                case SendHeartbeat() as beat:
                    self._spawn(self._beat(side, beat))

    def _begin(self, fences: list[int]) -> None:
        """Start batches that have got their slots, and tell the shards what they may count on now."""
        for fence in fences:
            self._spawn(self._carry(self._side_of(fence), self._waiting.pop(fence)))
        self._lend()

    def _leave(self, fence: int) -> None:
        """Take a batch's slots back; the second time changes nothing."""
        if self._share is not None:
            self._begin(self._share.leave(fence))

    def _lend(self) -> None:
        if self._share is not None:
            now = self._clock.now()
            for side in self._sides:
                self._do(side, side.agent.may_use(self._share.may_use(side.shard), now))

    async def _carry(self, side: Side, batch: Batch) -> None:
        fence = batch.fence
        try:
            ref = await self._submit(side, batch)
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
            self._leave(fence)
        self._do(side, side.agent.ended(fence, outcomes, death, self._clock.now()))

    async def _submit(self, side: Side, batch: Batch) -> Any:
        digest = batch.options.handler
        handler = self._handlers.get(digest)
        if handler is None:
            handler = self._handlers[digest] = _Handler(await side.insist("fetch", Fetch("spec", digest)))
        key = (digest, len(batch.items), batch.strategy)
        prepared = self._prepared.get(key)
        if prepared is None or prepared[0] != batch.options:
            if len(self._prepared) >= _PREPARED_KEPT:
                self._prepared.clear()
            chosen = ray_options(batch, self._facts["node_id"])
            if handler.package is not None:
                chosen["runtime_env"] = {"working_dir": await unpacked_uri(handler.package, self.blob)}
            prepared = self._prepared[key] = (batch.options, self._run.options(**chosen))
        return prepared[1].remote(encode(batch), handler.spec, self._owner)

    def _rung(self, fence: int, data: bytes) -> None:
        """Take in a batch's end before Ray's answer does."""
        side = self._side_of(fence)
        self._do(side, side.agent.ended(fence, _outcomes.decode(data), None, self._clock.now()))
        self._leave(fence)

    def _warm_up(self) -> None:
        """Start one worker for each slot now: the first tasks should not wait for a process to start."""
        affinity = NodeAffinitySchedulingStrategy(self._facts["node_id"], soft=True)
        warm = ray.remote(max_retries=0)(worker.warm).options(
            name="omnimind.warm_up", num_cpus=1, scheduling_strategy=affinity
        )
        self._warming = [warm.remote(_WARM_SECONDS) for _ in range(min(self._facts["slots"], _WARM_MOST))]

    def _kill(self, fence: int) -> None:
        ref = self._refs.get(fence)
        pid = self._pids.get(fence)
        if self._waiting.pop(fence, None) is not None:
            # It has not begun: there is nothing to kill, and nobody else who would say that it is over.
            self._leave(fence)
            side = self._side_of(fence)
            self._do(side, side.agent.ended(fence, [], None, self._clock.now()))
        elif pid is not None and _is_worker(pid):
            os.kill(pid, signal.SIGKILL)
        elif ref is not None:
            ray.cancel(ref, force=True)

    # --- messages to the coordinator ----------------------------------------------------------------

    async def _send_report(self, side: Side, report: SendReport) -> None:
        # A task's last lines are there when its end is: whoever waited for that may read them at once.
        progress, logs = side.take_along()
        message = Report(
            self._facts["node_id"],
            report.incarnation,
            report.fence,
            report.outcomes,
            report.final,
            progress,
            logs,
        )
        try:
            await side.ask("report", message)
        except Exception as error:  # noqa: BLE001 (the coordinator is away: sent again later)
            log.info("a report did not arrive: %s", _short(error))
            side.bring_back(progress, logs)
            # Who was told when to come again comes then, not at each tick.
            again = (error.retry_after or 0.0) if isinstance(error, Refused) else 0.0
            side.agent.failed(report.number, self._clock.now(), again)
        else:
            side.agent.acknowledged(report.number)

    async def _join(self, side: Side, incarnation: str, running: Any) -> None:
        facts = self._facts
        node = NodeInfo(
            facts["node_id"],
            facts["hostname"],
            facts["ip_address"],
            facts["port"],
            cpu_cores=facts["cpu_cores"],
            memory_gb=facts["memory_gb"],
            max_concurrent_tasks=facts["slots"] if side.agent.slots is None else side.agent.slots,
            capabilities=set(facts["capabilities"]),
            resources=facts["resources"],
            incarnation=incarnation,
            pids={"node": os.getpid()},
            versions=_versions(),
            slots=None if self._share is None else facts["slots"],
        )
        try:
            epoch = await side.ask("join", Join(node, running, time.time()))
        except Exception as error:  # noqa: BLE001 (asked again later)
            log.info("the coordinator does not answer: %s", _short(error))
            side.agent.join_failed(self._clock.now())
        else:
            if incarnation == side.agent.incarnation:
                self._do(side, side.agent.registered(epoch, self._clock.now()))

    async def _beat(self, side: Side, sent: SendHeartbeat) -> None:
        progress, logs = side.take_along()
        beat = Beat(
            self._facts["node_id"],
            sent.incarnation,
            sent.batches,
            {"node": os.getpid()},
            progress,
            logs,
            sent.slots,
            time.time(),
        )
        try:
            epoch = await side.ask("beat", beat)
        except Exception as error:  # noqa: BLE001 (the next beat is a second away)
            log.info("a heartbeat did not arrive: %s", _short(error))
            side.bring_back(progress, logs)
        else:
            if sent.incarnation == side.agent.incarnation:
                self._do(side, side.agent.heard(epoch, self._clock.now()))

    async def _live(self) -> None:
        self._doorbell.open()
        self._warm_up()
        while True:
            for side in self._sides:
                if side.lacks_line:
                    self._spawn(side.dial())
                self._do(side, side.agent.tick(self._clock.now()))
                self._tell_if_full(side)
            await asyncio.sleep(_TICK)

    def _tell_if_full(self, side: Side) -> None:
        """Say in the log when outcomes have piled up that nobody takes, and when they are taken again."""
        if side.agent.full == side.told_full:
            return
        side.told_full = side.agent.full
        if side.told_full:
            held = side.agent.owed_bytes >> 20
            log.warning("%d MiB of outcomes wait for the coordinator: no new work is started", held)
        else:
            log.warning("the coordinator has taken the outcomes: new work is started again")


def _incarnation(shard: int) -> str:
    return f"{time.time_ns():x}-{os.getpid()}" + (f"-{shard}" if shard else "")


def _versions() -> dict[str, str]:
    return {
        "omnimind": version("omnimind-runtime"),
        "ray": ray.__version__,
        "python": platform.python_version(),
    }


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
    if isinstance(error, ray.exceptions.WorkerCrashedError):
        return "its process ended without an answer (a crash, a kill, or no memory left)"
    return f"{type(error).__name__}: {_short(error)}"


def _short(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
