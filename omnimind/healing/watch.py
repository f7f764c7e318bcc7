"""From observations to issues: persistence, thresholds, hold-down, flapping, one issue for each key."""

from __future__ import annotations

from typing import TYPE_CHECKING

from omnimind.healing import acting
from omnimind.healing.conditions import REPEAT, Condition, is_bad
from omnimind.healing.events import Observation
from omnimind.healing.issues import Issue, IssueStatus, Key, copy
from omnimind.healing.records import Alert, Effects, IssueSaved, ObservationSaved, Told

if TYPE_CHECKING:
    from omnimind.healing.core import HealingCore

OBSERVERS = 16
"""Most observers, and most voices, that are remembered of one condition."""


def observe(core: HealingCore, event: Observation, now: float, fx: Effects) -> None:
    """Take in an observation."""
    key = event.key
    condition = core.conditions.get(key)
    if condition is None:
        rule = core.rule(event)
        if not is_bad(event, rule, was_bad=False):
            return
        if len(core.conditions) >= core.most_conditions:
            core.crowded(now, fx)
            return
        condition = core.conditions[key] = Condition(key, event, rule, now)
        condition.says[_voice(event)] = True
        core.alarms.set(now + condition.persist, "persist", key)
        bad = True
    else:
        voice = _voice(event)
        bad = is_bad(event, condition.rule, was_bad=condition.says.get(voice, condition.bad))
        if voice in condition.says or len(condition.says) < OBSERVERS:
            condition.says[voice] = bad
        _change(core, condition, event, now, fx)
    if bad:
        condition.seen, condition.last = now, event
    if condition.worth_recording(event, bad, now):
        fx.records.append(ObservationSaved(event))
    if condition.bad and condition.issue is None and now >= condition.since + condition.persist:
        open_issue(core, condition, now, fx)
    elif condition.issue is not None and bad:
        _update(core, condition, condition.issue, event, now, fx)
    if condition.issue is not None:
        acting.verify_by(core, condition, event, bad, now, fx)


def _voice(event: Observation) -> str:
    return f"{event.monitor}@{event.observer or event.node}"


def _change(core: HealingCore, condition: Condition, event: Observation, now: float, fx: Effects) -> None:
    """Bring a condition up to date with all its voices: bad as long as one of them says so."""
    bad = any(condition.says.values())
    if bad is condition.bad:
        return
    condition.flip(bad, now, core.policy.detection)
    issue = condition.issue
    if bad:
        condition.last = event
        if issue is not None:
            issue.status, issue.cause = IssueStatus.OPEN, "it came back before it could be closed"
            save(core, issue, fx)
            acting.did_not_last(core, issue, now, fx)
            core.consider(condition, now, fx)
        elif condition.flapping(now, core.policy.detection):
            open_issue(core, condition, now, fx)
        else:
            core.alarms.set(now + condition.persist, "persist", condition.key)
    elif issue is not None:
        issue.status, issue.cause = IssueStatus.HOLDING, "its monitor no longer sees it"
        save(core, issue, fx)
        core.alarms.set(now + condition.hold_down, "hold", condition.key)
        hold_over(core, condition.key, now, fx)
    else:
        core.alarms.set(condition.quiet_at(core.policy.detection), "quiet", condition.key)


def open_issue(core: HealingCore, condition: Condition, now: float, fx: Effects) -> None:
    """Open the issue of a condition, or go on with the one that was closed a short while ago."""
    last = condition.last
    closed = core.closed.pop(condition.key, None)
    issue = Issue(
        issue_type=last.issue_type,
        severity=last.severity,
        description=last.description,
        metrics=last.metrics,
        issue_id=core.next_id("iss"),
        node=last.node,
        entity=last.entity,
        monitor=last.monitor,
        observers=_observers((), last),
        opened_at=now,
        last_seen=now,
        cause=f"bad for {now - condition.since:.1f} s",
        worst=last.severity,
        confidence=last.confidence,
        flapping=condition.flapping(now, core.policy.detection),
    )
    if closed is not None:
        # What was tried did not last: the ladder goes on where it was.
        issue.relapse_of, issue.evidence, issue.tried = closed.issue_id, closed.evidence, closed.tried
        if last.severity.rank > closed.worst.rank:
            issue.evidence += 1
        else:
            issue.worst = closed.worst
        acting.did_not_last(core, closed, now, fx)
        core.last_fix.pop(closed.issue_id, None)
    if issue.flapping:
        fx.sends.append(
            Alert("flapping", issue.severity, f"it keeps changing: {_name(issue)}", issue.issue_id)
        )
    condition.issue = issue
    core.remember(issue)
    core.count("issues_detected")
    save(core, issue, fx)
    core.consider(condition, now, fx)


