"""What the core asks the ledger to write, and the one place that knows a task's row.

`Effects` is what `handle` returns. Its records are applied in one transaction, in this order: inserts,
updates (in their own order), attempts, the others. Only then may its sends leave.
"""

from __future__ import annotations

from typing import Any

import msgspec

from omnimind.cluster.events import Outcome
from omnimind.cluster.node import NodeInfo
from omnimind.cluster.policies import QueuePolicy, Schedule
from omnimind.cluster.states import Line, TaskStatus
from omnimind.cluster.task import DistributedTask, TaskOptions

TASK_COLUMNS = (
    "seq", "id", "type", "queue", "priority", "payload", "encoding", "options", "key", "digest",
    "deadline", "created_at", "origin", "checkpoint",
    "status", "line", "rank", "not_before", "retry_count", "deaths", "fence", "node", "result",
    "result_encoding", "error", "cause", "started_at", "completed_at", "solo",
)  # fmt: skip
"""Columns of the table `tasks`, in the order of `task_row`. The first 14 never change but `checkpoint`."""

STATE_COLUMNS = TASK_COLUMNS[TASK_COLUMNS.index("status") :]
"""Columns that an update sets, in the order of `state_row`, which ends with `seq`."""

TaskRow = tuple[Any, ...]

STOPPING = "stopping: "
"""How the cause of a running task begins that was asked to end; the rest is `DistributedTask.cancelling`."""
AttemptRow = tuple[str, int, int, str | None, str, str, bytes | None, float, float | None]
"""(task id, attempt number from 0, fence, node, outcome, cause, error as JSON, ended at, seconds)."""

ATTEMPT_COLUMNS = (
    "task_id", "attempt", "fence", "node", "outcome", "cause", "error", "ended_at", "seconds",
)  # fmt: skip


class _Shared(msgspec.Struct, frozen=True, array_like=True):
    """The part of a task's row that a whole submission shares, encoded once."""

    options: TaskOptions
    needs: tuple[str, ...]
    max_retries: int
    timeout: float | None
    at_most_once: bool
    after: tuple[str, ...]


class QueueSaved(msgspec.Struct, frozen=True, tag=True):
    """Insert or replace a queue's policy."""

    policy: QueuePolicy


class QueueRemoved(msgspec.Struct, frozen=True, tag=True):
    """Delete a queue's policy."""

    name: str


class ScheduleSaved(msgspec.Struct, frozen=True, tag=True):
    """Insert or replace a schedule."""

    schedule: Schedule


class ScheduleRemoved(msgspec.Struct, frozen=True, tag=True):
    """Delete a schedule."""

    name: str


class NodeSaved(msgspec.Struct, frozen=True, tag=True):
    """Insert or replace what is known of a node (a copy, as JSON bytes of `NodeInfo`)."""

    node_id: str
    info: bytes


class NodeRemoved(msgspec.Struct, frozen=True, tag=True):
    """Forget a node."""

    node_id: str


class CheckpointSaved(msgspec.Struct, frozen=True, tag=True):
    """Store a task's latest checkpoint."""

    seq: int
    data: bytes


class HandlerSaved(msgspec.Struct, frozen=True, tag=True):
    """Remember a handler's record (`omnimind.registry.HandlerSpec`) and make it its type's current one."""

    digest: str
    task_type: str
    spec: bytes


class BlobSaved(msgspec.Struct, frozen=True, tag=True):
    """Store bytes by their digest: a function by value, or a driver's packed working folder."""

    digest: str
    data: bytes


class ClaimSaved(msgspec.Struct, frozen=True, tag=True):
    """Let a key stand for a task, in whatever shard that is (`at`: Unix seconds)."""

    key: str
    task_id: str
    digest: bytes | None
    at: float


class ClaimRemoved(msgspec.Struct, frozen=True, tag=True):
    """Let a key stand for nothing any more; one that stood for nothing changes nothing."""

    key: str


class DocumentSaved(msgspec.Struct, frozen=True, tag=True):
    """Keep a small document (JSON) under its kind and name; one that was there is replaced."""

    kind: str
    name: str
    data: bytes


class DocumentRemoved(msgspec.Struct, frozen=True, tag=True):
    """Keep a document no longer; one that is not there changes nothing."""

    kind: str
    name: str


class LogSaved(msgspec.Struct, frozen=True, tag=True):
    """Append lines that a handler logged: (Unix seconds, level, text)."""

    task_id: str
    fence: int
    lines: tuple[tuple[float, str, str], ...]


class AuditSaved(msgspec.Struct, frozen=True, tag=True):
    """Write down who changed what."""

    at: float
    actor: str
    verb: str
    subject: str
    detail: str = ""


class Discarded(msgspec.Struct, frozen=True, tag=True):
    """Take a dead letter off the list of dead letters; its record stays."""

    seq: int
    at: float


