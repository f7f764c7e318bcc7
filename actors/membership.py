"""Nodes of the Ray cluster become Node actors, and go with them, without anyone's help."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from actors.engine import Engine
from actors.names import NAMESPACE, node_actor
from actors.settings import CoordinatorSettings
from actors.socket_server import Push
from omnimind.cluster import events as ev

log = logging.getLogger("omnimind.coordinator")

_LOOK_EVERY = 0.5
_CONCURRENCY = 10_000


class Membership:
    """Keeps one Node actor on each living node, and knows the way to it."""

    def __init__(self, settings: CoordinatorSettings) -> None:
        self._settings = settings
        self._handles: dict[str, Any] = {}
        self._links: dict[str, Push] = {}

    def post(self, node_id: str, kind: str, data: bytes) -> None:
        """Send a message to a node: over its line to the socket where it has one, else as a Ray call."""
        link = self._links.get(node_id)
        if link is not None:
            link(kind, data)
            return
        handle = self._handles.get(node_id)
        if handle is not None:
            handle.down.remote(kind, data)

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
        """Look a node's actor up, when it has reported before it was seen here."""
        if node_id not in self._handles:
            self._handles[node_id] = ray.get_actor(node_actor(node_id), namespace=NAMESPACE)

    async def watch(self, engine: Engine) -> None:
        """Follow the cluster for ever."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                nodes = await loop.run_in_executor(None, ray.nodes)
                await self._follow(engine, nodes)
            except Exception as error:  # noqa: BLE001 (the GCS may be away; look again)
                log.warning("cannot look at the cluster: %s", error)
            await asyncio.sleep(_LOOK_EVERY)

    async def _follow(self, engine: Engine, nodes: list[dict[str, Any]]) -> None:
        alive = {n["NodeID"]: n for n in nodes if n["Alive"]}
        for node_id, node in alive.items():
            if node_id not in self._handles:
                self._handles[node_id] = await asyncio.get_running_loop().run_in_executor(
                    None, self._start, node_id, node
                )
                log.info("node %s joins", node_id[:12])
        known = [n for n, info in engine.core.nodes.items() if info.status.value != "offline"]
        for node_id in {*self._handles, *known} - set(alive):
            handle = self._handles.pop(node_id, None)
            engine.feed(ev.NodeGone(node_id, "Ray says the node is dead"))
            log.info("node %s is gone", node_id[:12])
            if handle is not None:
                ray.kill(handle)

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
            "capabilities": capabilities(resources, node.get("Labels", {})),
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


def capabilities(resources: dict[str, float], labels: dict[str, str]) -> list[str]:
    """Return what tasks may need of a node: its resources in lower case, its labels as key and key=value."""
    built_in = {"cpu", "memory", "object_store_memory"}
    found = {r.lower() for r in resources if r.lower() not in built_in and not r.startswith("node:")}
    for key, value in labels.items():
        if not key.startswith("ray.io/"):
            found |= {key, f"{key}={value}"}
    return sorted(found)
