"""The hot statements, as text for the driver: a third of the cost of SQLAlchemy's constructs.

Placeholders are `?` (SQLite's). What is bound costs 0.1 µs a value, so the two statements that nearly all
rows take state the usual values in their text: a new task that is ready, a task that completed at once.
`rows.py` decides which row takes which statement.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from omnimind.cluster.records import ATTEMPT_COLUMNS, STATE_COLUMNS, TASK_COLUMNS

STORED: Final = tuple(c for c in TASK_COLUMNS if c != "checkpoint")

FRESH: Final[dict[str, float | str | None]] = {
    "origin": None,
    "status": "pending",
    "line": 0,
    "not_before": 0.0,
    "retry_count": 0,
    "deaths": 0,
    "fence": 0,
    "node": None,
    "result": None,
    "result_encoding": "json",
    "error": None,
    "cause": "submitted",
    "started_at": None,
    "completed_at": None,
    "solo": 0,
}
"""What a new ready task's row says in these columns."""

DONE: Final[dict[str, float | str | None]] = {
    "status": "completed",
    "line": -1,
    "not_before": 0.0,
    "retry_count": 0,
    "deaths": 0,
    "result_encoding": "json",
    "error": None,
    "solo": 0,
}
"""What the state of a task says in these columns that completed in its first attempt."""

FRESH_BOUND: Final = tuple(c for c in STORED if c not in FRESH)
DONE_BOUND: Final = (*(c for c in STATE_COLUMNS if c not in DONE), "seq")


def _literal(value: float | str | None) -> str:
    return "NULL" if value is None else repr(value)


def _insert(bound: tuple[str, ...], fixed: dict[str, float | str | None]) -> str:
    columns = (*bound, *fixed)
    values = (*("?" for _ in bound), *(_literal(v) for v in fixed.values()))
    return f"INSERT INTO tasks ({', '.join(columns)}) VALUES ({', '.join(values)})"


INSERT_TASK: Final = _insert(STORED, {})
INSERT_FRESH: Final = _insert(FRESH_BOUND, FRESH)
INSERT_PAYLOAD: Final = "INSERT INTO payloads (seq, data) VALUES (?, ?)"

UPDATE_TASK: Final = f"UPDATE tasks SET {', '.join(f'{c} = ?' for c in STATE_COLUMNS)} WHERE seq = ?"
UPDATE_DONE: Final = (
    "UPDATE tasks SET "
    + ", ".join((*(f"{c} = {_literal(v)}" for c, v in DONE.items()), *(f"{c} = ?" for c in DONE_BOUND[:-1])))
    + " WHERE seq = ?"
)

INSERT_ATTEMPT: Final = (
    f"INSERT INTO attempts ({', '.join(ATTEMPT_COLUMNS)}) VALUES ({', '.join('?' * len(ATTEMPT_COLUMNS))})"
)

SAVE_CHECKPOINT: Final = (
    "INSERT INTO checkpoints (seq, data) SELECT seq, ?2 FROM tasks WHERE seq = ?1"
    " ON CONFLICT (seq) DO UPDATE SET data = excluded.data"
)
DISCARD: Final = (
    "INSERT INTO discarded (seq, at) SELECT seq, ?2 FROM tasks WHERE seq = ?1 ON CONFLICT DO NOTHING"
)
SAVE_QUEUE: Final = (
    "INSERT INTO queues (name, policy) VALUES (?, ?)"
    " ON CONFLICT (name) DO UPDATE SET policy = excluded.policy"
)
REMOVE_QUEUE: Final = "DELETE FROM queues WHERE name = ?"
SAVE_SCHEDULE: Final = (
    "INSERT INTO schedules (name, schedule) VALUES (?, ?)"
    " ON CONFLICT (name) DO UPDATE SET schedule = excluded.schedule"
)
REMOVE_SCHEDULE: Final = "DELETE FROM schedules WHERE name = ?"
SAVE_NODE: Final = (
    "INSERT INTO nodes (node_id, info) VALUES (?, ?) ON CONFLICT (node_id) DO UPDATE SET info = excluded.info"
)
REMOVE_NODE: Final = "DELETE FROM nodes WHERE node_id = ?"
SAVE_HANDLER: Final = (
    "INSERT INTO handlers (digest, spec) VALUES (?, ?)"
    " ON CONFLICT (digest) DO UPDATE SET spec = excluded.spec, orphan_since = NULL"
)
SAVE_TYPE: Final = (
    "INSERT INTO task_types (type, digest) VALUES (?, ?)"
    " ON CONFLICT (type) DO UPDATE SET digest = excluded.digest"
)
USE_HANDLER: Final = (
    "INSERT INTO handler_uses (digest, uses) VALUES (?, ?)"
    " ON CONFLICT (digest) DO UPDATE SET uses = handler_uses.uses + excluded.uses"
)
SAVE_BLOB: Final = (
    "INSERT INTO blobs (digest, data) VALUES (?, ?) ON CONFLICT (digest) DO UPDATE SET orphan_since = NULL"
)
SAVE_CLAIM: Final = (
    "INSERT INTO claims (key, task_id, digest, at) VALUES (?, ?, ?, ?)"
    " ON CONFLICT (key) DO UPDATE SET task_id = excluded.task_id, digest = excluded.digest, at = excluded.at"
)
REMOVE_CLAIM: Final = "DELETE FROM claims WHERE key = ?"
SAVE_DOCUMENT: Final = (
    "INSERT INTO documents (kind, name, data) VALUES (?, ?, ?)"
    " ON CONFLICT (kind, name) DO UPDATE SET data = excluded.data"
)
REMOVE_DOCUMENT: Final = "DELETE FROM documents WHERE kind = ? AND name = ?"
LAST_LOG: Final = (
    "SELECT coalesce((SELECT max(number) FROM logs WHERE task_id = tasks.id), 0) FROM tasks WHERE id = ?"
)
INSERT_LOG: Final = "INSERT INTO logs (task_id, number, fence, at, level, text) VALUES (?, ?, ?, ?, ?, ?)"
TRIM_LOG: Final = "DELETE FROM logs WHERE task_id = ? AND number <= ?"
INSERT_AUDIT: Final = "INSERT INTO audit (at, actor, verb, subject, detail) VALUES (?, ?, ?, ?, ?)"

