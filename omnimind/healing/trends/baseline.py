"""A streaming quantile, and a handler's p95 against its own past.

The quantile is the P-square estimate of five markers (R. Jain and I. Chlamtac, 1985): no samples are kept,
so a handler with a million calls costs as much as one with ten.
"""

from __future__ import annotations

import math

_MARKERS = 5


class Quantile:
    """An estimate of one quantile (`share`, 0 to 1) of a stream of numbers."""

    def __init__(self, share: float) -> None:
        self.share = share
        self.count = 0
        self._heights: list[float] = []
        self._places = [1.0, 2.0, 3.0, 4.0, 5.0]
        self._wanted = [1.0, 1 + 2 * share, 1 + 4 * share, 3 + 2 * share, 5.0]
        self._steps = (0.0, share / 2, share, (1 + share) / 2, 1.0)

    def add(self, value: float) -> None:
        """Take in a number; what is none is left out."""
        if not math.isfinite(value):
            return
        self.count += 1
        heights = self._heights
        if len(heights) < _MARKERS:
            heights.append(value)
            heights.sort()
            return
        if value < heights[0]:
            heights[0], cell = value, 0
        elif value >= heights[4]:
            heights[4], cell = max(value, heights[4]), 3
        else:
            cell = next(i for i in range(4) if heights[i] <= value < heights[i + 1])
        for i in range(cell + 1, _MARKERS):
            self._places[i] += 1
        for i in range(_MARKERS):
            self._wanted[i] += self._steps[i]
        for i in (1, 2, 3):
            self._adjust(i)

    def _adjust(self, i: int) -> None:
        heights, places = self._heights, self._places
        off = self._wanted[i] - places[i]
        if (off >= 1 and places[i + 1] - places[i] > 1) or (off <= -1 and places[i - 1] - places[i] < -1):
            step = 1 if off > 0 else -1
            curved = heights[i] + step / (places[i + 1] - places[i - 1]) * (
                (places[i] - places[i - 1] + step)
                * (heights[i + 1] - heights[i])
                / (places[i + 1] - places[i])
                + (places[i + 1] - places[i] - step)
                * (heights[i] - heights[i - 1])
                / (places[i] - places[i - 1])
            )
            if heights[i - 1] < curved < heights[i + 1]:
                heights[i] = curved
            else:
                other = i + step
                heights[i] += step * (heights[other] - heights[i]) / (places[other] - places[i])
            places[i] += step

    def value(self) -> float | None:
        """Return the estimate, None before the first number."""
        heights = self._heights
        if not heights:
            return None
        if len(heights) < _MARKERS or self.count == _MARKERS:
            return heights[min(len(heights) - 1, math.ceil(self.share * len(heights)) - 1)]
        return heights[2]


class Baseline:
    """One handler's p95 now (of the last full block of calls) against that of all its earlier blocks.

    block: calls. A block counts towards the past only when it was not slow itself, so a slow week does not
    become normal; `accept` makes it so.
    """

    def __init__(self, *, share: float = 0.95, block: int = 50, factor: float = 2.0) -> None:
        self.share = share
        self.block = block
        self.factor = factor
        self._past: list[float] = []
        self._now = Quantile(share)
        self._last: float | None = None

    def add(self, seconds: float) -> bool:
        """Take in a call; returns whether that completed a block."""
        self._now.add(seconds)
        if self._now.count < self.block:
            return False
        self._last = self._now.value()
        self._now = Quantile(self.share)
        if self._last is not None and self.ratio() < self.factor:
            self._remember(self._last)
        return True

    def accept(self) -> None:
        """Take the present for the new normal: begin the past with the last block."""
        self._past.clear()
        if self._last is not None:
            self._past.append(self._last)

    def usual(self) -> float | None:
        """Return the median p95 of the blocks of the past, None before there are three."""
        if len(self._past) < 3:  # noqa: PLR2004 (a median of less is none)
            return None
        return sorted(self._past)[len(self._past) // 2]

    def ratio(self) -> float:
        """Return how many times slower the last block was than usual, 1 when that is not known."""
        usual = self.usual()
        return 1.0 if usual is None or self._last is None or usual <= 0 else self._last / usual

    def _remember(self, value: float) -> None:
        self._past.append(value)
        if len(self._past) > 101:  # noqa: PLR2004 (about 5,000 calls are remembered)
            del self._past[0]
