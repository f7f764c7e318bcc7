"""The tables, once, for SQLite and PostgreSQL. Revisions in `migrations/` must lead to exactly this.

The physical order of `tasks` is not that of `records.TASK_COLUMNS`: what is searched stands first and
what may be large stands last, so that a scan need not walk the overflow pages of large values.
A payload over `INLINE_PAYLOAD` bytes stands in `payloads`: a task's row is written again when it ends,
and would carry it along. Measured at 4 KiB: 24 instead of 30 µs for insert and end together.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Double,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    text,
)
from sqlalchemy import types as sqltypes

INLINE_PAYLOAD = 1024
"""Bytes up to which a payload stays in its task's row."""

APPLICATION_ID = 0x4F4D4E49
"""Marks a SQLite file as ours (`PRAGMA application_id`): the letters OMNI."""

metadata = MetaData()

_Serial = BigInteger().with_variant(Integer(), "sqlite")
Text = sqltypes.Text().with_variant(sqltypes.Text(collation="C"), "postgresql")
"""Compared by its bytes in both databases: a prefix of ids is then a range of the index."""

tasks = Table(
    "tasks",
    metadata,
    Column("seq", _Serial, primary_key=True, autoincrement=False),
    Column("id", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("queue", Text, nullable=False),
    Column("priority", SmallInteger, nullable=False),
    Column("encoding", Text, nullable=False),
    Column("key", Text),
    Column("digest", LargeBinary),
    Column("deadline", Double),
    Column("created_at", Double, nullable=False),
    Column("origin", Text),
    Column("status", Text, nullable=False),
    Column("line", SmallInteger, nullable=False),
    Column("rank", Double, nullable=False),
    Column("not_before", Double, nullable=False),
    Column("retry_count", Integer, nullable=False),
    Column("deaths", Integer, nullable=False),
    Column("fence", BigInteger, nullable=False),
    Column("node", Text),
    Column("result_encoding", Text, nullable=False),
    Column("cause", Text, nullable=False),
    Column("started_at", Double),
    Column("completed_at", Double),
    Column("solo", SmallInteger, nullable=False),
    Column("options", LargeBinary, nullable=False),
    Column("payload", LargeBinary),
    Column("result", LargeBinary),
    Column("error", LargeBinary),
)

payloads = Table(
    "payloads",
    metadata,
    Column("seq", _Serial, primary_key=True, autoincrement=False),
    Column("data", LargeBinary, nullable=False),
)

checkpoints = Table(
    "checkpoints",
    metadata,
    Column("seq", _Serial, primary_key=True, autoincrement=False),
    Column("data", LargeBinary, nullable=False),
)

discarded = Table(
    "discarded",
    metadata,
    Column("seq", _Serial, primary_key=True, autoincrement=False),
    Column("at", Double, nullable=False),
)
"""Dead letters that were taken off their list."""

attempts = Table(
    "attempts",
    metadata,
    Column("n", _Serial, primary_key=True),
    Column("task_id", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("fence", BigInteger, nullable=False),
    Column("node", Text),
    Column("outcome", Text, nullable=False),
    Column("cause", Text, nullable=False),
    Column("error", LargeBinary),
    Column("ended_at", Double, nullable=False),
    Column("seconds", Double),
)
Index("attempts_task", attempts.c.task_id)

logs = Table(
    "logs",
    metadata,
    Column("task_id", Text, primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("fence", BigInteger, nullable=False),
    Column("at", Double, nullable=False),
    Column("level", Text, nullable=False),
    Column("text", Text, nullable=False),
    sqlite_with_rowid=False,
)

queues = Table(
    "queues",
    metadata,
    Column("name", Text, primary_key=True),
    Column("policy", LargeBinary, nullable=False),
)

schedules = Table(
    "schedules",
    metadata,
    Column("name", Text, primary_key=True),
    Column("schedule", LargeBinary, nullable=False),
)

nodes = Table(
    "nodes",
    metadata,
    Column("node_id", Text, primary_key=True),
    Column("info", LargeBinary, nullable=False),
)

handlers = Table(
    "handlers",
    metadata,
    Column("digest", Text, primary_key=True),
    Column("spec", LargeBinary, nullable=False),
    Column("orphan_since", Double),
)

handler_uses = Table(
    "handler_uses",
    metadata,
    Column("digest", Text, primary_key=True),
    Column("uses", BigInteger, nullable=False),
)

task_types = Table(
    "task_types",
    metadata,
    Column("type", Text, primary_key=True),
    Column("digest", Text, nullable=False),
)

blobs = Table(
    "blobs",
    metadata,
    Column("digest", Text, primary_key=True),
    Column("orphan_since", Double),
    Column("data", LargeBinary, nullable=False),
)

audit = Table(
    "audit",
    metadata,
    Column("n", _Serial, primary_key=True),
    Column("at", Double, nullable=False),
    Column("actor", Text, nullable=False),
    Column("verb", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("detail", Text, nullable=False),
)

claims = Table(
    "claims",
    metadata,
    Column("key", Text, primary_key=True),
    Column("task_id", Text, nullable=False),
    Column("digest", LargeBinary),
    Column("at", Double, nullable=False),
)
"""For which task a key stands whose home is this shard, wherever the task is. Empty with one shard."""
Index("claims_at", claims.c.at)

layout = Table(
    "layout",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("shards", Integer, nullable=False),
    Column("target", Integer),
    Column("leaving", Integer),
)
"""One row, in shard 0 only: see `ledger.rebalance`. No row: one shard, as ever."""

documents = Table(
    "documents",
    metadata,
    Column("kind", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("data", LargeBinary, nullable=False),
    sqlite_with_rowid=False,
)
"""Small things that people make and change, as JSON: tokens of the API, for one. Shard 0 has them."""

ledger = Table(
    "ledger",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("epoch", BigInteger, nullable=False),
    Column("pruned", BigInteger, nullable=False),
    Column("pruned_seq", BigInteger, nullable=False),
    Column("pruned_before", Double),
)
"""One row. epoch: of the coordinator that owns the ledger. pruned_seq: the highest number ever pruned, so
that no number is given twice. pruned_before: submission time (Unix seconds) of the youngest pruned task."""


def _partial(name: str, *columns: str, where: str, unique: bool = False) -> None:
    Index(
        name,
        *(tasks.c[c] for c in columns),
        unique=unique,
        sqlite_where=text(where),
        postgresql_where=text(where),
    )


# Partial, so that a row stands in the few that matter to it now: a ready task in one, an ended one in one.
# Each costs its share of the hot path (µs a row, insert / end): id 0.6 / 0, ready 0.5 / 0.5, ended 0.1 / 0.6,
# the others together 0.4 / 0.3; without any, 3.4 / 2.6.
Index("tasks_id", tasks.c.id, unique=True)
_partial("tasks_key", "key", where="key IS NOT NULL", unique=True)
_partial("tasks_ready", "queue", "rank", "seq", where="line = 0")
_partial("tasks_held", "line", "rank", "seq", "queue", where="line >= 1")
_partial("tasks_deadline", "deadline", where="deadline IS NOT NULL AND status = 'pending'")
_partial("tasks_ended", "status", "completed_at", "seq", where="line = -1")
