"""What the healer asks the ledger to write, what it asks of the world, and `Effects`, which joins them.

The sends of one event may leave only when its records are durable: a repair that nobody could read about
afterwards does not begin.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from omnimind.errors import OmniMindError
from omnimind.healing.actions import RemediationAction
from omnimind.healing.controls import Breaker, Control, Score
from omnimind.healing.events import Observation
from omnimind.healing.issues import Issue
from omnimind.healing.policy import Policy
from omnimind.healing.price import Price


class Verdict(StrEnum):
    """What a decision comes to."""

    ACT = "act"
    WOULD_ACT = "would_act"
    SUGGEST = "suggest"
    ASK = "ask"
    ESCALATE = "escalate"
    NOTHING = "nothing"


class Step(msgspec.Struct, frozen=True, array_like=True):
    """One question on the way to a decision, whether it was passed, and the answer in words."""

    gate: str
    passed: bool
    text: str


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """What the healer chose, including nothing, and why: the questions in the order in which they were asked.

    reason: the gate that decided. again_at: when it will be looked at again by itself, None when only an
    event can change it. by: the person who had allowed it.
    """

    decision_id: str
    at: float
    issue_id: str
    verdict: Verdict
    reason: str
    rung: str
    evidence: int
    steps: tuple[Step, ...]
    price: Price | None = None
    again_at: float | None = None
    action_id: str = ""
    by: str = ""


class IssueSaved(msgspec.Struct, frozen=True, tag=True):
    """Insert or replace an issue."""

    issue: Issue


class ActionSaved(msgspec.Struct, frozen=True, tag=True):
    """Insert or replace an action."""

    action: RemediationAction


class DecisionSaved(msgspec.Struct, frozen=True, tag=True):
    """Append a decision."""

    decision: Decision


class ControlSaved(msgspec.Struct, frozen=True, tag=True):
    """Insert or replace a control by its name."""

    control: Control


class ControlRemoved(msgspec.Struct, frozen=True, tag=True):
    """Forget a control. by: who ended it, "" when its time was over."""

    name: str
    by: str


class BreakerSaved(msgspec.Struct, frozen=True, tag=True):
    """The breaker has tripped, or (None) was closed by somebody."""

    breaker: Breaker | None
    by: str = ""


class ScoreSaved(msgspec.Struct, frozen=True, tag=True):
    """Insert or replace a score."""

    score: Score


class PolicySaved(msgspec.Struct, frozen=True, tag=True):
    """Another policy is in force."""

    policy: Policy
    by: str


class ObservationSaved(msgspec.Struct, frozen=True, tag=True):
    """Append an observation, for `replay`: one that says something else than the one before it."""

    observation: Observation


class Said(msgspec.Struct, frozen=True, tag=True):
    """Append what a person has said about an issue."""

    at: float
    by: str
    verb: str
    issue_id: str
    text: str = ""


Record = (
    IssueSaved
    | ActionSaved
    | DecisionSaved
    | ControlSaved
    | ControlRemoved
    | BreakerSaved
    | ScoreSaved
    | PolicySaved
    | ObservationSaved
    | Said
)


class Act(msgspec.Struct, frozen=True):
    """Run a repair under its lease: not after `action.lease_until`, nor below a newer fence of its target."""

    action: RemediationAction
    issue: Issue


class Abort(msgspec.Struct, frozen=True):
    """End a repair that runs: its time is over, or the kill switch was used."""

    action_id: str
    node: str
    target: str
    fence: int


class Probe(msgspec.Struct, frozen=True):
    """Ask the monitor that fired to look at its condition again, now."""

    monitor: str
    node: str
    entity: str
    issue_id: str


class AskWork(msgspec.Struct, frozen=True):
    """Ask the coordinator what runs on a node; answered by `events.Work`."""

    node: str


class Alert(msgspec.Struct, frozen=True):
    """Tell a person.

    kind: ``escalated``, ``approval``, ``suggestion``, ``breaker``, ``crowded`` or ``flapping``.
    """

    kind: str
    severity: str
    message: str
    issue_id: str = ""


class Told(msgspec.Struct, frozen=True):
    """Tell streams and metrics of a change of an issue or an action (copies)."""

    what: Issue | RemediationAction


class Refused(msgspec.Struct, frozen=True):
    """What a person asked for cannot be done."""

    error: OmniMindError


Send = Act | Abort | Probe | AskWork | Alert | Told | Refused


class Effects(msgspec.Struct):
    """What `handle` returns. The sends may leave only when the records are durable."""

    records: list[Record] = msgspec.field(default_factory=list)
    sends: list[Send] = msgspec.field(default_factory=list)
