"""`MemoryLedger`: the ledger as plain dicts, with the same answers and no file.

For tests, and the model that the database is compared with. Deterministic, no I/O, no clock. What `write`
took is kept until the process ends; `snapshot` and `restore` model a crash that loses later writes.
"""

from __future__ import annotations

import copy
from typing import Any

import msgspec

from omnimind.cluster.events import KnownTask, Recovered
from omnimind.cluster.node import NodeInfo
from omnimind.cluster.policies import QueuePolicy, Schedule
from omnimind.cluster.records import (
    STATE_COLUMNS,
    TASK_COLUMNS,
    AttemptRow,
    AuditSaved,
    BlobSaved,
    CheckpointSaved,
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
    references,
    task_from_row,
)
from omnimind.cluster.states import Line
from omnimind.errors import LedgerError, LedgerFenced
from omnimind.ledger import retention
from omnimind.ledger.interface import (
    Attempts,
    AuditEntries,
    Ids,
    LogLines,
    Page,
    Sentences,
    TaskFilter,
    Usage,
)
from omnimind.ledger.rows import (
    CAUSE,
    CHECKPOINT,
    COMPLETED_AT,
    CREATED_AT,
    DEADLINE,
    DIGEST,
    ID,
    KEY,
    LINE,
    NODE,
    OPTIONS,
    PAYLOAD,
    QUEUE,
    RANK,
    RESULT,
    SEQ,
    STATUS,
    TYPE,
)

_FIXED = len(TASK_COLUMNS) - len(STATE_COLUMNS)
_FIRST = (float("-inf"), 0)


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
    queues: dict[str, QueuePolicy] = msgspec.field(default_factory=dict)
    schedules: dict[str, Schedule] = msgspec.field(default_factory=dict)
    nodes: dict[str, bytes] = msgspec.field(default_factory=dict)
    handlers: dict[str, bytes] = msgspec.field(default_factory=dict)
    types: dict[str, str] = msgspec.field(default_factory=dict)
    blobs: dict[str, bytes] = msgspec.field(default_factory=dict)
    orphans: dict[str, float] = msgspec.field(default_factory=dict)
    """Since when nobody needs these handlers and blobs."""
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