def _update(
    core: HealingCore, condition: Condition, issue: Issue, event: Observation, now: float, fx: Effects
) -> None:
    """Take a bad observation into an open issue; it is written again only when it says something else."""
    issue.last_seen, issue.confidence = now, event.confidence
    observers = _observers(issue.observers, event)
    flapping = condition.flapping(now, core.policy.detection)
    changed = (
        event.severity is not issue.severity
        or (event.description != issue.description and now - condition.saved >= REPEAT)
        or len(observers) != len(issue.observers)
        or flapping is not issue.flapping
    )
    if flapping and not issue.flapping:
        fx.sends.append(
            Alert("flapping", issue.severity, f"it keeps changing: {_name(issue)}", issue.issue_id)
        )
    issue.severity, issue.description, issue.metrics = event.severity, event.description, event.metrics
    issue.observers, issue.flapping = observers, flapping
    worse = event.severity.rank > issue.worst.rank
    if worse:
        issue.worst = event.severity
        issue.evidence += 1
    if changed:
        condition.saved = now
        save(core, issue, fx)
    if worse or core.waits_for_sight(issue):
        core.consider(condition, now, fx)


def persisted(core: HealingCore, key: Key, now: float, fx: Effects) -> None:
    """Open an issue when its condition has been bad for its time."""
    condition = core.conditions.get(key)
    if condition is None or not condition.bad or condition.issue is not None:
        return
    at = condition.since + condition.persist
    if now >= at:
        open_issue(core, condition, now, fx)
    else:
        core.alarms.set(at, "persist", key)


def hold_over(core: HealingCore, key: Key, now: float, fx: Effects) -> None:
    """Close an issue whose condition has been good for its time; a flapping one must have been quiet too."""
    condition = core.conditions.get(key)
    if condition is None or condition.bad or condition.issue is None:
        return
    issue = condition.issue
    ready = condition.since + condition.hold_down
    if issue.flapping:
        ready = max(ready, condition.quiet_at(core.policy.detection))
    if core.running_for(issue.issue_id) is not None:
        return  # its end looks again
    if now < ready:
        core.alarms.set(ready, "hold", key)
        return
    issue.status, issue.closed_at = IssueStatus.CLOSED, now
    issue.cause = f"good for {now - condition.since:.1f} s"
    save(core, issue, fx)
    core.forget(issue)
    condition.issue = None
    core.closed[key] = issue
    core.alarms.set(now + core.policy.detection.relapse, "relapse", key)
    core.alarms.set(condition.quiet_at(core.policy.detection), "quiet", key)
    quiet(core, key, now)


def quiet(core: HealingCore, key: Key, now: float) -> None:
    """Forget a condition that is good and has not changed for a while."""
    condition = core.conditions.get(key)
    if condition is None or condition.bad or condition.issue is not None:
        return
    at = condition.quiet_at(core.policy.detection)
    if now >= at:
        del core.conditions[key]
    else:
        core.alarms.set(at, "quiet", key)


def relapse_over(core: HealingCore, key: Key, now: float) -> None:
    """Forget a closed issue that has not come back."""
    closed = core.closed.get(key)
    if closed is None or closed.closed_at is None:
        return
    at = closed.closed_at + core.policy.detection.relapse
    if now >= at:
        del core.closed[key]
        core.last_fix.pop(closed.issue_id, None)
    else:
        core.alarms.set(at, "relapse", key)


def node_removed(core: HealingCore, node: str, now: float, fx: Effects) -> None:
    """Close every issue of a node that is gone for good, and forget its conditions."""
    for key in [key for key in core.conditions if key[1] == node]:
        issue = core.conditions.pop(key).issue
        if issue is not None:
            issue.status, issue.closed_at, issue.cause = IssueStatus.CLOSED, now, "its node was removed"
            save(core, issue, fx)
            core.forget(issue)


def save(core: HealingCore, issue: Issue, fx: Effects) -> None:
    """Note an issue's present state, for the ledger and for whoever listens."""
    core.mark(issue)
    now = copy(issue)
    fx.records.append(IssueSaved(now))
    fx.sends.append(Told(now))


def _observers(known: tuple[str, ...], event: Observation) -> tuple[str, ...]:
    who = event.observer or event.node
    return known if who in known or len(known) >= OBSERVERS else (*known, who)


def _name(issue: Issue) -> str:
    return "/".join(part for part in issue.key if part)
