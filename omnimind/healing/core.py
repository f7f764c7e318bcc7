"""`HealingCore`: what is wrong with the fleet and what is done about it, and the one door to both.

How to read it: `handle` looks up the event's type in a table; the part that is responsible (`watch` for
observations and issues, `acting` for repairs, `people` for what people say) changes the state and notes
records and sends in the `Effects`. Whether and how an issue is repaired is decided in one place, `decide`,
and carried out in one place, `consider`. The same events at the same times give the same effects: there is
no clock, no I/O and no chance.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from omnimind.errors import Conflict
from omnimind.healing import acting, people, recovery, watch
from omnimind.healing import events as ev
from omnimind.healing.actions import ActionStatus, RemediationAction, Rung
from omnimind.healing.alarms import Alarm, Alarms
from omnimind.healing.budgets import Budgets
from omnimind.healing.conditions import Condition
from omnimind.healing.controls import Breaker, Control, ControlKind
from omnimind.healing.decide import Draft, decide
from omnimind.healing.invariants import validate
from omnimind.healing.issues import Issue, IssueSeverity, Key
from omnimind.healing.policy import Policy, Rule
from omnimind.healing.price import Attempt
from omnimind.healing.records import (
    Alert,
    AskWork,
    BreakerSaved,
    Decision,
    DecisionSaved,
    Effects,
    Probe,
    Refused,
    Verdict,
)
from omnimind.ids import fence

CONDITIONS = 100_000
"""Most conditions that are watched at a time. What comes beyond them is counted, and a person is told."""

_EVENTS = (
    "severity", "running", "start", "kill", "ignore", "pause", "window", "rejected", "breaker", "mode",
    "turn",
)  # fmt: skip
"""Refusals that only an event ends, which looks at the issue again."""

_SIGHT = ("fresh", "confidence", "flapping", "witnesses", "turn")
"""Refusals that the next observation may end."""


class HealingCore:
    """Every decision about issues and repairs of one fleet. The first event must be `Recovered`.

    turns: an issue gets at most one repair between two ticks with `turn`, and the next one only when it is
    seen again: for a loop that looks at the world in turns.
    """

    def __init__(
        self, policy: Policy | None = None, *, most_conditions: int = CONDITIONS, turns: bool = False
    ) -> None:
        self.policy = policy or Policy()
        self.most_conditions = most_conditions
        self.epoch = 0
        self.ready_at = 0.0
        self.rungs: dict[str, Rung] = {}
        self.conditions: dict[Key, Condition] = {}
        self.issues: dict[str, Issue] = {}
        """Those that are not closed, by id."""
        self.at_node: dict[str, dict[str, None]] = {}
        """Their ids by node."""
        self.closed: dict[Key, Issue] = {}
        """Those that were closed so lately that they may come back."""
        self.actions: dict[str, RemediationAction] = {}
        """Those that run or are verified, and those that were given up and still hold their lease."""
        self.last_fix: dict[str, RemediationAction] = {}
        """By issue, the repair that has fixed it, as long as that may turn out not to last."""
        self.leases: dict[str, str] = {}
        """The action that holds a target."""
        self.controls: dict[str, Control] = {}
        self.breaker: Breaker | None = None
        self.budgets = Budgets(self.policy.longest)
        self.alarms = Alarms()
        self.fleet: dict[str, bool] = {}
        """Nodes, and whether they take work."""
        self.drained: dict[str, bool] = {}
        """Nodes that a repair takes out, and whether they have been seen out of work since."""
        self.work: dict[str, tuple[float, tuple[Attempt, ...]]] = {}
        self.scores: dict[tuple[str, str], tuple[int, int]] = {}
        self.asked: dict[str, tuple[float, int]] = {}
        """By issue, when a person was asked, and on which evidence."""
        self.counts: dict[str, int] = {}
        self.turn: int | None = 0 if turns else None
        self.acted: dict[str, int] = {}
        """By issue, the turn in which it was last repaired."""
        self._by_issue: dict[str, str] = {}
        self._sick: dict[str, dict[str, None]] = {}
        self._decided: dict[str, tuple[str, str, str, int]] = {}
        self._rules: dict[tuple[str, str], Rule] = {}
        self._number = 0
        self._fence = 0
        self._crowded_at = float("-inf")
        self._handlers: dict[type[Any], Callable[[Any, float, Effects], None]] = {
            ev.Observation: lambda e, now, fx: watch.observe(self, e, now, fx),
            ev.ActionEnded: lambda e, now, fx: acting.ended(self, e, now, fx),
            ev.NodeState: self._node_state,
            ev.Work: self._work,
            ev.Approve: lambda e, now, fx: people.approve(self, e, now, fx),
            ev.Reject: lambda e, now, fx: people.reject(self, e, now, fx),
            ev.Suggested: lambda e, now, fx: people.suggested(self, e, now, fx),
            ev.SetControl: lambda e, now, fx: people.set_control(self, e, now, fx),
            ev.EndControl: lambda e, now, fx: people.end_control(self, e, now, fx),
            ev.ResetBreaker: lambda e, now, fx: people.reset_breaker(self, e, now, fx),
            ev.SetPolicy: lambda e, now, fx: people.set_policy(self, e, now, fx),
            ev.RungKnown: self._rung_known,
            ev.Tick: self._tick,
            ev.Recovered: lambda e, now, fx: recovery.recover(self, e, now, fx),
        }

    def handle(self, event: ev.Event, now: float) -> Effects:
        """Take in an event at `now` (Unix seconds) and return what is to be written, then sent."""
        fx = Effects()
        self._handlers[type(event)](event, now, fx)
        self._due(now, fx)
        return fx

    def next_wakeup(self) -> float | None:
        """Return when a `Tick` is due at the latest, None when nothing is awaited."""
        return self.alarms.next()

    def validate(self) -> None:
        """Check every structural invariant; raises AssertionError with the story of what is wrong."""
        validate(self)

    # --- the one place where a decision is carried out -----------------------------------------------

    def consider(self, condition: Condition, now: float, fx: Effects) -> None:
        """Decide about the issue of a condition that is bad, write it down, and do it.

        A decision that is the same as the last one of its issue is not written again.
        """
        issue = condition.issue
        if issue is None or not condition.bad:
            return
        draft = decide(self, condition, issue, now)
        rung = draft.rung.name if draft.rung is not None else ""
        same = (draft.verdict.value, draft.reason, rung, issue.evidence)
        fresh = self._decided.get(issue.issue_id) != same
        self._decided[issue.issue_id] = same
        if draft.again_at is not None:
            self.alarms.set(max(draft.again_at, now + 0.001), "retry", condition.key)
        elif draft.verdict is Verdict.NOTHING and draft.reason not in _EVENTS:
            self.alarms.set(now + self.policy.retry, "retry", condition.key)
        if draft.asks_work:
            fx.sends.append(AskWork(issue.node))
        if draft.probes:
            fx.sends.append(Probe(issue.monitor, issue.node, issue.entity, issue.issue_id))
        if draft.trips:
            self._trip(draft.steps[-1].text, now, fx)
        if not fresh:
            return
        decision_id, action_id = self.next_id("dec"), ""
        if draft.verdict is Verdict.ACT:
            place = len(fx.records)
            action_id = acting.grant(self, issue, draft, decision_id, now, fx).action_id
        else:
            place = len(fx.records)
            self._tell(issue, draft, now, fx)
        decision = Decision(
            decision_id=decision_id,
            at=now,
            issue_id=issue.issue_id,
            verdict=draft.verdict,
            reason=draft.reason,
            rung=rung,
            evidence=issue.evidence,
            steps=tuple(draft.steps),
            price=draft.price,
            again_at=draft.again_at,
            action_id=action_id,
            by=draft.by,
        )
        self.count(f"decided_{draft.verdict.value}")
        fx.records.insert(place, DecisionSaved(decision))

    def _tell(self, issue: Issue, draft: Draft, now: float, fx: Effects) -> None:
        """Tell a person what only a person can do."""
        rung = draft.rung.name if draft.rung is not None else "nothing"
        why = draft.steps[-1].text
        match draft.verdict:
            case Verdict.ASK:
                self.asked[issue.issue_id] = (now, issue.evidence)
                self._alert("approval", issue, f"may {rung} be done? {why}", fx)
            case Verdict.SUGGEST:
                self._alert("suggestion", issue, why, fx)
            case Verdict.ESCALATE if issue.escalated != issue.evidence:
                issue.escalated = issue.evidence
                watch.save(self, issue, fx)
                self._alert("escalated", issue, why, fx)
            case _:
                pass

    def _alert(self, kind: str, issue: Issue, why: str, fx: Effects) -> None:
        where = "/".join(part for part in (issue.node, issue.entity) if part)
        story = f"{issue.issue_type} on {where}: {issue.description or 'no description'}; {why}"
        fx.sends.append(Alert(kind, issue.severity, story, issue.issue_id))

    def _trip(self, reason: str, now: float, fx: Effects) -> None:
        if self.breaker is None:
            self.breaker = Breaker(now, reason)
            self.count("breaker_trips")
            fx.records.append(BreakerSaved(self.breaker))
            told = f"the breaker has tripped: {reason}; nothing is repaired until a named person resets it"
            fx.sends.append(Alert("breaker", IssueSeverity.CRITICAL, told))

    def reconsider(self, now: float) -> None:
        """Look at every open issue again, one after the other, so that no burst trips the breaker."""
        for number, issue in enumerate(self.issues.values()):
            self.alarms.set(now + number * self.policy.stagger, "retry", issue.key)

    # --- what the parts share --------------------------------------------------------------------------

    def count(self, what: str, by: int = 1) -> None:
        """Add to a counter."""
        self.counts[what] = self.counts.get(what, 0) + by

    def next_id(self, prefix: str) -> str:
        """Return a fresh id: no two cores of one ledger give the same, since their epochs differ."""
        self._number += 1
        return f"{prefix}_{self.epoch:06x}{self._number:010x}"

    def next_fence(self) -> int:
        """Return the next fence of a lease; they only grow, over restarts too."""
        self._fence += 1
        return fence(self.epoch, self._fence)

    def use(self, policy: Policy) -> None:
        """Put a policy in force; conditions that are watched already keep the rule that they began with."""
        self.policy = policy
        self._rules.clear()
        self._stretch()

    def _stretch(self) -> None:
        """Let the budgets remember for as long as anything asks."""
        cooldowns = [self.policy.rung(rung).cooldown for rung in self.rungs.values()]
        self.budgets.longest = max([self.policy.longest, *cooldowns])

    def rule(self, event: ev.Observation) -> Rule:
        """Return what counts for an observation."""
        key = (event.monitor, event.issue_type.value)
        rule = self._rules.get(key)
        if rule is None:
            if len(self._rules) > 10_000:  # noqa: PLR2004 (monitors are few; one that makes up names is not)
                self._rules.clear()
            rule = self._rules[key] = self.policy.rule(event.monitor, event.issue_type)
        return rule

    def control_over(self, kind: ControlKind, key: Key, now: float) -> Control | None:
        """Return a control of a kind that holds for an issue now."""
        return next((c for c in self.controls.values() if c.kind is kind and c.covers(key, now)), None)

    def running_for(self, issue_id: str) -> RemediationAction | None:
        """Return the repair of an issue that runs or is verified."""
        return self.actions.get(self._by_issue.get(issue_id, ""))

    def waits_for_sight(self, issue: Issue) -> bool:
        """Return whether the next observation may end the refusal of a repair."""
        return self._decided.get(issue.issue_id, ("", ""))[1] in _SIGHT

    def holder(self, target: str) -> RemediationAction | None:
        """Return the action whose lease forbids another one on a target.

        A lease on a node covers everything on it, and one on an entity forbids one on its node.
        """
        node = target.partition("/")[0]
        for held, action_id in self.leases.items():
            if held in {target, node} or (target == node and held.startswith(f"{node}/")):
                return self.actions[action_id]
        return None

    def hold(self, action: RemediationAction) -> None:
        """Give an action its lease."""
        assert self.holder(action.target) is None, f"{action.target} is held"
        self.leases[action.target] = action.action_id
        self.actions[action.action_id] = action
        self._by_issue[action.issue_id] = action.action_id
        if action.takes_out:
            self.drained[action.node] = False

    def charge(self, action: RemediationAction, at: float) -> None:
        """Charge the budgets with a repair that began at a time."""
        for scope in ("fleet", f"kind:{action.action}", f"target:{action.target}"):
            self.budgets.charge(scope, at)
        self.budgets.charge(f"cool:{action.action}@{action.target}", at)

    def done_with(self, action: RemediationAction) -> None:
        """Note that an issue's repair has its outcome."""
        if self._by_issue.get(action.issue_id) == action.action_id:
            del self._by_issue[action.issue_id]
        self.alarms.set(action.lease_until, "lease", action.action_id)

    def release(self, action: RemediationAction, now: float, fx: Effects) -> None:
        """End a lease, and look again at what has waited for it."""
        if self.leases.get(action.target) != action.action_id:
            return
        del self.leases[action.target]
        del self.actions[action.action_id]
        if action.takes_out and not action.success and self.drained.get(action.node) is False:
            del self.drained[action.node]  # it was never taken out
        self._again_at(action.node, "lease", now, fx)

    def _again_at(self, node: str, reason: str, now: float, fx: Effects) -> None:
        """Look again at the issues of a node that wait for something that has come."""
        for issue_id in list(self.at_node.get(node, ())):
            issue = self.issues.get(issue_id)
            if issue is not None and self._decided.get(issue_id, ("", ""))[1] == reason:
                condition = self.conditions.get(issue.key)
                if condition is not None:
                    self.consider(condition, now, fx)

    def remember(self, issue: Issue) -> None:
        """Take in an issue that is not closed."""
        self.issues[issue.issue_id] = issue
        self.at_node.setdefault(issue.node, {})[issue.issue_id] = None

    def mark(self, issue: Issue) -> None:
        """Note whether an issue makes its node sick."""
        if issue.live and issue.severity.rank >= IssueSeverity.ERROR.rank:
            self._sick.setdefault(issue.node, {})[issue.issue_id] = None
        else:
            sick = self._sick.get(issue.node)
            if sick is not None and sick.pop(issue.issue_id, 0) is None and not sick:
                del self._sick[issue.node]

    def healthy_others(self, node: str) -> tuple[int, int]:
        """Return how many other nodes take work and have no error open, and how many nodes there are."""
        healthy = sum(
            1
            for name, up in self.fleet.items()
            if name != node and up and name not in self.drained and name not in self._sick
        )
        return healthy, len(self.fleet) + (node not in self.fleet)

    def forget(self, issue: Issue) -> None:
        """Let a closed issue go."""
        self.issues.pop(issue.issue_id, None)
        here = self.at_node.get(issue.node)
        if here is not None:
            here.pop(issue.issue_id, None)
            if not here:
                del self.at_node[issue.node]
        self._decided.pop(issue.issue_id, None)
        self.asked.pop(issue.issue_id, None)
        self.acted.pop(issue.issue_id, None)

    def crowded(self, now: float, fx: Effects) -> None:
        """Note an observation for which there is no room; a person is told once a minute."""
        self.count("dropped_observations")
        if now - self._crowded_at >= 60.0:  # noqa: PLR2004 (a minute)
            self._crowded_at = now
            story = f"{self.most_conditions} conditions are bad at once: new ones are not looked at"
            fx.sends.append(Alert("crowded", IssueSeverity.CRITICAL, story))

    # --- small handlers ----------------------------------------------------------------------------------

    def _tick(self, event: ev.Tick, _now: float, _fx: Effects) -> None:
        if event.turn and self.turn is not None:
            self.turn += 1

    def _rung_known(self, event: ev.RungKnown, now: float, fx: Effects) -> None:
        known = self.rungs.get(event.rung.name)
        if known is not None and known.issue_type is not event.rung.issue_type:
            msg = f"{event.rung.name} is a remediation of {known.issue_type} already"
            fx.sends.append(
                Refused(Conflict(msg, field="name", hint="give each remediation a name of its own"))
            )
            return
        self.rungs[event.rung.name] = event.rung
        self._stretch()
        if known is None:
            for issue in self.issues.values():
                if issue.issue_type is event.rung.issue_type:
                    self.alarms.set(now, "retry", issue.key)

    def _node_state(self, event: ev.NodeState, now: float, fx: Effects) -> None:
        if event.state == "removed":
            watch.node_removed(self, event.node, now, fx)
            for known in (self.fleet, self.drained, self.work):
                known.pop(event.node, None)
            return
        up = event.state == "up"
        back = up and not self.fleet.get(event.node, False)
        self.fleet[event.node] = up
        if event.node in self.drained:
            if not up:
                self.drained[event.node] = True
            elif self.drained[event.node] or event.node not in self._out():
                del self.drained[event.node]
                back = True
        if back:
            for issue in self.issues.values():
                if self._decided.get(issue.issue_id, ("", ""))[1] == "floor":
                    self.alarms.set(now, "retry", issue.key)

    def _out(self) -> list[str]:
        """Return the nodes that a repair which has its lease still takes out."""
        held = [self.actions[action_id] for action_id in self.leases.values()]
        return [action.node for action in held if action.takes_out]

    def _work(self, event: ev.Work, now: float, fx: Effects) -> None:
        self.work[event.node] = (now, event.attempts)
        self._again_at(event.node, "price", now, fx)

    def _due(self, now: float, fx: Effects) -> None:
        while (alarm := self.alarms.due(now)) is not None:
            self._ring(alarm, now, fx)

    def _ring(self, alarm: Alarm, now: float, fx: Effects) -> None:
        _, _, kind, subject = alarm
        match kind:
            case "persist":
                watch.persisted(self, subject, now, fx)
            case "hold":
                watch.hold_over(self, subject, now, fx)
            case "quiet":
                watch.quiet(self, subject, now)
            case "relapse":
                watch.relapse_over(self, subject, now)
            case "retry":
                condition = self.conditions.get(subject)
                if condition is not None:
                    self.consider(condition, now, fx)
            case "timeout":
                acting.timed_out(self, subject, now, fx)
            case "verify":
                acting.verify_over(self, subject, now, fx)
            case "lease":
                self._lease_over(subject, now, fx)
            case "control":
                people.control_due(self, subject, now, fx)

    def _lease_over(self, action_id: str, now: float, fx: Effects) -> None:
        """Free the target of a repair that was given up, once nothing of it can run any more."""
        action = self.actions.get(action_id)
        if action is not None and action.status is ActionStatus.ENDED and now >= action.lease_until:
            self.release(action, now, fx)
