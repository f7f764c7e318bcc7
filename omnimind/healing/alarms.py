"""What falls due when, in the healer: at most one alarm for each thing and subject."""

from __future__ import annotations

from heapq import heappop, heappush
from typing import Any, Literal

Kind = Literal["persist", "hold", "quiet", "retry", "timeout", "verify", "lease", "control", "relapse"]
Alarm = tuple[float, int, Kind, Any]
"""(when, number, kind, subject)"""


class Alarms:
    """Alarms in order of time. Of two for the same thing the earlier stands.

    So whoever handles one looks whether it is time, and sets it again when it is not: a condition that
    changes ten thousand times a second has one alarm.
    """

    def __init__(self) -> None:
        self._heap: list[Alarm] = []
        self._pending: dict[tuple[Kind, Any], float] = {}
        self._no = 0

    def __len__(self) -> int:
        return len(self._heap)

    def set(self, when: float, kind: Kind, subject: Any) -> None:
        """Ring at `when`, or earlier when that was asked before."""
        key = (kind, subject)
        pending = self._pending.get(key)
        if pending is not None and pending <= when:
            return
        self._pending[key] = when
        self._no += 1
        heappush(self._heap, (when, self._no, kind, subject))

    def due(self, now: float) -> Alarm | None:
        """Take the next alarm that is due, None when there is none."""
        heap = self._heap
        while heap and heap[0][0] <= now:
            alarm = heappop(heap)
            key = (alarm[2], alarm[3])
            if self._pending.get(key) == alarm[0]:
                del self._pending[key]
                return alarm
        return None

    def pending(self, kind: Kind, subject: Any) -> float | None:
        """Return when the alarm about a subject rings, None when none is set."""
        return self._pending.get((kind, subject))

    def next(self) -> float | None:
        """Return when the next alarm rings."""
        return self._heap[0][0] if self._heap else None
