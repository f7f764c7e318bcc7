"""`explain`: why something was done, or not, as a query over the healer's records. Pure.

The chain is always the same: condition, persistence, mode, budget, price, decision, action, verification.
What was asked on the way stands in the decision's steps, so nothing is worked out again here: the story is
what the healer knew then, not what the world is like now.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import msgspec

from omnimind.errors import NotFound
from omnimind.healing.actions import RemediationAction
from omnimind.healing.decide import tell
from omnimind.healing.issues import Issue
from omnimind.healing.records import (
    ActionSaved,
    BreakerSaved,
    Decision,
    DecisionSaved,
    IssueSaved,
    Record,
    Said,
)


class Story(msgspec.Struct, kw_only=True):
    """What the records say about a subject: issues in their last state, decisions and actions in order."""

    subject: str
    issues: list[Issue] = msgspec.field(default_factory=list)
    decisions: list[Decision] = msgspec.field(default_factory=list)
    actions: list[RemediationAction] = msgspec.field(default_factory=list)
    said: list[Said] = msgspec.field(default_factory=list)
    breaker: list[BreakerSaved] = msgspec.field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return dict(msgspec.to_builtins(self))


def explain(records: Iterable[Record], subject: str) -> Story:
    """Return the story of an issue, a decision or an action (by id), or of a node (by name).

    Raises NotFound when the records do not know it.
    """
    issues: dict[str, Issue] = {}
    actions: dict[str, RemediationAction] = {}
    decisions: list[Decision] = []
    said: list[Said] = []
    breaker: list[BreakerSaved] = []
    for record in records:
        match record:
            case IssueSaved(issue):
                issues[issue.issue_id] = issue
            case ActionSaved(action):
                actions[action.action_id] = action
            case DecisionSaved(decision):
                decisions.append(decision)
            case Said():
                said.append(record)
            case BreakerSaved():
                breaker.append(record)
            case _:
                pass
    wanted = _issues_of(subject, issues, actions, decisions)
    if not wanted:
        raise NotFound(f"no record speaks of {subject!r}", field="subject")
    only = [d for d in decisions if d.decision_id == subject]
    story = Story(
        subject=subject,
        issues=[issues[i] for i in wanted if i in issues],
        decisions=only or [d for d in decisions if d.issue_id in wanted],
        said=[s for s in said if s.issue_id in wanted],
    )
    named = [d.action_id for d in story.decisions]
    story.actions = [a for a in actions.values() if a.action_id in named or a.action_id == subject]
    if any(d.reason == "breaker" for d in story.decisions):
        story.breaker = breaker
    return story


def _issues_of(
    subject: str,
    issues: dict[str, Issue],
    actions: dict[str, RemediationAction],
    decisions: list[Decision],
) -> list[str]:
    if subject in issues:
        return [subject]
    if subject in actions:
        return [actions[subject].issue_id]
    found = [d.issue_id for d in decisions if d.decision_id == subject]
    return found or [i.issue_id for i in issues.values() if i.node == subject]


def as_text(story: Story) -> str:
    """Return a story for people: one paragraph for each issue, one line for each thing that was decided."""
    lines: list[str] = []
    for issue in story.issues:
        place = "/".join(part for part in (issue.node, issue.entity) if part)
        words = [f"{issue.issue_id} {issue.issue_type} on {place}: {issue.status} ({issue.cause})"]
        if issue.description:
            words.append(issue.description)
        words.append(f"{issue.severity}, seen by {', '.join(issue.observers)}")
        if issue.relapse_of:
            words.append(f"it has come back after {issue.relapse_of}")
        if issue.flapping:
            words.append("it keeps changing")
        lines.append("; ".join(words))
        mine = issue.issue_id
        events = [(d.at, _decision(d)) for d in story.decisions if d.issue_id == mine]
        events += [(a.ended_at or a.started_at, _action(a)) for a in story.actions if a.issue_id == mine]
        events += [(s.at, f"{s.by}: {s.verb} {s.text}") for s in story.said if s.issue_id == issue.issue_id]
        lines += [f"  {_time(at)} {text}" for at, text in sorted(events, key=lambda event: event[0])]
    for trip in story.breaker:
        if trip.breaker is None:
            lines.append(f"the breaker was reset by {trip.by}")
        else:
            lines.append(f"{_time(trip.breaker.tripped_at)} the breaker tripped: {trip.breaker.reason}")
    return "\n".join(lines)


def _decision(decision: Decision) -> str:
    what = f"{decision.verdict}" + (f" {decision.rung}" if decision.rung else "")
    steps = "; ".join(f"{'' if s.passed else 'NOT '}{s.gate}: {s.text}" for s in decision.steps)
    again = f"; again at {_time(decision.again_at)}" if decision.again_at is not None else ""
    return f"{decision.decision_id} {what} [{steps}]{again}"


def _action(action: RemediationAction) -> str:
    went = "ended" if action.success else "did not succeed"
    outcome = f"verified: {action.outcome}" if action.outcome is not None else str(action.status)
    parts = [f"{action.action_id} {action.action} on {action.target} {went} ({action.details})", outcome]
    if action.price is not None:
        parts.append(f"price: {tell(action.price)}")
    if action.by:
        parts.append(f"allowed by {action.by}")
    return "; ".join(parts)


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S")
