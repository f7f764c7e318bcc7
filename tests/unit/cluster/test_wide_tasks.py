"""What is wider than every node waits and says so; it does not keep others from an idle node."""

from __future__ import annotations

import pytest

from omnimind import DistributedTask, NodeInfo
from omnimind.cluster.status import explain_task
from omnimind.cluster.task import TaskOptions
from omnimind.coordinator import ClusterCoordinator


def wide(task_id: str, cpus: float) -> DistributedTask:
    return DistributedTask(task_id, "kind", options=TaskOptions(num_cpus=cpus))


@pytest.mark.parametrize("strategy", ["least_loaded", "round_robin", "random", "ray"])
def test_too_wide_waits_and_fitting_ones_go_by(strategy: str) -> None:
    one = ClusterCoordinator("me", strategy)
    one.register_node(NodeInfo("a", cpu_cores=2, max_concurrent_tasks=2))
    assert one.submit_task(wide("huge", 64)) is False
    assert one.submit_task(wide("fits", 2)) is True
    told = explain_task(one, one.tasks["huge"], 0.0)
    assert "has 2 CPUs, it takes 64" in told["verdict"]
    one.complete_task("fits")
    assert one.tasks["huge"].status == "pending"
    one.register_node(NodeInfo("b", cpu_cores=64, max_concurrent_tasks=64))
    assert one.tasks["huge"].assigned_node == "b"
    one.validate()


def test_a_node_with_fewer_slots_than_cpus_is_given_whole() -> None:
    one = ClusterCoordinator("me")
    one.register_node(NodeInfo("a", cpu_cores=8, max_concurrent_tasks=2))
    assert one.submit_task(wide("small", 1)) is True
    assert one.submit_task(wide("wide", 4)) is False
    one.complete_task("small")
    assert one.tasks["wide"].status == "running"
    assert one.submit_task(wide("next", 1)) is False
    one.validate()
