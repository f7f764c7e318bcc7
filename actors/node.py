"""`Node`: the Ray actor around a `NodeAgent`. One on each Ray node, pinned there; owns the batch tasks.

A batch is a Ray task of this actor, so it outlives the coordinator, and ends with this actor (Ray ends
the tasks of an owner that has died). Ray never repeats it (`max_retries=0`): whether to repeat is the
coordinator's decision.
"""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import signal
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from actors.blocking import Lane
from actors.doorbell import Doorbell
from actors.link import Link
from actors.names import COORDINATOR, NAMESPACE, node_actor
from actors.packages import session_folder, unpacked_uri
from actors.scheduling import ray_options
from actors.wire import Beat, Down, Fence, Fetch, Join, Register, Report, Run, Stop, Store, Up, decode, encode
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
from omnimind.errors import OmniMindError, Unavailable
from omnimind.pulse import Pulse
from omnimind.registry import HandlerSpec

log = logging.getLogger("omnimind.node")

_TICK = 0.1
_ANSWER_TIMEOUT = 15.0
_PATIENCE = 25.0
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
        self._socket, self._token_file = Path(socket), Path(token_file)
        self._clock = SystemClock()
        self._agent = NodeAgent(_incarnation())
        self._refs: dict[int, Any] = {}
        self._pids: dict[int, int] = {}
        self._handlers: dict[str, _Handler] = {}
        self._blobs: dict[str, bytes] = {}
        self._progress: dict[str, dict[str, Any]] = {}
        self._logs: list[tuple[str, int, list[tuple[float, str, str]]]] = []
        self._running: set[asyncio.Task[None]] = set()
        self._run = ray.remote(max_retries=0)(worker.run)
        self._prepared: dict[tuple[str, int, str], Any] = {}
        bell = session_folder() / "sockets" / f"om-{facts['node_id'][:8]}"
        self._doorbell = Doorbell(bell, self._rung)
        self._owner = encode(
            worker.Owner(node_actor(facts["node_id"]), NAMESPACE, str(bell), self._doorbell.token)
        )
        self._link = Link(self._take)
        self._warming: list[Any] = []
        self._up: Any = None
        self._finding = Lane("find", _ANSWER_TIMEOUT)
        self._spawn(self._live())

    def _spawn(self, coroutine: Any) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    # --- messages from the coordinator --------------------------------------------------------------

    async def down(self, kind: str, data: bytes) -> None:
        """Take in a message of the coordinator that came as a Ray call."""
        self._take(kind, data)

    def _take(self, kind: str, data: bytes) -> None:
        agent, now = self._agent, self._clock.now()
        message: Down = decode(kind, data)
        match message:
            case Run(batch, incarnation, spec):
                if spec and batch.options.handler not in self._handlers:
                    self._handlers[batch.options.handler] = _Handler(spec)
                self._do(agent.run(batch, incarnation, now))
            case Stop(incarnation, fence, indexes, hard, cause):
                if incarnation == agent.incarnation:
                    self._do(agent.stop(fence, indexes, hard=hard, cause=cause))
            case Register():
                self._do(agent.asked_to_register(now))
            case Fence(incarnation):
                if incarnation == agent.incarnation:
                    log.warning("this node was given up: its batches end, it joins as new")
                    self._do(agent.fenced(_incarnation(), now))

    async def warmed(self) -> int:
        """Return the number of warm workers, once they are."""
        return len(await asyncio.gather(*(asyncio.wrap_future(ref.future()) for ref in self._warming)))

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
            data = await self._insist("fetch", Fetch("blob", digest))
            if len(self._blobs) >= _BLOBS_KEPT:
                del self._blobs[next(iter(self._blobs))]
            self._blobs[digest] = data
        return data

    async def checkpoint(self, task_id: str, fence: int, data: bytes) -> None:
        """Store a checkpoint of a running attempt; returns when it is durable."""
        await self._insist("store", Store(task_id, fence, data))

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
        digest = batch.options.handler
        handler = self._handlers.get(digest)
        if handler is None:
            handler = self._handlers[digest] = _Handler(await self._insist("fetch", Fetch("spec", digest)))
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
        self._do(self._agent.ended(fence, _outcomes.decode(data), None, self._clock.now()))

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
        if pid is not None and _is_worker(pid):
            os.kill(pid, signal.SIGKILL)
        elif ref is not None:
            ray.cancel(ref, force=True)

    # --- messages to the coordinator ----------------------------------------------------------------

    async def _insist(self, kind: str, message: Up) -> Any:
        """Do as `_ask`, and wait for a coordinator that is being restarted: no attempt may fail for that.

        For what may be asked twice. Gives up before the worker that waits for it does.
        """
        give_up = self._clock.now() + _PATIENCE
        while True:
            try:
                return await self._ask(kind, message)
            except (Unavailable, TimeoutError, ray.exceptions.RayActorError):
                if self._clock.now() > give_up:
                    raise
                await asyncio.sleep(_TICK)

    async def _ask(self, kind: str, message: Up) -> Any:
        """Send a message up, by the socket where that is possible, and return its answer."""
        data = encode(message)
        async with asyncio.timeout(_ANSWER_TIMEOUT):
            if self._link.open:
                return msgspec.msgpack.decode(await self._link.call(kind, data))
            if self._up is None:
                self._up = await self._finding.call(_find_coordinator)
            try:
                return await asyncio.wrap_future(self._up.up.remote(kind, data).future())
            except ray.exceptions.ActorDiedError:
                self._up = None  # for good: there is another one of this name, or will be
                raise

    async def _dial(self) -> None:
        """Open the line to the coordinator, when it is on this host."""
        try:
            token = self._token_file.read_text().strip()
            link = Link(self._take)
            await link.dial(self._socket, token, self._facts["node_id"])
        except (OSError, OmniMindError) as error:
            log.debug("no line to the coordinator: %s", error)
        else:
            self._link = link

    async def _send_report(self, report: SendReport) -> None:
        message = Report(
            self._facts["node_id"], report.incarnation, report.fence, report.outcomes, report.final
        )
        try:
            await self._ask("report", message)
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
            versions=_versions(),
        )
        try:
            epoch = await self._ask("join", Join(node, running, time.time()))
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
            epoch = await self._ask("beat", beat)
        except Exception as error:  # noqa: BLE001 (the next beat is a second away)
            log.info("a heartbeat did not arrive: %s", _short(error))
            self._progress = progress | self._progress
            self._logs = (logs + self._logs)[-1000:]
        else:
            if incarnation == self._agent.incarnation:
                self._do(self._agent.heard(epoch, self._clock.now()))

    async def _live(self) -> None:
        self._doorbell.open()
        self._warm_up()
        while True:
            if not self._link.open and self._socket.exists():
                await self._dial()
            self._do(self._agent.tick(self._clock.now()))
            await asyncio.sleep(_TICK)


def _find_coordinator() -> Any:
    """Return the coordinator's actor. Blocks while the GCS is away. Raises Unavailable."""
    try:
        return ray.get_actor(COORDINATOR, namespace=NAMESPACE)
    except ValueError:
        raise Unavailable("there is no coordinator") from None


def _incarnation() -> str:
    return f"{time.time_ns():x}-{os.getpid()}"


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