EPOCH: Final = "SELECT epoch FROM ledger WHERE id = 1"
TAKE_OVER: Final = "UPDATE ledger SET epoch = epoch + 1 WHERE id = 1 RETURNING epoch"

# ------------------------------------------------------------------------------------------------- prune

_ENDED: Final = ("completed", "failed", "cancelled", "expired", "dead")
OLDEST_ENDED: Final = (
    " UNION ALL ".join(
        "SELECT * FROM (SELECT seq, id, options, completed_at FROM tasks"
        f" WHERE line = -1 AND status = '{status}' ORDER BY completed_at, seq LIMIT ?1) AS {status}"
        for status in _ENDED
    )
    + " ORDER BY completed_at, seq LIMIT ?1"
)
WAITING_OPTIONS: Final = "SELECT DISTINCT options FROM tasks WHERE line >= 1 AND line = 2"
FORGET_BY_SEQ: Final = tuple(
    f"DELETE FROM {table} WHERE seq = ?" for table in ("tasks", "payloads", "checkpoints", "discarded")
)
FORGET_BY_ID: Final = tuple(f"DELETE FROM {table} WHERE task_id = ?" for table in ("attempts", "logs"))
NOTE_PRUNED: Final = (
    "UPDATE ledger SET pruned = pruned + ?1, pruned_seq = max(pruned_seq, ?2), pruned_before = ?3"
    " WHERE id = 1"
)
FORGET_UNUSED: Final = "DELETE FROM handler_uses WHERE uses <= 0"
USED_HANDLERS: Final = "SELECT digest FROM handler_uses"
CURRENT_HANDLERS: Final = "SELECT digest FROM task_types"
HANDLER_SPECS: Final = "SELECT spec FROM handlers"
TRIM_AUDIT: Final = "DELETE FROM audit WHERE n <= (SELECT max(n) FROM audit) - ?"

# ------------------------------------------------------------------------------------------------- reads

_READ = {
    "payload": "coalesce(payload, (SELECT data FROM payloads p WHERE p.seq = tasks.seq))",
    "checkpoint": "(SELECT data FROM checkpoints c WHERE c.seq = tasks.seq)",
}
ROW: Final = ", ".join(_READ.get(c, c) for c in TASK_COLUMNS)
"""A whole row, in the order of TASK_COLUMNS."""

LISTED: Final = ", ".join({**_READ, "payload": "NULL", "result": "NULL"}.get(c, c) for c in TASK_COLUMNS)
"""A row for a listing: without payload and result."""

TASKS_BY_ID: Final = f"SELECT {ROW} FROM tasks WHERE id IN"
KNOWN_BY_ID: Final = "SELECT id, id, status, digest, cause FROM tasks WHERE id IN"
KNOWN_BY_KEY: Final = "SELECT key, id, status, digest, cause FROM tasks WHERE key IS NOT NULL AND key IN"
"""To be completed by `among`."""


def among(statement: str, values: list[str]) -> Iterator[tuple[str, list[str]]]:
    """Yield statement and values for portions of `values`, in few lengths, so that texts repeat.

    (A JSON array in one parameter would be shorter, but SQLite cuts strings at a NUL there.)
    """
    for start in range(0, len(values), _MOST):
        part = values[start : start + _MOST]
        room = next(size for size in _SIZES if size >= len(part))
        part += part[-1:] * (room - len(part))
        yield f"{statement} ({', '.join('?' * room)})", part


_SIZES = (1, 4, 16, 64, 256)
_MOST = _SIZES[-1]

