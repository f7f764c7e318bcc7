"""The decision: which repair, or none, and why. Pure: it looks at the core and changes nothing.

The questions are asked in a fixed order, and the first that is not passed decides::

    condition, persistence            it is there, for long enough
    severity, running                 it is worth a repair, and none is under way
    turn, start, kill, ignore, pause, window, rejected
    rung                              the gentlest that was not tried on this evidence, by measured success
    mode                              what people let this repair do
    fresh, confidence, flapping, witnesses     (beyond safe repairs) is what was seen good enough
    lease, cooldown, breaker, target, kind, floor
    price                             (beyond safe repairs) what work it costs, and how to save it
    consent                           a person has to allow it, or has
    dry_run

What a start, a control or the breaker holds back is looked at again one issue after the other when that is
over (`HealingCore.reconsider`), never all at once. A person's approval answers mode, flapping, witnesses,
confidence, price and consent; nothing else.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec

from omnimind.healing.actions import ActionStatus, Mode, Risk, Rung
from omnimind.healing.budgets import Budget
from omnimind.healing.controls import ControlKind
from omnimind.healing.issues import Issue, IssueSeverity
from omnimind.healing.price import Price, Way, price
from omnimind.healing.records import Step, Verdict

if TYPE_CHECKING:
    from omnimind.healing.conditions import Condition
    from omnimind.healing.core import HealingCore

ENOUGH_TRIES = 5
"""Tries after which a measured fix rate counts; before, one half is assumed."""


class Draft(msgspec.Struct):
    """A decision before it has its number."""

    verdict: Verdict = Verdict.NOTHING
    reason: str = ""
    rung: Rung | None = None
    steps: list[Step] = msgspec.field(default_factory=list)
    price: Price | None = None
    again_at: float | None = None
    by: str = ""
    trips: bool = False
    """Whether the breaker trips with it."""
    asks_work: bool = False
    probes: bool = False

    def passed(self, gate: str, text: str) -> None:
        """Note a question that was passed."""
        self.steps.append(Step(gate, True, text))

    def stop(
        self, gate: str, text: str, again_at: float | None = None, verdict: Verdict = Verdict.NOTHING
    ) -> Draft:
        """Note the question that decided, and return the draft."""
        self.steps.append(Step(gate, False, text))
        self.verdict, self.reason, self.again_at = verdict, gate, again_at
        return self


def fix_rate(core: HealingCore, rung: Rung) -> float:
    """Return the measured share of tries that fixed the issue, one half before there are enough."""
    tried, fixed = core.scores.get((rung.issue_type.value, rung.name), (0, 0))
    return fixed / tried if tried >= ENOUGH_TRIES else 0.5


def ladder(core: HealingCore, issue: Issue) -> list[Rung]:
    """Return the rungs of an issue's type: by risk, then by measured success, then as they are declared."""
    rungs = [
        core.policy.rung(rung)
        for rung in core.rungs.values()
        if rung.issue_type is issue.issue_type and core.policy.enabled(rung.name)
    ]
    return sorted(rungs, key=lambda rung: (rung.risk, -round(fix_rate(core, rung), 1), rung.order, rung.name))


def decide(core: HealingCore, condition: Condition, issue: Issue, now: float) -> Draft:
    """Return what is to be done about an issue whose condition is bad."""
    draft = Draft()
    draft.passed("condition", issue.description or issue.issue_type.value)
    draft.passed("persistence", f"bad for {now - condition.since:.1f} s, {condition.persist:g} asked")
    if _standing(core, issue, now, draft) is not None:
        return draft
    rungs = ladder(core, issue)
    approved = _approved(core, issue, now)
    left = [rung for rung in rungs if not issue.has_tried(rung.name)]
    if approved:
        left = [rung for rung in left if rung.name == approved] or left
    if not left:
        what = "every remediation was tried on this evidence" if rungs else "no remediation is known"
        return draft.stop("rung", what, verdict=Verdict.ESCALATE)
    rung = draft.rung = left[0]
    rate = f"fixed {100 * fix_rate(core, rung):.0f} % so far" if _measured(core, rung) else "not measured yet"
    draft.passed("rung", f"{rung.name} ({rung.risk.name.lower()}, {rate}), {len(left) - 1} after it")
    allowed = bool(approved)
    mode = core.policy.mode(rung)
    if mode is Mode.OBSERVE and not allowed:
        return draft.stop("mode", f"{rung.name} may only observe")
    draft.passed("mode", mode.value)
    for gate in (_sight, _guards, _floor, _price):
        if gate(core, condition, issue, now, draft) is not None:
            return draft
    return _consent(core, issue, mode, now, draft)


