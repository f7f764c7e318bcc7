"""`Elastic`: how large the cluster should be, and which idle nodes may go. Pure; the shell asks Ray.

One request to the Ray autoscaler stands for the whole cluster: bundles of resources that must fit into it
at one time. So the request names what runs now and what waits. It grows at once (not more often than each
`interval`), shrinks only when less has been wanted for `hold_down` seconds, and is withdrawn when nothing
waits any more; the same one is never made twice. Nodes that then have had nothing to do for `idle` seconds
are let go: drained, and left by OmniMind's own actor, without which Ray finds them idle and may end them.
"""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING, Any

import msgspec

from omnimind.cluster.demand import Shape, Unmet, load, takes, unmet
from omnimind.cluster.node import NodeInfo
from omnimind.cluster.states import NodeStatus

if TYPE_CHECKING:
    from omnimind.cluster.core import CoordinatorCore

SHARE = 0.001
"""How much of a resource a bundle asks for that a task needs to be there, and not for itself."""


class ElasticPolicy(msgspec.Struct, frozen=True):
    """Times in seconds. See the settings section ``elastic``."""

    hold: float = 5.0
    within: float = 60.0
    hold_down: float = 60.0
    interval: float = 5.0
    max_bundles: int = 100
    max_nodes: int = 0
    """Nodes beyond which it asks for no more; 0 leaves the bound to the autoscaler."""
    idle: float = 120.0
    patience: float = 900.0
    """A node that was let go and that the autoscaler has kept for so long is taken back."""


class NodeType(msgspec.Struct, frozen=True):
    """A kind of node that the autoscaler may start, as its configuration says."""

    name: str
    resources: dict[str, float]
    labels: dict[str, str] = {}
    least: int = 0
    most: int | None = None

    def capabilities(self) -> set[str]:
        """Return what a node of this kind will be capable of."""
        return capabilities(self.resources, self.labels)

    def as_node(self) -> NodeInfo:
        """Return a node of this kind."""
        cpus = int(self.resources.get("CPU", 0))
        return NodeInfo(
            self.name,
            cpu_cores=cpus,
            memory_gb=self.resources.get("memory", 0) / 2**30 or float("inf"),
            max_concurrent_tasks=cpus,
            capabilities=self.capabilities(),
            resources={k: v for k, v in self.resources.items() if k not in _BUILT_IN},
        )


_BUILT_IN = frozenset({"CPU", "memory", "object_store_memory"})


def capabilities(resources: dict[str, float], labels: dict[str, str]) -> set[str]:
    """Return what tasks may need: resources in lower case, labels as key and as key=value."""
    found = {r.lower() for r, amount in resources.items() if r not in _BUILT_IN and amount and ":" not in r}
    for key, value in labels.items():
        if not key.startswith("ray.io/"):
            found |= {key, f"{key}={value}"}
    return found


class Bundle(msgspec.Struct, frozen=True, order=True):
    """What must fit on one node: resources by Ray's names, and labels that the node must have."""

    resources: tuple[tuple[str, float], ...]
    labels: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        words = [f"{name}: {amount:g}" for name, amount in self.resources]
        return "{" + ", ".join(words + [f"{key}={value}" for key, value in self.labels]) + "}"


class Ask(msgspec.Struct, frozen=True):
    """Make this the request to the autoscaler; none of any bundle withdraws it."""

    bundles: tuple[tuple[Bundle, int], ...]


class LetGo(msgspec.Struct, frozen=True):
    """Drain an idle node, and leave it to the autoscaler."""

    node_id: str


class Recall(msgspec.Struct, frozen=True):
    """Take a node back that was let go."""

    node_id: str


Decision = Ask | LetGo | Recall


