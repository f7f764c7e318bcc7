"""Nodes of the Ray cluster become Node actors, and go with them, without anyone's help."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from actors.blocking import Lane
from actors.engine import Engine
from actors.names import NAMESPACE, node_actor
from actors.settings import CoordinatorSettings
from actors.socket_server import Push
from omnimind.cluster import events as ev
from omnimind.cluster.elastic import capabilities

log = logging.getLogger("omnimind.coordinator")

_LOOK_EVERY = 0.5
_CALL_TIMEOUT = 10.0
_JOIN_PATIENCE = 10.0
"""Seconds after which a node that Ray calls alive, and that does not report, is looked up anew."""
_NAME_PATIENCE, _NAME_LOOK = 5.0, 0.05
_CONCURRENCY = 10_000


class Membership:
    """Keeps one Node actor on each living node (as shard 0), and knows the way to it.

    Ray is asked in threads (`Lane`): while the GCS is away the coordinator goes on with the nodes that it
    knows, and judges them by their heartbeats alone.
    """

    def __init__(self, settings: CoordinatorSettings) -> None:
        self._settings = settings
        self._handles: dict[str, Any] = {}
        self._links: dict[str, Push] = {}
        self._looking = Lane("nodes", _CALL_TIMEOUT)
        self._making = Lane("make", _CALL_TIMEOUT)
        self._ending = Lane("kill", _CALL_TIMEOUT)
        self._absent: dict[str, float] = {}
        """Since when a node that lives by Ray's word has not reported here."""
        self._refreshing: set[asyncio.Task[None]] = set()
        self._left: set[str] = set()
        """Living nodes that were left to whoever ends them: they get no actor."""
        self._back: set[str] = set()
        """Nodes that were taken back since, and have not joined yet."""

    def post(self, node_id: str, kind: str, data: bytes) -> None:
        """Send a message to a node: over its line to the socket where it has one, else as a Ray call."""
        link = self._links.get(node_id)
        if link is not None:
            link(kind, data)
            return
        handle = self._handles.get(node_id)
        if handle is not None:
            handle.down.remote(kind, data, self._settings.shard)

    def attach(self, node_id: str, push: Push) -> None:
        """Use a node's own line from now on."""
        self._links[node_id] = push

    def detach(self, push: Push) -> None:
        """Forget a line that has ended."""
        for node_id in [n for n, p in self._links.items() if p is push]:
            del self._links[node_id]

    async def warmed(self) -> None:
        """Wait until the workers of the nodes that have joined are warm."""
        for handle in list(self._handles.values()):
            await asyncio.wrap_future(handle.warmed.remote().future())

    def refresh(self, node_id: str) -> None:
        """Look a node's actor up that reports, unless it is known.

        Shard 0 makes these actors; the others never know whether it is a new one that reports.
        """
        if self._settings.shard:
            self._handles.pop(node_id, None)
        if node_id not in self._handles:
            task = asyncio.get_running_loop().create_task(self._look_up(node_id))
            self._refreshing.add(task)
            task.add_done_callback(self._refreshing.discard)

    async def _look_up(self, node_id: str) -> None:
        try:
            handle = await self._making.call(_find, node_id)
        except Exception as error:  # noqa: BLE001 (`watch` finds it later)
            log.info("node %s cannot be looked up yet: %s", node_id[:12], error)
        else:
            if handle is not None:
                self._handles.setdefault(node_id, handle)

    async def watch(self, engine: Engine) -> None:
        """Follow the cluster for ever."""
        while True:
            try:
                nodes = await self._looking.call(ray.nodes)
                await self._follow(engine, nodes)
            except Exception as error:  # noqa: BLE001 (the GCS may be away; look again)
                log.warning("cannot look at the cluster: %s: %s", type(error).__name__, error)
            await asyncio.sleep(_LOOK_EVERY)

    async def _follow(self, engine: Engine, nodes: list[dict[str, Any]]) -> None:
        alive = {n["NodeID"]: n for n in nodes if n["Alive"]}
        self._left &= set(alive)
        self._back &= set(alive)
        alive = {n: node for n, node in alive.items() if not self._is_left(engine, n)}
        # The dead first: making an actor may take its time, and what ran on them waits.
        known = [n for n, info in engine.core.nodes.items() if info.status.value != "offline"]
        dead = sorted({*self._handles, *known} - set(alive))
        for node_id in dead:
            engine.feed(ev.NodeGone(node_id, "Ray says the node is dead"))
            log.info("node %s is gone", node_id[:12])
        if self._settings.shard:
            # Making and ending Node actors is shard 0's; who reports here is looked up by `refresh`.
            for node_id in dead:
                self._handles.pop(node_id, None)
            for node_id in engine.core.joined:
                if node_id not in self._handles and not self._refreshing:
                    self.refresh(node_id)
            return
        for node_id in dead:
            await self._drop(node_id)
        for node_id, node in alive.items():
            if node_id in self._handles:
                await self._look_after(engine, node_id)
            if node_id not in self._handles:
                self._handles[node_id] = await self._making.call(self._start, node_id, node)
                log.info("node %s joins", node_id[:12])

    async def let_go(self, engine: Engine, node_id: str, why: str) -> None:
        """Leave a node that holds nothing: without an actor on it Ray finds it idle, and may end it."""
        self._left.add(node_id)
        self._back.discard(node_id)
        # In one step of the loop, so that nothing can be sent there in between.
        engine.feed(ev.NodeGone(node_id, why))
        log.info("node %s is let go: %s", node_id[:12], why)
        await self._drop(node_id)

    def take_back(self, node_id: str) -> None:
        """Give a node that was let go an actor again."""
        self._left.discard(node_id)
        self._back.add(node_id)

    def _is_left(self, engine: Engine, node_id: str) -> bool:
        """Return whether a node was let go, by this coordinator or by its predecessor."""
        if node_id in self._back:
            return False
        info = engine.core.nodes.get(node_id)
        left = info is not None and info.status.value == "offline" and info.drained_at is not None
        return node_id in self._left or (left and info is not None and info.ordered_by in {"idle", "ray"})

    async def _look_after(self, engine: Engine, node_id: str) -> None:
        """Drop an actor that is dead for good, or whose job has ended and that holds nothing now.

        Ray ends the idle workers of a job that is over at once: each lone task of such an actor would pay
        for a new process. A node that is not in use for a moment therefore gets a new actor.
        """
        if node_id in engine.core.joined:
            self._absent.pop(node_id, None)
        elif time.monotonic() - self._absent.setdefault(node_id, time.monotonic()) > _JOIN_PATIENCE:
            log.warning("node %s lives and does not report: its actor is looked up anew", node_id[:12])
            del self._absent[node_id]
            self._handles.pop(node_id, None)
            return
        former = job_of(self._handles[node_id]) != ray.get_runtime_context().get_job_id()
        if former and node_id in engine.core.joined and node_id not in engine.core.by_node:
            # In one step of the loop, so that nothing can be sent there in between.
            engine.feed(ev.NodeGone(node_id, "its actor is made anew, for a new job"))
            log.info("node %s gets a new actor: the job of its own has ended", node_id[:12])
            await self._drop(node_id)

    async def _drop(self, node_id: str) -> None:
        self._absent.pop(node_id, None)
        handle = self._handles.pop(node_id, None)
        if handle is not None:
            try:
                await self._ending.call(_end, handle, node_id)
            except Exception as error:  # noqa: BLE001 (it holds nothing that is wanted: let it be)
                log.warning("the actor of node %s cannot be ended: %s", node_id[:12], error)

    def _start(self, node_id: str, node: dict[str, Any]) -> Any:
        from actors.node import Node  # noqa: PLC0415 (a cycle: nodes know the coordinator's name)

        resources = node.get("Resources", {})
        slots = self._settings.slots
        facts = {
            "node_id": node_id,
            "hostname": node.get("NodeManagerHostname", ""),
            "ip_address": node.get("NodeManagerAddress", ""),
            "port": node.get("NodeManagerPort", 0),
            "cpu_cores": int(resources.get("CPU", 0)),
            "memory_gb": resources.get("memory", 0) / 2**30,
            "slots": slots if slots is not None else int(resources.get("CPU", 0)),
            "shards": self._settings.shards,
            "capabilities": sorted(capabilities(resources, node.get("Labels", {}))),
            "resources": {
                name: amount
                for name, amount in resources.items()
                if name not in {"CPU", "memory", "object_store_memory"} and ":" not in name
            },
        }
        return (
            ray.remote(Node)
            .options(
                name=node_actor(node_id),
                namespace=NAMESPACE,
                lifetime="detached",
                get_if_exists=True,
                max_restarts=-1,
                max_concurrency=_CONCURRENCY,
                num_cpus=0,
                scheduling_strategy=NodeAffinitySchedulingStrategy(node_id, soft=False),
            )
            .remote(facts, self._settings.socket, self._settings.token_file)
        )


def _find(node_id: str) -> Any:
    """Return a node's actor, None where there is none. Blocks."""
    try:
        return ray.get_actor(node_actor(node_id), namespace=NAMESPACE)
    except ValueError:
        return None


def _end(handle: Any, node_id: str) -> None:
    """End a node's actor for good and wait until its name is free, or some seconds have passed. Blocks."""
    ray.kill(handle)
    give_up = time.monotonic() + _NAME_PATIENCE
    while _find(node_id) is not None and time.monotonic() < give_up:
        time.sleep(_NAME_LOOK)


def job_of(handle: Any) -> str:
    """Return the Ray job that an actor was made in, which its id ends with."""
    text: str = handle._actor_id.hex()  # noqa: SLF001 (Ray shows it in its state API only, over HTTP)
    return text[-8:]
