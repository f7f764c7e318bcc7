"""The policy: what people let the healer do. Data (TOML), validated as a whole before it is used.

::

    dry_run = false

    [budgets]
    target = {count = 3, seconds = 1800}

    [types.disk_full]
    persist = 5

    [monitors.disk_space]
    enter = 90
    leave = 85

    [remediations.restart_unit]
    mode = "approve"

Every key has a default (`Policy()`), so an empty file is a policy. A key that is not known, or a value out of
bounds, is refused with a `ConfigError` that names it: a guard with a typing error must not be a guard that is
missing.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from omnimind.healing.actions import Mode, Risk, Rung
from omnimind.healing.budgets import Budget
from omnimind.healing.issues import IssueType

Seconds = Annotated[float, Meta(ge=0, le=31_622_400)]
Share = Annotated[float, Meta(ge=0, le=1)]


class Detection(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When a condition becomes an issue, and when it is over. Seconds.

    persist: how long it must be bad. hold_down: how long it must be good before the issue is closed.
    flap_count changes within flap_window seconds are flapping. relapse: an issue that comes back so soon
    after its end goes on where it was. fresh: an observation older than this is no ground for a disruptive
    repair.
    """

    persist: Seconds = 10.0
    hold_down: Seconds = 30.0
    flap_window: Annotated[float, Meta(gt=0, le=86_400)] = 300.0
    flap_count: Annotated[int, Meta(ge=2, le=1000)] = 4
    relapse: Seconds = 600.0
    fresh: Annotated[float, Meta(gt=0, le=86_400)] = 120.0


class Rule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What differs for one issue type, or one monitor.

    enter, leave: of a monitor's value; unset: its own word.
    """

    persist: Seconds | None = None
    hold_down: Seconds | None = None
    enter: float | None = None
    leave: float | None = None


class BudgetTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How often the healer may act.

    target: on one node, or one entity on it. kind: with one remediation. breaker: in the whole fleet; one
    more trips it, and a named person has to reset it. floor: the share of nodes that must be healthy. A
    disruptive repair needs so many of the other nodes, one that takes its node out so many of all nodes
    without it.
    """

    target: Budget = Budget(3, 1800.0)
    kind: Budget = Budget(10, 1800.0)
    breaker: Budget = Budget(20, 300.0)
    floor: Share = 0.51


class Risks(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The mode by risk; disruptive: for OmniMind's own processes, host: for those of the machine."""

    safe: Mode = Mode.AUTO
    disruptive: Mode = Mode.AUTO
    host: Mode = Mode.SUGGEST
    destructive: Mode = Mode.APPROVE


class PriceTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The price in work.

    limit: task-seconds beyond which a person is asked.

    drain: seconds that a drain may take. fresh: seconds after which what runs on a node has to be asked
    again.
    """

    limit: Annotated[float, Meta(ge=0)] = 600.0
    drain: Seconds = 300.0
    fresh: Annotated[float, Meta(gt=0, le=3600)] = 10.0


class Doubt(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Self-doubt.

    confidence: that a disruptive repair needs. witnesses: observers that a destructive one needs.
    """

    confidence: Share = 0.7
    witnesses: Annotated[int, Meta(ge=1, le=100)] = 2


class Remediation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What differs for one remediation; unset: as its plug-in declares it, the mode by its risk."""

    enabled: bool = True
    mode: Mode | None = None
    order: int | None = None
    timeout: Annotated[float, Meta(gt=0, le=86_400)] | None = None
    verify: Seconds | None = None
    cooldown: Seconds | None = None
    budget: Budget | None = None
    price: Annotated[float, Meta(ge=0)] | None = None


class Policy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All that people set. dry_run: decide and write down, but do nothing.

    grace: seconds after a start in which nothing is done, so that the monitors can speak first. stagger:
    seconds between two issues that are looked at again when a pause, a window or the breaker is over.
    lease_margin: seconds that a lease outlives the timeout of its repair. retry: seconds after which a
    refusal that nothing ends by itself is looked at again. approval: seconds that a request to a person
    stands.
    """

    dry_run: bool = False
    detection: Detection = Detection()
    budgets: BudgetTable = BudgetTable()
    risk: Risks = Risks()
    price: PriceTable = PriceTable()
    doubt: Doubt = Doubt()
    types: dict[IssueType, Rule] = {}
    monitors: dict[str, Rule] = {}
    remediations: dict[str, Remediation] = {}
    grace: Seconds = 5.0
    stagger: Seconds = 15.0
    lease_margin: Annotated[float, Meta(ge=0, le=3600)] = 5.0
    retry: Annotated[float, Meta(gt=0, le=86_400)] = 60.0
    approval: Annotated[float, Meta(gt=0, le=31_622_400)] = 3600.0

    def rule(self, monitor: str, issue_type: IssueType) -> Rule:
        """Return what counts for an observation: its monitor's rule before its type's before the defaults."""
        of_type = self.types.get(issue_type, _NO_RULE)
        own = self.monitors.get(monitor, _NO_RULE)
        detection = self.detection
        return Rule(
            persist=_first(own.persist, of_type.persist, detection.persist),
            hold_down=_first(own.hold_down, of_type.hold_down, detection.hold_down),
            enter=_first(own.enter, of_type.enter),
            leave=_first(own.leave, of_type.leave, own.enter, of_type.enter),
        )

    def rung(self, rung: Rung) -> Rung:
        """Return a rung with what the policy says of it."""
        own = self.remediations.get(rung.name)
        if own is None:
            return rung
        given = {
            n: v for n in ("order", "timeout", "verify", "cooldown") if (v := getattr(own, n)) is not None
        }
        return msgspec.structs.replace(rung, **given)

    def mode(self, rung: Rung) -> Mode:
        """Return the mode of a rung."""
        own = self.remediations.get(rung.name)
        if own is not None and own.mode is not None:
            return own.mode
        match rung.risk:
            case Risk.SAFE:
                return self.risk.safe
            case Risk.DISRUPTIVE:
                return self.risk.host if rung.host else self.risk.disruptive
            case Risk.DESTRUCTIVE:
                return self.risk.destructive

    def kind_budget(self, rung: str) -> Budget:
        """Return the budget of one remediation."""
        own = self.remediations.get(rung)
        return own.budget if own is not None and own.budget is not None else self.budgets.kind

    def enabled(self, rung: str) -> bool:
        """Return whether a remediation is on its ladder at all."""
        own = self.remediations.get(rung)
        return own is None or own.enabled

    def price_limit(self, rung: str) -> float:
        """Return the task-seconds beyond which a person is asked."""
        own = self.remediations.get(rung)
        return own.price if own is not None and own.price is not None else self.price.limit

    @property
    def longest(self) -> float:
        """Return the longest window of all budgets, in seconds."""
        own = [r.budget.seconds for r in self.remediations.values() if r.budget is not None]
        budgets = self.budgets
        cool = [r.cooldown for r in self.remediations.values() if r.cooldown is not None]
        return max(budgets.target.seconds, budgets.kind.seconds, budgets.breaker.seconds, *own, *cool, 60.0)


_NO_RULE = Rule()


def _first(*values: float | None) -> float | None:
    return next((value for value in values if value is not None), None)
