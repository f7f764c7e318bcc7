"""OmniMind: a self-healing, actor-based distributed runtime on Ray."""

from omnimind.cluster.node import NodeInfo
from omnimind.cluster.states import NodeStatus, TaskPriority, TaskStatus
from omnimind.cluster.task import DistributedTask
from omnimind.registry import task

__all__ = ["DistributedTask", "NodeInfo", "NodeStatus", "TaskPriority", "TaskStatus", "task"]