def _approved(core: HealingCore, issue: Issue, now: float) -> str:
    """Return the rung that a person has allowed, "" when there is none or it was too long ago."""
    return issue.approved if now < issue.approved_at + core.policy.approval else ""


def _measured(core: HealingCore, rung: Rung) -> bool:
    return core.scores.get((rung.issue_type.value, rung.name), (0, 0))[0] >= ENOUGH_TRIES


def _standing(core: HealingCore, issue: Issue, now: float, draft: Draft) -> Draft | None:
    """Ask what does not depend on the rung."""
    if issue.severity is IssueSeverity.INFO:
        return draft.stop("severity", "for information only")
    running = core.running_for(issue.issue_id)
    if running is not None:
        word = "is running" if running.status is ActionStatus.RUNNING else "is being verified"
        return draft.stop("running", f"{running.action} {word}")
    if core.turn is not None and core.acted.get(issue.issue_id) == core.turn:
        return draft.stop("turn", "it was repaired in this turn: it has to be seen again first")
    if now < core.ready_at:
        return draft.stop("start", "the healer has just started: the monitors speak first")
    for kind in (ControlKind.KILL, ControlKind.IGNORE, ControlKind.PAUSE, ControlKind.WINDOW):
        control = core.control_over(kind, issue.key, now)
        if control is not None:
            text = f"{control.name}, by {control.by}: {control.reason}"
            return draft.stop(kind.value, text)
    if issue.rejected == issue.evidence:
        return draft.stop("rejected", "a person has refused, until it gets worse")
    return None


def _sight(core: HealingCore, condition: Condition, issue: Issue, now: float, draft: Draft) -> Draft | None:
    """Ask whether what was seen is good enough for more than a safe repair."""
    rung = draft.rung
    if rung is None or rung.risk is Risk.SAFE:
        return None
    policy = core.policy
    if now - condition.seen > policy.detection.fresh:
        draft.probes = True
        seen = f"last seen {now - condition.seen:.0f} s ago, {policy.detection.fresh:g} are allowed"
        return draft.stop("fresh", seen, now + policy.retry)
    if _approved(core, issue, now):
        draft.passed("confidence", "a person has looked")
        return None
    if not issue.confidence >= policy.doubt.confidence:  # NaN is no confidence
        text = f"the observer trusts itself {issue.confidence:.2f}, {policy.doubt.confidence:g} are asked"
        return draft.stop("confidence", text, now + policy.retry)
    if condition.flapping(now, policy.detection):
        again = condition.flips[0] + policy.detection.flap_window
        return draft.stop("flapping", "a condition that keeps changing gets safe repairs only", again)
    if rung.risk is Risk.DESTRUCTIVE and len(issue.observers) < policy.doubt.witnesses:
        text = f"{len(issue.observers)} observers, {policy.doubt.witnesses} are asked"
        return draft.stop("witnesses", text, now + policy.retry)
    draft.passed("confidence", f"{issue.confidence:.2f}, by {', '.join(issue.observers)}")
    return None


def _guards(core: HealingCore, condition: Condition, issue: Issue, now: float, draft: Draft) -> Draft | None:
    """Ask leases and budgets."""
    del condition
    rung = draft.rung
    assert rung is not None
    target = rung.target(issue.node, issue.entity)
    holder = core.holder(target)
    if holder is not None:
        return draft.stop("lease", f"{target} is under {holder.action_id} until it ends", holder.lease_until)
    draft.passed("lease", f"{target} is free")
    budgets, policy = core.budgets, core.policy
    if rung.cooldown > 0:
        free = budgets.free_at(f"cool:{rung.name}@{target}", Budget(1, rung.cooldown), now)
        if free is not None and free > now:
            return draft.stop("cooldown", f"{rung.name} on {target} for {free - now:.0f} s more", free)
    if core.breaker is not None:
        return draft.stop("breaker", f"tripped: {core.breaker.reason}")
    for gate, scope, budget in (
        ("target", f"target:{target}", policy.budgets.target),
        ("kind", f"kind:{rung.name}", policy.kind_budget(rung.name)),
    ):
        used, free = budgets.used(scope, budget, now), budgets.free_at(scope, budget, now)
        text = f"{used} of {budget.count} in {budget.seconds:g} s"
        if free is None or free > now:
            return draft.stop(gate, text, free)
        draft.passed(gate, text)
    whole = policy.budgets.breaker
    used = budgets.used("fleet", whole, now)
    if used >= whole.count:
        draft.trips = True
        return draft.stop("breaker", f"{used} repairs in {whole.seconds:g} s: one more trips it")
    draft.passed("breaker", f"{used} of {whole.count} in {whole.seconds:g} s")
    return None


