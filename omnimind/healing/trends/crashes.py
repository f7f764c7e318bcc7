"""Crash loops: a process that ends again and again, soon after its start."""

from __future__ import annotations

from collections import deque


class Crashes:
    """The ends of one process. It loops when it ended `count` times within `seconds`.

    An end after at least `healthy` seconds of life begins the count again: a server that dies once a day does
    not loop, however long it is watched.
    """

    def __init__(self, *, count: int = 5, seconds: float = 60.0, healthy: float = 600.0) -> None:
        self.count = count
        self.seconds = seconds
        self.healthy = healthy
        self._ends: deque[float] = deque(maxlen=count)
        self._tries = 0

    def ended(self, at: float, lived: float) -> bool:
        """Note an end after `lived` seconds; returns whether it loops."""
        if lived >= self.healthy:
            self._ends.clear()
            self._tries = 0
        self._ends.append(at)
        self._tries += 1
        return self.looping(at)

    def looping(self, now: float) -> bool:
        """Return whether it loops now."""
        return len(self._ends) == self.count and self._ends[0] > now - self.seconds

    def delay(self, *, first: float = 0.1, cap: float = 30.0) -> float:
        """Return seconds before the next start: none at first, then doubled with each end, at most `cap`.

        An end after a healthy life begins with none again.
        """
        return 0.0 if self._tries <= 1 else min(cap, first * 2.0 ** min(self._tries - 2, 40))
