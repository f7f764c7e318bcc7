"""The statements of `statements.py` as PostgreSQL takes them, and those that it needs beside them."""

from __future__ import annotations

import itertools
import re
from functools import cache
from typing import Final

from omnimind.cluster.records import STATE_COLUMNS
from omnimind.ledger import statements as sql
from omnimind.ledger.postgres_pack import BYTES, FLOAT8, INT2, INT4, INT8, TEXT, Kind
from omnimind.ledger.schema import metadata

_TYPES: Final[dict[str, Kind]] = {
    "BIGINT": INT8,
    "INTEGER": INT4,
    "SMALLINT": INT2,
    "TEXT": TEXT,
    "DOUBLE": FLOAT8,
    "BLOB": BYTES,
}


def kinds_of(table: str, columns: tuple[str, ...]) -> tuple[tuple[str, Kind], ...]:
    """Return columns with their types, as `schema.py` has them."""
    known = metadata.tables[table].c
    return tuple((name, _TYPES[str(known[name].type)]) for name in columns)


TASK: Final = kinds_of("tasks", sql.STORED)
STATE: Final = kinds_of("tasks", (*STATE_COLUMNS, "seq"))
PAYLOAD: Final = kinds_of("payloads", ("seq", "data"))

PROVE: Final = (
    "SELECT 1 / (count(*) = 1)::int FROM"
    " (SELECT 1 FROM ledger WHERE id = 1 AND epoch = $1::bigint FOR SHARE) AS mine"
)
"""Raises division_by_zero unless the epoch is this one, and keeps it so until the transaction ends: whoever
wants to raise it waits for the row."""

APPEND_LOG: Final = (
    "INSERT INTO logs (task_id, number, fence, at, level, text)"
    " SELECT $1::text, last.number + given.n, $2::bigint, given.at, given.level, given.text"
    " FROM (SELECT coalesce(max(number), 0) AS number FROM logs WHERE task_id = $1::text) AS last,"
    " unnest($3::float8[], $4::text[], $5::text[]) WITH ORDINALITY AS given(at, level, text, n)"
    " WHERE EXISTS (SELECT 1 FROM tasks WHERE id = $1::text)"
)
TRIM_LOG: Final = (
    "DELETE FROM logs WHERE task_id = $1::text"
    " AND number <= (SELECT max(number) FROM logs WHERE task_id = $1::text) - $2::bigint"
)
FORGET: Final = tuple(
    [
        f"DELETE FROM {table} WHERE seq = ANY($1::bigint[])"
        for table in ("payloads", "checkpoints", "discarded")
    ]
    + ["DELETE FROM tasks WHERE seq = ANY($1::bigint[])"]
)
FORGET_BY_ID: Final = tuple(
    f"DELETE FROM {table} WHERE task_id = ANY($1::text[])" for table in ("attempts", "logs")
)
SIZE: Final = (
    "SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0)::bigint FROM pg_class c"
    " WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind = 'r'"
)

_OTHERWISE: Final[dict[str, str]] = {
    sql.LAST_SEQ: sql.LAST_SEQ.replace("max((", "greatest(("),
    sql.NOTE_PRUNED: sql.NOTE_PRUNED.replace("max(", "greatest(").replace("?3", "?3::float8"),
    sql.SAVE_CHECKPOINT: sql.SAVE_CHECKPOINT.replace("?2", "?2::bytea"),
    sql.DISCARD: sql.DISCARD.replace("?2", "?2::float8"),
}

_PLACE = re.compile(r"\?(\d*)")


@cache
def numbered(statement: str) -> bytes:
    """Return one of `statements.py` with PostgreSQL's placeholders."""
    counter = itertools.count(1)
    return _PLACE.sub(
        lambda found: f"${found[1] or next(counter)}", _OTHERWISE.get(statement, statement)
    ).encode()
