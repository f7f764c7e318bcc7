"""What a transaction writes to PostgreSQL: few statements, however many rows, and one round trip."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

import msgspec
import psycopg

from omnimind.cluster.records import (
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
    references,
)
from omnimind.ledger import postgres_statements as pg
from omnimind.ledger import retention
from omnimind.ledger import statements as sql
from omnimind.ledger.postgres_pack import FLOAT8, INT8, TEXT, Kind, array, escape, shaped
from omnimind.ledger.rows import CHECKPOINT, OPTIONS, PAYLOAD, SEQ, bind_task
from omnimind.ledger.schema import INLINE_PAYLOAD

Cursor = psycopg.RawCursor[Any]

_options = itemgetter(OPTIONS)
_MANY = 2_000
"""Rows of one statement: bounds what is packed and held at a time."""


class Statement(NamedTuple):
    """A statement and its values. kept: whether it comes again in the same words, and is worth preparing."""

    text: bytes
    values: Sequence[Any]
    kept: bool = True


def packed(records: Records) -> tuple[list[Statement], list[Statement], list[Statement]]:
    """Return what writes the inserts, then the updates, then the rest, in the order `Records` promises."""
    # Each update is the whole state of its task: the last one of each counts.
    updates = list({row[-1]: row for row in records.updates}.values())
    others = [_plain(sql.INSERT_ATTEMPT, attempt) for attempt in records.attempts]
    for record in records.others:
        others += _other(record)
    return _inserts(records.inserts), _updates(updates), others


def run(cursor: Cursor, wanted: Iterable[Statement]) -> None:
    """Send statements; in a pipeline nobody waits for their answers."""
    for statement in wanted:
        cursor.execute(statement.text, statement.values, prepare=statement.kept)


def _plain(statement: str, values: Sequence[Any]) -> Statement:
    bound = [escape(v) if isinstance(v, str) else v for v in values]
    return Statement(pg.numbered(statement), bound)


def _inserts(rows: list[TaskRow]) -> list[Statement]:
    found: list[Statement] = []
    for part in _parts(rows):
        payloads = [(row[SEQ], row[PAYLOAD]) for row in part if len(row[PAYLOAD] or b"") > INLINE_PAYLOAD]
        if payloads:
            apart = {seq for seq, _ in payloads}
            lean = [(*r[:PAYLOAD], None, *r[PAYLOAD + 1 :]) if r[SEQ] in apart else r for r in part]
            found.append(_insert("tasks", pg.TASK, list(map(bind_task, lean))))
            found.append(_insert("payloads", pg.PAYLOAD, payloads))
        else:
            found.append(_insert("tasks", pg.TASK, list(map(bind_task, part))))
    found += [
        _plain(sql.SAVE_CHECKPOINT, (row[SEQ], row[CHECKPOINT]))
        for row in rows
        if row[CHECKPOINT] is not None
    ]
    uses: Counter[str] = Counter()
    for options, count in Counter(map(_options, rows)).items():
        uses[references(options)[0]] += count
    return found + _use(uses)


def _use(uses: Counter[str], sign: int = 1) -> list[Statement]:
    return [_plain(sql.USE_HANDLER, (digest, sign * n)) for digest, n in uses.items() if digest]


def _insert(table: str, columns: tuple[tuple[str, Kind], ...], rows: Sequence[Sequence[Any]]) -> Statement:
    shape = shaped(columns, rows, "seq")
    names = ", ".join(name for name, _ in columns)
    terms = ", ".join(shape.terms[name] for name, _ in columns)
    text = f"INSERT INTO {table} ({names}) SELECT {terms} FROM {shape.source}"
    return Statement(text.encode(), shape.values)


def _updates(rows: list[TaskRow]) -> list[Statement]:
    found = []
    for part in _parts(rows):
        shape = shaped(pg.STATE, part, "seq")
        terms = ", ".join(f"{name} = {shape.terms[name]}" for name, _ in pg.STATE[:-1])
        text = f"UPDATE tasks SET {terms} FROM {shape.source} WHERE tasks.seq = given.seq"
        found.append(Statement(text.encode(), shape.values))
    return found


def _parts(rows: list[TaskRow]) -> Iterable[list[TaskRow]]:
    return (rows[start : start + _MANY] for start in range(0, len(rows), _MANY))


def _other(record: Record) -> list[Statement]:  # noqa: C901, PLR0912  one case for each kind
    match record:
        case Discarded(seq=seq, at=at):
            return [_plain(sql.DISCARD, (seq, at))]
        case QueueSaved(policy=policy):
            return [_plain(sql.SAVE_QUEUE, (policy.name, msgspec.json.encode(policy)))]
        case QueueRemoved(name=name):
            return [_plain(sql.REMOVE_QUEUE, (name,))]
        case ScheduleSaved(schedule=schedule):
            return [_plain(sql.SAVE_SCHEDULE, (schedule.name, msgspec.msgpack.encode(schedule)))]
        case ScheduleRemoved(name=name):
            return [_plain(sql.REMOVE_SCHEDULE, (name,))]
        case NodeSaved(node_id=node_id, info=info):
            return [_plain(sql.SAVE_NODE, (node_id, info))]
        case NodeRemoved(node_id=node_id):
            return [_plain(sql.REMOVE_NODE, (node_id,))]
        case CheckpointSaved(seq=seq, data=data):
            return [_plain(sql.SAVE_CHECKPOINT, (seq, data))]
        case HandlerSaved(digest=digest, task_type=task_type, spec=spec):
            return [_plain(sql.SAVE_HANDLER, (digest, spec)), _plain(sql.SAVE_TYPE, (task_type, digest))]
        case BlobSaved(digest=digest, data=data):
            return [_plain(sql.SAVE_BLOB, (digest, data))]
        case ClaimSaved(key=key, task_id=task_id, digest=claimed, at=at):
            return [_plain(sql.SAVE_CLAIM, (key, task_id, claimed, at))]
        case ClaimRemoved(key=key):
            return [_plain(sql.REMOVE_CLAIM, (key,))]
        case DocumentSaved(kind=kind, name=name, data=data):
            return [_plain(sql.SAVE_DOCUMENT, (kind, name, data))]
        case DocumentRemoved(kind=kind, name=name):
            return [_plain(sql.REMOVE_DOCUMENT, (kind, name))]
        case LogSaved(task_id=task_id, fence=fence, lines=lines):
            return _log(escape(task_id), fence, lines)
        case AuditSaved(at=at, actor=actor, verb=verb, subject=subject, detail=detail):
            return [_plain(sql.INSERT_AUDIT, (at, actor, verb, subject, detail))]


def _log(task_id: str, fence: int, lines: tuple[tuple[float, str, str], ...]) -> list[Statement]:
    if not lines:
        return []
    at, level, text = zip(*lines, strict=True)
    values = (task_id, fence, array(FLOAT8, at), array(TEXT, level), array(TEXT, text))
    return [
        Statement(pg.APPEND_LOG.encode(), values),
        Statement(pg.TRIM_LOG.encode(), (task_id, retention.LOG_LINES)),
    ]


# ------------------------------------------------------------------------------------------------- prune


def prune(cursor: Cursor, before: float, keep: int, limit: int) -> int:
    """Delete ended tasks as `Ledger.prune` says, and at the end of a round what nobody needs any more."""

    def ask(statement: str, *values: Any) -> list[Any]:
        return cursor.execute(pg.numbered(statement), values, binary=True).fetchall()

    needed = retention.needed_ids(row[0] for row in ask(sql.WAITING_OPTIONS))
    surplus = ask(sql.COUNT_ENDED)[0][0] - keep
    # As they are stored: ids that are written back need no second `escape`.
    needed = {escape(task_id) for task_id in needed}
    oldest = ask(sql.OLDEST_ENDED, limit + len(needed))
    gone = [
        (seq, task_id, options)
        for n, (seq, task_id, options, ended_at) in enumerate(oldest)
        if (n < surplus or (ended_at or 0.0) < before) and task_id not in needed
    ][:limit]
    if gone:
        seqs = array(INT8, [seq for seq, _, _ in gone])
        ids = [task_id for _, task_id, _ in gone]
        run(cursor, [Statement(text.encode(), (seqs,)) for text in pg.FORGET])
        # A list, not `array`, which would escape what is escaped.
        run(cursor, [Statement(text.encode(), (ids,)) for text in pg.FORGET_BY_ID])
        run(cursor, _use(Counter(references(options)[0] for _, _, options in gone), -1))
        pruned_before = retention.youngest(ids, ask(sql.PRUNED)[0][1])
        run(cursor, [_plain(sql.NOTE_PRUNED, (len(gone), max(seq for seq, _, _ in gone), pruned_before))])
    if len(gone) < limit:
        _sweep(cursor, before)
    return len(gone)


def _sweep(cursor: Cursor, before: float) -> None:
    def column(statement: str) -> list[Any]:
        found = cursor.execute(pg.numbered(statement), binary=True).fetchall()
        return [row[0] for row in found]

    run(cursor, [_plain(sql.FORGET_UNUSED, ())])
    schedules = column(sql.SCHEDULES)
    handlers = retention.handlers_needed(column(sql.USED_HANDLERS), column(sql.CURRENT_HANDLERS), schedules)
    _sweep_table(cursor, "handlers", handlers, before)
    blobs = retention.blobs_needed(column(sql.HANDLER_SPECS))
    _sweep_table(cursor, "blobs", blobs | retention.blobs_needed(schedules), before)
    run(cursor, [_plain(sql.TRIM_AUDIT, (retention.AUDIT_ENTRIES,))])


def _sweep_table(cursor: Cursor, table: str, needed: set[str], before: float) -> None:
    present = dict(cursor.execute(f"SELECT digest, orphan_since FROM {table}".encode()).fetchall())
    mark, unmark, delete = retention.sweep(present, needed, before)
    since = f"UPDATE {table} SET orphan_since = $1::float8 WHERE digest = ANY($2::text[])".encode()
    wanted = [Statement(since, (value, names)) for value, names in ((before, mark), (None, unmark)) if names]
    if delete:
        text = f"DELETE FROM {table} WHERE digest = ANY($1::text[])".encode()
        wanted.append(Statement(text, (delete,)))
    run(cursor, wanted)
