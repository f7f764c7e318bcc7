"""How large the cluster should be: asked once, bounded, grown at once, shrunk late; idle nodes go last."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from omnimind.cluster import events as ev
from omnimind.cluster.core import CoordinatorCore
from omnimind.cluster.demand import Shape, unmet
from omnimind.cluster.elastic import (
    Ask,
    Bundle,
    Decision,
    Elastic,
    ElasticPolicy,
    LetGo,
    NodeType,
    Recall,
    bundle_of,
)
from omnimind.cluster.policies import CoreLimits, QueuePolicy
from omnimind.cluster.sends import Dispatch
from omnimind.cluster.task import DistributedTask, TaskOptions

START = 1_800_000_000.0
LIMITS = CoreLimits(heartbeat_timeout=1e6, suspect_after=1e5, stall=1e6)
POLICY = ElasticPolicy(hold=5, within=60, hold_down=60, interval=5, max_bundles=20, idle=120, patience=900)
SMALL = NodeType("small", {"CPU": 2.0})
WIDGET = NodeType("widget", {"CPU": 4.0, "Widget": 2.0}, {"zone": "a"}, most=2)


class Scene:
    """A core, an `Elastic`, and an autoscaler's nodes that a test adds and takes away."""

    def __init__(self, policy: ElasticPolicy = POLICY, types: list[NodeType] | None = None) -> None:
        self.core = CoordinatorCore("c", LIMITS, seed=1)
        self.elastic = Elastic(policy)
        self.types = [SMALL, WIDGET] if types is None else types
        self.started: dict[str, str] = {}
        self.running: list[Dispatch] = []
        self.at(0.0, ev.Recovered(epoch=1, last_seq=0))

    def at(self, seconds: float, event: ev.Event) -> None:
        fx = self.core.handle(event, START + seconds)
        self.running += [send for send in fx.sends if isinstance(send, Dispatch)]

    def join(self, seconds: float, name: str, kind: NodeType, *, started: bool = True) -> None:
        node = kind.as_node()
        node.node_id, node.incarnation = name, "1"
        self.at(seconds, ev.NodeJoined(node))
        if started:
            self.started[name] = kind.name

    def submit(self, seconds: float, count: int, *needs: str, **more: Any) -> None:
        tasks = [
            DistributedTask(f"tsk_{self.core.seq + n}", "work", b"{}", needs=frozenset(needs), **more)
            for n in range(count)
        ]
        self.at(seconds, ev.Submit(1, tasks))

    def end_all(self, seconds: float, each: float = 1.0) -> None:
        while self.running:
            send = self.running.pop()
            outcomes = [ev.Outcome(i, "ok", b"1", seconds=each) for i in range(len(send.batch.items))]
            self.at(
                seconds,
                ev.Outcomes(2, send.node_id, send.incarnation, send.batch.fence, outcomes, final=True),
            )

    def look(self, seconds: float) -> list[Decision]:
        return self.elastic.look(self.core, START + seconds, self.types, self.started)

    def asked(self, seconds: float) -> dict[str, int] | None:
        """Return what is asked for anew, None when nothing is."""
        asks = [d for d in self.look(seconds) if isinstance(d, Ask)]
        assert len(asks) <= 1
        return {str(bundle): count for bundle, count in asks[0].bundles} if asks else None


def test_what_no_node_can_take_is_asked_for_at_once_and_once() -> None:
    scene = Scene()
    assert scene.asked(0.5) == {}, "whatever a predecessor has asked for is withdrawn"
    scene.submit(6.0, 1, "widget", "zone=a")
    assert scene.asked(6.1) == {"{CPU: 1, Widget: 0.001, zone=a}": 1}
    assert scene.asked(7.0) is None
    assert scene.asked(500.0) is None, "never twice for the same"


def test_want_of_slots_is_held_for_a_while_and_counts_what_runs() -> None:
    scene = Scene()
    scene.join(0.0, "n1", SMALL)
    scene.look(0.1)
    scene.submit(10.0, 5)
    assert scene.asked(14.0) is None
    # Two run, three wait; of a second each, as far as anybody knows, they are worked off by one slot.
    assert scene.asked(15.1) == {"{CPU: 1}": 3}


