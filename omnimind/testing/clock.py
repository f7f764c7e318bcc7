"""`SimClock`: virtual time, and the order of everything that happens in a simulation."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any

START = 1_700_000_000.0
"""Unix seconds at which every simulation begins."""

_Entry = tuple[float, int, Callable[..., None], tuple[Any, ...]]


class SimClock:
    """A heap of (time, number, call). The number breaks ties, so equal times keep their order of entry."""

    def __init__(self, start: float = START) -> None:
        self.now = start
        self.calls = 0
        self._heap: list[_Entry] = []
        self._number = 0

    def at(self, when: float, call: Callable[..., None], *args: Any) -> None:
        """Call at a time; a time that has passed means now."""
        self._number += 1
        heappush(self._heap, (max(when, self.now), self._number, call, args))

    def after(self, seconds: float, call: Callable[..., None], *args: Any) -> None:
        """Call after some seconds."""
        self._number += 1
        heappush(self._heap, (self.now + seconds, self._number, call, args))

    def run(self, until: float, done: Callable[[], bool] | None = None, limit: int = 1 << 62) -> bool:
        """Make the calls up to a time, or until `done` (asked after each call) says so.

        Returns whether `done` did. Raises RuntimeError after `limit` calls: a loop that takes no time.
        """
        heap = self._heap
        calls = 0
        try:
            while heap and heap[0][0] <= until:
                self.now, _, call, args = heappop(heap)
                calls += 1
                call(*args)
                if done is not None and done():
                    return True
                if calls > limit:
                    msg = f"{limit} calls, and only {self.now - START:.3f} s: something goes round in circles"
                    raise RuntimeError(msg)
            if until > self.now and until != float("inf"):
                self.now = until
            return done is not None and done()
        finally:
            self.calls += calls
