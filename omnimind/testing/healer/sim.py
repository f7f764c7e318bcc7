"""One simulation of the healer from its options to its verdict: faults first, then a world that behaves."""

from __future__ import annotations

import traceback

import msgspec

from omnimind.healing import events as ev
from omnimind.healing.controls import Control, ControlKind
from omnimind.healing.records import Abort, Act, Alert, AskWork, Probe, Send
from omnimind.testing.clock import START, SimClock
from omnimind.testing.draws import Draws
from omnimind.testing.healer.ghost import Ghost
from omnimind.testing.healer.options import HealerOptions
from omnimind.testing.healer.shell import Disk, Life
from omnimind.testing.healer.world import Fault, Machine
from omnimind.testing.invariants.base import Broken, must

AFTER = 400.0
"""Seconds for which it goes on once the faults are over."""

_CALLS = 400_000

REQUIRED = (
    "act_act", "nothing_lease", "nothing_target", "nothing_kind", "nothing_breaker", "nothing_floor",
    "nothing_price", "nothing_confidence", "nothing_flapping", "nothing_witnesses", "nothing_fresh",
    "nothing_start", "nothing_pause", "nothing_kill", "nothing_ignore", "nothing_rejected", "ask_price",
    "ask_consent", "escalate_rung", "escalate_unanswered", "outcome_fixed", "outcome_not_fixed",
    "outcome_unknown", "granted_safe", "granted_disruptive", "granted_destructive", "tripped", "reset",
    "lies", "hangs", "fence_refused", "zombie_refused", "healer_died", "healer_died_in_repair",
    "did_not_last", "stale_ends", "relapses", "flapping_issues", "cuts", "node_crashes", "storms",
    "approvals",
)  # fmt: skip
"""What must have happened at least once over 300 seeds, or the campaign has tested nothing about it."""


class Result(msgspec.Struct):
    """How a run went. `failure`: the broken invariant's id and story, None when all held."""

    options: HealerOptions
    failure: tuple[str, str] | None
    events: int
    counts: dict[str, int]
    fired: list[str]
    trace: str = ""

    @property
    def invariant(self) -> str | None:
        """Return the id of the broken invariant."""
        return None if self.failure is None else self.failure[0]