class MemoryLedger:
    """A ledger in memory, on a `Store` of its own or a given one."""

    def __init__(self, store: Store | None = None) -> None:
        self.store = store or Store()
        self.epoch = 0
        self._commits = 0
        self._written = 0

    # -------------------------------------------------------------------------------- opening, writing

    def open(self, window: int) -> Recovered:
        store = self.store
        store.epoch += 1
        self.epoch = store.epoch
        self._commits = self._written = 0
        ready = self._line(Line.READY)
        delayed = self._line(Line.DELAYED)
        waiting = [task_from_row(row) for row in self._line(Line.WAITING)]
        tails: dict[str, int] = {}
        for row in ready[window:]:
            tails[row[QUEUE]] = tails.get(row[QUEUE], 0) + 1
        return Recovered(
            epoch=self.epoch,
            last_seq=max(store.pruned_seq, *store.rows) if store.rows else store.pruned_seq,
            ready=[task_from_row(row) for row in ready[:window]],
            delayed=[task_from_row(row) for row in delayed[:window]],
            waiting=waiting,
            running=[task_from_row(row) for row in self._line(Line.RUNNING)],
            tails=tails,
            delayed_tail=len(delayed[window:]),
            nodes=[msgspec.json.decode(store.nodes[name], type=NodeInfo) for name in sorted(store.nodes)],
            queues=[store.queues[name] for name in sorted(store.queues)],
            schedules=[store.schedules[name] for name in sorted(store.schedules)],
            known_ids=self.known_ids([*dict.fromkeys(i for task in waiting for i in task.after)]),
        )

    def close(self) -> None:
        """Do nothing: there is nothing to release."""

    def snapshot(self) -> Store:
        """Return the store as it is now."""
        return self.store.copied()

    def restore(self, snapshot: Store) -> None:
        """Go back to a snapshot, as if all later writes had been lost; the snapshot stays usable."""
        self.store = snapshot.copied()

    def write(self, records: Records) -> None:
        if not records:
            return
        self._check_epoch()
        self._check_unique(records.inserts)
        store = self.store
        for row in records.inserts:
            store.rows[row[SEQ]] = row
            store.seq_of[row[ID]] = row[SEQ]
            if row[KEY] is not None:
                store.keys[row[KEY]] = row[SEQ]
        for state in records.updates:
            before = store.rows.get(state[-1])
            if before is not None:
                store.rows[state[-1]] = before[:_FIXED] + state[:-1]
        for attempt in records.attempts:
            store.attempts.setdefault(attempt[0], []).append(attempt)
        for record in records.others:
            self._other(record)
        self._commits += 1
        self._written += len(records.inserts) + len(records.updates)

    def _check_epoch(self) -> None:
        if self.epoch != self.store.epoch:
            msg = f"epoch {self.epoch} is over: a newer coordinator owns this ledger"
            raise LedgerFenced(msg, hint="this coordinator must stop")

    def _check_unique(self, inserts: list[TaskRow]) -> None:
        """Refuse a transaction that would number, name or key two tasks alike, before any of it is done."""
        for column, taken in ((SEQ, self.store.rows), (ID, self.store.seq_of), (KEY, self.store.keys)):
            seen: dict[Any, None] = {}
            for row in inserts:
                value = row[column]
                if value is not None and (value in taken or value in seen):
                    msg = f"UNIQUE: {TASK_COLUMNS[column]} {value!r} is in the ledger already"
                    raise LedgerError(msg)
                seen[value] = None

    def _other(self, record: Record) -> None:  # noqa: C901  one case for each kind of record
        store = self.store
        match record:
            case QueueSaved(policy=policy):
                store.queues[policy.name] = policy
            case QueueRemoved(name=name):
                store.queues.pop(name, None)
            case ScheduleSaved(schedule=schedule):
                store.schedules[schedule.name] = schedule
            case ScheduleRemoved(name=name):
                store.schedules.pop(name, None)
            case NodeSaved(node_id=node_id, info=info):
                store.nodes[node_id] = info
            case NodeRemoved(node_id=node_id):
                store.nodes.pop(node_id, None)
            case CheckpointSaved(seq=seq, data=data):
                if (row := store.rows.get(seq)) is not None:
                    store.rows[seq] = _with(row, {CHECKPOINT: data})
            case HandlerSaved(digest=digest, task_type=task_type, spec=spec):
                store.handlers[digest] = spec
                store.types[task_type] = digest
                store.orphans.pop(digest, None)
            case BlobSaved(digest=digest, data=data):
                store.blobs.setdefault(digest, data)
                store.orphans.pop(digest, None)
            case LogSaved(task_id=task_id, lines=lines):
                if task_id in store.seq_of:
                    kept = store.logs.setdefault(task_id, [])
                    start = kept[-1][0] + 1 if kept else 1
                    kept += [(start + n, *line) for n, line in enumerate(lines)]
                    del kept[: -retention.LOG_LINES]
            case AuditSaved():
                store.audit.append(record)

    # ----------------------------------------------------------------------------------------- reading

    def tasks(self, ids: list[str]) -> list[TaskRow]:
        store = self.store
        return [store.rows[store.seq_of[i]] for i in dict.fromkeys(ids) if i in store.seq_of]

    def known_ids(self, ids: list[str]) -> dict[str, KnownTask]:
        return {row[ID]: _known(row) for row in self.tasks(ids)}

    def known_keys(self, keys: list[str]) -> dict[str, KnownTask]:
        store = self.store
        return {key: _known(store.rows[store.keys[key]]) for key in keys if key in store.keys}

    def _line(self, line: Line, queue: str | None = None, after: tuple[float, int] = _FIRST) -> list[TaskRow]:
        rows = [
            row
            for row in self.store.rows.values()
            if row[LINE] == line and (queue is None or row[QUEUE] == queue) and _place(row) > after
        ]
        rows.sort(key=_place)
        return rows

    def ready(self, queue: str, after: tuple[float, int], limit: int) -> list[TaskRow]:
        return self._line(Line.READY, queue, after)[:limit]

    def delayed(self, after: tuple[float, int], limit: int) -> list[TaskRow]:
        return self._line(Line.DELAYED, None, after)[:limit]

    def overdue(self, before: float, limit: int) -> list[TaskRow]:
        rows = [
            row
            for row in self.store.rows.values()
            if row[STATUS] == "pending" and row[DEADLINE] is not None and row[DEADLINE] <= before
        ]
        rows.sort(key=lambda row: (row[DEADLINE], row[SEQ]))
        return rows[:limit]

    def list(self, where: TaskFilter, before_seq: int | None, limit: int) -> Page:
        rows: list[TaskRow] = []
        for seq in sorted(self.store.rows, reverse=True):
            row = self.store.rows[seq]
            if (before_seq is None or seq < before_seq) and _matches(row, where):
                if len(rows) == limit:
                    return Page(rows, rows[-1][SEQ] if rows else before_seq)
                rows.append(_with(row, {PAYLOAD: None, RESULT: None}))
        return Page(rows, None)

    def find(self, prefix: str, limit: int) -> Ids:
        return sorted(i for i in self.store.seq_of if i.startswith(prefix))[:limit]

    def attempts(self, task_id: str) -> Attempts:
        return [*self.store.attempts.get(task_id, ())]

    def logs(self, task_id: str, after: int, limit: int) -> LogLines:
        return [line for line in self.store.logs.get(task_id, ()) if line[0] > after][:limit]

    def handlers(self) -> dict[str, tuple[str, bytes]]:
        return {name: (digest, self.store.handlers[digest]) for name, digest in self.store.types.items()}

    def handler(self, digest: str) -> bytes | None:
        return self.store.handlers.get(digest)

    def blob(self, digest: str) -> bytes | None:
        return self.store.blobs.get(digest)

    def audit(self, limit: int) -> AuditEntries:
        newest = self.store.audit[: -limit - 1 : -1]
        return [(a.at, a.actor, a.verb, a.subject, a.detail) for a in newest]

    def usage(self) -> Usage:
        by_status: dict[str, int] = {}
        by_queue: dict[str, dict[str, int]] = {}
        for row in self.store.rows.values():
            by_status[row[STATUS]] = by_status.get(row[STATUS], 0) + 1
            if row[LINE] != Line.NONE:
                lines = by_queue.setdefault(row[QUEUE], {})
                line = Line(row[LINE]).name.lower()
                lines[line] = lines.get(line, 0) + 1
        return Usage(by_status, by_queue, 0, self.store.pruned, self.store.pruned_before)

    def pruned_before(self) -> float | None:
        return self.store.pruned_before

    # --------------------------------------------------------------------------------------- retention

    def prune(self, before: float, keep: int, limit: int) -> int:
        self._check_epoch()
        store = self.store
        needed = retention.needed_ids(row[OPTIONS] for row in self._line(Line.WAITING))
        ended = [row for row in store.rows.values() if row[LINE] == Line.NONE]
        ended.sort(key=lambda row: (row[COMPLETED_AT] or 0.0, row[SEQ]))
        surplus = len(ended) - keep
        gone = [
            row
            for n, row in enumerate(ended)
            if (n < surplus or (row[COMPLETED_AT] or 0.0) < before) and row[ID] not in needed
        ][:limit]
        for row in gone:
            del store.rows[row[SEQ]]
            del store.seq_of[row[ID]]
            store.keys.pop(row[KEY], None)
            store.attempts.pop(row[ID], None)
            store.logs.pop(row[ID], None)
            store.pruned_seq = max(store.pruned_seq, row[SEQ])
        store.pruned += len(gone)
        store.pruned_before = retention.youngest((row[ID] for row in gone), store.pruned_before)
        if len(gone) < limit:
            self._sweep(before)
        return len(gone)

    def _sweep(self, before: float) -> None:
        store = self.store
        schedules = [schedule.task for schedule in store.schedules.values()]
        used = [references(row[OPTIONS])[0] for row in store.rows.values()]
        handlers = retention.handlers_needed(used, store.types.values(), schedules)
        self._sweep_table(store.handlers, handlers, before)
        self._sweep_table(store.blobs, retention.blobs_needed([*store.handlers.values(), *schedules]), before)
        del store.audit[: -retention.AUDIT_ENTRIES]

    def _sweep_table(self, table: dict[str, bytes], needed: set[str], before: float) -> None:
        orphans = self.store.orphans
        mark, unmark, delete = retention.sweep({d: orphans.get(d) for d in table}, needed, before)
        orphans |= dict.fromkeys(mark, before)
        for digest in (*unmark, *delete):
            orphans.pop(digest, None)
        for digest in delete:
            del table[digest]

    # ------------------------------------------------------------------------------------- maintenance

    def maintain(self) -> None:
        """Do nothing: there is nothing to tidy."""

    @property
    def full(self) -> bool:
        """Return False."""
        return False

    def check(self) -> Sentences:
        return []

    def statistics(self) -> dict[str, Any]:
        return {
            "commits": self._commits, "rows": self._written, "seconds": 0.0, "bytes": 0, "wal_bytes": 0,
            "full": False, "epoch": self.epoch,
        }  # fmt: skip


def _known(row: TaskRow) -> KnownTask:
    return KnownTask(row[ID], row[STATUS], row[DIGEST], row[CAUSE])


def _place(row: TaskRow) -> tuple[float, int]:
    return row[RANK], row[SEQ]


def _with(row: TaskRow, changes: dict[int, Any]) -> TaskRow:
    return tuple(changes.get(n, value) for n, value in enumerate(row))


def _matches(row: TaskRow, where: TaskFilter) -> bool:
    return (
        (where.status is None or row[STATUS] in where.status)
        and (where.queue is None or row[QUEUE] == where.queue)
        and (where.task_type is None or row[TYPE] == where.task_type)
        and (where.node is None or row[NODE] == where.node)
        and (where.since is None or row[CREATED_AT] >= where.since)
        and (where.until is None or row[CREATED_AT] < where.until)
    )
