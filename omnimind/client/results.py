"""What a client gets when a task has ended: its value, or the error that says how it failed."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from omnimind import encoding
from omnimind.client.protocol import Result
from omnimind.cluster.states import TaskStatus
from omnimind.errors import TaskCancelled, TaskDead, TaskExpired, TaskFailed

R = TypeVar("R")

_ERRORS: dict[str, type[TaskFailed]] = {
    TaskStatus.FAILED: TaskFailed,
    TaskStatus.CANCELLED: TaskCancelled,
    TaskStatus.EXPIRED: TaskExpired,
    TaskStatus.DEAD: TaskDead,
}


def value_of(result: Result) -> Any:
    """Return a completed task's value. Raises the error of one that ended otherwise."""
    if result.status != "completed":
        raise error_of(result)
    return None if result.value is None else encoding.decode(result.value, result.encoding)


def error_of(result: Result) -> TaskFailed:
    """Return the error of a task that ended without a value, with the handler's traceback as a note."""
    problem = result.error or {}
    kind, text = problem.get("type", ""), problem.get("message", "")
    said = f"{kind}: {text}" if kind and text else kind or text or result.cause
    cls = _ERRORS.get(result.status, TaskFailed)
    error = cls(
        f"{result.task_id} {result.status}: {said}",
        hint=cls.default_hint.replace("ID", result.task_id) or f"see: omnimind explain {result.task_id}",
        task_id=result.task_id,
        task_status=result.status,
        cause=result.cause,
        error_type=kind,
        error_message=text,
        traceback=problem.get("traceback", ""),
    )
    if problem.get("traceback"):
        error.add_note(f"In the handler:\n{problem['traceback']}")
    return error


class TaskResult(Generic[R]):
    """How one task of a `map` ended.

    index: its place in the input. status: ``completed``, ``failed``, ``cancelled``, ``expired``, ``dead``.
    """

    __slots__ = ("_raw", "index", "status", "task_id")

    def __init__(self, raw: Result, index: int) -> None:
        self._raw = raw
        self.index = index
        self.status = raw.status
        self.task_id = raw.task_id

    @property
    def ok(self) -> bool:
        """Return whether the task completed."""
        return self.status == "completed"

    @property
    def result(self) -> R:
        """Return the value, decoded anew at each access. Raises `error` when there is none."""
        value: R = value_of(self._raw)
        return value

    @property
    def error(self) -> TaskFailed | None:
        """Return the error of a task that did not complete."""
        return None if self.status == "completed" else error_of(self._raw)

    def __repr__(self) -> str:
        return f"<TaskResult {self.index} {self.task_id} {self.status}>"
