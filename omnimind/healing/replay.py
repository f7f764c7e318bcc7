"""Replay: recorded observations against another policy, and which repairs it would have made. Pure.

The records hold what monitors saw, not what the world would have been like after another repair. So a repair
that the other policy makes is taken to end at once, and is judged by the observations that were recorded
afterwards; what really happened decides whether it counts as fixed. That errs on the careful side: a better
repair looks no better than the one that was made, while every brake (persistence, budgets, floor, breaker)
is seen as it would have been.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from omnimind.healing import events as ev
from omnimind.healing.actions import RemediationAction, Rung
from omnimind.healing.core import HealingCore
from omnimind.healing.policy import Policy
from omnimind.healing.records import (
    Act,
    ActionSaved,
    AskWork,
    Decision,
    DecisionSaved,
    ObservationSaved,
    Record,
)


class Replay(msgspec.Struct, kw_only=True):
    """What a policy would have done.

    actions: each in its last state. refusals: how often each gate decided.
    """

    observations: int = 0
    issues: int = 0
    actions: list[RemediationAction] = msgspec.field(default_factory=list)
    refusals: dict[str, int] = msgspec.field(default_factory=dict)
    decisions: list[Decision] = msgspec.field(default_factory=list)
    tripped: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return dict(msgspec.to_builtins(self))

    def differs(self, other: Replay) -> tuple[list[RemediationAction], list[RemediationAction]]:
        """Return the repairs that only the other policy makes, and those that only this one makes.

        Two repairs are the same when the same remediation acts on the same target for the same condition.
        """

        def kind(action: RemediationAction) -> tuple[str, str, str]:
            return action.action, action.target, action.issue_type.value

        mine, theirs = [kind(a) for a in self.actions], [kind(a) for a in other.actions]
        return _beyond(other.actions, theirs, mine), _beyond(self.actions, mine, theirs)


def _beyond(
    actions: list[RemediationAction], kinds: list[tuple[str, str, str]], others: list[tuple[str, str, str]]
) -> list[RemediationAction]:
    """Return the actions whose kind has been there more often by then than it is among the others."""
    return [a for n, a in enumerate(actions) if kinds[: n + 1].count(kinds[n]) > others.count(kinds[n])]


def observations(records: Iterable[Record]) -> list[ev.Observation]:
    """Return the observations among some records, in their order."""
    return [record.observation for record in records if isinstance(record, ObservationSaved)]


class _World:
    """A fresh core, and a world in which every repair ends at once."""

    def __init__(self, policy: Policy) -> None:
        self.core = HealingCore(msgspec.structs.replace(policy, grace=0.0, dry_run=False))
        self.found = Replay()
        self.actions: dict[str, RemediationAction] = {}

    def feed(self, event: ev.Event, now: float) -> None:
        waiting = [event]
        while waiting:
            effects = self.core.handle(waiting.pop(0), now)
            for record in effects.records:
                match record:
                    case ActionSaved(action):
                        self.actions[action.action_id] = action
                    case DecisionSaved(decision):
                        self.found.decisions.append(decision)
                    case _:
                        pass
            for send in effects.sends:
                match send:
                    case Act(action):
                        waiting.append(ev.ActionEnded(action.action_id, action.fence, True, "replayed"))
                    case AskWork(node):
                        waiting.append(ev.Work(node))
                    case _:
                        pass

    def let_pass(self, until: float) -> None:
        while (due := self.core.next_wakeup()) is not None and due <= until:
            self.feed(ev.Tick(), due)


def replay(
    events: Iterable[ev.Observation | ev.NodeState | ev.Work],
    policy: Policy,
    rungs: Iterable[Rung],
    *,
    until: float | None = None,
) -> Replay:
    """Feed recorded events to a fresh core under a policy; returns what it would have done.

    events: in order of time; each observation counts at its `at`, what stands between two of them at the
    earlier one. until: Unix seconds to which time goes on after the last; None: an hour after it. What
    runs on a node, where no `Work` says so, is taken to be nothing.
    """
    world = _World(policy)
    found = world.found
    now: float | None = None
    for event in events:
        at = event.at if isinstance(event, ev.Observation) else 0.0
        if now is None:
            world.feed(ev.Recovered(1), at)
            for rung in rungs:
                world.feed(ev.RungKnown(rung), at)
        now = max(at, now or at)
        world.let_pass(now)
        world.feed(event, now)
        found.observations += isinstance(event, ev.Observation)
    if now is not None:
        world.let_pass(now + 3600.0 if until is None else until)
    counts = world.core.counts
    found.issues, found.tripped = counts.get("issues_detected", 0), counts.get("breaker_trips", 0) > 0
    found.actions = list(world.actions.values())
    for decision in found.decisions:
        if not decision.action_id:
            found.refusals[decision.reason] = found.refusals.get(decision.reason, 0) + 1
    return found
