"""Several shards in one simulation, on machines whose slots they share.

Each is a whole `SimCluster` with its own coordinator, ledger and clients. All that holds for one cluster must
hold for each, whatever befalls the others. The shards have a seed in common, so a machine crashes and
stands still for all of them at once; what befalls coordinators and disks is drawn by what each of them
does, and their loads differ.
"""

from __future__ import annotations

import msgspec

from omnimind.cluster.sharing import SlotShare
from omnimind.testing.clock import START, SimClock
from omnimind.testing.cluster import Shard, SimCluster
from omnimind.testing.invariants import Broken
from omnimind.testing.machine import SimMachine
from omnimind.testing.nemesis import Nemesis
from omnimind.testing.options import SimOptions, draw_options
from omnimind.testing.orders import Operator
from omnimind.testing.simulation import done, patience, settled

_CALLS = 400_000


class ShardedResult(msgspec.Struct):
    """How a run went. failure: the broken invariant's id and story, None when all held."""

    seed: int
    failure: tuple[str, str] | None
    hashes: list[str]
    tasks: list[int]
    """Tasks that ended, by shard."""
    events: int
    starts: list[int]
    """Batches that started, by shard."""
    lent: int
    """Starts on slots beyond a shard's own part."""
    crashes: int


def sharded_options(seed: int, shard: int) -> SimOptions:
    """Draw what is common by the seed, and let the shards' loads differ."""
    options = draw_options(seed, {"profile": "mixed"})
    if shard == 0:
        return options
    return msgspec.structs.replace(
        options,
        tasks=max(4, options.tasks * (1 + (seed + shard) % 3) // 2),
        duration=(0.005, 0.2, 1.0)[(seed // 3 + shard) % 3],
        stall=0.0,
    )


class ShardedSim:
    """`shards` clusters on one clock and the same machines. kind: the sharing of slots, for planted bugs."""

    def __init__(self, seed: int, shards: int = 2, kind: type[SlotShare] = SlotShare) -> None:
        self.seed = seed
        self.clock = SimClock()
        first = sharded_options(seed, 0)
        self.machines = [SimMachine(f"n{n}", first.slots, shards, kind) for n in range(first.nodes)]
        self.sims = [
            SimCluster(sharded_options(seed, s), None, None, Shard(s, shards, self.clock, self.machines))
            for s in range(shards)
        ]

    def run(self) -> ShardedResult:
        """Take all shards through both phases, together."""
        failure: tuple[str, str] | None = None
        try:
            self._phases()
        except Broken as broken:
            failure = (broken.invariant, broken.story)
        except Exception as error:  # noqa: BLE001 (whatever the code under test raises is a finding)
            failure = ("S", f"{type(error).__name__}: {error}")
        return ShardedResult(
            self.seed,
            failure,
            [sim.hash() for sim in self.sims],
            [len(sim.disk.store.rows) - len(sim.disk.live) for sim in self.sims],
            sum(sim.events for sim in self.sims),
            [sum(machine.starts[s] for machine in self.machines) for s in range(len(self.sims))],
            sum(machine.lent for machine in self.machines),
            sum(sim.restarts - 1 for sim in self.sims),
        )

    def _phases(self) -> None:
        clock, sims = self.clock, self.sims
        faults = [(Nemesis(sim), Operator(sim)) for sim in sims]
        for sim in sims:
            sim.start_coordinator()
            for node in sim.nodes:
                clock.after(sim.draws.value("boot", node.name, 0) * 0.5, node.start)
        for sim, (nemesis, operator) in zip(sims, faults, strict=True):
            operator.set_up()
            for sub in sim.subs:
                clock.at(START + 0.2 + sub.at, sim.clients[sub.client].submit, sub)
            operator.plan()
            nemesis.plan()
        clock.run(START + max(sim.options.seconds for sim in sims), limit=_CALLS)
        for nemesis, operator in faults:
            nemesis.heal()
            operator.heal()
        clock.run(clock.now + sum(map(patience, sims)), lambda: all(map(done, sims)), limit=_CALLS)
        for sim in sims:
            sim.invariants.lived()
        over = lambda: all(done(sim) and settled(sim) for sim in sims)  # noqa: E731
        clock.run(clock.now + 40.0, over, limit=_CALLS)
        for sim in sims:
            sim.invariants.lived()
            sim.invariants.empty()
            if sim.core is not None:
                sim.core.validate()
