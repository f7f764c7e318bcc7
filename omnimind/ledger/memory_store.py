"""What `MemoryLedger` keeps instead of a disk, and what a transaction does to it."""

from __future__ import annotations

import copy
from typing import Any

import msgspec

from omnimind.cluster.policies import QueuePolicy, Schedule
from omnimind.cluster.records import (
    STATE_COLUMNS,
    TASK_COLUMNS,
    AttemptRow,
    AuditSaved,
    BlobSaved,
    CheckpointSaved,
    ClaimRemoved,
    ClaimSaved,
    Discarded,
    DocumentRemoved,
    DocumentSaved,
    HandlerSaved,
    LogSaved,
    NodeRemoved,
    NodeSaved,
    QueueRemoved,
    QueueSaved,
    Record,
    Records,
    ScheduleRemoved,
    ScheduleSaved,
    TaskRow,
)
from omnimind.errors import LedgerError
from omnimind.ledger import retention
from omnimind.ledger.rows import CHECKPOINT, ID, KEY, SEQ

_FIXED = len(TASK_COLUMNS) - len(STATE_COLUMNS)


class Store(msgspec.Struct):
    """What stands in for the disk. Several ledgers on one store are several openings of one database."""

    epoch: int = 0
    pruned: int = 0
    pruned_seq: int = 0
    pruned_before: float | None = None
    rows: dict[int, TaskRow] = msgspec.field(default_factory=dict)
    seq_of: dict[str, int] = msgspec.field(default_factory=dict)
    keys: dict[str, int] = msgspec.field(default_factory=dict)
    attempts: dict[str, list[AttemptRow]] = msgspec.field(default_factory=dict)
    logs: dict[str, list[tuple[int, float, str, str]]] = msgspec.field(default_factory=dict)
    discarded: dict[int, float] = msgspec.field(default_factory=dict)
    queues: dict[str, QueuePolicy] = msgspec.field(default_factory=dict)
    schedules: dict[str, Schedule] = msgspec.field(default_factory=dict)
    nodes: dict[str, bytes] = msgspec.field(default_factory=dict)
    handlers: dict[str, bytes] = msgspec.field(default_factory=dict)
    types: dict[str, str] = msgspec.field(default_factory=dict)
    blobs: dict[str, bytes] = msgspec.field(default_factory=dict)
    orphans: dict[str, float] = msgspec.field(default_factory=dict)
    """Since when nobody needs these handlers and blobs."""
    claims: dict[str, ClaimSaved] = msgspec.field(default_factory=dict)
    documents: dict[tuple[str, str], bytes] = msgspec.field(default_factory=dict)
    audit: list[AuditSaved] = msgspec.field(default_factory=list)

    def copied(self) -> Store:
        """Return a copy that later writes do not touch (rows and records never change in place)."""
        fresh = copy.copy(self)
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if isinstance(value, dict):
                value = {k: list(v) if isinstance(v, list) else v for k, v in value.items()}
            elif isinstance(value, list):
                value = list(value)
            setattr(fresh, name, value)
        return fresh

    def apply(self, records: Records) -> None:
        """Do what a transaction says; raises LedgerError before any of it when it cannot be done whole."""
        self._check_unique(records.inserts)
        for row in records.inserts:
            self.rows[row[SEQ]] = row
            self.seq_of[row[ID]] = row[SEQ]
            if row[KEY] is not None:
                self.keys[row[KEY]] = row[SEQ]
        for state in records.updates:
            before = self.rows.get(state[-1])
            if before is not None:
                self.rows[state[-1]] = before[:_FIXED] + state[:-1]
        for attempt in records.attempts:
            self.attempts.setdefault(attempt[0], []).append(attempt)
        for record in records.others:
            self._other(record)

    def _check_unique(self, inserts: list[TaskRow]) -> None:
        """Refuse a transaction that would number, name or key two tasks alike, before any of it is done."""
        for column, taken in ((SEQ, self.rows), (ID, self.seq_of), (KEY, self.keys)):
            seen: dict[Any, None] = {}
            for row in inserts:
                value = row[column]
                if value is not None and (value in taken or value in seen):
                    msg = f"UNIQUE: {TASK_COLUMNS[column]} {value!r} is in the ledger already"
                    raise LedgerError(msg)
                seen[value] = None

    def _other(self, record: Record) -> None:  # noqa: C901, PLR0912  one case for each kind
        match record:
            case Discarded(seq=seq, at=at):
                if seq in self.rows:
                    self.discarded.setdefault(seq, at)
            case QueueSaved(policy=policy):
                self.queues[policy.name] = policy
            case QueueRemoved(name=name):
                self.queues.pop(name, None)
            case ScheduleSaved(schedule=schedule):
                self.schedules[schedule.name] = schedule
            case ScheduleRemoved(name=name):
                self.schedules.pop(name, None)
            case NodeSaved(node_id=node_id, info=info):
                self.nodes[node_id] = info
            case NodeRemoved(node_id=node_id):
                self.nodes.pop(node_id, None)
            case CheckpointSaved(seq=seq, data=data):
                if (row := self.rows.get(seq)) is not None:
                    self.rows[seq] = with_values(row, {CHECKPOINT: data})
            case HandlerSaved(digest=digest, task_type=task_type, spec=spec):
                self.handlers[digest] = spec
                self.types[task_type] = digest
                self.orphans.pop(digest, None)
            case BlobSaved(digest=digest, data=data):
                self.blobs.setdefault(digest, data)
                self.orphans.pop(digest, None)
            case ClaimSaved(key=key):
                self.claims[key] = record
            case ClaimRemoved(key=key):
                self.claims.pop(key, None)
            case DocumentSaved(kind=kind, name=name, data=data):
                self.documents[kind, name] = data
            case DocumentRemoved(kind=kind, name=name):
                self.documents.pop((kind, name), None)
            case LogSaved(task_id=task_id, lines=lines):
                if task_id in self.seq_of:
                    kept = self.logs.setdefault(task_id, [])
                    start = kept[-1][0] + 1 if kept else 1
                    kept += [(start + n, *line) for n, line in enumerate(lines)]
                    del kept[: -retention.LOG_LINES]
            case AuditSaved():
                self.audit.append(record)


def with_values(row: TaskRow, changes: dict[int, Any]) -> TaskRow:
    return tuple(changes.get(n, value) for n, value in enumerate(row))
