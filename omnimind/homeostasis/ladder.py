"""The ladder of five states, and the pure core that moves on it.

Theory. A percentage has a raw state by four thresholds (`Thresholds`); the worst of all resources counts.
`Ladder` adds three brakes so that it cannot flutter, whatever it is fed:

* hysteresis: a rung is left only when every percentage is `margin` below the threshold that led to it;
* it rises at once to the rung that is needed, but not within `rise_hold` seconds after a switch;
* it falls one rung at a time, and not within `fall_hold` seconds after a switch.

Falls are therefore at least `fall_hold` apart. Each gives back one rung, and there are five, so there can
be at most four rises more than falls: within T seconds it switches at most
``2 * (floor(T / fall_hold) + 1) + 4`` times (`Ladder.most_switches`). Rising is quick and falling slow on
purpose: Ray's memory monitor kills at 95 %, and trust comes back by degrees.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import StrEnum

import msgspec

from omnimind.cluster.states import TaskPriority, priority_class, priority_number
from omnimind.errors import InvalidInput


class ResourceState(StrEnum):
    """How loaded a machine is, best first."""

    OPTIMAL = "optimal"
    GOOD = "good"
    WARNING = "warning"
    CRITICAL = "critical"
    EMERGENCY = "emergency"

    @property
    def rank(self) -> int:
        """Return 0 for optimal up to 4 for emergency."""
        return _RANK[self]


STATES = tuple(ResourceState)
_RANK = {state: rank for rank, state in enumerate(STATES)}

ADMITS: dict[ResourceState, TaskPriority] = {
    ResourceState.OPTIMAL: TaskPriority.BACKGROUND,
    ResourceState.GOOD: TaskPriority.BACKGROUND,
    ResourceState.WARNING: TaskPriority.LOW,
    ResourceState.CRITICAL: TaskPriority.HIGH,
    ResourceState.EMERGENCY: TaskPriority.CRITICAL,
}
"""The least urgent class of priority that a state admits."""

BATCH_QUARTERS: dict[ResourceState, int] = {
    ResourceState.OPTIMAL: 4,
    ResourceState.GOOD: 4,
    ResourceState.WARNING: 3,
    ResourceState.CRITICAL: 2,
    ResourceState.EMERGENCY: 1,
}
"""The share of a batch that a state allows, in quarters."""


def admits(state: ResourceState, priority: int | str | TaskPriority) -> bool:
    """Return whether a state admits a priority: a class, its name, or a number from 1 to 10.

    Raises InvalidInput for anything else.
    """
    try:
        number = priority_number(priority)
    except ValueError as error:
        raise InvalidInput(str(error), field="priority") from error
    return priority_class(number) <= ADMITS[state]


def batch_size(state: ResourceState, base: int) -> int:
    """Return how many of `base` tasks a batch may have: 1 or more. Raises InvalidInput below a base of 1."""
    if isinstance(base, bool) or not isinstance(base, int) or base < 1:
        msg = f"a batch has 1 task or more, not {base!r}"
        raise InvalidInput(msg, field="base")
    return max(1, base * BATCH_QUARTERS[state] // 4)


class Thresholds(msgspec.Struct, frozen=True):
    """Where the rungs of one resource begin, in per cent. `emergency` begins above its number."""

    good: float = 60.0
    warning: float = 80.0
    critical: float = 90.0
    emergency: float = 95.0

    def __post_init__(self) -> None:
        if not 0 < self.good < self.warning < self.critical < self.emergency < 100:  # noqa: PLR2004 (per cent)
            msg = f"thresholds grow and lie between 0 and 100 per cent, not {self}"
            raise InvalidInput(msg, field="thresholds")

    def state(self, percent: float) -> ResourceState:
        """Return the raw state of a percentage."""
        if percent < self.good:
            return ResourceState.OPTIMAL
        if percent < self.warning:
            return ResourceState.GOOD
        if percent < self.critical:
            return ResourceState.WARNING
        return ResourceState.CRITICAL if percent <= self.emergency else ResourceState.EMERGENCY


DEFAULT = Thresholds()


def thresholds(warning: float, critical: float, field: str = "threshold") -> Thresholds:
    """Return thresholds from the two that people set; `good` begins at three quarters of the first.

    `emergency` begins half-way between `critical` and 100. Raises InvalidInput naming `field` unless
    0 < warning < critical < 100.
    """
    for value in (warning, critical):
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            msg = f"a threshold is a number of per cent, not {value!r}"
            raise InvalidInput(msg, field=field)
    if not 0 < warning < critical < 100:  # noqa: PLR2004 (per cent)
        msg = f"warning ({warning:g}) must be above 0 and below critical ({critical:g}), which is below 100"
        raise InvalidInput(msg, field=field)
    return Thresholds(0.75 * warning, float(warning), float(critical), (critical + 100.0) / 2)


class Change(msgspec.Struct, frozen=True):
    """A switch of the ladder, and the resource that led to it."""

    before: ResourceState
    after: ResourceState
    resource: str
    percent: float
    at: float


class Ladder:
    """Where one machine stands. Pure: the same percentages at the same times give the same switches.

    resources: the thresholds of each. margin: per cent below its threshold at which a rung is left.
    rise_hold, fall_hold: seconds after a switch within which it does not rise, or fall.
    """

    def __init__(
        self,
        resources: Mapping[str, Thresholds],
        *,
        margin: float = 3.0,
        rise_hold: float = 1.0,
        fall_hold: float = 10.0,
    ) -> None:
        if not resources:
            raise InvalidInput("a ladder needs a resource", field="resources")
        if not (0 <= margin < math.inf and 0 <= rise_hold <= fall_hold < math.inf):
            msg = f"0 <= rise_hold ({rise_hold:g}) <= fall_hold ({fall_hold:g}), margin ({margin:g}) >= 0"
            raise InvalidInput(msg, field="hold")
        self.resources = dict(resources)
        self.margin = margin
        self.rise_hold = rise_hold
        self.fall_hold = fall_hold
        self.state = ResourceState.OPTIMAL
        self._switched = -math.inf

    def update(self, percents: Mapping[str, float], now: float) -> Change | None:
        """Take in the percentages at `now` (seconds) and return the switch, None when it stays.

        A resource that is missing, or is no number, is not known and does not count.
        """
        # A clock that was set back starts the hold again: it must not keep the ladder still for longer.
        self._switched = min(self._switched, now)
        wanted, worst, reason = 0, 0.0, ""
        for name, limits in self.resources.items():
            percent = percents.get(name, math.nan)
            if not math.isfinite(percent):
                continue
            raw = limits.state(percent).rank
            kept = min(self.state.rank, limits.state(percent + self.margin).rank)
            rank = max(raw, kept)
            if not reason or (rank, percent) > (wanted, worst):
                wanted, worst, reason = rank, percent, name
        if not reason or wanted == self.state.rank:
            return None
        rising = wanted > self.state.rank
        if now - self._switched < (self.rise_hold if rising else self.fall_hold):
            return None
        after = STATES[wanted if rising else self.state.rank - 1]
        change = Change(self.state, after, reason, worst, now)
        self.state, self._switched = after, now
        return change

    def most_switches(self, seconds: float) -> int:
        """Return how many switches no input can exceed within `seconds` (see the theory above)."""
        if self.fall_hold == 0:
            raise InvalidInput("without a fall_hold there is no bound", field="fall_hold")
        return 2 * (math.floor(seconds / self.fall_hold) + 1) + len(STATES) - 1
