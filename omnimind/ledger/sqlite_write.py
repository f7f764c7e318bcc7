"""What a transaction writes, on a connection that stands inside one."""

from __future__ import annotations

import sqlite3
from collections import Counter
from operator import itemgetter

import msgspec

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
from omnimind.failpoints import failpoint
from omnimind.ledger import retention
from omnimind.ledger import statements as sql
from omnimind.ledger.rows import (
    CHECKPOINT,
    OPTIONS,
    SEQ,
    bind_done,
    bind_fresh,
    bind_task,
    sort_inserts,
    sort_updates,
)

_options = itemgetter(OPTIONS)


def apply(connection: sqlite3.Connection, records: Records) -> None:
    """Write all of it, in the order that `Records` promises."""
    if records.inserts:
        _insert(connection, records.inserts)
        failpoint("ledger.after_inserts")
    if records.updates:
        for done, rows in sort_updates(records.updates):
            if done:
                connection.executemany(sql.UPDATE_DONE, map(bind_done, rows))
            else:
                connection.executemany(sql.UPDATE_TASK, rows)
        failpoint("ledger.after_updates")
    if records.attempts:
        connection.executemany(sql.INSERT_ATTEMPT, records.attempts)
    for record in records.others:
        _other(connection, record)


def _insert(connection: sqlite3.Connection, rows: list[TaskRow]) -> None:
    fresh, others, payloads = sort_inserts(rows)
    if fresh:
        connection.executemany(sql.INSERT_FRESH, map(bind_fresh, fresh))
    if others:
        connection.executemany(sql.INSERT_TASK, map(bind_task, others))
        checkpoints = [(row[SEQ], row[CHECKPOINT]) for row in others if row[CHECKPOINT] is not None]
        if checkpoints:
            connection.executemany(sql.SAVE_CHECKPOINT, checkpoints)
    if payloads:
        connection.executemany(sql.INSERT_PAYLOAD, payloads)
    uses: Counter[str] = Counter()
    for options, count in Counter(map(_options, rows)).items():
        uses[references(options)[0]] += count
    connection.executemany(sql.USE_HANDLER, ((digest, n) for digest, n in uses.items() if digest))


def _other(connection: sqlite3.Connection, record: Record) -> None:  # noqa: C901, PLR0912  one case for each kind
    execute = connection.execute
    match record:
        case Discarded(seq=seq, at=at):
            execute(sql.DISCARD, (seq, at))
        case QueueSaved(policy=policy):
            execute(sql.SAVE_QUEUE, (policy.name, msgspec.json.encode(policy)))
        case QueueRemoved(name=name):
            execute(sql.REMOVE_QUEUE, (name,))
        case ScheduleSaved(schedule=schedule):
            execute(sql.SAVE_SCHEDULE, (schedule.name, msgspec.msgpack.encode(schedule)))
        case ScheduleRemoved(name=name):
            execute(sql.REMOVE_SCHEDULE, (name,))
        case NodeSaved(node_id=node_id, info=info):
            execute(sql.SAVE_NODE, (node_id, info))
        case NodeRemoved(node_id=node_id):
            execute(sql.REMOVE_NODE, (node_id,))
        case CheckpointSaved(seq=seq, data=data):
            execute(sql.SAVE_CHECKPOINT, (seq, data))
        case HandlerSaved(digest=digest, task_type=task_type, spec=spec):
            execute(sql.SAVE_HANDLER, (digest, spec))
            execute(sql.SAVE_TYPE, (task_type, digest))
        case BlobSaved(digest=digest, data=data):
            execute(sql.SAVE_BLOB, (digest, data))
        case ClaimSaved(key=key, task_id=task_id, digest=data, at=at):
            execute(sql.SAVE_CLAIM, (key, task_id, data, at))
        case ClaimRemoved(key=key):
            execute(sql.REMOVE_CLAIM, (key,))
        case DocumentSaved(kind=kind, name=name, data=data):
            execute(sql.SAVE_DOCUMENT, (kind, name, data))
        case DocumentRemoved(kind=kind, name=name):
            execute(sql.REMOVE_DOCUMENT, (kind, name))
        case LogSaved(task_id=task_id, fence=fence, lines=lines):
            _log(connection, task_id, fence, lines)
        case AuditSaved(at=at, actor=actor, verb=verb, subject=subject, detail=detail):
            execute(sql.INSERT_AUDIT, (at, actor, verb, subject, detail))


