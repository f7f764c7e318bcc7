"""Tasks as a ledger may hold them, for tests of ledgers: consistent, and told apart by their numbers."""

from __future__ import annotations

from typing import Any

from omnimind import ids
from omnimind.cluster.records import Records, TaskRow, state_row, task_row
from omnimind.cluster.states import Line, TaskStatus
from omnimind.cluster.task import DistributedTask

START = 1_700_000_000.0
"""Unix seconds at which task 0 would have been submitted; each number is a second later."""


def id_of(seq: int) -> str:
    """Return the id of task number `seq`, as its client made it."""
    return f"tsk_{int((START + seq) * 1000):012x}7000800000000000{seq % ids.SLAB_MAX:04x}"


def a_task(seq: int, **fields: Any) -> DistributedTask:
    """Return task number `seq`, ready to run unless `fields` say otherwise."""
    chosen: dict[str, Any] = {
        "task_id": id_of(seq),
        "task_type": "tests.noop",
        "payload": b"[]",
        "created_at": START + seq,
        "rank": float(seq),
        "seq": seq,
        "line": Line.READY,
    }
    chosen |= fields
    return DistributedTask(**chosen)


def ended(task: DistributedTask, status: TaskStatus = TaskStatus.COMPLETED, **fields: Any) -> DistributedTask:
    """Change a task into an ended one, an hour after its submission, and return it."""
    task.status = status
    task.line = Line.NONE
    task.completed_at = task.created_at + 3600
    task.cause = status.value
    if status is TaskStatus.COMPLETED:
        task.result = b"null"
    for name, value in fields.items():
        setattr(task, name, value)
    return task


def inserts(*tasks: DistributedTask) -> Records:
    """Return the transaction that writes new tasks."""
    return Records(inserts=[task_row(task) for task in tasks])


def updates(*tasks: DistributedTask) -> Records:
    """Return the transaction that writes the present state of known tasks."""
    return Records(updates=[state_row(task) for task in tasks])


def row(task: DistributedTask) -> TaskRow:
    """Return what the ledger should answer for a task."""
    return task_row(task)
