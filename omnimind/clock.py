"""Time as an input. Cores take `now` as a float of Unix seconds; shells get it from a `Clock`."""

from __future__ import annotations

import time
from collections import deque
from typing import Protocol

_SENDERS_MAX = 10_000


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


class SkewMeter:
    """How far the clocks of others are from one's own, by the times that they write on their messages.

    A message takes its time, which looks as if its sender's clock were late: the quickest of the last
    messages tells best.
    """

    def __init__(self, kept: int = 10) -> None:
        self._kept = kept
        self._seen: dict[str, deque[float]] = {}

    def note(self, sender: str, sent_at: float, now: float) -> float:
        """Take in a message, and return the sender's skew in seconds: above 0 when its clock is ahead."""
        seen = self._seen.pop(sender, None) or deque(maxlen=self._kept)
        self._seen[sender] = seen
        if len(self._seen) > _SENDERS_MAX:
            del self._seen[next(iter(self._seen))]
        seen.append(sent_at - now)
        return round(max(seen), 3)

    def forget(self, sender: str) -> None:
        """Keep nothing of a sender, which is gone or has begun anew."""
        self._seen.pop(sender, None)


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