def _floor(core: HealingCore, condition: Condition, issue: Issue, now: float, draft: Draft) -> Draft | None:
    """Ask whether enough of the fleet is healthy, without this node."""
    del condition, now
    rung = draft.rung
    assert rung is not None
    if rung.risk is Risk.SAFE and not rung.takes_out:
        return None
    healthy, total = core.healthy_others(issue.node)
    among = total if rung.takes_out else total - 1
    share = healthy / among if among > 0 else 1.0
    text = f"{healthy} of {among} nodes are healthy" + (" without this one" if rung.takes_out else "")
    if share < core.policy.budgets.floor:
        return draft.stop("floor", f"{text}, {core.policy.budgets.floor:.0%} are asked")
    draft.passed("floor", text)
    return None


def _price(core: HealingCore, condition: Condition, issue: Issue, now: float, draft: Draft) -> Draft | None:
    """Ask what work a repair costs. Without an answer nothing disruptive is done."""
    del condition
    rung, policy = draft.rung, core.policy
    assert rung is not None
    if rung.risk is Risk.SAFE:
        return None
    known = core.work.get(issue.node)
    if known is None or now - known[0] > policy.price.fresh:
        draft.asks_work = True
        return draft.stop("price", "asked what runs there", now + policy.retry)
    whole = rung.target(issue.node, issue.entity) == issue.node
    attempts = known[1] if whole else [a for a in known[1] if a.entity == issue.entity]
    cost = draft.price = price(attempts, now, policy.price.drain)
    text = tell(cost)
    limit = policy.price_limit(rung.name)
    if not _approved(core, issue, now) and (cost.at_risk or cost.lost > limit):
        why = f"{cost.at_risk} may run only once" if cost.at_risk else f"{limit:g} are allowed"
        return _ask(core, issue, "price", f"{text}; {why}", now, draft)
    draft.passed("price", text)
    return None


def tell(cost: Price) -> str:
    """Return a price in words."""
    match cost.way:
        case Way.NONE:
            return "nothing runs there"
        case Way.DRAIN:
            return (
                f"{cost.attempts} attempts; a drain of {cost.wait:.0f} s loses {cost.lost_drained:.0f} "
                f"task-seconds, fencing now {cost.lost_now:.0f}"
            )
        case Way.FENCE:
            return (
                f"{cost.attempts} attempts; fencing now loses {cost.lost_now:.0f} task-seconds, "
                f"a drain of {cost.wait:.0f} s {cost.lost_drained:.0f}"
            )


def _consent(core: HealingCore, issue: Issue, mode: Mode, now: float, draft: Draft) -> Draft:
    rung = draft.rung
    assert rung is not None
    if _approved(core, issue, now):
        draft.by = issue.approved_by
        draft.passed("consent", f"allowed by {draft.by}")
    elif mode is Mode.APPROVE:
        return _ask(core, issue, "consent", f"{rung.name} needs a person's approval", now, draft)
    elif mode is Mode.SUGGEST:
        return draft.stop("consent", f"{rung.name} would be the next repair", None, Verdict.SUGGEST)
    else:
        draft.passed("consent", "none is needed")
    dry = core.control_over(ControlKind.DRY_RUN, issue.key, now)
    if core.policy.dry_run or dry is not None:
        by = f"by {dry.by}: {dry.reason}" if dry is not None else "by the policy"
        return draft.stop("dry_run", by, None, Verdict.WOULD_ACT)
    draft.verdict, draft.reason = Verdict.ACT, "act"
    return draft


def _ask(core: HealingCore, issue: Issue, gate: str, text: str, now: float, draft: Draft) -> Draft:
    """Ask a person; one that nobody answers is escalated."""
    asked_at, evidence = core.asked.get(issue.issue_id, (math.inf, 0))
    over = asked_at + core.policy.approval
    if evidence == issue.evidence and now >= over:
        return draft.stop("unanswered", f"{text}; nobody has answered", None, Verdict.ESCALATE)
    again = over if evidence == issue.evidence else now + core.policy.approval
    return draft.stop(gate, text, again, Verdict.ASK)
