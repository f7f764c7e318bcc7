"""Everything that can happen to the healer's core. Each enters by ``HealingCore.handle(event, now)``.

All times in Unix seconds. Each is a tagged struct, so that a log of them can be written and read again.
"""

from __future__ import annotations

from typing import Any

import msgspec

from omnimind.healing.actions import RemediationAction, Rung
from omnimind.healing.controls import Breaker, Control, Score
from omnimind.healing.issues import Issue, IssueSeverity, IssueType, Key
from omnimind.healing.policy import Policy
from omnimind.healing.price import Attempt


class Observation(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """What a monitor has seen of one condition.

    bad: its own word; a policy's `enter` and `leave` go before it where `value` (the larger, the worse) is
    given. confidence: how far the observer trusts itself, 0 to 1 (it ran late, it cannot reach its peers).
    observer: who looked, "" for the node itself. at: when it looked.
    """

    monitor: str
    issue_type: IssueType
    node: str
    entity: str = ""
    bad: bool
    severity: IssueSeverity = IssueSeverity.WARNING
    description: str = ""
    metrics: dict[str, Any] = msgspec.field(default_factory=dict)
    value: float | None = None
    confidence: float = 1.0
    observer: str = ""
    at: float = 0.0

    @property
    def key(self) -> Key:
        """Return (type, node, entity)."""
        return (self.issue_type.value, self.node, self.entity)


class RungKnown(msgspec.Struct, frozen=True, tag=True):
    """A remediation is installed (or installed again, with other attributes)."""

    rung: Rung


class ActionEnded(msgspec.Struct, frozen=True, tag=True):
    """Whoever ran a repair says how it went. `fence`: of its lease; an older one is not believed."""

    action_id: str
    fence: int
    success: bool
    details: str = ""


class NodeState(msgspec.Struct, frozen=True, tag=True):
    """What the scheduler knows of a node.

    state: ``up`` (takes work), ``out`` (cordoned, draining, offline) or ``removed`` (forget it).
    """

    node: str
    state: str


class Work(msgspec.Struct, frozen=True, tag=True):
    """What runs on a node now."""

    node: str
    attempts: tuple[Attempt, ...] = ()


class Approve(msgspec.Struct, frozen=True, tag=True):
    """A named person allows the next repair of an issue, or `rung`. Budgets and floors hold all the same."""

    issue_id: str
    by: str
    rung: str = ""


class Reject(msgspec.Struct, frozen=True, tag=True):
    """A named person forbids repairs of an issue until it gets worse."""

    issue_id: str
    by: str
    reason: str


class Suggested(msgspec.Struct, frozen=True, tag=True):
    """Somebody (an agent) adds suggestions to an issue, for a person to read."""

    issue_id: str
    suggestions: tuple[str, ...]


class SetControl(msgspec.Struct, frozen=True, tag=True):
    """A named person pauses, ignores, sets a window, the dry run or the kill switch."""

    control: Control


class EndControl(msgspec.Struct, frozen=True, tag=True):
    """A named person ends a control by its name."""

    name: str
    by: str


class ResetBreaker(msgspec.Struct, frozen=True, tag=True):
    """A named person closes the breaker.

    backlog: ``resume`` looks at the open issues again, one by one; ``skip`` leaves them until they get worse.
    """

    by: str
    backlog: str


class SetPolicy(msgspec.Struct, frozen=True, tag=True):
    """Another policy is in force from now on."""

    policy: Policy
    by: str


class Tick(msgspec.Struct, frozen=True, tag=True):
    """Time passed. turn: a new turn begins, for a core that makes one repair of an issue a turn."""

    turn: bool = False


class Recovered(msgspec.Struct, frozen=True, tag=True):
    """The first event of a core's life: what the ledger holds.

    issues: those that are not closed, and the closed ones that are not older than the policy's `relapse`.
    actions: those that started within the longest window of the budgets, oldest first.
    """

    epoch: int
    issues: tuple[Issue, ...] = ()
    actions: tuple[RemediationAction, ...] = ()
    controls: tuple[Control, ...] = ()
    scores: tuple[Score, ...] = ()
    breaker: Breaker | None = None
    policy: Policy | None = None


Event = (
    Observation
    | RungKnown
    | ActionEnded
    | NodeState
    | Work
    | Approve
    | Reject
    | Suggested
    | SetControl
    | EndControl
    | ResetBreaker
    | SetPolicy
    | Tick
    | Recovered
)
