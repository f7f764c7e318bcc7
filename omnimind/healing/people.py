"""What people say: approvals, refusals, controls, suggestions, the breaker, another policy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from omnimind.errors import Conflict, InvalidInput, NotFound, OmniMindError
from omnimind.healing import acting, watch
from omnimind.healing import events as ev
from omnimind.healing.actions import ActionStatus
from omnimind.healing.controls import ControlKind, check_control
from omnimind.healing.decide import ladder
from omnimind.healing.issues import Issue
from omnimind.healing.records import (
    BreakerSaved,
    ControlRemoved,
    ControlSaved,
    Effects,
    PolicySaved,
    Refused,
    Said,
)

if TYPE_CHECKING:
    from omnimind.healing.core import HealingCore

SUGGESTIONS = 20
"""Most suggestions that an issue keeps."""


def approve(core: HealingCore, event: ev.Approve, now: float, fx: Effects) -> None:
    """Allow the next repair of an issue, or a named one."""
    try:
        issue = _issue(core, event.issue_id, event.by)
        left = [r.name for r in ladder(core, issue) if not issue.has_tried(r.name)]
        rung = event.rung or (left[0] if left else "")
        if not rung or rung not in left:
            told = (
                f"left to approve: {', '.join(left)}" if left else "no remediation is left on this evidence"
            )
            msg = f"{event.rung or 'a remediation'} cannot be approved for {issue.issue_id}"
            raise Conflict(msg, field="rung", hint=told)
    except OmniMindError as error:
        fx.sends.append(Refused(error))
        return
    issue.approved, issue.approved_by, issue.approved_at, issue.rejected = rung, event.by, now, 0
    fx.records.append(Said(now, event.by, "approve", issue.issue_id, rung))
    watch.save(core, issue, fx)
    _again(core, issue, now, fx)


def reject(core: HealingCore, event: ev.Reject, now: float, fx: Effects) -> None:
    """Forbid repairs of an issue until it gets worse."""
    try:
        issue = _issue(core, event.issue_id, event.by)
        if not event.reason.strip():
            raise InvalidInput("a refusal needs a reason", field="reason", hint="others will read it")
    except OmniMindError as error:
        fx.sends.append(Refused(error))
        return
    issue.rejected, issue.approved, issue.approved_by = issue.evidence, "", ""
    fx.records.append(Said(now, event.by, "reject", issue.issue_id, event.reason))
    watch.save(core, issue, fx)
    _again(core, issue, now, fx)


def suggested(core: HealingCore, event: ev.Suggested, _now: float, fx: Effects) -> None:
    """Add suggestions to an issue."""
    issue = core.issues.get(event.issue_id)
    if issue is not None:
        new = [s for s in event.suggestions if s not in issue.suggestions]
        issue.suggestions = (*issue.suggestions, *new)[:SUGGESTIONS]
        watch.save(core, issue, fx)


def set_control(core: HealingCore, event: ev.SetControl, now: float, fx: Effects) -> None:
    """Put a control in force, in place of one of the same name."""
    control = event.control
    try:
        check_control(control, now)
    except OmniMindError as error:
        fx.sends.append(Refused(error))
        return
    core.controls[control.name] = control
    fx.records.append(ControlSaved(control))
    for when in (control.begins, control.until):
        if when is not None and when > now:
            core.alarms.set(when, "control", control.name)
    if control.kind is ControlKind.KILL and control.holds(now):
        abort_all(core, f"the kill switch, by {control.by}: {control.reason}", now, fx)
    if control.kind is ControlKind.DRY_RUN:
        core.reconsider(now)


def end_control(core: HealingCore, event: ev.EndControl, now: float, fx: Effects) -> None:
    """End a control; what it held back is looked at again, one issue after the other."""
    if event.name not in core.controls or not event.by.strip():
        error = (
            NotFound(f"there is no control {event.name!r}", field="name")
            if event.by.strip()
            else InvalidInput("say who ends it", field="by")
        )
        fx.sends.append(Refused(error))
        return
    del core.controls[event.name]
    fx.records.append(ControlRemoved(event.name, event.by))
    core.reconsider(now)


def control_due(core: HealingCore, name: str, now: float, fx: Effects) -> None:
    """Look at a control that begins or is over; the name "" is the grace after a start."""
    if not name:
        core.reconsider(now)
        return
    control = core.controls.get(name)
    if control is None:
        return
    if control.until is not None and now >= control.until:
        del core.controls[name]
        fx.records.append(ControlRemoved(name, ""))
        core.reconsider(now)
        return
    if control.kind is ControlKind.KILL and control.holds(now):
        abort_all(core, f"the kill switch, by {control.by}: {control.reason}", now, fx)
    if control.until is not None:
        core.alarms.set(control.until, "control", name)


def abort_all(core: HealingCore, why: str, now: float, fx: Effects) -> None:
    """End every repair that runs."""
    for action in list(core.actions.values()):
        if action.status is ActionStatus.RUNNING:
            acting.give_up(core, action, f"ended by {why}", now, fx)


def reset_breaker(core: HealingCore, event: ev.ResetBreaker, now: float, fx: Effects) -> None:
    """Close the breaker, by a named person who says what becomes of the backlog."""
    error: OmniMindError | None = None
    if core.breaker is None:
        error = Conflict("the breaker has not tripped")
    elif not event.by.strip():
        error = InvalidInput("a named person resets the breaker", field="by", hint="say who you are")
    elif event.backlog not in {"resume", "skip"}:
        error = InvalidInput(
            f"{event.backlog!r} says nothing about the backlog", field="backlog", hint="give resume or skip"
        )
    if error is not None:
        fx.sends.append(Refused(error))
        return
    core.breaker = None
    core.budgets.clear("fleet")
    fx.records.append(BreakerSaved(None, event.by))
    if event.backlog == "skip":
        for issue in core.issues.values():
            issue.rejected = issue.evidence
            fx.records.append(Said(now, event.by, "skip", issue.issue_id, "the breaker's backlog"))
            watch.save(core, issue, fx)
    core.reconsider(now)


def set_policy(core: HealingCore, event: ev.SetPolicy, now: float, fx: Effects) -> None:
    """Put another policy in force: what is decided from now on is decided by it."""
    core.use(event.policy)
    fx.records.append(PolicySaved(event.policy, event.by))
    core.reconsider(now)


def _issue(core: HealingCore, issue_id: str, by: str) -> Issue:
    if not by.strip():
        raise InvalidInput("say who you are", field="by", hint="others will read it")
    issue = core.issues.get(issue_id)
    if issue is None:
        raise NotFound(f"there is no open issue {issue_id!r}", field="issue_id")
    return issue


def _again(core: HealingCore, issue: Issue, now: float, fx: Effects) -> None:
    condition = core.conditions.get(issue.key)
    if condition is not None and condition.bad:
        core.consider(condition, now, fx)
