"""What counts as load. Planned load is not pressure.

A node whose slots are full of CPU-bound handlers runs at 100 % and is healthy. What is not healthy is that
somebody else takes the cores that the slots count on (`taken`), and that tasks stand in line for a core
(PSI, `stalled`) although the busy slots do not explain it. Stall alone is not pressure either: a handler
with many threads makes its own queue. So stall weighs what is taken, and by itself leads to 75 % at most::

    pressure = 1 - (1 - taken) * (1 - 3/4 * unexplained stall)

Follows: without foreign load a node is at most at 75 %, thus `optimal` or `good`; with it the pressure is
never less than the share that is taken.
"""

from __future__ import annotations

import math

import msgspec

STALL_WEIGHT = 0.75
"""How much stall counts: below the 80 % at which `warning` begins."""

EXPLAINED_STALL = 0.2
"""The share of time in which something waits for a core while one busy slot runs on every core.

Handlers that fill the cores exactly are disturbed by whatever wakes up for a moment beside them: the actors,
the raylet, the kernel.
"""


class CpuSample(msgspec.Struct, frozen=True):
    """The CPU of one node over one interval. Cores are counted in cores' worth of CPU time.

    cores: that the node may use, by its cgroup, its affinity or its machine. slots: attempts that may run
    at a time. busy_slots: the mean of those that did. busy: cores in use by everybody. own: cores in use
    by OmniMind's attempts and by the processes of its own instance (actors, raylet). stalled: share of the
    interval in which a runnable task waited for a core (PSI `some`), 0 where it is not known.
    """

    cores: float
    slots: int
    busy_slots: float
    busy: float
    own: float
    stalled: float = 0.0


def cpu_pressure(sample: CpuSample) -> float:
    """Return the pressure on a node's CPU in per cent, 0 to 100. Without a known core it is 0."""
    cores = _sane(sample.cores)
    if cores <= 0:
        return 0.0
    counted = min(cores, _sane(sample.slots)) or cores
    foreign = max(0.0, min(cores, _sane(sample.busy)) - _sane(sample.own))
    taken = min(1.0, max(0.0, foreign - (cores - counted)) / counted)
    busy_slots = _sane(sample.busy_slots)
    # More busy slots than cores: somebody always waits, by plan.
    explained = 1.0 if busy_slots > cores else EXPLAINED_STALL * busy_slots / cores
    stalled = min(1.0, _sane(sample.stalled))
    unexplained = (stalled - explained) / (1.0 - explained) if stalled > explained else 0.0
    return 100.0 * (1.0 - (1.0 - taken) * (1.0 - STALL_WEIGHT * unexplained))


class MemorySample(msgspec.Struct, frozen=True):
    """The memory of a machine or of one cgroup, in bytes. reclaimable: cache that gives way at once."""

    limit: int
    used: int
    reclaimable: int = 0

    @property
    def available(self) -> int:
        """Return the bytes that can still be had."""
        return max(0, min(self.limit, self.limit - self.used + self.reclaimable))

    @property
    def percent(self) -> float:
        """Return the share in use, without what can be reclaimed, in per cent."""
        return 100.0 * (self.limit - self.available) / self.limit if self.limit > 0 else 0.0


def _sane(value: float) -> float:
    return value if math.isfinite(value) and value > 0 else 0.0
