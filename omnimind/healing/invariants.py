"""What must be true of a healer's core after every event."""

from __future__ import annotations

from typing import TYPE_CHECKING

from omnimind.healing.actions import ActionStatus
from omnimind.healing.issues import IssueStatus

if TYPE_CHECKING:
    from omnimind.healing.core import HealingCore


def validate(core: HealingCore) -> None:
    """Check the structure of a core; raises AssertionError with the story of what is wrong."""
    for key, condition in core.conditions.items():
        assert condition.key == key
        issue = condition.issue
        if issue is None:
            continue
        story = f"{issue.issue_id} {key} ({issue.status})"
        assert issue.key == key, story
        assert core.issues.get(issue.issue_id) is issue, f"{story}: not among the issues"
        wanted = IssueStatus.OPEN if condition.bad else IssueStatus.HOLDING
        assert issue.status is wanted, f"{story}: its condition says {wanted}"
        tried = [(t.rung, t.evidence) for t in issue.tried]
        assert len(tried) == len(dict.fromkeys(tried)), f"{story}: a rung twice on the same evidence"
    here = sum(len(ids) for ids in core.at_node.values())
    assert here == len(core.issues), f"{len(core.issues)} issues, {here} by node"
    held = sum(c.issue is not None for c in core.conditions.values())
    assert len(core.issues) == held, f"{len(core.issues)} issues, {held} conditions with one"
    for target, action_id in core.leases.items():
        action = core.actions.get(action_id)
        assert action is not None, f"{target} is held by {action_id}, which is not known"
        assert action.target == target
        node = target.partition("/")[0]
        assert target == node or node not in core.leases, f"{target} and {node} are held at once"
    for action in core.actions.values():
        story = f"{action.action_id} {action.action} on {action.target} ({action.status})"
        assert core.leases.get(action.target) == action.action_id, f"{story}: without its lease"
        if action.status is not ActionStatus.ENDED:
            assert action.outcome is None, f"{story}: has an outcome"
            running = core.running_for(action.issue_id)
            assert running is action, f"{story}: its issue has another"
