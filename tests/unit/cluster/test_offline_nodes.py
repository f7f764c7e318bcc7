"""Nodes that are gone stay listed for a while, so that people see it, and not for ever."""

from __future__ import annotations

from omnimind.cluster import events as ev
from omnimind.cluster.core import CoordinatorCore
from omnimind.cluster.node import NodeInfo
from omnimind.cluster.policies import CoreLimits
from omnimind.cluster.records import NodeRemoved
from omnimind.cluster.states import NodeStatus

START = 1_800_000_000.0
HOUR = 3600.0


def gone(name: str, ago: float) -> NodeInfo:
    return NodeInfo(name, status=NodeStatus.OFFLINE, incarnation="1", last_heartbeat=START - ago)


def a_core(*nodes: NodeInfo, limits: CoreLimits | None = None) -> tuple[CoordinatorCore, list[str]]:
    """Return a coordinator that has just come back and has looked at the time, and whom it has forgotten."""
    core = CoordinatorCore("c", limits or CoreLimits(), seed=1)
    forgotten = []
    for second in range(5):
        event = ev.Tick() if second else ev.Recovered(epoch=1, last_seq=0, nodes=list(nodes))
        fx = core.handle(event, START + second)
        core.validate()
        forgotten += [r.node_id for r in fx.records.others if isinstance(r, NodeRemoved)]
    return core, forgotten


def test_a_node_that_is_gone_is_forgotten_after_its_time() -> None:
    core, forgotten = a_core(gone("old", HOUR + 1), gone("young", HOUR - 60))
    assert forgotten == ["old"]
    assert list(core.nodes) == ["young"]


def test_the_time_is_a_setting() -> None:
    _, forgotten = a_core(gone("a", 50.0), gone("b", 150.0), limits=CoreLimits(keep_offline=100.0))
    assert forgotten == ["b"]


def test_a_node_with_an_order_is_kept_for_its_return() -> None:
    cordoned = gone("c", 9 * HOUR)
    cordoned.ordered = NodeStatus.CORDONED
    core, forgotten = a_core(cordoned, gone("old", 9 * HOUR))
    assert forgotten == ["old"]
    assert list(core.nodes) == ["c"]


def test_of_many_the_longest_gone_go_first() -> None:
    core, forgotten = a_core(*(gone(f"n{n}", 1000.0 - n) for n in range(130)))
    assert forgotten == [f"n{n}" for n in reversed(range(30))]
    assert len(core.nodes) == 100


def test_a_node_that_may_come_back_is_not_one_of_them() -> None:
    waiting = NodeInfo("w", status=NodeStatus.ACTIVE, incarnation="1", last_heartbeat=START - 9 * HOUR)
    core, forgotten = a_core(waiting)
    assert forgotten == []
    assert list(core.nodes) == ["w"]
