"""One simulation from its options to its verdict: faults and safety first, then healing and liveness.

::

    result = run(draw_options(4711))
    if result.failure:
        print(describe(result.options), result.failure)
"""

from __future__ import annotations

import traceback

import msgspec

from omnimind.testing.clock import START
from omnimind.testing.cluster import SimCluster, Tracer
from omnimind.testing.invariants import Broken
from omnimind.testing.nemesis import Nemesis
from omnimind.testing.options import SimOptions
from omnimind.testing.orders import Operator

_CALLS = 100_000
"""More calls than any run needs: one that gets there goes round in circles."""


class Result(msgspec.Struct):
    """How a run went. `failure`: the broken invariant's id and story, None when all held."""

    options: SimOptions
    failure: tuple[str, str] | None
    hash: str
    events: int
    """Events that entered a core."""
    calls: int
    """Everything that happened, in cores or around them."""
    seconds: float
    """Simulated."""
    counts: dict[str, int]
    fired: list[str]
    """Ids of the faults that fired, in order."""
    trace: str = ""
    """The traceback of a core that raised."""

    @property
    def invariant(self) -> str | None:
        """Return the id of the broken invariant."""
        return None if self.failure is None else self.failure[0]


def run(options: SimOptions, only: frozenset[str] | None = None, tracer: Tracer | None = None) -> Result:
    """Simulate one cluster. `only`: ids of the faults that may fire; None lets all fire that are drawn."""
    return judge(SimCluster(options, only, tracer))


def judge(sim: SimCluster) -> Result:
    """Take a new cluster through both phases."""
    failure: tuple[str, str] | None = None
    trace = ""
    try:
        _phases(sim)
    except Broken as broken:
        failure = (broken.invariant, broken.story)
    except Exception as error:  # noqa: BLE001 (whatever the code under test raises is a finding)
        failure = ("S", f"{type(error).__name__}: {error}")
        trace = traceback.format_exc()
    if sim.core is not None:
        sim.count_core(sim.core)
    for kind, count in sim.draws.by_kind.items():
        sim.coverage.add(f"fault_{kind}", count)
    sim.coverage.add("message_lost_in_cut", sim.net.lost_in_cuts)
    return Result(
        sim.options, failure, sim.hash(), sim.events, sim.clock.calls, sim.clock.now - START,
        sim.coverage.counts, list(sim.draws.fired), trace,
    )  # fmt: skip


def _phases(sim: SimCluster) -> None:
    options, clock = sim.options, sim.clock
    nemesis, operator = Nemesis(sim), Operator(sim)
    sim.start_coordinator()
    for node in sim.nodes:
        clock.after(sim.draws.value("boot", node.name, 0) * 0.5, node.start)
    operator.set_up()
    for sub in sim.subs:
        clock.at(START + 0.2 + sub.at, sim.clients[sub.client].submit, sub)
    operator.plan()
    nemesis.plan()
    clock.run(START + options.seconds, limit=_CALLS)
    sim.tell("heal")
    nemesis.heal()
    operator.heal()
    clock.run(clock.now + patience(sim), lambda: done(sim), limit=_CALLS)
    sim.invariants.lived()
    clock.run(clock.now + 40.0, lambda: done(sim) and settled(sim), limit=_CALLS)
    sim.invariants.lived()
    sim.invariants.empty()
    if sim.core is not None:
        sim.core.validate()


def patience(sim: SimCluster) -> float:
    """Return simulated seconds in which everything must have ended once the faults are over.

    Enough to run all the work several times over on the one node that is sure to be there, one task
    after the other; and what leases, graces, retries and rate limits add.
    """
    work = sum(sub.count * sub.duration for sub in sim.subs)
    return 120.0 + 6 * 4.0 * work / sim.options.slots + sim.options.tasks


def done(sim: SimCluster) -> bool:
    """Return whether all work has ended and every client has its answer."""
    return not sim.unanswered and not sim.disk.live and not sim.disk.store.schedules


def settled(sim: SimCluster) -> bool:
    """Return whether the nodes hold nothing any more and the coordinator has no write under way."""
    life = sim.life
    if life is None or life.core is None or not life.gate.idle or life.writing or life.core.recovering:
        return False
    return all(node.agent is None or not (node.agent.held or node.agent.owes) for node in sim.nodes)