def test_slow_work_asks_for_more_than_quick_work() -> None:
    for each, wanted in ((60.0, 12), (0.001, 2)):
        scene = Scene()
        scene.join(0.0, "n1", SMALL)
        scene.submit(0.0, 2)
        scene.end_all(1.0, each)
        scene.submit(2.0, 12)
        asked = scene.asked(10.0)
        if each < 1:
            assert asked is None or sum(asked.values()) <= wanted
        else:
            assert asked is not None
            assert sum(asked.values()) == wanted


def test_bounds() -> None:
    scene = Scene()
    scene.submit(0.0, 10_000, "widget", options=TaskOptions(num_cpus=2.0))
    scene.submit(0.0, 10_000)
    asked = scene.asked(10.0)
    assert asked is not None
    assert sum(asked.values()) <= POLICY.max_bundles
    assert min(asked.values()) >= 1
    assert len(asked) == 2
    assert scene.elastic.cut


def test_most_nodes() -> None:
    scene = Scene(ElasticPolicy(max_nodes=1))
    scene.join(0.0, "n1", SMALL)
    scene.look(0.1)
    scene.submit(1.0, 3, "widget")
    assert scene.asked(10.0) is None
    assert scene.elastic.cut


def test_it_shrinks_late_and_is_withdrawn() -> None:
    scene = Scene()
    scene.submit(0.0, 1, "widget", options=TaskOptions(num_cpus=4.0))
    assert scene.asked(6.0) == {"{CPU: 4, Widget: 0.001}": 1}
    scene.join(20.0, "w1", WIDGET)
    assert scene.asked(21.0) is None
    scene.end_all(30.0)
    scene.end_all(31.0)
    assert not scene.core.tasks
    assert scene.asked(32.0) is None
    assert scene.asked(60.0) is None
    assert scene.asked(200.0) == {}, "withdrawn"
    assert scene.asked(201.0) is None


def test_it_does_not_flap() -> None:
    scene = Scene()
    asks = 0
    for second in range(300):
        if second % 20 == 0:
            scene.submit(second, 1, "widget", deadline=START + second + 10)
        scene.at(second, ev.Tick())
        asks += scene.asked(second) is not None
    assert asks <= 2, "asked, while more of the same comes and goes"


def test_rate() -> None:
    scene = Scene()
    asks = []
    for tenth in range(300):
        scene.submit(tenth / 10, 1, "widget", options=TaskOptions(num_cpus=1.0 + tenth % 4))
        if scene.asked(tenth / 10) is not None:
            asks.append(tenth / 10)
    assert all(b - a >= POLICY.interval - 1e-6 for a, b in pairwise(asks))


def test_what_no_kind_of_node_has_is_said_and_not_asked() -> None:
    scene = Scene()
    scene.look(0.0)
    scene.submit(6.0, 1, "moon")
    assert scene.asked(7.0) is None
    assert "has moon" in scene.elastic.story(Shape(("moon",)), START + 8, here=True)["what"]
    assert scene.elastic.story(Shape(("moon",)), START + 8, here=False)["what"] == (
        "no autoscaler here: add a node with moon"
    )


@pytest.mark.parametrize(
    ("shape", "types", "expected"),
    [
        (Shape(("gpu",), 2.0, 1.0), [], "{CPU: 2, GPU: 1}"),
        (Shape(("gpu",), 2.0), [], "{CPU: 2, GPU: 0.001}"),
        (Shape(("a", "z=a"), 1.0, 0.0, 1 << 20), [], "{CPU: 1, a: 0.001, memory: 1.04858e+06, z=a}"),
        (Shape(("widget", "zone"), 1.0), [SMALL, WIDGET], "{CPU: 1, Widget: 0.001, zone=a}"),
        (Shape((), 3.0), [SMALL, WIDGET], "{CPU: 3}"),
        (Shape((), 5.0), [SMALL, WIDGET], None),
        (Shape(("zone=b",), 1.0), [SMALL, WIDGET], None),
    ],
)  # fmt: skip
def test_bundles(shape: Shape, types: list[NodeType], expected: str | None) -> None:
    bundle = bundle_of(shape, types)
    assert (None if bundle is None else str(bundle)) == expected


