"""A drain's way: no new work, asked to stop, moved at the deadline, over; after a restart too."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from omnimind.cluster import drains
from omnimind.cluster import events as ev
from omnimind.cluster.core import CoordinatorCore
from omnimind.cluster.node import NodeInfo
from omnimind.cluster.policies import CoreLimits
from omnimind.cluster.records import NodeSaved
from omnimind.cluster.sends import Dispatch, Effects, ReleaseNode, StopAttempts
from omnimind.cluster.states import NodeStatus
from omnimind.cluster.task import DistributedTask, TaskOptions

START = 1_800_000_000.0
LIMITS = CoreLimits(cancel_grace=10.0, heartbeat_timeout=1e6, suspect_after=1e5, stall=1e6)


class World:
    """A core with nodes, and everything that it has sent and written."""

    def __init__(self, *nodes: NodeInfo, recovered: ev.Recovered | None = None) -> None:
        self.core = CoordinatorCore("c", LIMITS, seed=1)
        self.sends: list[Any] = []
        self.saved: dict[str, NodeInfo] = {}
        self.at(0.0, recovered or ev.Recovered(epoch=1, last_seq=0))
        for node in nodes:
            self.at(0.0, ev.NodeJoined(node))

    def at(self, seconds: float, event: ev.Event) -> Effects:
        fx = self.core.handle(event, START + seconds)
        self.core.validate()
        self.sends += fx.sends
        for record in fx.records.others:
            if isinstance(record, NodeSaved):
                self.saved[record.node_id] = msgspec.json.decode(record.info, type=NodeInfo)
        return fx

    def of(self, kind: type[Any]) -> list[Any]:
        return [send for send in self.sends if isinstance(send, kind)]

    def control(
        self, seconds: float, node: str, verb: str, deadline: float | None = None, **more: str
    ) -> Any:
        until = None if deadline is None else START + seconds + deadline
        (reply,) = [
            send for send in self.at(seconds, ev.NodeControl(7, node, verb, until, **more)).sends
            if getattr(send, "request", None) == 7
        ]  # fmt: skip
        return reply


def node(name: str, slots: int = 2, *capabilities: str) -> NodeInfo:
    return NodeInfo(
        name, max_concurrent_tasks=slots, cpu_cores=slots, capabilities=set(capabilities), incarnation="1"
    )


def submit(world: World, count: int, *needs: str, seconds: float = 0.0, **more: Any) -> list[DistributedTask]:
    tasks = [
        DistributedTask(f"tsk_{world.core.seq + n}", "work", b"{}", needs=frozenset(needs), **more)
        for n in range(count)
    ]
    world.at(seconds, ev.Submit(1, tasks))
    return tasks


def end(world: World, seconds: float, send: Dispatch) -> None:
    outcomes = [ev.Outcome(i, "ok", b"1") for i in range(len(send.batch.items))]
    event = ev.Outcomes(2, send.node_id, send.incarnation, send.batch.fence, outcomes, final=True)
    world.at(seconds, event)


def test_nothing_new_then_asked_then_moved() -> None:
    world = World(node("a"))
    submit(world, 4)
    world.control(1.0, "a", "drain", 60.0, reason="new disk")
    world.at(1.5, ev.NodeJoined(node("b", 1)))
    assert len(world.of(Dispatch)) == 3, "what waits goes to the other node"
    assert not world.of(StopAttempts)
    world.at(51.1, ev.Tick())
    soft = world.of(StopAttempts)
    assert [(s.node_id, s.hard, s.indexes) for s in soft] == [("a", False, ())] * 2
    world.at(55.0, ev.Tick())
    assert len(world.of(StopAttempts)) == 2, "asked once"
    progress = drains.progress(world.core, world.core.nodes["a"], START + 55.0)
    assert progress is not None
    assert (progress["attempts"], progress["left"], progress["asked_to_stop"]) == (2, 2, True)
    assert progress["deadline_in"] == pytest.approx(6.0)
    assert progress["reason"] == "new disk"
    assert not world.of(ReleaseNode)
    world.at(61.1, ev.Tick())
    assert [s.hard for s in world.of(StopAttempts)[2:]] == [True] * 2
    assert [s.node_id for s in world.of(ReleaseNode)] == ["a"]
    assert world.core.nodes["a"].status is NodeStatus.CORDONED
    assert world.saved["a"].drained_at == START + 61.1
    assert world.core.counts["lost"] == 2


def test_a_drain_is_over_when_the_last_attempt_ends() -> None:
    world = World(node("a"))
    submit(world, 2)
    world.control(1.0, "a", "drain", 600.0)
    first, second = world.of(Dispatch)
    end(world, 2.0, first)
    assert not world.of(ReleaseNode)
    end(world, 3.0, second)
    assert len(world.of(ReleaseNode)) == 1
    world.at(700.0, ev.Tick())
    assert len(world.of(ReleaseNode)) == 1
    assert not world.of(StopAttempts)


def restarted(world: World) -> World:
    """Return the world of a successor, from what was written."""
    running = [t for b in world.core.batches.values() for t in b.tasks if t is not None]
    rows = [msgspec.structs.replace(t) for t in running]
    return World(recovered=ev.Recovered(epoch=2, last_seq=99, running=rows, nodes=list(world.saved.values())))


def report(old: World) -> ev.NodeJoined:
    held = tuple(
        ev.RunningBatch(b.fence, tuple(t.task_id for t in b.tasks if t is not None), (0,))
        for b in old.core.batches.values()
    )
    return ev.NodeJoined(node("a"), held)


def test_a_successor_goes_on_with_a_drain() -> None:
    old = World(node("a"))
    submit(old, 2)
    old.control(1.0, "a", "drain", 60.0)
    new = restarted(old)
    new.at(2.0, ev.Tick())
    assert not new.of(ReleaseNode), "nobody knows yet what runs there"
    new.at(2.5, report(old))
    assert new.core.nodes["a"].status is NodeStatus.DRAINING
    new.at(51.1, ev.Tick())
    assert [s.hard for s in new.of(StopAttempts)] == [False] * 2
    new.at(61.2, ev.Tick())
    assert len(new.of(ReleaseNode)) == 1
    assert new.core.counts["lost"] == 2


def test_a_successor_ends_a_drain_whose_last_attempt_ended_meanwhile() -> None:
    old = World(node("a"))
    submit(old, 1)
    old.control(1.0, "a", "drain")
    new = restarted(old)
    new.at(2.0, ev.NodeJoined(node("a")))
    new.at(4.0, ev.Tick())
    assert len(new.of(ReleaseNode)) == 1


def test_uncordon_ends_a_drain() -> None:
    world = World(node("a"))
    submit(world, 2)
    world.control(1.0, "a", "drain", 60.0)
    world.control(2.0, "a", "uncordon")
    world.at(70.0, ev.Tick())
    assert not world.of(StopAttempts)
    assert not world.of(ReleaseNode)
    assert drains.progress(world.core, world.core.nodes["a"], START + 70.0) is None
    assert (
        world.core.nodes["a"].status is NodeStatus.BUSY or world.core.nodes["a"].status is NodeStatus.ACTIVE
    )


def test_the_plan_names_attempts_and_what_would_wait() -> None:
    world = World(node("a", 2, "gpu"), node("b", 2))
    submit(world, 1, "gpu")
    submit(world, 3, "gpu", options=TaskOptions(num_cpus=2.0))
    plan = drains.plan(world.core, world.core.nodes["a"], START + 5.0)
    assert [a["task_type"] for a in plan["attempts"]] == ["work"]
    assert plan["attempts"][0]["running"] == pytest.approx(5.0)
    assert plan["waits"] == [
        {"needs": ["gpu"], "slots": 1, "running": 1, "pending": 0},
        {"needs": ["gpu"], "slots": 2, "running": 0, "pending": 3},
    ]
    world.at(6.0, ev.NodeJoined(node("c", 1, "gpu")))
    waits = drains.plan(world.core, world.core.nodes["a"], START + 7.0)["waits"]
    assert [w["slots"] for w in waits] == [2], "the new one takes the narrow ones"


def test_what_let_an_idle_node_go_is_forgotten_when_it_is_back() -> None:
    world = World(node("a"))
    world.control(1.0, "a", "drain", by="idle")
    assert world.core.nodes["a"].ordered is NodeStatus.CORDONED
    world.at(2.0, ev.NodeGone("a", "let go"))
    world.at(3.0, ev.NodeJoined(msgspec.structs.replace(node("a"), incarnation="2")))
    assert world.core.nodes["a"].status is NodeStatus.ACTIVE
    world.control(4.0, "a", "cordon")
    world.at(5.0, ev.NodeGone("a", "died"))
    world.at(6.0, ev.NodeJoined(msgspec.structs.replace(node("a"), incarnation="3")))
    assert world.saved["a"].status is NodeStatus.CORDONED, "what a person wants outlasts a restart"


def test_a_drain_that_is_ordered_before_the_node_has_reported_is_not_over_yet() -> None:
    old = World(node("a"))
    submit(old, 1)
    old.at(1.0, ev.NodeControl(0, "a", "uncordon"))  # so that the node's row is written
    new = restarted(old)
    new.control(1.5, "a", "drain")
    assert not new.of(ReleaseNode), "nobody knows yet what runs there"
    new.at(2.0, report(old))
    new.at(4.0, ev.Tick())
    assert not new.of(ReleaseNode)
    assert new.core.nodes["a"].status is NodeStatus.DRAINING
