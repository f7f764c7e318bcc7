"""`SimCluster`: a whole cluster in one thread, with virtual time: the wiring between its parts."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import msgspec

from omnimind.cluster import events as ev
from omnimind.cluster.core import CoordinatorCore
from omnimind.cluster.gate import CommitGate
from omnimind.cluster.node import NodeInfo
from omnimind.cluster.policies import CoreLimits
from omnimind.cluster.records import Records
from omnimind.cluster.sends import Batch, Dispatch, Effects, ReleaseNode
from omnimind.errors import KeyConflict, LedgerFull, LedgerUnavailable, OmniMindError, QueueFull
from omnimind.ledger.rows import QUEUE
from omnimind.testing.client import SimClient
from omnimind.testing.clock import START, SimClock
from omnimind.testing.coordinator import SimCoordinator
from omnimind.testing.coverage import Coverage
from omnimind.testing.draws import Draws
from omnimind.testing.ghost import Ghost
from omnimind.testing.invariants import Broken, Invariants
from omnimind.testing.ledger import SimDisk
from omnimind.testing.machine import SimMachine
from omnimind.testing.net import SimNet
from omnimind.testing.node import SimNode, ToNode
from omnimind.testing.options import SimOptions
from omnimind.testing.order import WIDE_WINDOW, Fairness, Order, Rate
from omnimind.testing.replay import EventLog, frozen
from omnimind.testing.workload import queue_policies, submissions

Tracer = Callable[[dict[str, Any]], None]

_REFUSALS = {
    QueueFull: "refused_queue_full",
    LedgerFull: "refused_ledger_full",
    LedgerUnavailable: "refused_ledger_unavailable",
    KeyConflict: "refused_key_conflict",
}


class Shard:
    """Which of how many shards a cluster is, and what they have in common; by itself it is the only one."""

    def __init__(
        self,
        number: int = 0,
        count: int = 1,
        clock: SimClock | None = None,
        machines: list[SimMachine] | None = None,
    ) -> None:
        self.number, self.count = number, count
        self.clock = clock or SimClock()
        self.machines = machines


class SimCluster:
    """Everything of one run. `only`: the faults that may fire; `tracer`: is told everything that happens.

    As one of several shards it has a clock and machines in common with them: see `sharded`.
    """

    def __init__(
        self,
        options: SimOptions,
        only: frozenset[str] | None = None,
        tracer: Tracer | None = None,
        shard: Shard | None = None,
    ) -> None:
        self.options = options
        self.shard = shard or Shard()
        self.tracer = tracer
        self.draws = Draws(options.seed, only)
        self.clock = self.shard.clock
        self.coverage = Coverage()
        self.ghost = Ghost()
        self.disk = SimDisk()
        self.limits = CoreLimits(
            window=options.window,
            ageing=options.ageing,
            batch_max=options.batch_max,
            cancel_grace=2.0,
            max_deaths=2,
        )
        self.net = SimNet(
            self.clock, self.draws, delay=options.delay, loss=options.loss, duplicate=options.duplicate,
            slow=options.slow, slow_seconds=options.slow_seconds,
        )  # fmt: skip
        self.faulty = True
        self.resend = 2.0
        self.unanswered = 0
        self.offset = 0.0
        self.furthest = 0.0
        self.restarts = 0
        self.life: SimCoordinator | None = None
        self.policies = {policy.name: policy for policy in queue_policies(options, self.draws)}
        self.disk.store.queues.update(self.policies)
        self.order = Order(options, self.ghost, self.coverage)
        self.rate = Rate({p.name: p.rate for p in self.policies.values() if p.rate is not None})
        # A queue whose backlog waits on disk has not always work to give.
        fair = self.policies if options.profile == "fair" and options.window >= WIDE_WINDOW else {}
        self.fairness = Fairness({p.name: p.weight for p in fair.values()}, options.slots, self.coverage)
        self.invariants = Invariants(self)
        self.disk.watch = self.invariants.committed
        self.subs = submissions(options, self.draws)
        machines = dict(enumerate(self.shard.machines or ()))
        self.nodes = [SimNode(self, n, machines.get(n)) for n in range(options.nodes)]
        self.clients = [SimClient(self, n) for n in range(options.clients)]
        self.events = 0
        self.keep_log = False
        """Whether each core's events are kept, in `logs`, with the core's epoch."""
        self.logs: list[tuple[int, EventLog]] = []
        self._hash = hashlib.blake2b(digest_size=16)

    # --------------------------------------------------------------------------------- small answers

    @property
    def core(self) -> CoordinatorCore | None:
        """Return the core of the present life."""
        return None if self.life is None else self.life.core

    @property
    def latest_time(self) -> float:
        """Return the latest time that any coordinator's clock can have shown so far."""
        return self.clock.now + self.furthest

    def bound(self, queue: str) -> int:
        """Return the bound that was set for a queue."""
        return self.policies[queue].max_pending

    def duration(self, task_id: str) -> float:
        """Return the usual handler seconds of a task."""
        sub = self.ghost.of(task_id).sub
        return self.options.duration if sub is None else sub.duration

    def copy(self, info: NodeInfo) -> NodeInfo:
        """Return a node's description as a message would bring it: nothing is shared with the sender."""
        return msgspec.structs.replace(info, capabilities=set(info.capabilities), pids=dict(info.pids))

    def hash(self) -> str:
        """Return the hash of everything that has happened so far."""
        return self._hash.hexdigest()

    # ------------------------------------------------------------------------------ the coordinator

    def new_core(self, epoch: int) -> CoordinatorCore:
        """Return a fresh core for an epoch."""
        seed = self.options.seed * 1000 + epoch
        return CoordinatorCore(
            "head", self.limits, seed=seed, strategy=self.options.strategy,
            shard=self.shard.number, shards=self.shard.count,
        )  # fmt: skip

    def new_gate(self) -> CommitGate:
        """Return a fresh gate."""
        return CommitGate()

    def start_coordinator(self) -> None:
        """Begin a new life of the coordinator, unless one is there."""
        if self.life is not None:
            return
        self.restarts += 1
        span = self.options.jump_seconds
        if self.faulty and self.draws.fires("jump", "co", self.restarts, self.options.jump):
            self.offset += span * (self.draws.value("jumped", "co", self.restarts) * 2 - 1)
            self.furthest = max(self.furthest, self.offset)
        if not self.faulty:
            # Times that a clock which ran ahead has written down come true in the healing phase.
            self.offset = self.furthest
        self.life = SimCoordinator(self, self.offset)
        self.life.open()

    def crash_coordinator(self, life: SimCoordinator, seconds: float | None = None) -> None:
        """End a life, and begin the next one some seconds later. A zombie lives on for a while."""
        if life.dead or life is not self.life:
            return
        self.coverage.add("coordinator_crash_with_work", any(node.workers for node in self.nodes))
        if life.core is not None:
            self.count_core(life.core)
        self.life = None
        if self.faulty and self.draws.fires("zombie", "co", self.restarts, self.options.zombie):
            self.coverage.add("zombie_coordinator")
            self.clock.after(2 + 6 * self.draws.value("zombie for", "co", self.restarts), life.die)
        else:
            life.die()
        if seconds is None:
            seconds = 0.1 + 4 * self.draws.value("restart", "co", self.restarts) ** 2
        self.clock.after(seconds, self.start_coordinator)

    def crash_chance(self, kind: str) -> bool:
        """Return whether the coordinator crashes at this flush."""
        return self.faulty and self.draws.chance(kind, "co", getattr(self.options, kind))

    def count_core(self, core: CoordinatorCore) -> None:
        """Take over a core's own counters at its end."""
        counts = core.counts
        self.coverage.add("stale_outcome", counts.get("stale", 0))
        for name in ("adopted", "retries", "lost", "nodes_lost", "scheduled", "stalls"):
            self.coverage.add(name, counts.get(name, 0))

    # ----------------------------------------------------------------------------- what passes here

    def to_life(self, receive: Callable[..., None], *args: Any) -> None:
        """Let something arrive at the coordinator; nobody is there between two lives."""
        life = self.life
        if life is not None and not life.frozen(self.to_life, receive, *args):
            receive(life, *args)

    def to_coordinator(self, what: str, node: SimNode, *args: Any) -> None:
        """Let a node's message arrive at the coordinator."""
        life = self.life
        if life is not None and not life.frozen(self.to_coordinator, what, node, *args):
            life.from_node(what, node, *args)

    def to_node(self, node_id: str, message: ToNode) -> None:
        """Send a message to a node."""
        self.net.send("co", node_id, self.nodes[int(node_id[1:])].receive, message)

    def traced(self, life: SimCoordinator, event: ev.Event, effects: Effects) -> None:
        """Take an event and its effects into the hash, and tell the tracer."""
        self.events += 1
        kind = type(event).__name__
        epoch = life.ledger.epoch
        self._hash.update(b"%r %d %s" % (self.clock.now, epoch, kind.encode()))
        self._hash.update(frozen(effects))
        core = life.core
        if core is not None and core.book.tailing:
            self.coverage.add("spilled")
        if self.tracer is not None:
            self.tell(
                "event", epoch=epoch, kind=kind, event=event, records=effects.records,
                sends=[(type(s).__name__, s) for s in effects.sends],
            )  # fmt: skip

    def tell(self, what: str, **details: Any) -> None:
        """Tell the tracer something that happened."""
        if self.tracer is not None:
            self.tracer({"t": round(self.clock.now - START, 6), "what": what, **details})

    # ------------------------------------------------------------------------ what is checked there

    def decided(self, records: Records, grants: list[Dispatch], now: float) -> None:
        """Check what a core has decided."""
        self.order.left(records)
        self.invariants.decided(records, grants, now)
        if not self.fairness.over:
            for row in records.inserts:
                self.fairness.waits(row[QUEUE], 1)
            for grant in grants:
                sub = self.ghost.of(grant.batch.items[0].task_id).sub
                self.fairness.waits("default" if sub is None else sub.queue, -len(grant.batch.items))
            if grants:
                self._must_be("F", self.fairness.check())

    def _must_be(self, invariant: str, story: str | None) -> None:
        if story is not None:
            raise Broken(invariant, story)

    def commit(self, life: SimCoordinator, records: Records) -> None:
        """Let a life write a transaction, and check what became durable."""
        life.ledger.write(records)
        for row in records.attempts:
            self.invariants.attempt(row)
        for queue in dict.fromkeys(row[QUEUE] for row in records.inserts):
            self.invariants.within_bounds(queue)

    def grant(self, life: SimCoordinator, send: Dispatch) -> None:
        """Note a batch that leaves the coordinator.

        A zombie grants what may be run and even be adopted, as long as its successor has granted nothing.
        """
        if life.superseded:
            for index, item in enumerate(send.batch.items):
                ghost = self.ghost.of(item.task_id)
                ghost.fence = max(ghost.fence, send.batch.fence + index)
            return
        self.invariants.granted(send.node_id, send.incarnation, send.batch, self.disk.epoch)

    def release_node(self, life: SimCoordinator, send: ReleaseNode) -> None:
        """Note the end of a drain."""
        if not life.superseded:
            self.coverage.add("drained")
            agent = self.nodes[int(send.node_id[1:])].agent
            if agent is not None:
                self.invariants.released(send.node_id, agent.incarnation)
        self.to_node(send.node_id, send)

    def started(self, node: SimNode, batch: Batch, index: int) -> None:
        """Note the start of a handler."""
        assert node.agent is not None
        item, fence = batch.items[index], batch.fence + index
        self.coverage.add("fence_race", fence < self.ghost.of(item.task_id).fence)
        if self.tracer is not None:
            self.tell("start", node=node.name, task=item.task_id, fence=fence, attempt=item.attempt)
        self.invariants.started(node.name, node.agent.incarnation, item.task_id, fence)

    def ran(self, task_id: str, seconds: float) -> None:
        """Note handler seconds."""
        sub = self.ghost.of(task_id).sub
        self.fairness.ran("default" if sub is None else sub.queue, seconds)

    def refused(self, story: str, error: OmniMindError) -> None:
        """Note a refusal."""
        name = _REFUSALS.get(type(error))
        if name is not None:
            self.coverage.add(name)
        self.tell("refused", request=story, error=error.to_problem())
