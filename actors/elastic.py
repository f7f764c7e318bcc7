"""The shell of `Elastic` and of drains: tells Ray what was decided, and the core what Ray has decided.

Once a second it looks at Ray's nodes. What it does follows from that look and from what the ledger says of
a node, never from what it did before: a coordinator that takes over goes on with it.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import msgspec

from actors import ray_state
from actors.blocking import Lane
from actors.engine import Engine
from actors.membership import Membership
from actors.ray_state import RayNode, Seen
from actors.settings import CoordinatorSettings
from omnimind.cluster import events as ev
from omnimind.cluster.demand import capable, shape_of
from omnimind.cluster.elastic import Ask, Elastic, ElasticPolicy, LetGo, NodeType, Recall
from omnimind.cluster.node import NodeInfo
from omnimind.cluster.states import Line, NodeStatus, TaskStatus
from omnimind.cluster.task import DistributedTask
from omnimind.errors import OmniMindError

log = logging.getLogger("omnimind.coordinator")

_LOOK_EVERY = 1.0
_CALL_TIMEOUT = 15.0
_RAY_DRAIN_SECONDS = 600.0
"""Deadline of a drain that Ray began without saying when it ends the node."""
_LEAVING = ("idle", "ray")
"""Drains after which the node is left to whoever ends it; after a person's it stays, cordoned."""


