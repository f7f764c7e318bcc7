"""`DistributedTask`: one unit of work, from submission to its one terminal state."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from omnimind.cluster.states import (
    TASK_TRANSITIONS,
    InvalidTransition,
    Line,
    TaskStatus,
    priority_class,
    priority_number,
)

AT_LEAST = ">="
"""Between name and amount in a need that asks for an amount: ``gpu>=2``."""


class TaskOptions(msgspec.Struct, frozen=True, array_like=True):
    """What tasks of one submission share: how to run them and how to repeat them.

    retry_base, retry_factor, retry_cap: seconds, factor and seconds of the backoff with full jitter.
    non_retryable: exception class names (``ValueError`` or ``pkg.mod.Error``) that end a task at once.
    num_cpus, num_gpus, memory (bytes): passed to Ray. handler: digest of the handler's record.
    kind: ``sync``, ``async`` or ``generator``.
    """

    retry_base: float = 1.0
    retry_factor: float = 2.0
    retry_cap: float = 60.0
    non_retryable: tuple[str, ...] = ()
    num_cpus: float = 1.0
    num_gpus: float = 0.0
    memory: int = 0
    handler: str = ""
    kind: str = "sync"

    @property
    def amounts(self) -> frozenset[str]:
        """Return what a node must have for its GPUs and memory, as needs (see `NodeInfo.lacking`).

        Ray would keep a batch that fits nowhere, and say nothing.
        """
        asked = ["gpu"] if self.num_gpus > 0 else []
        asked += [f"gpu{AT_LEAST}{self.num_gpus:g}"] if self.num_gpus > 1 else []
        asked += [f"memory{AT_LEAST}{self.memory}"] if self.memory > 0 else []
        return frozenset(asked)

    @property
    def slots(self) -> int:
        """Return the slots that one batch of such tasks takes on its node: its CPUs, at least 1."""
        return max(1, -int(-self.num_cpus // 1))


DEFAULT_OPTIONS = TaskOptions()
_NO_NEEDS: frozenset[str] = frozenset()


class DistributedTask(msgspec.Struct, gc=False):
    """One unit of work.

    payload: what the handler is called with (inside the cluster: bytes in `encoding`).
    priority: `TaskPriority`, its name, or 1 (most urgent) to 10; kept as a number.
    needs: capabilities that a node must have, all of them.
    max_retries: further attempts after exceptions; worker deaths and lost nodes are counted apart.
    timeout: seconds for one attempt. deadline, not_before: Unix seconds.
    after: ids of tasks that must complete first.
    at_most_once: never start it twice; a lost attempt ends as ``failed`` with the cause ``lost``.

    The garbage collector does not look into it (there may be a hundred thousand of them): a payload that
    refers back to its own task is never freed.

    Raises ValueError for a priority that is none.
    """

    task_id: str
    task_type: str
    payload: Any = None
    priority: int = 5
    queue: str = "default"
    needs: frozenset[str] = _NO_NEEDS
    max_retries: int = 3
    timeout: float | None = None
    deadline: float | None = None
    not_before: float = 0.0
    key: str | None = None
    after: tuple[str, ...] = ()
    at_most_once: bool = False
    options: TaskOptions = DEFAULT_OPTIONS
    encoding: str = "json"
    origin: str | None = None
    """Why it exists when no person submitted it: ``retry_of:ID`` or ``schedule:NAME``."""
    status: TaskStatus = TaskStatus.PENDING
    assigned_node: str | None = None
    retry_count: int = 0
    deaths: int = 0
    fence: int = 0
    result: Any = None
    result_encoding: str = "json"
    error: dict[str, Any] | None = None
    cause: str = "submitted"
    created_at: float = 0.0
    started_at: float | None = None
    completed_at: float | None = None
    checkpoint: bytes | None = None
    digest: bytes | None = None
    seq: int = 0
    line: Line = Line.NONE
    rank: float = 0.0
    stored: Line = Line.NONE
    """The line that the ledger's row says; NONE before there is a row."""
    solo: bool = False
    """Travels alone, since it was in a batch whose worker died."""
    cancelling: str | None = None
    """The cause of a requested end (``cancelled`` or ``deadline``) while an attempt still runs."""
    entry: int = 0
    """The number of its entry in the heap of its line; entries with other numbers are left over."""

    def __post_init__(self) -> None:
        if type(self.priority) is not int:
            self.priority = priority_number(self.priority)
        elif not 1 <= self.priority <= 10:  # noqa: PLR2004
            priority_number(self.priority)
        if type(self.needs) is not frozenset:
            self.needs = frozenset(self.needs)
        if type(self.after) is not tuple:
            self.after = tuple(self.after)

    def move(self, status: TaskStatus) -> None:
        """Go to `status`; raises InvalidTransition when no transition leads there."""
        if status not in TASK_TRANSITIONS[self.status]:
            msg = f"task {self.task_id}: {self.status} -> {status} ({self.cause})"
            raise InvalidTransition(msg)
        self.status = status

    @property
    def terminal(self) -> bool:
        """Return whether the task has ended."""
        return not TASK_TRANSITIONS[self.status]

    def to_dict(self) -> dict[str, Any]:
        """Return the public view, with JSON values only where payload and result are JSON."""
        return {
            "task_id": self.task_id,
            "task_type": self.task_type,
            "payload": self.payload,
            "priority": self.priority,
            "priority_class": priority_class(self.priority).name.lower(),
            "queue": self.queue,
            "needs": sorted(self.needs),
            "status": self.status.value,
            "assigned_node": self.assigned_node,
            "retry_count": self.retry_count,
            "max_retries": self.max_retries,
            "worker_deaths": self.deaths,
            "timeout": self.timeout,
            "deadline": self.deadline,
            "not_before": self.not_before or None,
            "key": self.key,
            "after": list(self.after),
            "at_most_once": self.at_most_once,
            "origin": self.origin,
            "result": self.result,
            "error": self.error,
            "cause": self.cause,
            "created_at": self.created_at,
            "started_at": self.started_at,
            "completed_at": self.completed_at,
        }


def payload_digest(task: DistributedTask) -> bytes:
    """Return what makes two submissions under one key the same: a hash of type, encoding and payload.

    A payload that is not bytes is hashed as canonical JSON, or by `repr` where it is no JSON.
    """
    payload = task.payload
    if not isinstance(payload, bytes):
        try:
            payload = msgspec.json.encode(payload, order="sorted")
        except (TypeError, ValueError):
            payload = repr(payload).encode()
    head = f"{task.task_type}\0{task.encoding}\0".encode()
    return hashlib.sha256(head + payload).digest()[:16]
