"""A new core takes over from the ledger what its predecessor knew."""

from __future__ import annotations

from typing import TYPE_CHECKING

from omnimind.healing import events as ev
from omnimind.healing.actions import ActionStatus, RemediationAction
from omnimind.healing.conditions import Condition
from omnimind.healing.issues import Issue, IssueStatus, Outcome
from omnimind.healing.records import Effects

if TYPE_CHECKING:
    from omnimind.healing.core import HealingCore


def recover(core: HealingCore, event: ev.Recovered, now: float, fx: Effects) -> None:
    """Restore issues, leases, budgets, controls and scores. Nothing is done for the policy's `grace`.

    Repairs that ran when the predecessor died keep their leases: whoever runs them reports to the new core,
    or their time runs out. A repair that was granted but never sent runs out likewise.
    """
    del fx
    core.epoch = event.epoch
    if event.policy is not None:
        core.use(event.policy)
    core.ready_at = now + core.policy.grace
    core.breaker = event.breaker
    for control in event.controls:
        core.controls[control.name] = control
        for when in (control.begins, control.until):
            if when is not None:
                core.alarms.set(max(when, now), "control", control.name)
    for score in event.scores:
        core.scores[score.issue_type, score.rung] = (score.tried, score.fixed)
    for issue in event.issues:
        _restore_issue(core, issue, now)
    for action in event.actions:
        core.charge(action, action.started_at)
    # What is under way has its lease for sure; what was given up has one only where nothing else has.
    for action in sorted(event.actions, key=lambda action: action.status is ActionStatus.ENDED):
        _restore_action(core, action, now)
    core.alarms.set(core.ready_at, "control", "")


def _restore_issue(core: HealingCore, issue: Issue, now: float) -> None:
    if issue.status is IssueStatus.CLOSED:
        if issue.closed_at is not None and now < issue.closed_at + core.policy.detection.relapse:
            core.closed[issue.key] = issue
            core.alarms.set(issue.closed_at + core.policy.detection.relapse, "relapse", issue.key)
        return
    last = ev.Observation(
        monitor=issue.monitor,
        issue_type=issue.issue_type,
        node=issue.node,
        entity=issue.entity,
        bad=True,
        severity=issue.severity,
        description=issue.description,
        metrics=issue.metrics,
        confidence=issue.confidence,
        at=issue.last_seen,
    )
    condition = Condition(issue.key, last, core.rule(last), issue.opened_at)
    condition.seen, condition.issue = issue.last_seen, issue
    condition.says[f"{issue.monitor}@{issue.node}"] = condition.bad = issue.status is IssueStatus.OPEN
    core.conditions[issue.key] = condition
    core.remember(issue)
    if not condition.bad:
        condition.since = now  # it has to hold again: nobody has watched in between
        core.alarms.set(now + condition.hold_down, "hold", issue.key)
    core.mark(issue)


def _restore_action(core: HealingCore, action: RemediationAction, now: float) -> None:
    match action.status:
        case ActionStatus.RUNNING:
            core.hold(action)
            core.alarms.set(action.deadline, "timeout", action.action_id)
        case ActionStatus.VERIFYING:
            core.hold(action)
            core.alarms.set(action.verify_until or 0.0, "verify", action.action_id)
        case ActionStatus.ENDED if action.outcome is Outcome.FIXED:
            issue = core.issues.get(action.issue_id)
            closed = [i for i in core.closed.values() if i.issue_id == action.issue_id]
            if issue is not None or closed:
                core.last_fix[action.issue_id] = action
        case ActionStatus.ENDED:
            # Given up, and perhaps still running: its lease stands.
            perhaps = action.outcome is Outcome.UNKNOWN and now < action.lease_until
            if perhaps and core.holder(action.target) is None:
                core.hold(action)
                core.done_with(action)
