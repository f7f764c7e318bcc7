"""Bugs to plant into the healer: each must be caught by the invariant that it names, within its seeds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

import msgspec

from omnimind.healing import acting, decide, recovery, watch
from omnimind.healing import core as core_module
from omnimind.healing.actions import ActionStatus, RemediationAction
from omnimind.healing.alarms import Alarms
from omnimind.healing.budgets import Budgets
from omnimind.healing.conditions import Condition
from omnimind.healing.controls import ControlKind
from omnimind.healing.core import HealingCore
from omnimind.healing.issues import Issue, Outcome
from omnimind.healing.records import DecisionSaved, Effects
from omnimind.testing.healer.shell import Life
from omnimind.testing.healer.world import Machine
from omnimind.testing.plants.registry import Bug, Patches, Plant

PLANTS: dict[str, Plant] = {}


def plant(invariant: str, story: str, seeds: int = 40, **fixed: Any) -> Callable[[Bug], Bug]:
    """Register a bug under its function's name."""

    def register(bug: Bug) -> Bug:
        PLANTS[bug.__name__] = Plant(bug.__name__, invariant, seeds, story, bug, fixed)
        return bug

    return register


@contextmanager
def planted(name: str) -> Iterator[None]:
    """Plant a bug for as long as the context lasts."""
    with ExitStack() as stack:
        PLANTS[name].apply(Patches(stack))
        yield


def planted_or_not(name: str | None) -> AbstractContextManager[None]:
    """Return a context in which a bug is planted; None plants nothing."""
    return nullcontext() if name is None else planted(name)


@plant("B", "A repair is charged to no budget", storm=True, faults=12)
def uncharged(patches: Patches) -> None:
    patches.put(HealingCore, "charge", lambda _self, _action, _at: None)


@plant("B", "A new life does not know what its predecessor has spent", before=0.02, after=0.02, faults=12)
def spent_forgotten(patches: Patches) -> None:
    def recover(core: HealingCore, event: Any, now: float, fx: Effects) -> None:
        original(core, event, now, fx)
        core.budgets = Budgets(core.budgets.longest)

    original = patches.put(recovery, "recover", recover)


@plant("B", "A budget forgets its oldest start a little too soon", storm=True, faults=12)
def window_too_short(patches: Patches) -> None:
    def free_at(self: Budgets, scope: str, budget: Any, now: float) -> float | None:
        free = original(self, scope, budget, now)
        return now if free is not None and free - now < budget.seconds / 2 else free

    original = patches.put(Budgets, "free_at", free_at)


@plant("L", "The lease of a repair that was given up ends at once", hang=0.5, slow=0.5, faults=12, nodes=2)
def lease_dropped(patches: Patches) -> None:
    def conclude(
        core: HealingCore, action: RemediationAction, outcome: Outcome, *rest: Any, **more: Any
    ) -> None:
        more["keep_lease"] = False
        original(core, action, outcome, *rest, **more)

    original = patches.put(acting, "conclude", conclude)


@plant("L", "A lease on a node says nothing about what is on it", faults=12, nodes=2, slow=0.5)
def lease_by_name_alone(patches: Patches) -> None:
    def holder(self: HealingCore, target: str) -> RemediationAction | None:
        return self.actions.get(self.leases.get(target, ""))

    patches.put(HealingCore, "holder", holder)
    patches.put(HealingCore, "validate", lambda _self: None)


@plant("L", "Whoever runs repairs takes them from anybody, again and again", hang=0.3, slow=0.5)
def fence_not_looked_at(patches: Patches) -> None:
    patches.put(Machine, "refuses", lambda _self, _fence, _newest: False)


@plant("E", "A rung is tried again on the same evidence", lasting=0.7)
def rung_again(patches: Patches) -> None:
    patches.put(Issue, "has_tried", lambda _self, _rung: False)
    patches.put(HealingCore, "validate", lambda _self: None)


@plant("E", "An issue that comes back begins at the gentlest rung again", lasting=1.0, faults=12, curable=1.0)
def relapse_forgotten(patches: Patches) -> None:
    def open_issue(core: HealingCore, condition: Condition, now: float, fx: Effects) -> None:
        closed = core.closed.get(condition.key)
        if closed is not None:
            closed.tried = ()
        original(core, condition, now, fx)

    original = patches.put(watch, "open_issue", open_issue)


@plant("D", "A decision to act is not written down")
def decision_not_written(patches: Patches) -> None:
    def handle(self: HealingCore, event: Any, now: float) -> Effects:
        effects: Effects = original(self, event, now)
        effects.records = [
            r for r in effects.records if not isinstance(r, DecisionSaved) or r.decision.verdict != "act"
        ]
        return effects

    original = patches.put(HealingCore, "handle", handle)


@plant("D", "Doing nothing is not written down", faults=12, doubt=0.5)
def nothing_not_written(patches: Patches) -> None:
    def handle(self: HealingCore, event: Any, now: float) -> Effects:
        effects: Effects = original(self, event, now)
        effects.records = [
            r for r in effects.records if not isinstance(r, DecisionSaved) or r.decision.verdict == "act"
        ]
        return effects

    original = patches.put(HealingCore, "handle", handle)


