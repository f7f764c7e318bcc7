"""The healer's lives: what is durable, crashes on both sides of a write, a zombie beside its successor."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING

import msgspec

from omnimind.healing import events as ev
from omnimind.healing.actions import RemediationAction
from omnimind.healing.controls import Breaker, Control, Score
from omnimind.healing.core import HealingCore
from omnimind.healing.issues import Issue
from omnimind.healing.records import (
    ActionSaved,
    BreakerSaved,
    ControlRemoved,
    ControlSaved,
    Effects,
    IssueSaved,
    Record,
    ScoreSaved,
)
from omnimind.testing.healer.options import POLICY
from omnimind.testing.healer.world import RUNGS

if TYPE_CHECKING:
    from omnimind.testing.healer.sim import HealerSim


class Disk:
    """The ledger's part: the last state of everything, and who may write."""

    def __init__(self) -> None:
        self.owner = 0
        self.issues: dict[str, Issue] = {}
        self.actions: dict[str, RemediationAction] = {}
        self.controls: dict[str, Control] = {}
        self.scores: dict[tuple[str, str], Score] = {}
        self.breaker: Breaker | None = None

    def write(self, epoch: int, records: list[Record]) -> bool:
        """Apply records as one transaction; returns False, and changes nothing, for who no longer owns it."""
        if epoch != self.owner:
            return False
        for record in records:
            match record:
                case IssueSaved(issue):
                    self.issues[issue.issue_id] = issue
                case ActionSaved(action):
                    self.actions[action.action_id] = action
                case ControlSaved(control):
                    self.controls[control.name] = control
                case ControlRemoved(name):
                    self.controls.pop(name, None)
                case ScoreSaved(score):
                    self.scores[score.issue_type, score.rung] = score
                case BreakerSaved(breaker):
                    self.breaker = breaker
                case _:
                    pass
        return True

    def recovered(self, epoch: int, now: float) -> ev.Recovered:
        """Return what a new life begins with."""
        longest = POLICY.longest
        return ev.Recovered(
            epoch,
            tuple(
                msgspec.structs.replace(issue)
                for issue in self.issues.values()
                if issue.closed_at is None or now < issue.closed_at + POLICY.detection.relapse
            ),
            tuple(
                msgspec.structs.replace(action)
                for action in self.actions.values()
                if action.started_at > now - longest or action.outcome is None
            ),
            tuple(self.controls.values()),
            tuple(self.scores.values()),
            self.breaker,
        )


class Life:
    """One life of the healer around one core. Sends leave only after their records are durable."""

    def __init__(self, sim: HealerSim, epoch: int) -> None:
        self.sim = sim
        self.epoch = epoch
        self.alive = True
        self.core = HealingCore(POLICY)
        self.log: list[tuple[bytes, bytes]] = []
        self.wake = float("inf")
        self.flushes = 0
        self.stalled = False

    def begin(self) -> None:
        """Take over from the disk."""
        sim = self.sim
        sim.disk.owner = self.epoch
        self.feed(sim.disk.recovered(self.epoch, sim.clock.now))
        for rung in RUNGS:
            self.feed(ev.RungKnown(rung))

    def feed(self, event: ev.Event) -> None:
        """Let the core take in an event, and carry out what it says once that is durable."""
        if not self.alive:
            return
        sim = self.sim
        before = pickle.dumps((event, sim.clock.now))
        effects = self.core.handle(event, sim.clock.now)
        self.log.append((before, frozen(effects)))
        sim.events += 1
        self.core.validate()
        if effects.records or effects.sends:
            sim.clock.after(sim.options.io, self.flush, effects)
        due = self.core.next_wakeup()
        if due is not None and due < self.wake:
            self.wake = due
            sim.clock.at(due, self.tick, due)

    def tick(self, due: float) -> None:
        """Wake the core at its time."""
        if due == self.wake:
            self.wake = float("inf")
        self.feed(ev.Tick())

    def flush(self, effects: Effects) -> None:
        """Write, then send; the healer may die on either side of the write."""
        sim = self.sim
        if not self.alive:
            return
        if self.stalled and sim.life is self:
            # It stands still where it is, and goes on when its successor owns the disk.
            sim.clock.after(3.0, self.flush, effects)
            return
        place = f"life{self.epoch}"
        self.flushes += 1
        if sim.faulty and sim.draws.fires("before", place, self.flushes, sim.options.before):
            sim.healer_dies()
            if self.alive:
                self.stalled = True
                sim.clock.after(3.0, self.flush, effects)
            return
        if not self.write(effects):
            self.alive = False
            sim.cover("zombie_refused")
            return
        if sim.faulty and sim.draws.fires("after", place, self.flushes, sim.options.after):
            sim.healer_dies()
            return
        self.send(effects)

    def write(self, effects: Effects) -> bool:
        """Make the records durable; returns False when another life owns the disk."""
        if not self.sim.disk.write(self.epoch, effects.records):
            return False
        self.sim.ghost.durable(effects.records, self.sim.clock.now)
        return True

    def send(self, effects: Effects) -> None:
        """Let the sends leave."""
        for send in effects.sends:
            self.sim.carry_out(send)

    def differs(self) -> int | None:
        """Return the first event that a fresh core handles in another way, None when there is none."""
        core = HealingCore(POLICY)
        for number, (entry, effects) in enumerate(self.log):
            event, now = pickle.loads(entry)  # noqa: S301 (our own bytes, from `feed`)
            if frozen(core.handle(event, now)) != effects:
                return number
        return None


_encode = msgspec.msgpack.Encoder(order="deterministic", enc_hook=repr).encode


def frozen(effects: Effects) -> bytes:
    """Return effects as bytes that are the same in every process."""
    return _encode((effects.records, [(type(send).__name__, send) for send in effects.sends]))
