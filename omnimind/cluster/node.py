"""`NodeInfo`: one machine under OmniMind, as the scheduler sees it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from omnimind.cluster.states import NODE_TRANSITIONS, InvalidTransition, NodeStatus
from omnimind.cluster.task import AT_LEAST


class NodeInfo(msgspec.Struct):
    """One machine.

    memory_gb: in GiB. max_concurrent_tasks: slots; one batch takes one slot, more with `num_cpus` over 1.
    current_tasks: slots taken. last_heartbeat: Unix seconds, 0 before the first.
    capabilities: what tasks may need of it.
    """

    node_id: str
    hostname: str = ""
    ip_address: str = ""
    port: int = 0
    status: NodeStatus = NodeStatus.ACTIVE
    cpu_cores: int = 1
    memory_gb: float = 1.0
    max_concurrent_tasks: int = 4
    current_tasks: int = 0
    total_tasks_completed: int = 0
    last_heartbeat: float = 0.0
    capabilities: set[str] = msgspec.field(default_factory=set)
    incarnation: str = ""
    """Which life of the node: a node that comes back after it was given up gets a new one."""
    pids: dict[str, int] = msgspec.field(default_factory=dict)
    """Process ids of its actors, by actor name."""
    ordered: NodeStatus | None = None
    """``cordoned`` or ``draining`` while a person or the healer wants it so, whatever else happens to it."""
    drain_deadline: float | None = None
    ordered_by: str = ""
    """Who wants it so: ``person``, ``healer``, ``ray`` or ``idle``; see `events.NodeControl`."""
    order_reason: str = ""
    drain_started: float | None = None
    drain_attempts: int = 0
    """Attempts that ran when its drain began."""
    drain_asked: bool = False
    """Whether what still runs was asked to stop, shortly before the deadline."""
    drained_at: float | None = None
    """When its drain was over: nothing runs there, and nothing will until it is uncordoned."""
    resources: dict[str, float] = msgspec.field(default_factory=dict)
    """What Ray counts there beside CPU and memory, by Ray's name: GPUs and custom resources."""
    versions: dict[str, str] = msgspec.field(default_factory=dict)
    """What runs there: of ``omnimind``, ``python`` and ``ray``. Empty when it did not say."""
    clock_skew: float | None = None
    """Its clock minus the coordinator's when it last joined, in seconds."""
    slots: int | None = None
    """All slots of the machine, of which `max_concurrent_tasks` are this shard's now; None: the same."""

    def __post_init__(self) -> None:
        if not isinstance(self.capabilities, set):
            self.capabilities = set(self.capabilities)
        if not isinstance(self.status, NodeStatus):
            self.status = NodeStatus(self.status)

    def get_load_factor(self) -> float:
        """Return the share of slots that is taken, 1.0 when there are none."""
        if self.max_concurrent_tasks <= 0:
            return 1.0
        return self.current_tasks / self.max_concurrent_tasks

    def can_accept_task(self) -> bool:
        """Return whether it may be given a task now: active, with a free slot."""
        return self.status is NodeStatus.ACTIVE and self.current_tasks < self.max_concurrent_tasks

    def lacking(self, needs: Iterable[str]) -> list[str]:
        """Return the needs that this node does not meet, sorted.

        A need is a capability, or an amount: ``gpu>=2`` by what Ray counts there, ``memory>=BYTES``.
        """
        missing = set(needs) - self.capabilities
        return sorted(need for need in missing if not self._has(need))

    def offers(self, needs: frozenset[str]) -> bool:
        """Return whether this node meets all of these needs."""
        return needs <= self.capabilities or not self.lacking(needs)

    def _has(self, need: str) -> bool:
        name, asked, amount = need.partition(AT_LEAST)
        if not asked:
            return False
        if name == "memory":
            return float(amount) <= self.memory_gb * 2**30
        kept = {resource.lower(): count for resource, count in self.resources.items()}
        return float(amount) <= kept.get(name, 0.0)

    def move(self, status: NodeStatus) -> None:
        """Go to `status`; raises InvalidTransition when no transition leads there."""
        if status is self.status:
            return
        if status not in NODE_TRANSITIONS[self.status]:
            msg = f"node {self.node_id}: {self.status} -> {status}"
            raise InvalidTransition(msg)
        self.status = status

    def to_dict(self) -> dict[str, Any]:
        """Return the public view, JSON values only."""
        return {
            "node_id": self.node_id,
            "hostname": self.hostname,
            "ip_address": self.ip_address,
            "port": self.port,
            "status": self.status.value,
            "cpu_cores": self.cpu_cores,
            "memory_gb": self.memory_gb,
            "max_concurrent_tasks": self.max_concurrent_tasks,
            "current_tasks": self.current_tasks,
            "total_tasks_completed": self.total_tasks_completed,
            "last_heartbeat": self.last_heartbeat,
            "load_factor": self.get_load_factor(),
            "capabilities": sorted(self.capabilities),
            "incarnation": self.incarnation,
            "pids": dict(self.pids),
            "ordered": self.ordered.value if self.ordered else None,
            "drain_deadline": self.drain_deadline,
            "ordered_by": self.ordered_by,
            "order_reason": self.order_reason,
            "drain_started": self.drain_started,
            "drained_at": self.drained_at,
            "resources": dict(self.resources),
            "versions": dict(self.versions),
            "clock_skew": self.clock_skew,
            "slots": self.max_concurrent_tasks if self.slots is None else self.slots,
        }
