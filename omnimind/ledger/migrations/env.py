"""Alembic's environment: runs the revisions on the connection that `migrate.py` hands over.

The caller owns the transaction, so that migrating and taking over are one commit.
"""

from __future__ import annotations

from alembic import context

from omnimind.ledger.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,  # SQLite alters a table by making it anew
)
with context.begin_transaction():
    context.run_migrations()
