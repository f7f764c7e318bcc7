"""Tasks, their attempts, what they need, and who owns the ledger."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
_SERIAL = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "tasks",
        sa.Column("seq", _SERIAL, primary_key=True, autoincrement=False),
        sa.Column("id", _TEXT, nullable=False),
        sa.Column("type", _TEXT, nullable=False),
        sa.Column("queue", _TEXT, nullable=False),
        sa.Column("priority", sa.SmallInteger, nullable=False),
        sa.Column("encoding", _TEXT, nullable=False),
        sa.Column("key", _TEXT),
        sa.Column("digest", sa.LargeBinary),
        sa.Column("deadline", sa.Double),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("origin", _TEXT),
        sa.Column("status", _TEXT, nullable=False),
        sa.Column("line", sa.SmallInteger, nullable=False),
        sa.Column("rank", sa.Double, nullable=False),
        sa.Column("not_before", sa.Double, nullable=False),
        sa.Column("retry_count", sa.Integer, nullable=False),
        sa.Column("deaths", sa.Integer, nullable=False),
        sa.Column("fence", sa.BigInteger, nullable=False),
        sa.Column("node", _TEXT),
        sa.Column("result_encoding", _TEXT, nullable=False),
        sa.Column("cause", _TEXT, nullable=False),
        sa.Column("started_at", sa.Double),
        sa.Column("completed_at", sa.Double),
        sa.Column("solo", sa.SmallInteger, nullable=False),
        sa.Column("options", sa.LargeBinary, nullable=False),
        sa.Column("payload", sa.LargeBinary),
        sa.Column("result", sa.LargeBinary),
        sa.Column("error", sa.LargeBinary),
    )
    for name in ("payloads", "checkpoints"):
        op.create_table(
            name,
            sa.Column("seq", _SERIAL, primary_key=True, autoincrement=False),
            sa.Column("data", sa.LargeBinary, nullable=False),
        )
    op.create_table(
        "discarded",
        sa.Column("seq", _SERIAL, primary_key=True, autoincrement=False),
        sa.Column("at", sa.Double, nullable=False),
    )
    op.create_table(
        "attempts",
        sa.Column("n", _SERIAL, primary_key=True),
        sa.Column("task_id", _TEXT, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("fence", sa.BigInteger, nullable=False),
        sa.Column("node", _TEXT),
        sa.Column("outcome", _TEXT, nullable=False),
        sa.Column("cause", _TEXT, nullable=False),
        sa.Column("error", sa.LargeBinary),
        sa.Column("ended_at", sa.Double, nullable=False),
        sa.Column("seconds", sa.Double),
    )
    op.create_table(
        "queues",
        sa.Column("name", _TEXT, primary_key=True),
        sa.Column("policy", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "schedules",
        sa.Column("name", _TEXT, primary_key=True),
        sa.Column("schedule", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "nodes",
        sa.Column("node_id", _TEXT, primary_key=True),
        sa.Column("info", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "handlers",
        sa.Column("digest", _TEXT, primary_key=True),
        sa.Column("spec", sa.LargeBinary, nullable=False),
        sa.Column("orphan_since", sa.Double),
    )
    op.create_table(
        "handler_uses",
        sa.Column("digest", _TEXT, primary_key=True),
        sa.Column("uses", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "task_types",
        sa.Column("type", _TEXT, primary_key=True),
        sa.Column("digest", _TEXT, nullable=False),
    )
    op.create_table(
        "blobs",
        sa.Column("digest", _TEXT, primary_key=True),
        sa.Column("orphan_since", sa.Double),
        sa.Column("data", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "audit",
        sa.Column("n", _SERIAL, primary_key=True),
        sa.Column("at", sa.Double, nullable=False),
        sa.Column("actor", _TEXT, nullable=False),
        sa.Column("verb", _TEXT, nullable=False),
        sa.Column("subject", _TEXT, nullable=False),
        sa.Column("detail", _TEXT, nullable=False),
    )
    op.create_table(
        "ledger",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        sa.Column("pruned", sa.BigInteger, nullable=False),
        sa.Column("pruned_seq", sa.BigInteger, nullable=False),
        sa.Column("pruned_before", sa.Double),
    )
    op.execute("INSERT INTO ledger (id, epoch, pruned, pruned_seq) VALUES (1, 0, 0, 0)")
    _partial("tasks_key", "key", where="key IS NOT NULL", unique=True)
    _partial("tasks_ready", "queue", "rank", "seq", where="line = 0")
    _partial("tasks_held", "line", "rank", "seq", "queue", where="line >= 1")
    _partial("tasks_deadline", "deadline", where="deadline IS NOT NULL AND status = 'pending'")
    _partial("tasks_ended", "status", "completed_at", "seq", where="line = -1")
    op.create_index("tasks_id", "tasks", ["id"], unique=True)
    op.create_index("attempts_task", "attempts", ["task_id"])


def _partial(name: str, *columns: str, where: str, unique: bool = False) -> None:
    op.create_index(
        name, "tasks", columns, unique=unique, sqlite_where=sa.text(where), postgresql_where=sa.text(where)
    )
