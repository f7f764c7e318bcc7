"""A healer's core with its hands free: observations go in, records and sends are kept, time is moved by hand.

Faked: whoever runs repairs (the test says how they end). Asserted: records, sends, and after every event the
core's invariants. Left alone: nothing of the core.
"""

from __future__ import annotations

from typing import Any, TypeVar

import pytest

from omnimind.healing import events as ev
from omnimind.healing.actions import RemediationAction, Risk, Rung
from omnimind.healing.core import HealingCore
from omnimind.healing.issues import Issue, IssueSeverity, IssueType
from omnimind.healing.policy import Policy
from omnimind.healing.policy_load import load
from omnimind.healing.records import Act, Alert, Decision, DecisionSaved, Record, Refused, Send

T = TypeVar("T")

START = 1_000_000.0

RUNGS = (
    Rung(name="gentle", issue_type=IssueType.SERVICE_FAILURE, risk=Risk.SAFE, cooldown=0.0),
    Rung(name="restart", issue_type=IssueType.SERVICE_FAILURE, risk=Risk.DISRUPTIVE, cooldown=0.0),
    Rung(
        name="drain",
        issue_type=IssueType.SERVICE_FAILURE,
        risk=Risk.DISRUPTIVE,
        order=1,
        takes_out=True,
        cooldown=0.0,
    ),
    Rung(name="reboot", issue_type=IssueType.SERVICE_FAILURE, risk=Risk.DESTRUCTIVE, takes_out=True),
)


class Driver:
    """Drives one core."""

    def __init__(self, policy: Policy, rungs: tuple[Rung, ...] = RUNGS, nodes: int = 3) -> None:
        self.core = HealingCore(policy)
        self.now = START
        self.records: list[Record] = []
        self.sends: list[Send] = []
        self.feed(ev.Recovered(1))
        for rung in rungs:
            self.feed(ev.RungKnown(rung))
        for number in range(nodes):
            self.feed(ev.NodeState(f"n{number}", "up"))
            self.feed(ev.Work(f"n{number}"))

    def feed(self, event: ev.Event) -> None:
        effects = self.core.handle(event, self.now)
        self.core.validate()
        self.records += effects.records
        self.sends += effects.sends

    def wait(self, seconds: float) -> None:
        """Let time pass, ringing at each wake-up that the core asked for."""
        until = self.now + seconds
        for _ in range(10_000):
            due = self.core.next_wakeup()
            if due is None or due > until:
                break
            self.now = max(self.now, due)
            self.feed(ev.Tick())
        else:
            pytest.fail("the core wakes up again and again")
        self.now = until

    def see(self, bad: bool = True, node: str = "n0", severity: str = "error", **more: Any) -> None:
        """Let the monitor speak, and the coordinator say what runs there."""
        if node in self.core.fleet and more.pop("work", True):
            self.feed(ev.Work(node, more.pop("attempts", ())))
        given = {"entity": "unit", "description": "it is down", "monitor": "probe"} | more
        self.feed(
            ev.Observation(
                issue_type=IssueType.SERVICE_FAILURE,
                node=node,
                bad=bad,
                severity=IssueSeverity(severity),
                at=self.now,
                **given,
            )
        )

    def end(self, success: bool = True, details: str = "") -> RemediationAction:
        """End the repair that was sent last."""
        action = self.acts[-1]
        self.feed(ev.ActionEnded(action.action_id, action.fence, success, details))
        return self.core.actions.get(action.action_id, action)

    @property
    def acts(self) -> list[RemediationAction]:
        return [send.action for send in self.sends if isinstance(send, Act)]

    @property
    def names(self) -> list[str]:
        return [action.action for action in self.acts]

    @property
    def decisions(self) -> list[Decision]:
        return [record.decision for record in self.records if isinstance(record, DecisionSaved)]

    @property
    def last(self) -> str:
        """The last decision in short."""
        return f"{self.decisions[-1].verdict}:{self.decisions[-1].reason}"

    @property
    def issue(self) -> Issue:
        (issue,) = self.core.issues.values()
        return issue

    def alerts(self, kind: str) -> list[Alert]:
        return [send for send in self.sends if isinstance(send, Alert) and send.kind == kind]

    @property
    def refusal(self) -> Exception:
        return [send.error for send in self.sends if isinstance(send, Refused)][-1]


QUICK = """
grace = 0
stagger = 1
lease_margin = 2
[detection]
persist = 5
hold_down = 20
"""


class Make:
    """Makes drivers; the text is added to a quick policy."""

    def __call__(self, text: str = "", **more: Any) -> Driver:
        return Driver(load(QUICK + text), **more)


@pytest.fixture
def make() -> Make:
    return Make()


@pytest.fixture
def it(make: Make) -> Driver:
    return make()
