"""What falls due when: one heap for every kind of alarm."""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import Literal

Kind = Literal["deadline", "rate", "schedule", "grace", "drain", "recovery"]
Alarm = tuple[float, int, Kind, str, int]
"""(when, number, kind, subject, fence or 0)"""


class Timers:
    """Alarms in order of time. An alarm whose cause has gone is harmless: whoever handles it looks again."""

    def __init__(self) -> None:
        self._heap: list[Alarm] = []
        self._no = 0

    def __len__(self) -> int:
        return len(self._heap)

    def set(self, when: float, kind: Kind, subject: str, fence: int = 0) -> None:
        """Ring at `when`."""
        self._no += 1
        heappush(self._heap, (when, self._no, kind, subject, fence))

    def due(self, now: float) -> Alarm | None:
        """Take the next alarm that is due, None when there is none."""
        if self._heap and self._heap[0][0] <= now:
            return heappop(self._heap)
        return None

    def next(self) -> float | None:
        """Return when the next alarm rings."""
        return self._heap[0][0] if self._heap else None

    def prune(self, live: dict[str, object]) -> None:
        """Drop deadline and grace alarms of subjects that are not in `live`."""
        self._heap = [a for a in self._heap if a[2] not in {"deadline", "grace"} or a[3] in live]
        heapify(self._heap)
