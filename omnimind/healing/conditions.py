"""Conditions: what is bad, since when, and whether it keeps changing its mind.

One `Condition` for each key that is bad, was bad lately, or has an issue; everything else takes no memory.
"""

from __future__ import annotations

import math
from collections import deque

from omnimind.healing.events import Observation
from omnimind.healing.issues import Issue, Key
from omnimind.healing.policy import Detection, Rule

REPEAT = 5.0
"""Seconds between two records of a condition that is as bad as before, but whose numbers or words differ."""


class Condition:
    """What is known of one key. since: of its last change; flips: the times of its changes, for flapping.

    says: the last word of each voice (monitor and observer); it is bad as long as one says so.
    """

    __slots__ = ("bad", "flips", "issue", "key", "last", "recorded", "rule", "saved", "says", "seen", "since")

    def __init__(self, key: Key, observation: Observation, rule: Rule, now: float) -> None:
        self.key = key
        self.bad = True
        self.since = now
        self.seen = now
        self.last = observation
        self.rule = rule
        self.flips: deque[float] = deque()
        self.issue: Issue | None = None
        self.saved = now
        self.says: dict[str, bool] = {}
        self.recorded: tuple[bool, str, float] | None = None

    @property
    def persist(self) -> float:
        """Return seconds for which it must be bad."""
        return self.rule.persist or 0.0

    @property
    def hold_down(self) -> float:
        """Return seconds for which it must be good before its issue is closed."""
        return self.rule.hold_down or 0.0

    def flip(self, bad: bool, now: float, detection: Detection) -> None:
        """Note that it has changed."""
        self.bad = bad
        self.since = now
        self.flips.append(now)
        while len(self.flips) > detection.flap_count:
            self.flips.popleft()

    def flapping(self, now: float, detection: Detection) -> bool:
        """Return whether it changed `flap_count` times within the window that ends now."""
        flips = self.flips
        return len(flips) >= detection.flap_count and flips[0] > now - detection.flap_window

    def quiet_at(self, detection: Detection) -> float:
        """Return when the last change will have left the window."""
        return (self.flips[-1] if self.flips else self.since) + detection.flap_window

    def worth_recording(self, observation: Observation, bad: bool, now: float) -> bool:
        """Return whether `replay` needs this observation; notes it when it does."""
        before = self.recorded
        same = before is not None and before[:2] == (bad, observation.severity.value)
        if same and (not bad or observation.value is None or now - before[2] < REPEAT):  # type: ignore[index]
            return False
        self.recorded = (bad, observation.severity.value, now)
        return True


def is_bad(observation: Observation, rule: Rule, was_bad: bool) -> bool:
    """Return whether an observation is bad: by the thresholds of the rule, else by the monitor's word.

    A value that is no number says nothing; then the monitor's word counts.
    """
    value = observation.value
    if value is None or rule.enter is None or not math.isfinite(value):
        return observation.bad
    leave = rule.enter if rule.leave is None else rule.leave
    return value >= rule.enter or (was_bad and value > leave)