class HealerSim:
    """A fleet, its healer, the network between them, and the people."""

    def __init__(self, options: HealerOptions, only: frozenset[str] | None = None) -> None:
        self.options = options
        self.clock = SimClock()
        self.draws = Draws(options.seed, only)
        self.counts: dict[str, int] = {}
        self.events = 0
        self.faulty = True
        self.disk = Disk()
        self.ghost = Ghost(self)
        self.faults = [Fault(self, number) for number in range(options.faults)]
        self.machines = {f"n{n}": Machine(self, f"n{n}") for n in range(options.nodes)}
        self.epoch = 0
        self.lives: list[Life] = []
        self.messages = 0

    @property
    def life(self) -> Life:
        """Return the present life of the healer."""
        return self.lives[-1]

    def cover(self, what: str, by: int = 1) -> None:
        """Count something that happened."""
        self.counts[what] = self.counts.get(what, 0) + by

    # --- the network ----------------------------------------------------------------------------------

    def _lost(self, machine: Machine) -> bool:
        self.messages += 1
        lost = self.draws.fires(
            "loss", machine.name, self.messages, self.options.loss if self.faulty else 0.0
        )
        return machine.cut or lost

    def _delay(self) -> float:
        return self.options.delay * (0.5 + self.draws.next("delay", "net"))

    def to_healer(self, machine: Machine, event: ev.Event) -> None:
        """Carry a message from a node to the healer."""
        if not self._lost(machine):
            self.clock.after(self._delay(), self.deliver, event)

    def node_state(self, machine: Machine) -> None:
        """Tell the healer what the scheduler knows of a node: that is never lost."""
        up = machine.up and not machine.out
        self.clock.after(0.001, self.deliver, ev.NodeState(machine.name, "up" if up else "out"))

    def deliver(self, event: ev.Event) -> None:
        """Give a message to the present life, if it lives."""
        if self.life.alive:
            self.ghost.delivered(event, self.clock.now)
            self.life.feed(event)

    def carry_out(self, send: Send) -> None:
        """Do what the healer asks for."""
        match send:
            case Act(action, issue):
                self.ghost.sent(send)
                machine = self.machines[action.node]
                if not self._lost(machine):
                    self.clock.after(self._delay(), machine.act, action, issue)
                    if self.draws.next("twice", machine.name) < 0.1:  # noqa: PLR2004 (one in ten comes twice)
                        self.clock.after(3.0, machine.act, action, issue)
            case Abort(action_id, node):
                if not self._lost(self.machines[node]):
                    self.clock.after(self._delay(), self.machines[node].stop, action_id)
            case Probe(_, node, entity):
                if not self._lost(self.machines[node]):
                    self.clock.after(self._delay(), self.machines[node].probe, entity)
            case AskWork(node):
                if not self.draws.chance("no answer", node, self.options.loss):
                    self.clock.after(self._delay(), self._tell_work, node)
            case Alert(kind, _, _, issue_id):
                self._person(kind, issue_id)
            case _:
                pass

    def _tell_work(self, node: str) -> None:
        self.deliver(ev.Work(node, self.machines[node].work()))

    # --- people ---------------------------------------------------------------------------------------

    def _person(self, kind: str, issue_id: str) -> None:
        draw = self.draws.next("person", kind)
        if kind == "breaker":
            how = "resume" if draw < 0.5 else "skip"  # noqa: PLR2004 (even)
            self.clock.after(20.0 + 60.0 * draw, self.deliver, ev.ResetBreaker("ada", how))
        elif kind in {"approval", "suggestion"} and draw < 0.6:  # noqa: PLR2004 (mostly)
            self.cover("approvals")
            self.clock.after(5.0 + 20.0 * draw, self.deliver, ev.Approve(issue_id, "ada"))
        elif kind in {"approval", "escalated"} and draw > 0.85:  # noqa: PLR2004 (now and then)
            self.clock.after(5.0, self.deliver, ev.Reject(issue_id, "bob", "leave it"))

    def _meddle(self, number: int) -> None:
        if not self.faulty:
            return
        self.clock.after(20.0, self._meddle, number + 1)
        if not self.draws.fires("people", "p", number, self.options.people):
            return
        draw = self.draws.value("people what", "p", number)
        kinds = (
            ControlKind.PAUSE,
            ControlKind.WINDOW,
            ControlKind.IGNORE,
            ControlKind.KILL,
            ControlKind.DRY_RUN,
        )
        kind = kinds[int(draw * len(kinds))]
        node = f"n{number % self.options.nodes}"
        control = Control(
            kind=kind, name=f"c{number}", by="ada", reason="drawn", node=node if draw < 0.7 else "", entity=""  # noqa: PLR2004
        )  # fmt: skip
        if kind is ControlKind.IGNORE:
            control = msgspec.structs.replace(control, node=node)
        if number % 2:
            control = msgspec.structs.replace(control, until=self.clock.now + 15.0)
        else:
            self.clock.after(12.0, self.deliver, ev.EndControl(control.name, "ada"))
        self.deliver(ev.SetControl(control))

    # --- the healer and the machines ------------------------------------------------------------------

    def begin_life(self) -> None:
        """Start the healer, with the next epoch."""
        self.epoch += 1
        self.ghost.reborn()
        self.lives.append(Life(self, self.epoch))
        self.life.begin()
        for machine in self.machines.values():
            self.node_state(machine)

    def healer_dies(self) -> None:
        """Let the present life end, or leave it running as a zombie, and start another a little later."""
        life = self.life
        self.cover("healer_died")
        if any(machine.running for machine in self.machines.values()):
            self.cover("healer_died_in_repair")
        zombie = self.draws.chance("zombie", "healer", self.options.zombie)
        if not zombie:
            life.alive = False
        self.clock.after(2.0, self._next_life, life)

    def _next_life(self, old: Life) -> None:
        self.begin_life()
        if old.alive:
            # It does not know yet: it goes on deciding, and must not get anything done.
            self.clock.after(0.5, old.feed, ev.Tick())
            self.clock.after(4.0, self._bury, old)
            for fault in self.faults:
                bad = ev.Observation(
                    monitor="probe", issue_type=fault.kind, node=fault.node, entity="z", bad=True
                )
                self.clock.after(0.1, old.feed, bad)

    def _bury(self, old: Life) -> None:
        old.alive = False

    def _nemesis(self, number: int) -> None:
        if not self.faulty:
            return
        self.clock.after(10.0, self._nemesis, number + 1)
        for machine in self.machines.values():
            if self.draws.fires("cut", machine.name, number, self.options.cut):
                self.cover("cuts")
                machine.cut = True
                self.clock.after(4.0 + 20.0 * self.draws.next("cut for", machine.name), self._heal, machine)
            if self.draws.fires("crash", machine.name, number, self.options.crash):
                self.cover("node_crashes")
                machine.crash()

    def _heal(self, machine: Machine) -> None:
        machine.cut = False

    def play(self) -> None:
        """Take it through both phases."""
        clock = self.clock
        self.begin_life()
        for number, machine in enumerate(self.machines.values()):
            clock.after(0.1 * number, machine.look)
        if self.options.storm:
            self.cover("storms")
        self._nemesis(0)
        self._meddle(1)
        clock.run(START + self.options.seconds, limit=_CALLS)
        self.faulty = False
        for machine in self.machines.values():
            machine.cut = False
        clock.run(clock.now + AFTER, limit=_CALLS)
        self.ghost.settled()
        for life in self.lives:
            # A quarter of the seeds is enough for that, and all of it would double the time.
            first = life.differs() if self.options.seed % 4 == 0 else None
            must(first is None, "R", f"event {first} of life {life.epoch} has other effects in a fresh core")
            for name in ("did_not_last", "stale_ends"):
                self.cover(name, life.core.counts.get(name, 0))
        self.cover("relapses", sum(bool(issue.relapse_of) for issue in self.ghost.issues.values()))
        self.cover("flapping_issues", sum(issue.flapping for issue in self.ghost.issues.values()))


def run(options: HealerOptions, only: frozenset[str] | None = None) -> Result:
    """Simulate one fleet. `only`: ids of the faults that may fire; None lets all fire that are drawn."""
    sim = HealerSim(options, only)
    failure: tuple[str, str] | None = None
    trace = ""
    try:
        sim.play()
    except Broken as broken:
        failure = (broken.invariant, f"{broken.story} (at {sim.clock.now - START:.2f} s)")
    except Exception as error:  # noqa: BLE001 (whatever the code under test raises is a finding)
        failure = ("S", f"{type(error).__name__}: {error} (at {sim.clock.now - START:.2f} s)")
        trace = traceback.format_exc()
    return Result(options, failure, sim.events, sim.counts, list(sim.draws.fired), trace)
