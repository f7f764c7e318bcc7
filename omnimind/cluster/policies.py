"""Values that people set: queues, schedules and the bounds of the core."""

from __future__ import annotations

from typing import Any

import msgspec

MAX_NAME = 200
"""Most characters in the name of a queue or a schedule."""


class QueuePolicy(msgspec.Struct, frozen=True):
    """A queue's share and limits.

    weight: share of handler time against other queues with work. concurrency: most attempts at one
    time. rate: most starts a second (a burst of at most one second's worth). max_pending: a submission
    beyond it is refused with 429. None means no limit.
    """

    name: str
    weight: float = 1.0
    concurrency: int | None = None
    rate: float | None = None
    max_pending: int = 2_000_000
    paused: bool = False


class Schedule(msgspec.Struct, frozen=True):
    """A recurring submission: every `interval` seconds, or by a cron expression in `timezone`.

    Runs that were missed while nothing could run are made up for by one run. `task` is the template of
    the submission as a row (see `records.task_row`); `next_run` and `last_run` are Unix seconds.
    """

    name: str
    task: bytes
    cron: str | None = None
    interval: float | None = None
    timezone: str = "UTC"
    paused: bool = False
    next_run: float = 0.0
    last_run: float | None = None
    runs: int = 0


class CoreLimits(msgspec.Struct, frozen=True):
    """The core's settings. Times in seconds.

    window: live tasks in memory, over all queues; the rest waits on disk.
    ageing: seconds after which a waiting task has risen by one priority class.
    batch_seconds, batch_max, batch_bytes: how large a batch may grow.
    async_batch: tasks of an `async def` handler that run together in one worker.
    heartbeat_timeout: silence after which a node is given up; suspect_after: after which it gets no work.
    recovery_grace: how long a restarted coordinator waits for the nodes' reports before it dispatches.
    stall: a core that is woken so much too late takes itself for slow, and not the nodes for silent.
    dispatch_grace: how long a batch may be missing from its node's heartbeats before it counts as lost.
    cancel_grace: between asking a handler to stop and killing its worker.
    max_deaths: worker deaths that park a task in the dead letters.
    max_waiting: most tasks that wait for others. keep_ended: ended tasks kept in `tasks`.
    keep_offline: how long a node stays listed that is gone; the longest gone go first beyond 100 of them.
    """

    window: int = 50_000
    ageing: float = 300.0
    batch_seconds: float = 0.05
    batch_max: int = 256
    batch_bytes: int = 1 << 20
    async_batch: int = 64
    heartbeat_timeout: float = 5.0
    suspect_after: float = 2.0
    recovery_grace: float = 3.0
    stall: float = 0.5
    dispatch_grace: float = 3.0
    cancel_grace: float = 10.0
    max_deaths: int = 3
    max_waiting: int = 100_000
    keep_ended: int = 0
    keep_offline: float = 3600.0


def to_builtins(value: msgspec.Struct) -> dict[str, Any]:
    """Return a policy as a dict of JSON values."""
    return dict(msgspec.to_builtins(value))