Record = (
    Discarded
    | QueueSaved
    | QueueRemoved
    | ScheduleSaved
    | ScheduleRemoved
    | NodeSaved
    | NodeRemoved
    | CheckpointSaved
    | HandlerSaved
    | BlobSaved
    | ClaimSaved
    | ClaimRemoved
    | DocumentSaved
    | DocumentRemoved
    | LogSaved
    | AuditSaved
)


class Records(msgspec.Struct):
    """One transaction's worth of writing."""

    inserts: list[TaskRow] = msgspec.field(default_factory=list)
    updates: list[TaskRow] = msgspec.field(default_factory=list)
    attempts: list[AttemptRow] = msgspec.field(default_factory=list)
    others: list[Record] = msgspec.field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.inserts or self.updates or self.attempts or self.others)

    def extend(self, other: Records) -> None:
        """Append another transaction's writing to this one."""
        self.inserts += other.inserts
        self.updates += other.updates
        self.attempts += other.attempts
        self.others += other.others


_encoder = msgspec.msgpack.Encoder()
_shared_decoder = msgspec.msgpack.Decoder(_Shared)
_last_shared: list[Any] = [None, b""]
_decoded: dict[bytes, _Shared] = {}
_DECODED_MAX = 4096


def _shared_bytes(task: DistributedTask) -> bytes:
    key = (task.options, task.needs, task.max_retries, task.timeout, task.at_most_once, task.after)
    if _last_shared[0] == key:
        return _last_shared[1]  # type: ignore[no-any-return]
    data = _encoder.encode(
        _Shared(
            task.options, tuple(sorted(task.needs)), task.max_retries, task.timeout,
            task.at_most_once, task.after,
        )
    )  # fmt: skip
    _last_shared[:] = [key, data]
    return data


def _json_or_none(value: Any) -> bytes | None:
    return None if value is None else msgspec.json.encode(value)


def task_row(task: DistributedTask) -> TaskRow:
    """Return a task's whole row, in the order of `TASK_COLUMNS`."""
    return (
        task.seq, task.task_id, task.task_type, task.queue, task.priority, task.payload, task.encoding,
        _shared_bytes(task), task.key, task.digest, task.deadline, task.created_at, task.origin,
        task.checkpoint,
        *state_row(task)[:-1],
    )  # fmt: skip


def state_row(task: DistributedTask) -> TaskRow:
    """Return the changeable part of a task's row, in the order of `STATE_COLUMNS`, then `seq`."""
    return (
        task.status.value, int(task.line), task.rank, task.not_before, task.retry_count, task.deaths,
        task.fence, task.assigned_node, task.result, task.result_encoding,
        None if task.error is None else msgspec.json.encode(task.error),
        task.cause, task.started_at, task.completed_at, int(task.solo), task.seq,
    )  # fmt: skip


def _decode(options: bytes) -> _Shared:
    if len(_decoded) >= _DECODED_MAX:
        _decoded.clear()
    common = _decoded[options] = _shared_decoder.decode(options)
    return common


def references(options: bytes) -> tuple[str, tuple[str, ...]]:
    """Return what a row's `options` refer to: its handler's digest, and the ids that it comes after."""
    common = _decoded.get(options) or _decode(options)
    return common.options.handler, common.after


def task_from_row(row: TaskRow) -> DistributedTask:
    """Make the task again from its row."""
    (
        seq, task_id, task_type, queue, priority, payload, encoding, shared, key, digest,
        deadline, created_at, origin, checkpoint, status, line, rank, not_before, retry_count, deaths,
        fence, node, result, result_encoding, error, cause, started_at, completed_at, solo,
    ) = row  # fmt: skip
    common = _decoded.get(shared) or _decode(shared)
    return DistributedTask(
        task_id, task_type, payload, priority, queue, frozenset(common.needs), common.max_retries,
        common.timeout, deadline, not_before, key, common.after, common.at_most_once, common.options,
        encoding, origin, TaskStatus(status), node, retry_count, deaths, fence, result, result_encoding,
        None if error is None else msgspec.json.decode(error), cause, created_at, started_at,
        completed_at, checkpoint, digest, seq, Line(line), rank, Line(line), bool(solo),
        cause.removeprefix(STOPPING) if line == Line.RUNNING and cause.startswith(STOPPING) else None,
    )  # fmt: skip


def attempt_row(task: DistributedTask, outcome: Outcome, cause: str, now: float) -> AttemptRow:
    """Return the record of an attempt that did not succeed."""
    return (
        task.task_id, task.retry_count + task.deaths, task.fence, task.assigned_node, outcome.status,
        cause, _json_or_none(outcome.error), now, outcome.seconds or None,
    )  # fmt: skip


def node_saved(node: NodeInfo) -> NodeSaved:
    """Return the record of a node as it is now."""
    # In order, since the capabilities are a set: the same node is the same record in every process.
    return NodeSaved(node.node_id, msgspec.json.encode(node, order="deterministic"))
