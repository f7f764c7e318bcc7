"""Bugs in the gate, the ledger, the shell around the core, and the node's agent."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from omnimind.cluster.agent import Command, NodeAgent
from omnimind.cluster.events import Recovered
from omnimind.cluster.gate import CommitGate
from omnimind.cluster.records import Records
from omnimind.cluster.sends import Batch, Effects, Ended, Reply, Send
from omnimind.ledger.memory import MemoryLedger
from omnimind.testing.ledger import SimLedger
from omnimind.testing.plants.registry import Patches, plant


def _leave_early(patches: Patches, kind: type[Any]) -> None:
    """Let sends of a kind leave before the records that they rest on are written."""

    def add(self: CommitGate, effects: Effects) -> None:
        early = [send for send in effects.sends if isinstance(send, kind)]
        if early:
            original_add(self, Effects(sends=early))
        original_add(self, Effects(effects.records, [s for s in effects.sends if not isinstance(s, kind)]))

    def take(self: CommitGate) -> Records | None:
        early = [effects for effects in self._gathering if not effects.records]
        if early and not self._writing:
            self._gathering = [effects for effects in self._gathering if effects.records]
            self._writing = early
            return Records()
        records: Records | None = original_take(self)
        return records

    original_add = patches.put(CommitGate, "add", add)
    original_take = patches.put(CommitGate, "take", take)


@plant("P1a", 30, "An answer leaves before what it says is durable")
def acknowledged_before_the_write(patches: Patches) -> None:
    _leave_early(patches, Reply)


@plant("P1a", 30, "A result is told to those who wait before it is durable")
def published_before_the_write(patches: Patches) -> None:
    _leave_early(patches, Ended)


@plant("P1a", 100, "When a group commit fails, everybody in it is told that all is well", disk_full=0.5)
def failed_group_acknowledged(patches: Patches) -> None:

    def cheerful(self: CommitGate, error: Any) -> list[Send]:
        waiting = [s for e in self._writing + self._gathering for s in e.sends if isinstance(s, Reply)]
        original(self, error)
        return list(waiting)

    original = patches.put(CommitGate, "failed", cheerful)


@plant("P1a", 300, "A commit whose outcome nobody knows is taken for done", disk_unknown=0.1)
def unknown_outcome_taken_for_success(patches: Patches) -> None:

    def hopeful(self: SimLedger, records: Records) -> None:
        with suppress(OSError):
            original(self, records)

    original = patches.put(SimLedger, "write", hopeful)


@plant("P2c", 60, "A new coordinator has the epoch of the one before it")
def epoch_not_bumped(patches: Patches) -> None:

    def still(self: MemoryLedger, window: int, **more: Any) -> Recovered:
        if self.store.epoch:
            self.store.epoch -= 1
        recovered: Recovered = original(self, window, **more)
        return recovered

    original = patches.put(MemoryLedger, "open", still)


@plant(
    "P2a",
    100,
    "The ledger takes writes of a coordinator that was replaced",
    zombie=0.8,
    coordinator_before=0.05,
)
def replaced_coordinator_writes(patches: Patches) -> None:

    def lax(self: SimLedger, records: Records) -> None:
        own, self.epoch = self.epoch, self.disk.epoch
        try:
            original(self, records)
        finally:
            self.epoch = own

    original = patches.put(SimLedger, "write", lax)


@plant("P2d", 100, "A node runs a batch again that reaches it twice")
def batch_started_twice(patches: Patches) -> None:

    def forgetful(self: NodeAgent, batch: Batch, incarnation: str, now: float) -> list[Command]:
        self._seen.pop(batch.fence, None)
        commands: list[Command] = original(self, batch, incarnation, now)
        return commands

    original = patches.put(NodeAgent, "run", forgetful)


@plant("P2d", 1000, "A node runs batches that were meant for an earlier life of it", crash=0.2, duplicate=0.3)
def stale_incarnation_accepted(patches: Patches) -> None:

    def any_life(self: NodeAgent, batch: Batch, _incarnation: str, now: float) -> list[Command]:
        commands: list[Command] = original(self, batch, self.incarnation, now)
        return commands

    original = patches.put(NodeAgent, "run", any_life)


@plant("P2f", 60, "An outcome whose report was lost is never reported again")
def outbox_not_resent(patches: Patches) -> None:

    def silent(self: NodeAgent, now: float) -> list[Command]:
        for report in self._outbox.values():
            report.sent_at = now
        commands: list[Command] = original_tick(self, now)
        return commands

    def registered(self: NodeAgent, epoch: int, now: float) -> list[Command]:
        original_registered(self, epoch, now)
        return []

    original_tick = patches.put(NodeAgent, "tick", silent)
    original_registered = patches.put(NodeAgent, "registered", registered)
