"""How many tasks travel together: as many as run for about `batch_seconds`, by the handler's own times."""

from __future__ import annotations

import msgspec

from omnimind.cluster.policies import CoreLimits

_SMOOTHING = 0.3
_GROWTH = 4
_MAX_KINDS = 4096


class _Pace(msgspec.Struct):
    seconds: float
    size: int
    """The largest batch tried so far: a size grows by a factor of at most 4 a batch, since a handler's
    first calls say little about its later ones.
    """


class DurationBook:
    """Exponentially weighted seconds a task, by task type and handler. At most 4,096 kinds are remembered."""

    def __init__(self, limits: CoreLimits) -> None:
        self._limits = limits
        self._paces: dict[tuple[str, str], _Pace] = {}

    def observe(self, kind: tuple[str, str], tasks: int, seconds: float) -> None:
        """Learn that `tasks` tasks took `seconds` of handler time together."""
        each = max(seconds / tasks, 1e-7)
        pace = self._paces.get(kind)
        if pace is None:
            if len(self._paces) >= _MAX_KINDS:
                del self._paces[next(iter(self._paces))]
            self._paces[kind] = _Pace(each, tasks)
            return
        # A slow surprise counts fully, a fast one only in part: a long batch costs more than a short one.
        weight = 0.7 if each > 2 * pace.seconds else _SMOOTHING
        pace.seconds += weight * (each - pace.seconds)
        pace.size = max(pace.size, tasks)

    def estimate(self, kind: tuple[str, str]) -> float | None:
        """Return seconds a task, None for a handler that has not ended a task yet."""
        pace = self._paces.get(kind)
        return None if pace is None else pace.seconds

    def size(self, kind: tuple[str, str], handler_kind: str) -> int:
        """Return how many tasks of this handler should travel together."""
        if handler_kind == "async":
            return self._limits.async_batch
        pace = self._paces.get(kind)
        if pace is None or handler_kind == "generator":
            return 1
        fits = int(self._limits.batch_seconds / pace.seconds)
        return max(1, min(fits, self._limits.batch_max, pace.size * _GROWTH))

    def quick(self, kind: tuple[str, str]) -> bool:
        """Return whether a task of this handler is known to take less than `batch_seconds`."""
        pace = self._paces.get(kind)
        return pace is not None and pace.seconds < self._limits.batch_seconds
