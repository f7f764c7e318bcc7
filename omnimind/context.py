"""`TaskContext`: what a handler may know and say about the attempt that it is.

A handler gets it by a parameter annotated ``TaskContext``, or anywhere by `current()`.
"""

from __future__ import annotations

import time
from contextvars import ContextVar
from typing import Any, Protocol

import msgspec

from omnimind import encoding
from omnimind.errors import InvalidInput, OmniMindError

CHECKPOINT_MAX = 1 << 20
LOG_LINES_MAX = 1_000
LOG_TEXT_MAX = 4_096
_LOOK_EVERY = 0.05


class Cancelled(OmniMindError):
    """The task was asked to end. Raised by `TaskContext.check`; let it pass through."""

    code = "cancelled"


class Link(Protocol):
    """The worker's line to its node."""

    def stop_cause(self, index: int) -> str | None:
        """Return why item `index` should end, None while it may go on."""

    def progress(self, index: int, value: dict[str, Any]) -> None:
        """Pass on how far item `index` is."""

    def log(self, index: int, at: float, level: str, text: str) -> None:
        """Pass on a line."""

    def checkpoint(self, index: int, data: bytes) -> None:
        """Store a checkpoint; returns when it is durable."""


class TaskContext:
    """One attempt, seen from inside.

    task_id; task_type; attempt: 0 at first; deadline: Unix seconds or None. fence: a number that every
    further attempt of the task exceeds. A store that refuses writes with a lower number than it has seen
    keeps out an attempt that was given up and goes on all the same (a node that was cut off).
    """

    def __init__(
        self,
        link: Link,
        index: int,
        *,
        task_id: str,
        task_type: str,
        attempt: int,
        deadline: float | None,
        checkpoint: bytes | None,
        fence: int = 0,
    ) -> None:
        self.task_id = task_id
        self.task_type = task_type
        self.attempt = attempt
        self.fence = fence
        self.deadline = deadline
        self._link = link
        self._index = index
        self._checkpoint = checkpoint
        self._lines = 0

    @property
    def cancelled(self) -> bool:
        """Return whether the task was asked to end (it is told within about half a second)."""
        return self._link.stop_cause(self._index) is not None

    def check(self) -> None:
        """Raise Cancelled when the task was asked to end; cheap enough for an inner loop."""
        cause = self._link.stop_cause(self._index)
        if cause is not None:
            raise Cancelled(f"asked to end: {cause}")

    def progress(self, done: float, total: float | None = None, message: str = "") -> None:
        """Say how far the work is: `done` of `total`, or a fraction from 0 to 1 when there is no total."""
        self._link.progress(
            self._index, {"done": done, "total": total, "message": message[:LOG_TEXT_MAX], "at": time.time()}
        )

    def log(self, text: str, level: str = "info") -> None:
        """Keep a line with the task: at most 1,000 an attempt, 4,096 characters each."""
        self._lines += 1
        if self._lines == LOG_LINES_MAX:
            text = f"{text[:LOG_TEXT_MAX]} (further lines of this attempt are dropped)"
        if self._lines <= LOG_LINES_MAX:
            self._link.log(self._index, time.time(), level, text[:LOG_TEXT_MAX])

    def checkpoint(self, value: Any) -> None:
        """Store how far the work is, durably: the next attempt finds it in `last_checkpoint`.

        Returns when it is on disk (some milliseconds). At most 1 MiB. Raises InvalidInput beyond it.
        """
        data, kind = encoding.encode(value, "checkpoint")
        if len(data) > CHECKPOINT_MAX:
            raise InvalidInput(
                f"a checkpoint of {len(data):,} bytes is over {CHECKPOINT_MAX:,}",
                field="checkpoint",
                hint="write the data to a file and keep its path as the checkpoint",
            )
        self._checkpoint = msgspec.msgpack.encode([kind, data])
        self._link.checkpoint(self._index, self._checkpoint)

    @property
    def last_checkpoint(self) -> Any:
        """Return what an earlier attempt, or this one, stored last; None when nothing was."""
        if self._checkpoint is None:
            return None
        kind, data = msgspec.msgpack.decode(self._checkpoint)
        return encoding.decode(data, kind)


active: ContextVar[TaskContext | None] = ContextVar("omnimind_task", default=None)


def current() -> TaskContext:
    """Return the context of the running attempt. Raises OmniMindError outside of one."""
    context = active.get()
    if context is None:
        msg = "no task is running here"
        raise OmniMindError(msg, hint="call the handler through OmniMind, or test it without its context")
    return context
