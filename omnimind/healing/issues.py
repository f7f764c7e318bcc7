"""`Issue`: a condition that persisted. Its key is (type, node, entity): one issue for each key at a time.

Its life::

    (bad for `persist` seconds) ──> open ──ok──> holding ──ok for `hold_down` seconds──> closed
                                     ^              |
                                     +─────bad──────+

`evidence` counts what is known against the machine: it grows when the condition gets worse than it has ever
been in this issue. A rung is tried at most once on the same evidence.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import msgspec


class IssueType(StrEnum):
    """What can be wrong."""

    RESOURCE_EXHAUSTION = "resource_exhaustion"
    PERFORMANCE_DEGRADATION = "performance_degradation"
    SERVICE_FAILURE = "service_failure"
    MEMORY_LEAK = "memory_leak"
    NETWORK_ISSUE = "network_issue"
    DISK_FULL = "disk_full"
    PROCESS_CRASH = "process_crash"


class IssueSeverity(StrEnum):
    """How bad it is. `info` is written down and never acted on."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"
    CRITICAL = "critical"

    @property
    def rank(self) -> int:
        """Return 0 for info up to 3 for critical."""
        return _RANK[self]


_RANK = {severity: rank for rank, severity in enumerate(IssueSeverity)}


class IssueStatus(StrEnum):
    """Where an issue is in its life."""

    OPEN = "open"
    HOLDING = "holding"
    CLOSED = "closed"


class Outcome(StrEnum):
    """What a repair has done, by the monitor that fired; no exception is not `fixed`."""

    FIXED = "fixed"
    NOT_FIXED = "not_fixed"
    UNKNOWN = "unknown"


Key = tuple[str, str, str]
"""(type, node, entity)"""


class Tried(msgspec.Struct, frozen=True, array_like=True):
    """A rung that was tried: on which evidence, as which action ("" when a person turned it down)."""

    rung: str
    evidence: int
    action_id: str


class Issue(msgspec.Struct, weakref=True):
    """A condition that persisted.

    remediation_successful: the last repair said so; `verified` is what the monitor said afterwards. monitor:
    the one that fired first, and verifies. observers: all that have seen it in this issue. worst: the
    severity that `evidence` is about. relapse_of: the issue that had been closed shortly before. confidence:
    how far the last observer trusts itself, 0 to 1. suggestions: for a person. Times in Unix seconds.
    """

    issue_type: IssueType
    severity: IssueSeverity
    description: str
    metrics: dict[str, Any] = msgspec.field(default_factory=dict)
    remediation_attempted: bool = False
    remediation_successful: bool = False
    remediation_details: str = ""
    issue_id: str = ""
    node: str = ""
    entity: str = ""
    status: IssueStatus = IssueStatus.OPEN
    verified: Outcome | None = None
    monitor: str = ""
    observers: tuple[str, ...] = ()
    opened_at: float = 0.0
    last_seen: float = 0.0
    closed_at: float | None = None
    cause: str = ""
    evidence: int = 1
    worst: IssueSeverity = IssueSeverity.INFO
    tried: tuple[Tried, ...] = ()
    flapping: bool = False
    confidence: float = 1.0
    relapse_of: str = ""
    escalated: int = 0
    """The evidence on which a person was told, 0 when nobody was."""
    approved: str = ""
    """A rung that a person has allowed and that has not run yet; `approved_by` whom, since `approved_at`."""
    approved_by: str = ""
    approved_at: float = 0.0
    rejected: int = 0
    """The evidence on which a person has refused to go on."""
    suggestions: tuple[str, ...] = ()

    @property
    def key(self) -> Key:
        """Return (type, node, entity)."""
        return (self.issue_type.value, self.node, self.entity)

    @property
    def live(self) -> bool:
        """Return whether it is not closed."""
        return self.status is not IssueStatus.CLOSED

    def has_tried(self, rung: str) -> bool:
        """Return whether a rung was tried on the present evidence."""
        return any(t.rung == rung and t.evidence == self.evidence for t in self.tried)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return dict(msgspec.to_builtins(self, enc_hook=str, str_keys=True))


def copy(issue: Issue) -> Issue:
    """Return an issue as it is now, for a record."""
    return msgspec.structs.replace(issue)