def _log(
    connection: sqlite3.Connection, task_id: str, fence: int, lines: tuple[tuple[float, str, str], ...]
) -> None:
    found = connection.execute(sql.LAST_LOG, (task_id,)).fetchone()
    if found is None:  # A late line of a task that was pruned.
        return
    numbered = enumerate(lines, start=found[0] + 1)
    connection.executemany(
        sql.INSERT_LOG, [(task_id, number, fence, at, level, text) for number, (at, level, text) in numbered]
    )
    surplus = found[0] + len(lines) - retention.LOG_LINES
    if surplus > 0:
        connection.execute(sql.TRIM_LOG, (task_id, surplus))


def prune(connection: sqlite3.Connection, before: float, keep: int, limit: int) -> int:
    """Delete ended tasks as `Ledger.prune` says, and at the end of a round what nobody needs any more."""
    needed = retention.needed_ids(row[0] for row in connection.execute(sql.WAITING_OPTIONS))
    surplus = connection.execute(sql.COUNT_ENDED).fetchone()[0] - keep
    oldest = connection.execute(sql.OLDEST_ENDED, (limit + len(needed),))
    gone = [
        (seq, task_id, options)
        for n, (seq, task_id, options, ended_at) in enumerate(oldest)
        if (n < surplus or (ended_at or 0.0) < before) and task_id not in needed
    ][:limit]
    if gone:
        for statement in sql.FORGET_BY_SEQ:
            connection.executemany(statement, [(seq,) for seq, _, _ in gone])
        for statement in sql.FORGET_BY_ID:
            connection.executemany(statement, [(task_id,) for _, task_id, _ in gone])
        uses = Counter(references(options)[0] for _, _, options in gone)
        connection.executemany(sql.USE_HANDLER, [(digest, -n) for digest, n in uses.items() if digest])
        pruned_before = connection.execute(sql.PRUNED).fetchone()[1]
        pruned_before = retention.youngest((task_id for _, task_id, _ in gone), pruned_before)
        connection.execute(sql.NOTE_PRUNED, (len(gone), max(seq for seq, _, _ in gone), pruned_before))
    if len(gone) < limit:
        _sweep(connection, before)
    return len(gone)


def _sweep(connection: sqlite3.Connection, before: float) -> None:
    def column(statement: str) -> list[str]:
        return [row[0] for row in connection.execute(statement)]

    connection.execute(sql.FORGET_UNUSED)
    schedules = [row[0] for row in connection.execute(sql.SCHEDULES)]
    handlers = retention.handlers_needed(column(sql.USED_HANDLERS), column(sql.CURRENT_HANDLERS), schedules)
    _sweep_table(connection, "handlers", handlers, before)
    blobs = retention.blobs_needed([row[0] for row in connection.execute(sql.HANDLER_SPECS)])
    _sweep_table(connection, "blobs", blobs | retention.blobs_needed(schedules), before)
    connection.execute(sql.TRIM_AUDIT, (retention.AUDIT_ENTRIES,))


def _sweep_table(connection: sqlite3.Connection, table: str, needed: set[str], before: float) -> None:
    present = dict(connection.execute(f"SELECT digest, orphan_since FROM {table}").fetchall())
    mark, unmark, delete = retention.sweep(present, needed, before)
    set_since = f"UPDATE {table} SET orphan_since = ? WHERE digest = ?"
    connection.executemany(set_since, [(before, d) for d in mark] + [(None, d) for d in unmark])
    connection.executemany(f"DELETE FROM {table} WHERE digest = ?", [(d,) for d in delete])
