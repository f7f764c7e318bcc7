"""The price of a repair in work: what the attempts on a node would lose, and whether a drain is cheaper.

The unit is the task-second: a second of a handler's time that has to be spent again. Killing an attempt now
loses what it has done since its start or its last checkpoint. A drain waits up to its deadline: what ends
within it loses nothing, the rest loses what it has done by then, and the wait itself costs nothing but
time. An attempt that may run only once is not priced, since it cannot be had again: it is counted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import StrEnum

import msgspec


class Attempt(msgspec.Struct, frozen=True):
    """A running attempt, as the coordinator knows it. Times in Unix seconds.

    expected: seconds that its handler usually takes, None where that is not known. saved_at: of its last
    checkpoint. once: it may not be run again (`at_most_once`). entity: the process that runs it.
    """

    task_id: str
    started_at: float
    expected: float | None = None
    saved_at: float | None = None
    once: bool = False
    deadline: float | None = None
    entity: str = ""


class Way(StrEnum):
    """How to get the work off a node first: nothing is there, drain it, or fence and requeue it."""

    NONE = "none"
    DRAIN = "drain"
    FENCE = "fence"


class Price(msgspec.Struct, frozen=True):
    """What a disruptive repair costs.

    lost_now: task-seconds when the attempts are fenced and requeued at once. lost_drained: when the node is
    drained first. wait: seconds that the drain takes. at_risk: attempts that may run only once and would not
    end within the drain. late: attempts whose own deadline a rerun would miss. way: the cheaper one.
    """

    attempts: int
    lost_now: float
    lost_drained: float
    wait: float
    at_risk: int
    late: int
    way: Way

    @property
    def lost(self) -> float:
        """Return task-seconds lost by the way that is taken."""
        return self.lost_now if self.way is Way.FENCE else self.lost_drained


FREE = Price(0, 0.0, 0.0, 0.0, 0, 0, Way.NONE)


def price(attempts: Sequence[Attempt], now: float, drain_deadline: float) -> Price:
    """Return the price of taking a node away from its attempts; `drain_deadline` in seconds."""
    if not attempts:
        return FREE
    lost_now = lost_drained = wait = 0.0
    at_risk = late = 0
    for attempt in attempts:
        elapsed = max(0.0, now - attempt.started_at)
        kept = attempt.started_at if attempt.saved_at is None else max(attempt.started_at, attempt.saved_at)
        unsaved = max(0.0, now - kept)
        left = math.inf if attempt.expected is None else max(0.0, attempt.expected - elapsed)
        lost_now += unsaved
        if left <= drain_deadline:
            wait = max(wait, left)
            continue
        wait = drain_deadline
        lost_drained += unsaved + drain_deadline
        at_risk += attempt.once
        again = attempt.expected or elapsed
        late += attempt.deadline is not None and now + again > attempt.deadline
    once = any(attempt.once for attempt in attempts)
    way = Way.DRAIN if once or lost_drained < lost_now else Way.FENCE
    return Price(len(attempts), lost_now, lost_drained, wait, at_risk, late, way)
