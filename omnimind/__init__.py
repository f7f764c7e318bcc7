"""OmniMind: a self-healing, actor-based distributed runtime on Ray.

::

    import omnimind

    @omnimind.task(retries=3)
    def resize(path: str, width: int) -> dict: ...

    with omnimind.connect() as om:
        handle = om.submit(resize, path="a.png", width=200)
        print(handle.result(timeout=60))

Names are loaded when they are first used: importing the package costs a millisecond, and a worker loads no
client, a client no Ray.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from omnimind.client.client import AsyncClient
    from omnimind.client.handle import AsyncHandle
    from omnimind.client.results import TaskResult
    from omnimind.client.sync import Client, Handle, connect
    from omnimind.cluster.node import NodeInfo
    from omnimind.cluster.placement import LoadBalancer
    from omnimind.cluster.states import NodeStatus, TaskPriority, TaskStatus
    from omnimind.cluster.task import DistributedTask
    from omnimind.context import TaskContext
    from omnimind.coordinator import ClusterCoordinator
    from omnimind.embedded import alocal, local
    from omnimind.errors import (
        InvalidInput,
        NotFound,
        OmniMindError,
        Refused,
        TaskCancelled,
        TaskDead,
        TaskExpired,
        TaskFailed,
        Unavailable,
        WaitTimeout,
    )
    from omnimind.healing.actions import RemediationAction
    from omnimind.healing.integration import SelfHealingIntegration
    from omnimind.healing.issues import Issue, IssueSeverity, IssueType
    from omnimind.healing.loop import SelfHealingLoop
    from omnimind.homeostasis.controller import HomeostaticController
    from omnimind.homeostasis.ladder import ResourceState
    from omnimind.homeostasis.metrics import ResourceMetrics
    from omnimind.registry import Task, task

_HOMES = {
    "client.client": ("AsyncClient",),
    "client.handle": ("AsyncHandle",),
    "client.results": ("TaskResult",),
    "client.sync": ("Client", "Handle", "connect"),
    "cluster.node": ("NodeInfo",),
    "cluster.placement": ("LoadBalancer",),
    "cluster.states": ("NodeStatus", "TaskPriority", "TaskStatus"),
    "cluster.task": ("DistributedTask",),
    "context": ("TaskContext",),
    "coordinator": ("ClusterCoordinator",),
    "embedded": ("alocal", "local"),
    "errors": (
        "InvalidInput",
        "NotFound",
        "OmniMindError",
        "Refused",
        "TaskCancelled",
        "TaskDead",
        "TaskExpired",
        "TaskFailed",
        "Unavailable",
        "WaitTimeout",
    ),
    "healing.actions": ("RemediationAction",),
    "healing.integration": ("SelfHealingIntegration",),
    "healing.issues": ("Issue", "IssueSeverity", "IssueType"),
    "healing.loop": ("SelfHealingLoop",),
    "homeostasis.controller": ("HomeostaticController",),
    "homeostasis.ladder": ("ResourceState",),
    "homeostasis.metrics": ("ResourceMetrics",),
    "registry": ("Task", "task"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "AsyncClient",
    "AsyncHandle",
    "Client",
    "ClusterCoordinator",
    "DistributedTask",
    "Handle",
    "HomeostaticController",
    "InvalidInput",
    "Issue",
    "IssueSeverity",
    "IssueType",
    "LoadBalancer",
    "NodeInfo",
    "NodeStatus",
    "NotFound",
    "OmniMindError",
    "Refused",
    "RemediationAction",
    "ResourceMetrics",
    "ResourceState",
    "SelfHealingIntegration",
    "SelfHealingLoop",
    "Task",
    "TaskCancelled",
    "TaskContext",
    "TaskDead",
    "TaskExpired",
    "TaskFailed",
    "TaskPriority",
    "TaskResult",
    "TaskStatus",
    "Unavailable",
    "WaitTimeout",
    "alocal",
    "connect",
    "local",
    "task",
]


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    value = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
