"""For whom a key stands that another shard's task may have, and how many shards there are."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "claims",
        sa.Column("key", _TEXT, primary_key=True),
        sa.Column("task_id", _TEXT, nullable=False),
        sa.Column("digest", sa.LargeBinary),
        sa.Column("at", sa.Double, nullable=False),
    )
    op.create_index("claims_at", "claims", ["at"])
    op.create_table(
        "layout",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("shards", sa.Integer, nullable=False),
        sa.Column("target", sa.Integer),
        sa.Column("leaving", sa.Integer),
    )
