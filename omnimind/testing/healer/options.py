"""`HealerOptions`: everything that is drawn per seed before a healer's simulation begins."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from omnimind.healing.budgets import Budget
from omnimind.healing.policy import BudgetTable, Detection, Policy, PriceTable
from omnimind.testing.draws import Draws


class HealerOptions(msgspec.Struct, frozen=True, kw_only=True):
    """One simulated fleet and its healer. Times in seconds, faults as chances.

    faults: things that go wrong. flapping, lasting (comes back after its cure), curable: shares of them.
    storm: whether most nodes fail within ten seconds. lie, doubt: per look. liar: whether a second monitor
    says what it likes. hang, fail, boast (says it worked, and it did not), slow: per repair. loss: per
    message. cut: per node and 10 s. crash: of a node, per 10 s. before, after: a crash of the healer before
    or after a write. zombie: share of those after which the old life goes on beside the new. people: pauses,
    ignores, the kill switch. work: attempts on a node.
    """

    seed: int
    nodes: int = 3
    faults: int = 4
    seconds: float = 240.0
    sample: float = 2.0
    delay: float = 0.02
    io: float = 0.005
    flapping: float = 0.0
    lasting: float = 0.0
    curable: float = 0.7
    storm: bool = False
    lie: float = 0.0
    doubt: float = 0.0
    liar: bool = False
    hang: float = 0.0
    fail: float = 0.0
    boast: float = 0.0
    slow: float = 0.0
    loss: float = 0.0
    cut: float = 0.0
    crash: float = 0.0
    before: float = 0.0
    after: float = 0.0
    zombie: float = 0.0
    people: float = 0.0
    work: int = 2


CLASSES: dict[str, tuple[Any, ...]] = {
    "flapping": (0.2, 0.6),
    "lasting": (0.3, 0.7),
    "lie": (0.02, 0.2),
    "doubt": (0.1, 0.5),
    "hang": (0.2, 0.5),
    "fail": (0.2, 0.5),
    "boast": (0.2, 0.5),
    "slow": (0.3,),
    "loss": (0.02, 0.1, 0.3),
    "cut": (0.05, 0.2),
    "crash": (0.02, 0.08),
    "before": (0.01, 0.04),
    "after": (0.01, 0.04),
    "zombie": (0.4,),
    "people": (0.3, 1.0),
}
"""The classes of fault, and what one that is on may be set to."""

POLICY = Policy(
    detection=Detection(persist=3.0, hold_down=8.0, flap_window=40.0, flap_count=4, relapse=90.0, fresh=20.0),
    budgets=BudgetTable(target=Budget(3, 240.0), kind=Budget(5, 240.0), breaker=Budget(8, 60.0), floor=0.51),
    price=PriceTable(limit=400.0, drain=20.0, fresh=3.0),
    grace=3.0,
    stagger=2.0,
    lease_margin=2.0,
    retry=15.0,
    approval=60.0,
)
"""The defaults of the design, in quick motion."""


def draw_options(seed: int, fixed: Mapping[str, Any] | None = None) -> HealerOptions:
    """Draw the options of a seed; `fixed` ones are taken as they are."""
    draws = Draws(seed)

    def pick(name: str, *choices: Any) -> Any:
        return draws.pick("healer", name, 0, choices)

    mix = pick("mix", "all", "all", "swarm", "swarm", "swarm", "calm")
    options: dict[str, Any] = {
        "nodes": pick("nodes", 1, 2, 3, 3, 4, 5, 8, 12),
        "faults": pick("faults", 1, 2, 4, 8, 12),
        "sample": pick("sample", 1.0, 2.0, 4.0),
        "delay": pick("delay", 0.001, 0.02, 0.5),
        "io": pick("io", 0.001, 0.01, 0.2),
        "curable": pick("curable", 0.5, 0.9),
        "storm": pick("storm", False, False, False, True),
        "liar": pick("liar", False, False, True),
        "work": pick("work", 0, 2, 6),
    }
    for name, values in CLASSES.items():
        on = mix == "all" or (mix == "swarm" and pick(f"on {name}", False, True))
        options[name] = pick(name, *values) if on else 0.0
    options.update(fixed or {})
    return HealerOptions(seed=seed, **options)


def describe(options: HealerOptions) -> str:
    """Return the options in one line, those that are 0 left out."""
    return " ".join(f"{name}={value}" for name, value in msgspec.structs.asdict(options).items() if value)
