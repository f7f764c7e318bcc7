"""Repairs under way: granted under a lease, ended, given up, and verified by the monitor that fired."""

from __future__ import annotations

from typing import TYPE_CHECKING

from omnimind.healing import watch
from omnimind.healing.actions import ActionStatus, RemediationAction, copy
from omnimind.healing.controls import Score
from omnimind.healing.decide import Draft
from omnimind.healing.events import ActionEnded, Observation
from omnimind.healing.issues import Issue, Outcome, Tried
from omnimind.healing.issues import copy as copy_issue
from omnimind.healing.records import Abort, Act, ActionSaved, Effects, Probe, ScoreSaved, Told

if TYPE_CHECKING:
    from omnimind.healing.conditions import Condition
    from omnimind.healing.core import HealingCore

DETAILS = 2000
"""Most characters that are kept of what a remediation says."""


def grant(
    core: HealingCore, issue: Issue, draft: Draft, decision_id: str, now: float, fx: Effects
) -> RemediationAction:
    """Begin a repair: charge the budgets, take the lease, note the rung as tried."""
    rung = draft.rung
    assert rung is not None
    target = rung.target(issue.node, issue.entity)
    action = RemediationAction(
        issue_type=issue.issue_type,
        action=rung.name,
        action_id=core.next_id("act"),
        issue_id=issue.issue_id,
        decision_id=decision_id,
        node=issue.node,
        target=target,
        risk=rung.risk,
        takes_out=rung.takes_out,
        fence=core.next_fence(),
        evidence=issue.evidence,
        started_at=now,
        deadline=now + rung.timeout,
        lease_until=now + rung.timeout + core.policy.lease_margin,
        by=draft.by,
        price=draft.price,
    )
    core.hold(action)
    core.charge(action, now)
    core.alarms.set(action.deadline, "timeout", action.action_id)
    issue.tried = (*issue.tried, Tried(rung.name, issue.evidence, action.action_id))
    issue.approved = issue.approved_by = ""
    core.asked.pop(issue.issue_id, None)
    issue.remediation_attempted, issue.remediation_details = True, f"{rung.name} is running"
    if core.turn is not None:
        core.acted[issue.issue_id] = core.turn
    core.count("remediations")
    _save(action, fx)
    watch.save(core, issue, fx)
    fx.sends.append(Act(copy(action), copy_issue(issue)))
    return action


def ended(core: HealingCore, event: ActionEnded, now: float, fx: Effects) -> None:
    """Take in how a repair went. Anything but the word of whoever holds the lease changes nothing."""
    action = core.actions.get(event.action_id)
    if action is None or action.fence != event.fence:
        core.count("stale_ends")
        return
    if action.status is not ActionStatus.RUNNING:
        if action.status is ActionStatus.ENDED:
            core.release(action, now, fx)  # it was given up; now it is known that nothing runs any more
        return
    action.success, action.details = event.success, event.details[:DETAILS]
    action.ended_at = now
    issue = core.issues.get(action.issue_id)
    core.count("successful_remediations" if event.success else "failed_remediations")
    if issue is not None:
        issue.remediation_successful = event.success
        went = "has ended" if event.success else "has failed"
        issue.remediation_details = action.details or f"{action.action} {went}"
        watch.save(core, issue, fx)
    if not event.success or issue is None:
        conclude(core, action, Outcome.NOT_FIXED if issue is not None else Outcome.UNKNOWN, now, fx)
        return
    rung = core.rungs.get(action.action)
    wait = core.policy.rung(rung).verify if rung is not None else 0.0
    action.status = ActionStatus.VERIFYING
    action.verify_until = now + wait
    action.lease_until = max(now, action.verify_until)
    _save(action, fx)
    core.alarms.set(action.verify_until + GRACE, "verify", action.action_id)
    fx.sends.append(Probe(issue.monitor, issue.node, issue.entity, issue.issue_id))


GRACE = 5.0
"""Seconds that the monitor's answer may take beyond the time within which a repair must have worked."""


def timed_out(core: HealingCore, action_id: str, now: float, fx: Effects) -> None:
    """Give up a repair that has not ended in its time. Its lease stands until nothing can run any more."""
    action = core.actions.get(action_id)
    if action is not None and action.status is ActionStatus.RUNNING and now >= action.deadline:
        give_up(core, action, f"it did not end within {now - action.started_at:.0f} s", now, fx)


