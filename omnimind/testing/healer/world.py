"""The machines: what is really wrong with them, who looks at it, and who runs the repairs there."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from omnimind.healing import events as ev
from omnimind.healing.actions import RemediationAction, Risk, Rung
from omnimind.healing.issues import Issue, IssueSeverity, IssueType
from omnimind.healing.price import Attempt
from omnimind.testing.clock import START

if TYPE_CHECKING:
    from omnimind.testing.healer.sim import HealerSim

TYPES = (IssueType.SERVICE_FAILURE, IssueType.DISK_FULL, IssueType.MEMORY_LEAK)

RUNGS = tuple(
    Rung(
        name=f"{name}_{kind.value}",
        issue_type=kind,
        risk=risk,
        order=order,
        takes_out=takes_out,
        whole_node=takes_out,
        timeout=6.0,
        verify=verify,
        cooldown=cooldown,
    )
    for kind in TYPES
    for name, risk, order, takes_out, verify, cooldown in (
        ("clear", Risk.SAFE, 0, False, 4.0, 5.0),
        ("tidy", Risk.SAFE, 1, False, 0.0, 0.0),
        ("restart", Risk.DISRUPTIVE, 0, False, 6.0, 10.0),
        ("drain", Risk.DISRUPTIVE, 1, True, 8.0, 0.0),
        ("reboot", Risk.DESTRUCTIVE, 0, True, 8.0, 0.0),
    )
)

_SEVERITIES = (IssueSeverity.WARNING, IssueSeverity.ERROR, IssueSeverity.CRITICAL)


class Fault:
    """Something that is really wrong. cure: the only rung that helps, "" when none does."""

    def __init__(self, sim: HealerSim, number: int) -> None:
        draws, options = sim.draws, sim.options
        place = f"fault{number}"

        def value(what: str) -> float:
            return draws.value(what, place, 0)

        self.kind = TYPES[int(value("type") * len(TYPES))]
        self.node = f"n{int(value('node') * options.nodes)}"
        self.entity = "" if value("entity") < 0.2 else f"e{number % 5}"  # noqa: PLR2004 (a fifth)
        storm = options.storm and value("storm") < 0.8  # noqa: PLR2004 (most)
        if storm:
            self.kind = TYPES[0]
        self.begins = START + (30.0 + 10.0 * value("at") if storm else 0.6 * options.seconds * value("at"))
        self.ends = math.inf if value("ends") < 0.7 else self.begins + 60.0 * value("length")  # noqa: PLR2004
        rungs = [rung.name for rung in RUNGS if rung.issue_type is self.kind]
        curable = value("curable") < options.curable
        self.cure = rungs[int(value("cure") * len(rungs))] if curable else ""
        self.lasts = value("lasting") >= options.lasting
        self.period = 1.0 + 8.0 * value("period") if value("flaps") < options.flapping else 0.0
        self.start_severity = int(value("severity") * len(_SEVERITIES))
        self.cured_at = math.inf
        self.back_at = math.inf

    def bad(self, now: float) -> bool:
        """Return whether it is really bad now."""
        if not self.begins <= now < self.ends or (self.cured_at <= now < self.back_at):
            return False
        return not self.period or int((now - self.begins) / self.period) % 2 == 0

    def severity(self, now: float) -> IssueSeverity:
        """Return how bad: it gets worse by one step a minute."""
        step = self.start_severity + int(max(0.0, now - self.begins) / 60.0)
        return _SEVERITIES[min(step, len(_SEVERITIES) - 1)]

    def repaired(self, rung: str, now: float, draw: float) -> None:
        """Take a repair that really worked as it should."""
        if rung == self.cure:
            self.cured_at = now + 3.0 * draw
            self.back_at = math.inf if self.lasts else self.cured_at + 5.0 + 100.0 * draw


class Machine:
    """One node: its monitors, and whoever runs repairs there."""

    def __init__(self, sim: HealerSim, name: str) -> None:
        self.sim = sim
        self.name = name
        self.up = True
        self.out = False
        self.cut = False
        self.looks = 0
        self.running: dict[str, RemediationAction] = {}
        self.fences: dict[str, int] = {}

    @property
    def faults(self) -> list[Fault]:
        """Return what is wrong here."""
        return [fault for fault in self.sim.faults if fault.node == self.name]

    # --- monitors -----------------------------------------------------------------------------------

    def look(self) -> None:
        """Look at everything, now and then again and again."""
        self.sim.clock.after(self.sim.options.sample, self.look)
        if self.up:
            for fault in self.faults:
                self.tell(fault)

    def tell(self, fault: Fault) -> None:
        """Say what a monitor sees of a fault, which need not be true."""
        sim = self.sim
        now = sim.clock.now
        self.looks += 1
        # All faults of one kind at one place are one condition.
        bad = any(f.bad(now) for f in self.faults if f.kind is fault.kind and f.entity == fault.entity)
        if sim.draws.chance("lie", self.name, sim.options.lie):
            bad = not bad
            sim.cover("lies")
        confidence = 0.3 if sim.draws.chance("doubt", self.name, sim.options.doubt) else 1.0
        peer = f"n{self.looks % max(1, sim.options.nodes)}"
        self._send(fault, bad, "probe", confidence, peer if self.looks % 3 == 0 else "")
        if sim.options.liar and sim.draws.next("liar", self.name) < 0.3:  # noqa: PLR2004 (now and then)
            self._send(fault, sim.draws.next("liar says", self.name) < 0.5, "liar", 1.0, "")  # noqa: PLR2004

    def _send(self, fault: Fault, bad: bool, monitor: str, confidence: float, observer: str) -> None:
        now = self.sim.clock.now
        observation = ev.Observation(
            monitor=monitor,
            issue_type=fault.kind,
            node=self.name,
            entity=fault.entity,
            bad=bad,
            severity=fault.severity(now),
            description=f"{fault.kind} at {fault.entity or self.name}",
            confidence=confidence,
            observer=observer,
            at=now,
        )
        self.sim.to_healer(self, observation)

    def probe(self, entity: str) -> None:
        """Look again because the healer asks."""
        if self.up:
            for fault in self.faults:
                if fault.entity == entity:
                    self.tell(fault)

    # --- repairs ------------------------------------------------------------------------------------

    def act(self, action: RemediationAction, issue: Issue) -> None:
        """Begin a repair, unless its lease is over or a newer one has been seen."""
        sim = self.sim
        now = sim.clock.now
        if not self.up or now >= action.lease_until:
            return
        newest = max((f for t, f in self.fences.items() if overlap(t, action.target)), default=-1)
        if self.refuses(action.fence, newest):
            sim.cover("fence_refused")
            return
        self.fences[action.target] = max(newest, action.fence)
        sim.ghost.started(self, action, now)
        self.running[action.action_id] = action
        sim.clock.at(action.lease_until, self.stop, action.action_id)
        draws, options = sim.draws, sim.options
        if draws.chance("hang", self.name, options.hang):
            sim.cover("hangs")
            return
        seconds = (
            7.0 if draws.chance("slow", self.name, options.slow) else 0.2 + draws.next("takes", self.name)
        )
        sim.clock.after(seconds, self.end, action, issue)

    def refuses(self, fence: int, newest: int) -> bool:
        """Return whether a repair is refused because a newer one on its target has been seen, or itself."""
        return fence <= newest

    def end(self, action: RemediationAction, issue: Issue) -> None:
        """End a repair: really, only in its own words, or with an error."""
        sim = self.sim
        if self.running.pop(action.action_id, None) is None:
            return
        draws, options = sim.draws, sim.options
        failed = draws.chance("fail", self.name, options.fail)
        boasts = not failed and draws.chance("boast", self.name, options.boast)
        if not failed and not boasts:
            for fault in self.faults:
                if fault.kind is issue.issue_type and (fault.entity == issue.entity or action.takes_out):
                    fault.repaired(action.action, sim.clock.now, draws.next("lag", self.name))
            if action.takes_out:
                self.set_out(True)
                sim.clock.after(30.0 + 30.0 * draws.next("back", self.name), self.set_out, False)
        sim.to_healer(self, ev.ActionEnded(action.action_id, action.fence, not failed, "done"))

    def stop(self, action_id: str) -> None:
        """End a repair because its lease is over or the healer says so: nobody hears of it."""
        self.running.pop(action_id, None)

    # --- its life -----------------------------------------------------------------------------------

    def set_out(self, out: bool) -> None:
        """Take the node out of work, or let it work again; the healer always hears of that."""
        self.out = out
        self.sim.node_state(self)

    def crash(self) -> None:
        """Die, with everything that runs here, and come back."""
        if self.up:
            self.up = False
            self.running.clear()
            self.sim.node_state(self)
            self.sim.clock.after(10.0, self.boot)

    def boot(self) -> None:
        """Come back."""
        self.up = True
        self.sim.node_state(self)

    def work(self) -> tuple[Attempt, ...]:
        """Return what runs here."""
        now = self.sim.clock.now
        return tuple(
            Attempt(f"t{n}", now - 10.0 * n, expected=30.0 * n if n % 2 else None, once=n % 5 == 4)  # noqa: PLR2004
            for n in range(self.sim.options.work)
        )


def overlap(one: str, other: str) -> bool:
    """Return whether two targets are the same, or one is the node of the other."""
    return one == other or one.startswith(f"{other}/") or other.startswith(f"{one}/")
