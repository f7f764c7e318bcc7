"""Budgets: how often the healer may act, on a target, with a kind of repair, and in the whole fleet.

Charged when a repair is granted, whatever becomes of it. A budget counts by a sliding window: at no moment
are there more than `count` starts within the last `seconds`.
"""

from __future__ import annotations

from collections import deque
from typing import Annotated

import msgspec
from msgspec import Meta


class Budget(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """At most `count` starts within `seconds`."""

    count: Annotated[int, Meta(ge=0, le=1_000_000)]
    seconds: Annotated[float, Meta(gt=0, le=31_622_400)]


class Budgets:
    """The starts of the recent past, by scope. Bounded: what is older than `longest` seconds is dropped."""

    def __init__(self, longest: float) -> None:
        self.longest = longest
        self._starts: dict[str, deque[float]] = {}
        self._next_sweep = 0.0

    def charge(self, scope: str, now: float) -> None:
        """Note a start."""
        self._starts.setdefault(scope, deque()).append(now)
        if now >= self._next_sweep:
            self._next_sweep = now + self.longest / 4
            for name in [n for n, s in self._starts.items() if not s or s[-1] <= now - self.longest]:
                del self._starts[name]

    def used(self, scope: str, budget: Budget, now: float) -> int:
        """Return the starts within the window that ends now."""
        return sum(1 for start in self._recent(scope, now) if start > now - budget.seconds)

    def free_at(self, scope: str, budget: Budget, now: float) -> float | None:
        """Return when the next start is allowed: `now` or later, None when the budget allows none ever."""
        if budget.count == 0:
            return None
        starts = self._recent(scope, now)
        if len(starts) < budget.count:
            return now
        return max(now, starts[len(starts) - budget.count] + budget.seconds)

    def clear(self, scope: str) -> None:
        """Forget the starts of a scope."""
        self._starts.pop(scope, None)

    def __len__(self) -> int:
        return len(self._starts)

    def _recent(self, scope: str, now: float) -> deque[float]:
        starts = self._starts.get(scope)
        if starts is None:
            return _NONE
        while starts and starts[0] <= now - self.longest:
            starts.popleft()
        return starts


_NONE: deque[float] = deque()
