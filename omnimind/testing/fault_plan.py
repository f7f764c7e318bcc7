"""What will be broken and when, drawn from a seed before a run of real hosts begins. Pure.

The deck of kinds is shuffled and dealt round by round, so that a long run has each kind several times and
a short one does not miss the same kinds always. Who carries a plan out may have to skip a fault (nothing
of that kind runs at that moment) and says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import msgspec

KILLS = ("worker", "node actor", "raylet", "coordinator", "node supervisor", "head", "client")
"""SIGKILL; what was killed comes back by itself (a client: by whoever started it)."""

LASTING = (
    "pause coordinator",
    "pause node actor",
    "cut",
    "drop incoming",
    "drop outgoing",
    "slow",
    "full disk",
)
"""Faults that last for some seconds and are then healed."""

_SECONDS = {
    "pause coordinator": (1.0, 14.0),
    "pause node actor": (1.0, 9.0),
    "cut": (1.0, 12.0),
    "drop incoming": (1.0, 9.0),
    "drop outgoing": (1.0, 9.0),
    "slow": (4.0, 12.0),
    "full disk": (3.0, 8.0),
    "database": (0.5, 5.0),
}
"""Least and most seconds: shorter and longer than the heartbeat's timeout."""

_CALM = (2.0, 6.0)
_TWICE = 0.25


class Planned(msgspec.Struct, frozen=True):
    """One fault: `what`, on host `where`, `at` seconds after the beginning, for `seconds` (0: a kill)."""

    at: float
    what: str
    where: str
    seconds: float


def draw_plan(seed: int, duration: float, hosts: Sequence[str], kinds: Sequence[str]) -> list[Planned]:
    """Return the faults of a run, in order.

    hosts: the first is the head, on which only what is the head's own is broken besides what every host has.
    The last tenth of the time stays without faults.
    """
    random = Random(f"faults {seed}")
    plan: list[Planned] = []
    deck: list[str] = []
    at = random.uniform(*_CALM)
    while at < duration * 0.9:
        if not deck:
            deck = list(kinds)
            random.shuffle(deck)
        what = deck.pop()
        where = random.choice(_places(what, hosts))
        seconds = random.uniform(*_SECONDS[what]) if what in _SECONDS else 0.0
        seconds = min(seconds, duration - at)
        plan.append(Planned(round(at, 3), what, where, round(seconds, 3)))
        # Sometimes two at once; else the next comes when this one has been over for a while.
        if random.random() < _TWICE:
            at += random.uniform(0.0, 0.5)
        else:
            at += seconds + random.uniform(*_CALM)
    return plan


def _places(what: str, hosts: Sequence[str]) -> Sequence[str]:
    if what in {"coordinator", "pause coordinator", "head", "database"}:
        return hosts[:1]
    if what in {"worker", "node actor", "client", "pause node actor", "full disk"}:
        return hosts
    return hosts[1:]


def describe(plan: Sequence[Planned]) -> str:
    """Return a plan for people, a line a fault."""
    return "\n".join(
        f"{fault.at:7.1f} s  {fault.what} on {fault.where}"
        + (f" for {fault.seconds:.1f} s" if fault.seconds else "")
        for fault in plan
    )