READY: Final = (
    f"SELECT {ROW} FROM tasks WHERE line = 0 AND queue = ? AND (rank, seq) > (?, ?)"
    " ORDER BY rank, seq LIMIT ?"
)
DELAYED: Final = (
    f"SELECT {ROW} FROM tasks WHERE line >= 1 AND line = 1 AND (rank, seq) > (?, ?)"
    " ORDER BY rank, seq LIMIT ?"
)
HELD: Final = f"SELECT {ROW} FROM tasks WHERE line >= 1 AND line = ? ORDER BY rank, seq"
OVERDUE: Final = (
    f"SELECT {ROW} FROM tasks WHERE deadline IS NOT NULL AND status = 'pending' AND deadline <= ?"
    " ORDER BY deadline LIMIT ?"
)
FIRST_READY: Final = (
    f"SELECT {ROW} FROM tasks WHERE seq IN"
    " (SELECT seq FROM tasks WHERE line = 0 ORDER BY rank, seq LIMIT ?) ORDER BY rank, seq"
)
COUNT_READY: Final = "SELECT queue, count(*) FROM tasks WHERE line = 0 GROUP BY queue"
COUNT_HELD: Final = "SELECT queue, line, count(*) FROM tasks WHERE line >= 1 GROUP BY queue, line"
COUNT_BY_END: Final = "SELECT status, count(*) FROM tasks WHERE line = -1 GROUP BY status"
COUNT_ENDED: Final = "SELECT count(*) FROM tasks WHERE line = -1"
COUNT_DELAYED: Final = "SELECT queue, count(*) FROM tasks WHERE line >= 1 AND line = 1 GROUP BY queue"
ALL: Final = "1 = 1"
DISCARDED: Final = "seq IN (SELECT seq FROM discarded)"
COUNT_COMPLETED: Final = (
    "SELECT count(*) FROM (SELECT 1 FROM tasks WHERE line = -1 AND status = 'completed' LIMIT ?) AS few"
)
COUNT_PENDING: Final = (
    "SELECT (SELECT count(*) FROM (SELECT 1 FROM tasks WHERE line = 0 LIMIT ?1) AS ready)"
    " + (SELECT count(*) FROM (SELECT 1 FROM tasks WHERE line >= 1 LIMIT ?1) AS held)"
)
LAST_SEQ: Final = (
    "SELECT max((SELECT coalesce(max(seq), 0) FROM tasks), (SELECT pruned_seq FROM ledger WHERE id = 1))"
)
FIND: Final = "SELECT id FROM tasks WHERE id >= ? AND id < ? ORDER BY id LIMIT ?"
CLAIMS: Final = "SELECT key, task_id, digest, at FROM claims WHERE key IN"
OLD_CLAIMS: Final = (
    "SELECT key, task_id, digest, at FROM claims WHERE at < ? AND (at, key) > (?, ?) ORDER BY at, key LIMIT ?"
)
DOCUMENTS: Final = "SELECT name, data FROM documents WHERE kind = ? ORDER BY name"
LAYOUT: Final = "SELECT shards, target, leaving FROM layout WHERE id = 1"
ATTEMPTS: Final = f"SELECT {', '.join(ATTEMPT_COLUMNS)} FROM attempts WHERE task_id = ? ORDER BY n"
LOGS: Final = (
    "SELECT number, at, level, text FROM logs WHERE task_id = ? AND number > ? ORDER BY number LIMIT ?"
)
QUEUES: Final = "SELECT policy FROM queues ORDER BY name"
SCHEDULES: Final = "SELECT schedule FROM schedules ORDER BY name"
NODES: Final = "SELECT info FROM nodes ORDER BY node_id"
HANDLERS: Final = "SELECT t.type, t.digest, h.spec FROM task_types t JOIN handlers h ON h.digest = t.digest"
HANDLER: Final = "SELECT spec FROM handlers WHERE digest = ?"
BLOB: Final = "SELECT data FROM blobs WHERE digest = ?"
AUDIT: Final = "SELECT at, actor, verb, subject, detail FROM audit ORDER BY n DESC LIMIT ?"
PRUNED: Final = "SELECT pruned, pruned_before FROM ledger WHERE id = 1"

CONTRADICTIONS: Final = (
    (
        "these ended tasks stand in a line",
        "SELECT id FROM tasks WHERE (line = -1) <> (status NOT IN ('pending', 'running'))",
    ),
    (
        "these tasks run, but not by their line",
        "SELECT id FROM tasks WHERE (line = 3) <> (status = 'running')",
    ),
    ("these tasks ended at no time", "SELECT id FROM tasks WHERE line = -1 AND completed_at IS NULL"),
    *(
        (
            f"these {table} belong to no task",
            f"SELECT {name} FROM {table} WHERE {name} NOT IN (SELECT {theirs} FROM tasks)",
        )
        for table, name, theirs in (
            ("attempts", "task_id", "id"),
            ("logs", "task_id", "id"),
            ("payloads", "seq", "seq"),
            ("checkpoints", "seq", "seq"),
            ("discarded", "seq", "seq"),
        )
    ),
)
"""What can only be there by a bug, as (sentence, query for the first column to name)."""