def bundle_of(shape: Shape, types: list[NodeType]) -> Bundle | None:
    """Return what to ask for so that a batch of a shape can run; None when no kind of node could take it.

    Without known kinds, ``gpu`` is Ray's GPU, ``key=value`` a label, and every other need a resource.
    """
    resources: dict[str, float] = {}
    labels: dict[str, str] = {}
    if shape.cpus:
        resources["CPU"] = shape.cpus
    if shape.gpus:
        resources["GPU"] = shape.gpus
    if shape.memory:
        resources["memory"] = float(shape.memory)
    able = [t for t in types if takes(t.as_node(), shape)]
    if types and not able:
        return None
    kind = min(able, key=lambda t: (t.resources.get("CPU", 0), t.name), default=None)
    names = {} if kind is None else {r.lower(): r for r in kind.resources}
    for need in shape.needs:
        key, is_label, value = need.partition("=")
        if is_label:
            labels[key] = value
        elif kind is not None and need in kind.labels:
            labels[need] = kind.labels[need]
        else:
            resources.setdefault(names.get(need, "GPU" if need == "gpu" else need), SHARE)
    return Bundle(tuple(sorted(resources.items())), tuple(sorted(labels.items())))


class Elastic:
    """The state of one request, and of the nodes that were let go. Looked at by `look` every second or so."""

    def __init__(self, policy: ElasticPolicy) -> None:
        self.policy = policy
        self.asked: dict[Bundle, int] | None = None
        """The request that stands; None before the first look has made one."""
        self.asked_at = float("-inf")
        self.unmet: list[Unmet] = []
        self.hopeless: list[Shape] = []
        """What waits and no kind of node could take."""
        self.cut = False
        """Whether the request is smaller than what is wanted, by `max_bundles`."""
        self.gone: dict[str, float] = {}
        """Nodes that were let go, and when."""
        self._peaks: dict[Bundle, tuple[int, float]] = {}
        self._idle: dict[str, tuple[int, float]] = {}

    def look(
        self, core: CoordinatorCore, now: float, types: list[NodeType], started: dict[str, str]
    ) -> list[Decision]:
        """Return what is to be done. types: the kinds of nodes, where known.

        started: the nodes that the autoscaler has started and that live, with their kinds.
        """
        self.unmet = unmet(core, now, hold=self.policy.hold, within=self.policy.within)
        decisions: list[Decision] = self._recall(core, now, started)
        # A kind that does not say what it has may have anything.
        known = types if all(t.resources for t in types) else []
        wanted = self._wanted(core, known, len(started))
        decisions += self._ask(wanted, now)
        decisions += self._let_go(core, now, types, started)
        return decisions

    def _wanted(self, core: CoordinatorCore, types: list[NodeType], started: int) -> dict[Bundle, int]:
        """Return the bundles that should fit, none when nothing waits."""
        self.hopeless, self.cut = [], False
        slots: dict[Bundle, float] = {}
        waits = False
        for item in self.unmet:
            bundle = bundle_of(item.shape, types)
            if bundle is None:
                self.hopeless.append(item.shape)
            else:
                waits = True
                slots[bundle] = slots.get(bundle, 0.0) + item.slots
        if not waits:
            return {}
        if self.policy.max_nodes and started >= self.policy.max_nodes:
            self.cut = True
            return dict(self.asked or {})
        for shape, taken in load(core, self.policy.within).items():
            bundle = bundle_of(shape, types)
            if bundle is not None:
                slots[bundle] = slots.get(bundle, 0.0) + taken
        wanted = {bundle: ceil(slots[bundle] - 1e-6) for bundle in sorted(slots)}
        return self._within_bounds(wanted)

    def _within_bounds(self, wanted: dict[Bundle, int]) -> dict[Bundle, int]:
        """Cut a request down to `max_bundles`, each kind in proportion and at least 1."""
        total = sum(wanted.values())
        most = self.policy.max_bundles
        if total <= most:
            return wanted
        self.cut = True
        cut = {bundle: max(1, count * most // total) for bundle, count in wanted.items()}
        while sum(cut.values()) > most and len(cut) > 1:
            largest = max(cut, key=lambda b: (cut[b], b))
            if cut[largest] > 1:
                cut[largest] -= 1
            else:
                del cut[largest]
        return cut

    def _ask(self, wanted: dict[Bundle, int], now: float) -> list[Decision]:
        for bundle in [*wanted, *(b for b in self._peaks if b not in wanted)]:
            count = wanted.get(bundle, 0)
            peak, at = self._peaks.get(bundle, (0, now))
            if count >= peak or now - at >= self.policy.hold_down:
                self._peaks[bundle] = (count, now)
        self._peaks = {b: peak for b, peak in self._peaks.items() if peak[0]}
        request = {bundle: peak[0] for bundle, peak in sorted(self._peaks.items())}
        if sum(request.values()) > self.policy.max_bundles:
            # Old peaks give way to what is wanted now.
            request = wanted
            self._peaks = {b: (count, now) for b, count in wanted.items()}
        if request == self.asked or now - self.asked_at < self.policy.interval:
            return []
        self.asked, self.asked_at = request, now
        return [Ask(tuple(request.items()))]

    def refused(self) -> None:
        """Note that the last request could not be made: it is made again after `interval`."""
        self.asked = None

    def stays(self, node_id: str) -> None:
        """Note that a node could not be let go: it has work again, or somebody has cordoned it."""
        self.gone.pop(node_id, None)
        self._idle.pop(node_id, None)

    def _recall(self, core: CoordinatorCore, now: float, started: dict[str, str]) -> list[Decision]:
        """Take nodes back that something waits for, or that nobody has ended."""
        self.gone = {n: at for n, at in self.gone.items() if n in started}
        back = []
        for node_id, at in self.gone.items():
            node = core.nodes.get(node_id)
            wanted = node is not None and any(takes(node, item.shape) for item in self.unmet)
            if wanted or now - at > self.policy.patience:
                back.append(node_id)
        for node_id in back:
            self.stays(node_id)
        return [Recall(node_id) for node_id in back]

    def _let_go(
        self, core: CoordinatorCore, now: float, types: list[NodeType], started: dict[str, str]
    ) -> list[Decision]:
        """Let nodes go that have had nothing to do for long, as many as may go of their kind."""
        least = {t.name: t.least for t in types}
        there: dict[str, int] = {}
        for node_id, kind in started.items():
            if node_id not in self.gone:
                there[kind] = there.get(kind, 0) + 1
        idle: dict[str, tuple[int, float]] = {}
        going: list[Decision] = []
        for node_id, kind in started.items():
            node = core.nodes.get(node_id)
            if node is None or node_id in self.gone or node_id in core.by_node:
                continue
            if node.status is not NodeStatus.ACTIVE:
                continue
            if types and kind not in least:
                continue  # not a kind that it could start again
            done, since = self._idle.get(node_id, (-1, now))
            if done != node.total_tasks_completed:
                since = now
            idle[node_id] = (node.total_tasks_completed, since)
            ripe = now - since >= self.policy.idle and not self.asked and not self.unmet
            if ripe and there[kind] > least.get(kind, 0):
                there[kind] -= 1
                self.gone[node_id] = now
                going.append(LetGo(node_id))
        self._idle = idle
        return going

    def story(self, shape: Shape, now: float, *, here: bool) -> dict[str, Any]:
        """Return what a person should know of a waiting shape. here: whether there is an autoscaler."""
        if not here:
            return {"at": None, "what": f"no autoscaler here: add a node with {_words(shape)}"}
        if shape in self.hopeless:
            return {"at": now, "what": f"no kind of node of the autoscaler has {_words(shape)}"}
        if self.asked:
            bundles = ", ".join(f"{count} x {bundle}" for bundle, count in self.asked.items())
            cut = " (cut to elastic.max_bundles or elastic.max_nodes)" if self.cut else ""
            return {"at": self.asked_at, "what": f"asked the autoscaler for {bundles}{cut}"}
        return {"at": now, "what": f"the autoscaler is asked after {self.policy.hold:g} s of waiting"}


def _words(shape: Shape) -> str:
    words = list(shape.needs)
    words += [f"{shape.cpus:g} CPUs"] if shape.cpus > 1 else []
    words += [f"{shape.gpus:g} GPUs"] if shape.gpus else []
    words += [f"{shape.memory / 2**30:.1f} GiB"] if shape.memory else []
    return ", ".join(words) or "a free CPU"
