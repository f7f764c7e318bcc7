"""Repairs: what may be done (`Rung`), and what was done (`RemediationAction`)."""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import Any

import msgspec

from omnimind.healing.issues import IssueType, Outcome
from omnimind.healing.price import Price


class Risk(IntEnum):
    """What a repair may break. Gentler rungs always come first."""

    SAFE = 0
    DISRUPTIVE = 1
    DESTRUCTIVE = 2


class Mode(StrEnum):
    """What the healer may do with a repair by itself.

    observe: nothing. suggest: name it. approve: ask a person, and wait. auto: do it.
    """

    OBSERVE = "observe"
    SUGGEST = "suggest"
    APPROVE = "approve"
    AUTO = "auto"


class Rung(msgspec.Struct, frozen=True, kw_only=True):
    """One way to repair an issue type, as its plug-in declares it. Times in seconds.

    name: of the remediation. order: among those of the same risk, gentlest first. host: it touches what is
    not OmniMind's own. takes_out: the node does no work afterwards (drain, restart). whole_node: it acts on
    the node, not only on the issue's entity. timeout: it is given up then. verify: within which the monitor
    must say that it worked; 0: its first word counts. cooldown: before it may act on the same target.
    """

    name: str
    issue_type: IssueType
    risk: Risk
    order: int = 0
    host: bool = False
    takes_out: bool = False
    whole_node: bool = False
    timeout: float = 30.0
    verify: float = 10.0
    cooldown: float = 60.0
    description: str = ""

    def target(self, node: str, entity: str) -> str:
        """Return what it acts on: a node, or an entity on it."""
        return node if self.whole_node or self.takes_out or not entity else f"{node}/{entity}"


class ActionStatus(StrEnum):
    """Where a repair is in its life."""

    RUNNING = "running"
    VERIFYING = "verifying"
    ENDED = "ended"


class RemediationAction(msgspec.Struct, weakref=True):
    """One run of a remediation.

    action: the remediation's name. success: what the remediation itself said. outcome: what the monitor
    said afterwards, None until then. fence: of its lease on `target`, which holds until `lease_until`.
    by: the person who allowed it, "" when nobody had to. price: in work, None for a safe one.
    """

    issue_type: IssueType
    action: str
    success: bool = False
    details: str = ""
    action_id: str = ""
    issue_id: str = ""
    decision_id: str = ""
    node: str = ""
    target: str = ""
    risk: Risk = Risk.SAFE
    takes_out: bool = False
    fence: int = 0
    status: ActionStatus = ActionStatus.RUNNING
    outcome: Outcome | None = None
    evidence: int = 1
    started_at: float = 0.0
    ended_at: float | None = None
    deadline: float = 0.0
    lease_until: float = 0.0
    verify_until: float | None = None
    verified_at: float | None = None
    by: str = ""
    price: Price | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return dict(msgspec.to_builtins(self))


def copy(action: RemediationAction) -> RemediationAction:
    """Return an action as it is now, for a record."""
    return msgspec.structs.replace(action)
