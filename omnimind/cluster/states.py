"""The states of a task and of a node, and every transition between them. Nowhere else.

A task::

    pending ──dispatch──> running ──result──> completed
       ^  |                 |  |
       |  | cancel          |  +──error, no retry──> failed
       |  +────────────┐    |  +──cancelled────────> cancelled
       |  | deadline   |    |  +──deadline─────────> expired
       |  v            v    |  +──killed workers───> dead
       |  expired  cancelled|
       +──retry, lost───────+

A pending task also ends `failed` when a task that it comes after has failed. The five states on the
right are terminal: no event leads out of them; running such work again makes a new task.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum

from omnimind.errors import OmniMindError


class TaskStatus(StrEnum):
    """Where a task is in its life."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    DEAD = "dead"


class NodeStatus(StrEnum):
    """What a node may be given."""

    ACTIVE = "active"
    BUSY = "busy"
    DEGRADED = "degraded"
    CORDONED = "cordoned"
    DRAINING = "draining"
    SUSPECT = "suspect"
    OFFLINE = "offline"


class TaskPriority(IntEnum):
    """The five priority classes, as the most urgent number of each (1 is most urgent, 10 least)."""

    CRITICAL = 1
    HIGH = 3
    MEDIUM = 5
    LOW = 7
    BACKGROUND = 9


class Line(IntEnum):
    """Which line a live task stands in. `NONE` is a terminal task's."""

    NONE = -1
    READY = 0
    DELAYED = 1
    WAITING = 2
    RUNNING = 3


TERMINAL = (
    TaskStatus.COMPLETED,
    TaskStatus.FAILED,
    TaskStatus.CANCELLED,
    TaskStatus.EXPIRED,
    TaskStatus.DEAD,
)

TASK_TRANSITIONS: dict[TaskStatus, tuple[TaskStatus, ...]] = {
    TaskStatus.PENDING: (
        TaskStatus.RUNNING,
        TaskStatus.FAILED,
        TaskStatus.CANCELLED,
        TaskStatus.EXPIRED,
    ),
    TaskStatus.RUNNING: (TaskStatus.PENDING, *TERMINAL),
    **dict.fromkeys(TERMINAL, ()),
}

NODE_TRANSITIONS: dict[NodeStatus, tuple[NodeStatus, ...]] = {
    NodeStatus.ACTIVE: (
        NodeStatus.BUSY,
        NodeStatus.DEGRADED,
        NodeStatus.CORDONED,
        NodeStatus.DRAINING,
        NodeStatus.SUSPECT,
        NodeStatus.OFFLINE,
    ),
    NodeStatus.BUSY: (
        NodeStatus.ACTIVE,
        NodeStatus.DEGRADED,
        NodeStatus.CORDONED,
        NodeStatus.DRAINING,
        NodeStatus.SUSPECT,
        NodeStatus.OFFLINE,
    ),
    NodeStatus.DEGRADED: (
        NodeStatus.ACTIVE,
        NodeStatus.CORDONED,
        NodeStatus.DRAINING,
        NodeStatus.SUSPECT,
        NodeStatus.OFFLINE,
    ),
    NodeStatus.CORDONED: (
        NodeStatus.ACTIVE,
        NodeStatus.DRAINING,
        NodeStatus.SUSPECT,
        NodeStatus.OFFLINE,
    ),
    NodeStatus.DRAINING: (
        NodeStatus.ACTIVE,
        NodeStatus.CORDONED,
        NodeStatus.SUSPECT,
        NodeStatus.OFFLINE,
    ),
    NodeStatus.SUSPECT: (
        NodeStatus.ACTIVE,
        NodeStatus.DEGRADED,
        NodeStatus.CORDONED,
        NodeStatus.DRAINING,
        NodeStatus.OFFLINE,
    ),
    NodeStatus.OFFLINE: (
        NodeStatus.ACTIVE,
        NodeStatus.CORDONED,
        NodeStatus.DRAINING,
    ),
}


class InvalidTransition(OmniMindError):
    """A state may not follow another: a bug in OmniMind."""

    code = "invalid_transition"


def priority_number(value: int | str | TaskPriority) -> int:
    """Return the number (1 to 10) of a priority given as class, name or number.

    Raises ValueError naming what is allowed.
    """
    if isinstance(value, str):
        try:
            return int(TaskPriority[value.upper()])
        except KeyError:
            pass
    elif isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 10:  # noqa: PLR2004
        return int(value)
    names = ", ".join(p.name.lower() for p in TaskPriority)
    msg = f"{value!r} is no priority: use {names}, or a number from 1 (most urgent) to 10"
    raise ValueError(msg)


def priority_class(number: int) -> TaskPriority:
    """Return the class of a priority number: 1-2 critical, 3-4 high, 5-6 medium, 7-8 low, 9-10 background."""
    return _CLASSES[number]


_CLASSES = {n: TaskPriority(n if n % 2 else n - 1) for n in range(1, 11)}