@plant("D", "A repair is sent before it is written")
def sent_first(patches: Patches) -> None:
    def flush(self: Life, effects: Effects) -> None:
        if self.alive:
            self.send(effects)
            original(self, effects)

    original = patches.put(Life, "flush", flush)


@plant(
    "F", "What the scheduler has not seen yet does not count: a drain on its way", 60,
    faults=12, nodes=4, fail=0.5, hang=0.5, work=0, storm=True, curable=0.1,
)  # fmt: skip
def drain_on_its_way(patches: Patches) -> None:
    def healthy_others(self: HealingCore, node: str) -> tuple[int, int]:
        return sum(up for name, up in self.fleet.items() if name != node), len(self.fleet)

    patches.put(HealingCore, "healthy_others", healthy_others)


@plant("F", "The floor counts the node that is taken out", 120, faults=12, fail=0.5, work=0)
def floor_counts_itself(patches: Patches) -> None:
    def healthy_others(self: HealingCore, node: str) -> tuple[int, int]:
        healthy, total = original(self, node)
        return healthy + 1, total

    original = patches.put(HealingCore, "healthy_others", healthy_others)


@plant("K", "The breaker closes by itself", storm=True, faults=12, nodes=12)
def breaker_closes(patches: Patches) -> None:
    def decide_(core: HealingCore, condition: Condition, issue: Issue, now: float) -> Any:
        if core.breaker is not None and now > core.breaker.tripped_at + 2.0:
            core.breaker = None
            core.budgets.clear("fleet")
        return original(core, condition, issue, now)

    original = patches.put(core_module, "decide", decide_)


@plant("B", "A new life does not know that the breaker is open", storm=True, faults=12, nodes=12, after=0.1)
def breaker_forgotten(patches: Patches) -> None:
    def recover(core: HealingCore, event: Any, now: float, fx: Effects) -> None:
        original(core, event, now, fx)
        core.breaker = None
        core.budgets.clear("fleet")

    original = patches.put(recovery, "recover", recover)


@plant("K", "A pause does not hold", people=1.0, faults=12)
def pause_ignored(patches: Patches) -> None:
    def control_over(self: HealingCore, kind: ControlKind, key: Any, now: float) -> Any:
        return None if kind is ControlKind.PAUSE else original(self, kind, key, now)

    original = patches.put(HealingCore, "control_over", control_over)


@plant("V", "A repair that did not raise has fixed it")
def believed(patches: Patches) -> None:
    def ended(core: HealingCore, event: Any, now: float, fx: Effects) -> None:
        original(core, event, now, fx)
        action = core.actions.get(event.action_id)
        if action is not None and action.status is ActionStatus.VERIFYING:
            acting.conclude(core, action, Outcome.FIXED, now, fx)

    original = patches.put(acting, "ended", ended)


@plant("V", "A look from before the end of a repair verifies it", 120, delay=0.5, sample=1.0, faults=12)
def verified_too_early(patches: Patches) -> None:
    def verify_by(core: HealingCore, condition: Condition, event: Any, *rest: Any) -> None:
        original(core, condition, msgspec.structs.replace(event, at=0.0), *rest)

    original = patches.put(acting, "verify_by", verify_by)


@plant("P", "The price is not asked", fail=0.5)
def no_price(patches: Patches) -> None:
    patches.put(decide, "_price", lambda *_: None)


@plant("T", "Flapping is not looked at", flapping=0.6, faults=12, fail=0.5, sample=1.0)
def flapping_not_looked_at(patches: Patches) -> None:
    patches.put(Condition, "flapping", lambda *_: False)


@plant("T", "Doubt is not looked at", doubt=0.5, faults=12, fail=0.5)
def doubt_not_looked_at(patches: Patches) -> None:
    def sight(core: HealingCore, condition: Condition, issue: Issue, now: float, draft: Any) -> Any:
        kept, issue.confidence = issue.confidence, 1.0
        answer = original(core, condition, issue, now, draft)
        issue.confidence = kept
        draft.steps = [s for s in draft.steps if s.gate != "confidence" or not s.passed]
        return answer

    original = patches.put(decide, "_sight", sight)


@plant("Q", "A refusal is never looked at again", faults=12)
def never_again(patches: Patches) -> None:
    def set_(self: Alarms, when: float, kind: Any, subject: Any) -> None:
        if kind != "retry":
            original(self, when, kind, subject)

    original = patches.put(Alarms, "set", set_)


@plant("M", "Alarms are never forgotten", flapping=0.6, faults=4, sample=1.0, lie=0.2, doubt=0.5)
def alarms_pile_up(patches: Patches) -> None:
    def set_(self: Alarms, when: float, kind: Any, subject: Any) -> None:
        original(self, when, kind, subject)
        original(self, when + 1e6, kind, (subject, len(self)))

    original = patches.put(Alarms, "set", set_)


@plant("S", "The budgets of an issue that is closed are looked up in what is open", seeds=10)
def closed_is_kept(patches: Patches) -> None:
    patches.put(HealingCore, "forget", lambda _self, _issue: None)


@plant("R", "A number that is not the core's own decides", seeds=10)
def not_its_own(patches: Patches) -> None:
    numbers = iter(range(10**9))
    patches.put(HealingCore, "next_fence", lambda self: (self.epoch << 40) + next(numbers))
