"""The size of a cluster in virtual time: random work, an autoscaler that takes its time, nodes that die.

What must hold in every run: the request stays within its bound and its rate, and is never made twice; no
node with work is let go; everything ends; and when it has ended, every node that was started goes again.
The planted bugs show that each of these checks can fail.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from omnimind.cluster import events as ev
from omnimind.cluster.core import CoordinatorCore
from omnimind.cluster.elastic import Ask, Bundle, Elastic, ElasticPolicy, LetGo, NodeType, Recall
from omnimind.cluster.node import NodeInfo
from omnimind.cluster.policies import CoreLimits
from omnimind.cluster.sends import Dispatch
from omnimind.cluster.task import DistributedTask, TaskOptions

START = 1_800_000_000.0
KINDS = [
    NodeType("small", {"CPU": 2.0}, most=3),
    NodeType("gpu", {"CPU": 4.0, "GPU": 1.0}, {"zone": "a"}, most=2),
]
POLICY = ElasticPolicy(hold=3, within=20, hold_down=20, interval=4, max_bundles=16, idle=30, patience=300)
NEEDS = ((), (), (), ("gpu",), ("zone=a",))


class Autoscaler:
    """What Ray's does, as far as it matters: starts nodes until the bundles fit, ends those left to it."""

    def __init__(self, rng: Random) -> None:
        self.rng = rng
        self.bundles: list[Bundle] = []
        self.starting: list[tuple[float, NodeType]] = []
        self.nodes: dict[str, NodeType] = {}
        self.left: dict[str, float] = {}
        self.count = 0

    def step(self, now: float) -> list[tuple[str, NodeType]]:
        """Return the nodes that have come up."""
        up = [(at, kind) for at, kind in self.starting if at <= now]
        self.starting = [(at, kind) for at, kind in self.starting if at > now]
        born = []
        for _, kind in up:
            self.count += 1
            name = f"{kind.name}{self.count}"
            self.nodes[name] = kind
            born.append((name, kind))
        free = [dict(kind.resources) for kind in [*self.nodes.values(), *(k for _, k in self.starting)]]
        for bundle in self.bundles:
            wants = dict(bundle.resources)
            fits = next((f for f in free if all(f.get(r, 0) >= n - 1e-9 for r, n in wants.items())), None)
            if fits is None:
                able = [k for k in KINDS if all(k.resources.get(r, 0) >= n for r, n in wants.items())]
                have = [*self.nodes.values(), *(k for _, k in self.starting)]
                room = [k for k in able[:1] if k.most is None or have.count(k) < k.most]
                if not room:
                    continue
                kind = room[0]
                self.starting.append((now + self.rng.uniform(2, 15), kind))
                fits = dict(kind.resources)
                free.append(fits)
            for resource, amount in wants.items():
                fits[resource] -= amount
        return born

    def ended(self, now: float) -> list[str]:
        gone = [n for n, at in self.left.items() if now - at > 10]
        for name in gone:
            del self.left[name], self.nodes[name]
        return gone


