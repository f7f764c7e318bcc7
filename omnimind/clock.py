"""Time as an input. Cores take `now` as a float of Unix seconds; shells get it from a `Clock`."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Anything that tells the time."""

    def now(self) -> float:
        """Return Unix seconds that never run backwards within a process."""


class SystemClock:
    """Wall time at its creation, monotonic from then on: a clock set back during a run cannot end a lease."""

    def __init__(self) -> None:
        self._offset = time.time() - time.monotonic()

    def now(self) -> float:
        """Return Unix seconds."""
        return time.monotonic() + self._offset


class ManualClock:
    """A clock that tests move by hand."""

    def __init__(self, start: float = 1_000_000.0) -> None:
        self.time = start

    def now(self) -> float:
        """Return the time that was set."""
        return self.time

    def advance(self, seconds: float) -> float:
        """Move on and return the new time."""
        self.time += seconds
        return self.time