class Scaling:
    """Grows and shrinks the cluster through Ray's autoscaler, and keeps Ray's drains and ours together."""

    def __init__(self, settings: CoordinatorSettings, membership: Membership) -> None:
        wanted = settings.elastic
        policy = msgspec.structs.asdict(wanted)
        self._mode: str = policy.pop("enabled")
        self._file = Path(settings.autoscaling_config).expanduser() if settings.autoscaling_config else None
        self._membership = membership
        # The request is one for the whole cluster, and an idle node must be idle for every shard.
        self._alone = settings.shards == 1
        self._first = settings.shard == 0
        self._lane = Lane("elastic", _CALL_TIMEOUT)
        self.elastic = Elastic(ElasticPolicy(**policy))
        self.seen = Seen({}, scaled=False)
        self._types: list[NodeType] = []
        self._read_at = 0.0
        self._drains_asked: set[str] = set()

    @property
    def here(self) -> bool:
        """Return whether there is an autoscaler that can be asked."""
        if self._mode == "auto":
            found = self.seen.scaled if self._file is None else bool(self._types)
            return self._alone and found
        return self._alone and self._mode == "on"

    async def watch(self, engine: Engine) -> None:
        """Follow the cluster for ever."""
        while True:
            try:
                self.seen = await self._lane.call(ray_state.look)
                await self._read_types()
                if engine.trouble is None and not engine.core.recovering:
                    await self._follow_drains(engine)
                    if self.here:
                        await self._scale(engine)
            except Exception as error:  # noqa: BLE001 (the GCS may be away; look again)
                log.warning("cannot look at Ray's nodes: %s: %s", type(error).__name__, error)
            await asyncio.sleep(_LOOK_EVERY)

    # --- size -------------------------------------------------------------------------------------

    def _started(self) -> dict[str, str]:
        return {n.node_id: n.kind for n in self.seen.nodes.values() if n.kind and not n.head}

    async def _scale(self, engine: Engine) -> None:
        now = engine.clock.now()
        for decision in self.elastic.look(engine.core, now, self._types, self._started()):
            match decision:
                case Ask():
                    await self._ask(decision)
                case LetGo(node_id):
                    await self._let_go(engine, node_id)
                case Recall(node_id):
                    log.info("node %s is taken back", node_id[:12])
                    self._membership.take_back(node_id)

    async def _read_types(self) -> None:
        if self._file is None:
            return
        changed = await asyncio.to_thread(_changed_at, self._file)
        if changed != self._read_at:
            self._read_at = changed
            self._types = await asyncio.to_thread(ray_state.node_types, self._file)

    async def _ask(self, request: Ask) -> None:
        try:
            await self._lane.call(ray_state.ask, request)
        except Exception as error:  # noqa: BLE001 (asked again later)
            log.warning("the autoscaler cannot be asked: %s: %s", type(error).__name__, error)
            self.elastic.refused()
        else:
            words = ", ".join(f"{count} x {bundle}" for bundle, count in request.bundles)
            log.info("the autoscaler is asked for %s", words or "nothing more")

    async def _let_go(self, engine: Engine, node_id: str) -> None:
        """Drain an idle node; `_follow_drains` does the rest when that is over."""
        reason = f"had nothing to do for {self.elastic.policy.idle:g} s"
        try:
            await engine.ask(lambda n: ev.NodeControl(n, node_id, "drain", None, "idle", reason))
        except OmniMindError as error:
            log.info("node %s is not let go: %s", node_id[:12], error)
            self.elastic.stays(node_id)

    # --- drains -----------------------------------------------------------------------------------

    async def _follow_drains(self, engine: Engine) -> None:
        for node in list(engine.core.nodes.values()):
            seen = self.seen.nodes.get(node.node_id)
            if seen is None or node.status is NodeStatus.OFFLINE:
                continue
            if seen.draining and node.ordered is None:
                await self._drained_by_ray(engine, node, seen)
            elif node.drained_at is not None and node.ordered is NodeStatus.CORDONED:
                await self._after_drain(engine, node, seen)
        self._drains_asked &= set(self.seen.nodes)

    async def _drained_by_ray(self, engine: Engine, node: NodeInfo, seen: RayNode) -> None:
        deadline = seen.deadline or engine.clock.now() + _RAY_DRAIN_SECONDS
        log.info("node %s is being drained by Ray", node.node_id[:12])
        why = "Ray drains it"
        await engine.ask(lambda n: ev.NodeControl(n, node.node_id, "drain", deadline, "ray", why))

    async def _after_drain(self, engine: Engine, node: NodeInfo, seen: RayNode) -> None:
        """Leave a drained node to whoever ends it, or let Ray keep its own work away from it too."""
        if node.ordered_by in _LEAVING:
            if self._alone:
                await self._membership.let_go(engine, node.node_id, f"let go: {node.order_reason}")
        elif self._first and not seen.draining and not seen.head and node.node_id not in self._drains_asked:
            # The head's raylet would end with its drain, and everything else with it.
            why = await self._lane.call(ray_state.drain, node.node_id, node.order_reason or "drained")
            self._drains_asked.add(node.node_id)
            if why:
                log.warning("Ray does not drain node %s: %s", node.node_id[:12], why)

    def ray_drains(self, node_id: str) -> bool:
        """Return whether Ray keeps work away from a node, which nothing can undo but an end of its raylet."""
        seen = self.seen.nodes.get(node_id)
        return seen is not None and seen.draining

    async def leave(self, engine: Engine, node_id: str) -> None:
        """Let the raylet of a node that Ray has drained end: its supervisor joins it again, as new."""
        await self._membership.let_go(engine, node_id, "leaves, to come back as a new node")

    # --- answers ----------------------------------------------------------------------------------

    def story(self, engine: Engine, task: DistributedTask) -> dict[str, Any] | None:
        """Return what a person should know of the autoscaler about a task that waits; None when nothing."""
        if task.status is not TaskStatus.PENDING or task.line is not Line.READY:
            return None
        shape = shape_of(task.needs, task.options)
        waits = any(item.shape == shape for item in self.elastic.unmet) if self.here else False
        if waits or (not self.here and not capable(engine.core, shape)):
            return self.elastic.story(shape, engine.clock.now(), here=self.here)
        return None

    def of_node(self, node_id: str) -> dict[str, Any]:
        """Return what Ray says of a node, for people."""
        seen = self.seen.nodes.get(node_id)
        if seen is None:
            return {"ray_draining": False, "node_type": ""}
        return {"ray_draining": seen.draining, "node_type": seen.kind}


def _changed_at(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return -1.0