def give_up(core: HealingCore, action: RemediationAction, why: str, now: float, fx: Effects) -> None:
    """End a repair whose end was not heard of."""
    fx.sends.append(Abort(action.action_id, action.node, action.target, action.fence))
    action.details, action.ended_at = why, now
    core.count("failed_remediations")
    issue = core.issues.get(action.issue_id)
    if issue is not None:
        issue.remediation_successful, issue.remediation_details = False, why
        watch.save(core, issue, fx)
    conclude(core, action, Outcome.UNKNOWN, now, fx, keep_lease=True)


def verify_by(
    core: HealingCore, condition: Condition, event: Observation, bad: bool, now: float, fx: Effects
) -> None:
    """Let the monitor that fired judge a repair that has ended."""
    issue = condition.issue
    action = None if issue is None else core.running_for(issue.issue_id)
    if issue is None or action is None or action.status is not ActionStatus.VERIFYING:
        return
    assert action.ended_at is not None
    assert action.verify_until is not None
    if event.monitor != issue.monitor or (event.at or now) < action.ended_at:
        return
    if not bad and not condition.bad:
        conclude(core, action, Outcome.FIXED, now, fx)
    elif bad and now >= action.verify_until:
        conclude(core, action, Outcome.NOT_FIXED, now, fx)


def verify_over(core: HealingCore, action_id: str, now: float, fx: Effects) -> None:
    """Judge a repair whose time to work is over by the last word of the monitor."""
    action = core.actions.get(action_id)
    if action is None or action.status is not ActionStatus.VERIFYING or action.ended_at is None:
        return
    issue = core.issues.get(action.issue_id)
    condition = None if issue is None else core.conditions.get(issue.key)
    seen = condition is not None and condition.bad and condition.seen > action.ended_at
    conclude(core, action, Outcome.NOT_FIXED if seen else Outcome.UNKNOWN, now, fx)


def conclude(
    core: HealingCore,
    action: RemediationAction,
    outcome: Outcome,
    now: float,
    fx: Effects,
    *,
    keep_lease: bool = False,
) -> None:
    """Write down what a repair has done, and look at its issue again."""
    action.status, action.outcome, action.verified_at = ActionStatus.ENDED, outcome, now
    _save(action, fx)
    score(core, action, 1, int(outcome is Outcome.FIXED), fx)
    core.done_with(action)
    issue = core.issues.get(action.issue_id)
    if outcome is Outcome.FIXED:
        core.count("verified_fixes")
        if issue is not None:
            core.last_fix[issue.issue_id] = action
    if not keep_lease:
        core.release(action, now, fx)
    if issue is None:
        return
    issue.verified = outcome
    watch.save(core, issue, fx)
    condition = core.conditions.get(issue.key)
    if condition is None:
        return
    if condition.bad:
        core.consider(condition, now, fx)
    else:
        watch.hold_over(core, issue.key, now, fx)


def did_not_last(core: HealingCore, issue: Issue, now: float, fx: Effects) -> None:
    """Take back that an issue was fixed: it has come back too soon."""
    action = core.last_fix.pop(issue.issue_id, None)
    if action is None:
        return
    action.outcome, action.verified_at = Outcome.NOT_FIXED, now
    action.details = f"{action.details}; it did not last".lstrip("; ")
    issue.verified = Outcome.NOT_FIXED
    core.count("verified_fixes", -1)
    core.count("did_not_last")
    _save(action, fx)
    score(core, action, 0, -1, fx)


def score(core: HealingCore, action: RemediationAction, tried: int, fixed: int, fx: Effects) -> None:
    """Count a try, and whether it fixed the issue."""
    key = (action.issue_type.value, action.action)
    before = core.scores.get(key, (0, 0))
    after = core.scores[key] = (before[0] + tried, max(0, before[1] + fixed))
    fx.records.append(ScoreSaved(Score(*key, *after)))


def _save(action: RemediationAction, fx: Effects) -> None:
    now = copy(action)
    fx.records.append(ActionSaved(now))
    fx.sends.append(Told(now))
