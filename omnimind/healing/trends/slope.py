"""A robust slope: how fast something grows, whatever single samples say.

Theil-Sen: the median of the slopes of all pairs. Up to 29 % of the samples may be anything at all without
moving it far. It is not the line between the first and the last sample, which one outlier decides.
H. Theil 1950, P. K. Sen 1968.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from statistics import median

import msgspec

SAMPLES = 120
"""Most samples of a window: 7,140 pairs, about a millisecond."""


class Growth(msgspec.Struct, frozen=True):
    """How something grows.

    per_second: the slope. steady: the share of pairs that grow. seconds: of the window.
    """

    per_second: float
    steady: float
    seconds: float
    samples: int


def theil_sen(times: Sequence[float], values: Sequence[float]) -> tuple[float, float]:
    """Return the median slope of all pairs, and the share of pairs that grow; (0, 0) without a pair."""
    slopes = [
        (values[j] - values[i]) / (times[j] - times[i])
        for i in range(len(times))
        for j in range(i + 1, len(times))
        if times[j] > times[i]
    ]
    if not slopes:
        return 0.0, 0.0
    return median(slopes), sum(slope > 0 for slope in slopes) / len(slopes)


class Window:
    """The samples of the last `seconds`, thinned to at most `samples`, and their growth."""

    def __init__(self, seconds: float, samples: int = SAMPLES) -> None:
        self.seconds = seconds
        self.gap = seconds / samples
        self._samples: deque[tuple[float, float]] = deque(maxlen=samples)

    def add(self, at: float, value: float) -> None:
        """Take a sample; one that is no number, too early after the last or before it is left out."""
        if not math.isfinite(value):
            return
        if self._samples and at - self._samples[-1][0] < self.gap:
            return
        self._samples.append((at, value))
        while self._samples[0][0] < at - self.seconds:
            self._samples.popleft()

    def clear(self) -> None:
        """Begin again: what was measured is another thing now (a process with the same pid)."""
        self._samples.clear()

    def growth(self) -> Growth:
        """Return how it grows."""
        times, values = [s[0] for s in self._samples], [s[1] for s in self._samples]
        slope, steady = theil_sen(times, values)
        span = times[-1] - times[0] if times else 0.0
        return Growth(slope, steady, span, len(times))


def leaks(growth: Growth, *, per_second: float, least_seconds: float, steady: float = 0.8) -> bool:
    """Return whether a process leaks: it grows by more than `per_second`, for long enough, and steadily.

    steady: the share of pairs that must grow. A cache that fills up and stops, a sawtooth of garbage and a
    single jump all have a slope; a leak grows in nearly every pair.
    """
    return growth.seconds >= least_seconds and growth.per_second > per_second and growth.steady >= steady
