"""When a disk will be full at the present rate."""

from __future__ import annotations

import math

from omnimind.healing.trends.slope import Window


class Filling:
    """Watches the free room of one file system (bytes or inodes) over a window of `seconds`."""

    def __init__(self, seconds: float = 300.0) -> None:
        self._window = Window(seconds)
        self._free = math.inf

    def add(self, at: float, free: float) -> None:
        """Take a sample of what is free. Room that suddenly appears (a clean-up) begins the window again."""
        if not math.isfinite(free):
            return
        if free > self._free * 1.02 + 1.0:
            self._window.clear()
        self._free = free
        self._window.add(at, -free)

    def until_full(self, *, least_seconds: float = 30.0) -> float | None:
        """Return seconds until nothing is free: None when it does not fill up, or too little is known."""
        if self._free <= 0:
            return 0.0
        growth = self._window.growth()
        if growth.seconds < least_seconds or growth.per_second <= 0:
            return None
        return self._free / growth.per_second
