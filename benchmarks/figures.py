"""A figure: one measured number, what it must reach, and whether it does."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

_COMPARE: Mapping[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "<": operator.lt,
    "==": operator.eq,
}


def holds(value: float, must: str | None) -> bool | None:
    """Whether `value` meets `must` (an operator and a number: `">= 8"`); None where nothing is asked.

    Raises ValueError for a `must` that is no such pair, so that a typing error never reads as "holds".
    """
    if must is None:
        return None
    sign, _, bound = must.partition(" ")
    if sign not in _COMPARE:
        raise ValueError(f"must is an operator of {', '.join(_COMPARE)} and a number, not {must!r}")
    return not math.isnan(value) and _COMPARE[sign](value, float(bound))


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One line of the results file. `name` is dotted, and its first word is the suite that measured it."""

    name: str
    value: float
    unit: str
    must: str | None = None
    note: str = ""

    @property
    def holds(self) -> bool | None:
        return holds(self.rounded, self.must)

    @property
    def rounded(self) -> float:
        """The value as it is written: six significant digits, so that a file read again says the same."""
        return self.value if isinstance(self.value, int) else float(f"{self.value:.6g}")

    @property
    def suite(self) -> str:
        return self.name.partition(".")[0]

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "value": self.rounded, "holds": self.holds}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Figure:
        return cls(**{key: data[key] for key in ("name", "value", "unit", "must", "note")})


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least `share` (0 to 1) of the values do not exceed (nearest rank)."""
    if not values:
        raise ValueError("no values, no percentile")
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]