class Run:
    """One run. Raises AssertionError with the story of what did not hold."""

    def __init__(self, seed: int) -> None:
        self.rng = Random(seed)
        self.core = CoordinatorCore(
            "c", CoreLimits(heartbeat_timeout=1e6, suspect_after=1e5, stall=1e6), seed=seed
        )
        self.elastic = Elastic(POLICY)
        self.scaler = Autoscaler(self.rng)
        self.running: list[tuple[float, Dispatch]] = []
        self.asks: list[tuple[float, Any]] = []
        self.now = START
        self.lives = 0
        self.feed(ev.Recovered(epoch=1, last_seq=0))
        self.feed(ev.NodeJoined(NodeInfo("head", max_concurrent_tasks=1, cpu_cores=1, incarnation="1")))

    def feed(self, event: ev.Event) -> None:
        for send in self.core.handle(event, self.now).sends:
            if isinstance(send, Dispatch):
                self.running.append(
                    (self.now + self.rng.choice([0.2, 1.0, 5.0]) * len(send.batch.items), send)
                )

    def join(self, name: str, kind: NodeType) -> None:
        self.lives += 1
        node = kind.as_node()
        node.node_id, node.incarnation = name, str(self.lives)
        self.feed(ev.NodeJoined(node))

    def go(self, seconds: int) -> None:
        for second in range(seconds * 2):
            self.now = START + second / 2
            if second < seconds and self.rng.random() < 0.15:
                self.submit()
            self.let_end()
            for name, kind in self.scaler.step(self.now):
                self.join(name, kind)
            for name in self.scaler.ended(self.now):
                self.feed(ev.NodeGone(name))
            if second < seconds and self.scaler.nodes and self.rng.random() < 0.005:
                self.die(self.rng.choice(sorted(self.scaler.nodes)))
            self.feed(ev.Tick())
            self.decide()
        assert not [t for t in self.core.tasks.values() if not t.terminal], "everything ends"
        assert not self.scaler.nodes, f"the cluster shrinks again: {sorted(self.scaler.nodes)} are left"
        assert not self.scaler.bundles, "the request is withdrawn"

    def submit(self) -> None:
        options = TaskOptions(num_cpus=self.rng.choice([1.0, 1.0, 2.0]))
        needs = frozenset(self.rng.choice(NEEDS))
        tasks = [
            DistributedTask(
                f"tsk_{self.core.seq + n}", "work", b"{}", needs=needs, options=options, max_retries=99
            )
            for n in range(self.rng.choice([1, 1, 3, 30]))
        ]
        self.feed(ev.Submit(1, tasks))

    def let_end(self) -> None:
        due = [send for at, send in self.running if at <= self.now]
        self.running = [(at, send) for at, send in self.running if at > self.now]
        for send in due:
            outcomes = [ev.Outcome(i, "ok", b"1", seconds=0.5) for i in range(len(send.batch.items))]
            self.feed(ev.Outcomes(2, send.node_id, send.incarnation, send.batch.fence, outcomes, final=True))

    def die(self, name: str) -> None:
        del self.scaler.nodes[name]
        self.scaler.left.pop(name, None)
        self.feed(ev.NodeGone(name))

    def decide(self) -> None:
        started = {name: kind.name for name, kind in self.scaler.nodes.items()}
        for decision in self.elastic.look(self.core, self.now, KINDS, started):
            match decision:
                case Ask(bundles):
                    self.asked(bundles)
                case LetGo(name):
                    assert name not in self.core.by_node, f"{name} has work and is let go"
                    self.feed(ev.NodeControl(0, name, "drain", None, "idle"))
                    self.feed(ev.NodeGone(name, "let go"))
                    self.scaler.left[name] = self.now
                case Recall(name):
                    del self.scaler.left[name]
                    self.join(name, self.scaler.nodes[name])

    def asked(self, bundles: tuple[tuple[Bundle, int], ...]) -> None:
        total = sum(count for _, count in bundles)
        assert total <= POLICY.max_bundles, f"{total} bundles"
        if self.asks:
            at, before = self.asks[-1]
            assert self.now - at >= POLICY.interval, f"asked again after {self.now - at:.1f} s"
            assert bundles != before, "asked twice for the same"
        self.asks.append((self.now, bundles))
        self.scaler.bundles = [bundle for bundle, count in bundles for _ in range(count)]


@pytest.mark.parametrize("seed", range(12))
def test_a_cluster_follows_its_work(seed: int) -> None:
    run = Run(seed)
    run.go(240)
    assert run.scaler.count, "it grew"
    assert len(run.asks) > 1


def _never_shrinks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Elastic, "_let_go", lambda *_: [])


def _asks_all_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    original = Elastic._ask

    def hasty(self: Elastic, wanted: dict[Bundle, int], now: float) -> Any:
        self.asked_at = float("-inf")
        return original(self, wanted, now)

    monkeypatch.setattr(Elastic, "_ask", hasty)


def _forgets_what_it_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    original = Elastic._ask

    def forgetful(self: Elastic, wanted: dict[Bundle, int], now: float) -> Any:
        self.asked = None
        return original(self, wanted, now)

    monkeypatch.setattr(Elastic, "_ask", forgetful)


def _without_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Elastic, "_within_bounds", lambda _self, wanted: wanted)


def _lets_busy_nodes_go(monkeypatch: pytest.MonkeyPatch) -> None:
    def careless(
        self: Elastic, core: CoordinatorCore, now: float, _types: Any, started: dict[str, str]
    ) -> Any:
        busy = [n for n in started if n in core.by_node and n not in self.gone]
        self.gone |= dict.fromkeys(busy, now)
        return [LetGo(name) for name in busy]

    monkeypatch.setattr(Elastic, "_let_go", careless)


def _asks_for_the_impossible_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("omnimind.cluster.elastic.unmet", lambda *_args, **_more: [])


@pytest.mark.parametrize(
    ("plant", "story"),
    [
        (_never_shrinks, "shrinks again"),
        (_asks_all_the_time, "asked again"),
        (_forgets_what_it_asked, "asked twice"),
        (_without_bound, "bundles"),
        (_lets_busy_nodes_go, "is let go"),
        (_asks_for_the_impossible_only, "everything ends"),
    ],
)
def test_a_planted_bug_is_caught(
    plant: Callable[[pytest.MonkeyPatch], None], story: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    for seed in range(12):
        try:
            Run(seed).go(240)
        except AssertionError as error:
            assert story in str(error)  # noqa: PT017
            return
    pytest.fail(f"{plant.__name__} was not caught")