def test_a_paused_or_limited_queue_asks_for_nothing_beyond_its_limit() -> None:
    scene = Scene()
    scene.at(0.0, ev.QueueSet(0, QueuePolicy("p", paused=True)))
    scene.at(0.0, ev.QueueSet(0, QueuePolicy("l", concurrency=2)))
    scene.look(0.1)
    scene.submit(1.0, 10, "widget", queue="p")
    assert scene.asked(7.0) is None
    scene.submit(8.0, 500, "widget", queue="l")
    assert scene.asked(9.0) == {"{CPU: 1, Widget: 0.001}": 2}


def test_idle_nodes_go_when_nothing_is_asked_for_down_to_the_least() -> None:
    kind = NodeType("small", {"CPU": 2.0}, least=1)
    scene = Scene(types=[kind, WIDGET])
    scene.join(0.0, "own", SMALL, started=False)
    for name in ("n1", "n2", "n3"):
        scene.join(0.0, name, kind)
    assert not [d for s in range(119) for d in scene.look(s) if isinstance(d, LetGo)]
    gone = [d.node_id for s in range(119, 300) for d in scene.look(s) if isinstance(d, LetGo)]
    assert gone == ["n1", "n2"], "one stays, and the node that nobody started"


def test_a_busy_node_and_one_that_worked_just_now_stay() -> None:
    scene = Scene()
    scene.join(0.0, "n1", SMALL)
    scene.join(0.0, "n2", SMALL)
    scene.submit(0.0, 1)
    for second in range(100):
        scene.look(second)
    scene.end_all(100.0)
    worked = next(n for n in scene.core.nodes.values() if n.total_tasks_completed)
    gone = [d.node_id for s in range(101, 200) for d in scene.look(s) if isinstance(d, LetGo)]
    assert worked.node_id not in gone
    assert len(gone) == 1


def test_a_node_that_was_let_go_comes_back_for_work_or_when_nobody_ends_it() -> None:
    scene = Scene()
    scene.join(0.0, "w1", WIDGET)
    for second in range(130):
        scene.look(second)
    assert list(scene.elastic.gone) == ["w1"]
    scene.at(130.0, ev.NodeControl(0, "w1", "drain", by="idle"))
    scene.at(131.0, ev.NodeGone("w1", "let go"))
    scene.submit(140.0, 1, "widget")
    assert Recall("w1") in scene.look(141.0)
    assert not scene.elastic.gone
    other = Scene()
    other.join(0.0, "w1", WIDGET)
    back = [s for s in range(2000) for d in other.look(s) if isinstance(d, Recall)]
    assert back
    assert back[0] >= 900


def test_a_node_that_is_asked_for_is_not_let_go() -> None:
    scene = Scene()
    scene.join(0.0, "n1", SMALL)
    scene.submit(0.0, 1, "widget")
    assert not [d for s in range(400) for d in scene.look(s) if isinstance(d, LetGo)]


def test_shapes_of_what_is_on_disk_count_too() -> None:
    core = CoordinatorCore("c", CoreLimits(window=1000), seed=1)
    core.handle(ev.Recovered(epoch=1, last_seq=0), START)
    tasks = [DistributedTask(f"tsk_{n}", "work", b"{}", needs=frozenset({"x"})) for n in range(5000)]
    core.handle(ev.Submit(1, tasks), START)
    (item,) = unmet(core, START + 1, hold=5, within=60)
    assert item.tasks == 5000
    assert item.slots == 84


def test_a_request_that_failed_is_made_again() -> None:
    scene = Scene()
    scene.submit(0.0, 1, "widget")
    assert scene.asked(1.0)
    scene.elastic.refused()
    assert scene.asked(2.0) is None
    assert scene.asked(7.0)


def test_bundle_text() -> None:
    assert str(Bundle((("CPU", 1.0),), (("a", "b"),))) == "{CPU: 1, a=b}"


def test_a_kind_that_does_not_say_what_it_has_may_have_anything() -> None:
    scene = Scene(types=[NodeType("cloud", {}), SMALL])
    scene.look(0.0)
    scene.submit(6.0, 1, "moon")
    assert scene.asked(7.0) == {"{CPU: 1, moon: 0.001}": 1}


def test_a_node_of_another_kind_than_it_may_start_stays() -> None:
    scene = Scene(types=[WIDGET])
    scene.join(0.0, "n1", SMALL)
    assert not [d for s in range(400) for d in scene.look(s) if isinstance(d, LetGo)]
