"""The judge: keeps its own books from what is delivered, written and really run, and never asks the core."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from omnimind.healing import events as ev
from omnimind.healing.actions import RemediationAction, Risk
from omnimind.healing.budgets import Budget
from omnimind.healing.controls import Control, ControlKind
from omnimind.healing.issues import Issue, Key, Outcome
from omnimind.healing.records import (
    Act,
    ActionSaved,
    BreakerSaved,
    ControlRemoved,
    ControlSaved,
    Decision,
    DecisionSaved,
    IssueSaved,
    Record,
    Verdict,
)
from omnimind.testing.healer.options import POLICY
from omnimind.testing.healer.world import Machine, overlap
from omnimind.testing.invariants.base import must

if TYPE_CHECKING:
    from omnimind.testing.healer.sim import HealerSim

_HOLDS = (ControlKind.KILL, ControlKind.IGNORE, ControlKind.PAUSE, ControlKind.WINDOW, ControlKind.DRY_RUN)
_LATE = 0.5
"""Seconds by which a grant may still be written that was decided before something else was."""


class Seen:
    """What was delivered about one key, in the present life of the healer."""

    def __init__(self) -> None:
        self.says: dict[str, bool] = {}
        self.bad = False
        self.confidence = 1.0
        self.flips: deque[float] = deque(maxlen=POLICY.detection.flap_count)


class Ghost:
    """The books of one run."""

    def __init__(self, sim: HealerSim) -> None:
        self.sim = sim
        self.grants: dict[str, list[float]] = {}
        self.known: dict[str, RemediationAction] = {}
        self.ended: dict[str, float] = {}
        self.issues: dict[str, Issue] = {}
        self.decisions: dict[str, Decision] = {}
        self.by_issue: dict[str, Decision] = {}
        self.tried: dict[tuple[str, str, int], str] = {}
        self.controls: dict[str, tuple[Control, float]] = {}
        self.tripped: float | None = None
        self.seen: dict[Key, Seen] = {}
        self.well: dict[tuple[Key, str], float] = {}
        """By key and monitor, when the last look was taken that found it well."""
        self.states: dict[str, bool] = {}
        self.draining: dict[str, str] = {}

    # --- what goes in ---------------------------------------------------------------------------------

    def delivered(self, event: ev.Event, now: float) -> None:
        """Note what a core was told."""
        match event:
            case ev.Observation():
                self._observed(event, now)
            case ev.ActionEnded(action_id, _, success):
                self.ended.setdefault(action_id, now)
                if not success:
                    self._not_draining(action_id)
            case ev.NodeState(node, state):
                self.states[node] = state == "up"
                if state != "up":
                    self.draining.pop(node, None)
            case _:
                pass

    def _observed(self, event: ev.Observation, now: float) -> None:
        if not event.bad:
            self.well[event.key, event.monitor] = event.at
        seen = self.seen.get(event.key)
        if seen is None:
            if not event.bad:
                return
            seen = self.seen[event.key] = Seen()
            seen.bad = True
        voice = f"{event.monitor}@{event.observer or event.node}"
        seen.says[voice] = event.bad
        bad = any(seen.says.values())
        if bad is not seen.bad:
            seen.bad = bad
            seen.flips.append(now)
        if event.bad:
            seen.confidence = event.confidence

    def reborn(self) -> None:
        """Forget what was seen: a new life has not seen it."""
        self.seen.clear()
        self.states.clear()
        self.draining.clear()

    # --- what comes out -------------------------------------------------------------------------------

    def durable(self, records: list[Record], now: float) -> None:
        """Judge what has become durable."""
        for record in records:
            match record:
                case IssueSaved(issue):
                    self.issues[issue.issue_id] = issue
                case DecisionSaved(decision):
                    must(decision.reason, "D", f"{decision.decision_id} has no reason")
                    must(decision.steps, "D", f"{decision.decision_id} has no steps")
                    self.decisions[decision.decision_id] = decision
                    self.by_issue[decision.issue_id] = decision
                    self.sim.cover(f"{decision.verdict}_{decision.reason}")
                case ActionSaved(action):
                    if action.action_id not in self.known:
                        self._granted(action, now)
                    self._ended(action)
                    self.known[action.action_id] = action
                case ControlSaved(control):
                    self.controls[control.name] = (control, now)
                case ControlRemoved(name):
                    self.controls.pop(name, None)
                case BreakerSaved(breaker):
                    self.tripped = None if breaker is None else breaker.tripped_at
                    if breaker is None:
                        self.grants.pop("fleet", None)
                    self.sim.cover("tripped" if breaker is not None else "reset")
                case _:
                    pass

    def _granted(self, action: RemediationAction, now: float) -> None:
        story = f"{action.action_id} {action.action} on {action.target} for {action.issue_id}"
        at = action.started_at
        decision = self.decisions.get(action.decision_id)
        must(decision is not None and decision.verdict is Verdict.ACT, "D", f"{story}: never decided")
        budgets = POLICY.budgets
        for scope, budget in (
            ("fleet", budgets.breaker),
            (f"kind:{action.action}", budgets.kind),
            (f"target:{action.target}", budgets.target),
        ):
            self._charge(scope, budget, at, story)
        must(self.tripped is None or at <= self.tripped, "K", f"{story}: the breaker is open")
        issue = self.issues.get(action.issue_id)
        key = (
            action.issue_type.value,
            action.node,
            action.target.partition("/")[2] if issue is None else issue.entity,
        )
        for control, since in self.controls.values():
            if control.kind in _HOLDS and since < at - _LATE and control.covers(key, at):
                must(False, "K", f"{story}: {control.kind} by {control.by} holds")
        root = action.issue_id
        while root in self.issues and self.issues[root].relapse_of:
            root = self.issues[root].relapse_of
        mark = (root, action.action, action.evidence)
        must(
            mark not in self.tried,
            "E",
            f"{story}: tried as {self.tried.get(mark)} on evidence {action.evidence}",
        )
        self.tried[mark] = action.action_id
        if action.risk is not Risk.SAFE:
            must(action.price is not None, "P", f"{story}: without a price")
            self._good_sight(action, key, story)
        if action.takes_out:
            self._floor(action, story)
            self.draining[action.node] = action.action_id
        self.sim.cover(f"granted_{action.risk.name.lower()}")
        del now

    def _charge(self, scope: str, budget: Budget, at: float, story: str) -> None:
        starts = self.grants.setdefault(scope, [])
        starts.append(at)
        recent = [start for start in starts if start > at - budget.seconds]
        must(len(recent) <= budget.count, "B", f"{story}: {len(recent)} of {budget.count} for {scope}")
        self.grants[scope] = recent

    def _good_sight(self, action: RemediationAction, key: Key, story: str) -> None:
        if action.by:
            return  # a person has looked
        seen = self.seen.get(key)
        if seen is None:
            return
        at, detection = action.started_at, POLICY.detection
        flaps = len(seen.flips) == detection.flap_count and seen.flips[0] > at - detection.flap_window
        # Something may have been delivered between the decision and its becoming durable.
        if flaps and seen.flips[-1] <= at:
            must(False, "T", f"{story}: the condition has changed {len(seen.flips)} times")
        if seen.confidence < POLICY.doubt.confidence and seen.bad:
            self.doubted(action, story)

    def doubted(self, action: RemediationAction, story: str) -> None:
        """Judge a grant while the last word that was delivered doubts itself."""
        decision = self.decisions[action.decision_id]
        said = [step.text for step in decision.steps if step.gate == "confidence"]
        # The word may have come after the decision: then the decision says what it was before.
        sure = any(
            float(text.partition(",")[0]) >= POLICY.doubt.confidence for text in said if text[0].isdigit()
        )
        must(sure, "T", f"{story}: on the word of one who doubts itself")

    def _floor(self, action: RemediationAction, story: str) -> None:
        total = len(self.states) or 1
        left = [n for n, up in self.states.items() if up and n != action.node and n not in self.draining]
        must(
            len(left) / total >= POLICY.budgets.floor,
            "F",
            f"{story}: {len(left)} of {total} nodes would be left in service",
        )

    def _ended(self, action: RemediationAction) -> None:
        if action.outcome is None:
            return
        before = self.known.get(action.action_id)
        if before is not None and before.outcome is action.outcome:
            return
        self.sim.cover(f"outcome_{action.outcome}")
        if not action.success:
            self._not_draining(action.action_id)
        if action.outcome is Outcome.FIXED:
            issue = self.issues[action.issue_id]
            looked = self.well.get((issue.key, issue.monitor), -1.0)
            ended = action.ended_at or float("inf")
            must(
                looked >= ended,
                "V",
                f"{action.action_id} {action.action}: fixed, but {issue.monitor} has not looked since",
            )

    def _not_draining(self, action_id: str) -> None:
        for node in [node for node, mine in self.draining.items() if mine == action_id]:
            del self.draining[node]

    def sent(self, act: Act) -> None:
        """Judge a repair that leaves the healer."""
        action = act.action
        must(action.action_id in self.known, "D", f"{action.action_id} is sent before it is written")

    def started(self, machine: Machine, action: RemediationAction, now: float) -> None:
        """Judge a repair that really begins."""
        for other in machine.running.values():
            must(
                not overlap(other.target, action.target),
                "L",
                f"{action.action_id} {action.action} begins on {action.target} while {other.action_id} "
                f"{other.action} runs on {other.target}",
            )
        must(now < action.lease_until, "L", f"{action.action_id} begins after its lease")

    # --- the end --------------------------------------------------------------------------------------

    def settled(self) -> None:
        """Judge what is left when the faults have been over for a long time."""
        core = self.sim.life.core
        controls = [control.kind.value for control, _ in self.controls.values()]
        controls += ["breaker"] if self.tripped is not None else []
        for issue in core.issues.values():
            decision = self.by_issue.get(issue.issue_id)
            story = f"{issue.issue_id} {issue.key} ({issue.status})"
            must(decision is not None, "D", f"{story}: open, and nothing was decided")
            assert decision is not None
            if issue.status == "holding":
                continue
            if core.running_for(issue.issue_id) is not None:
                continue
            due = core.alarms.pending("retry", issue.key)
            match decision.verdict:
                case Verdict.ACT:
                    must(due is not None, "Q", f"{story}: {decision.rung} is over and nothing followed")
                case Verdict.NOTHING | Verdict.ASK:
                    held = decision.reason in {"rejected", "severity"} or decision.reason in controls
                    must(due is not None or held, "Q", f"{story}: forgotten since {decision.reason}")
                case _:
                    pass  # a person was told
        bound = 64 + 8 * (len(core.conditions) + len(core.actions) + len(core.closed) + len(core.controls))
        must(
            len(core.alarms) <= bound, "M", f"{len(core.alarms)} alarms for {len(core.conditions)} conditions"
        )
        must(
            len(core.conditions) <= 2 * self.sim.options.faults + 2, "M", f"{len(core.conditions)} conditions"
        )
