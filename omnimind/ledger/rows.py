"""Which statement a row takes, and the values that it binds there."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from operator import itemgetter
from typing import Any

from omnimind.cluster.records import STATE_COLUMNS, TASK_COLUMNS, TaskRow
from omnimind.ledger.schema import INLINE_PAYLOAD
from omnimind.ledger.statements import DONE, DONE_BOUND, FRESH, FRESH_BOUND

SEQ, ID, TYPE, QUEUE = 0, 1, 2, 3
PAYLOAD = TASK_COLUMNS.index("payload")
OPTIONS = TASK_COLUMNS.index("options")
KEY = TASK_COLUMNS.index("key")
DIGEST = TASK_COLUMNS.index("digest")
DEADLINE = TASK_COLUMNS.index("deadline")
CREATED_AT = TASK_COLUMNS.index("created_at")
CHECKPOINT = TASK_COLUMNS.index("checkpoint")
STATUS = TASK_COLUMNS.index("status")
LINE = TASK_COLUMNS.index("line")
RANK = TASK_COLUMNS.index("rank")
NODE = TASK_COLUMNS.index("node")
RESULT = TASK_COLUMNS.index("result")
CAUSE = TASK_COLUMNS.index("cause")
COMPLETED_AT = TASK_COLUMNS.index("completed_at")

Bind = Callable[[TaskRow], tuple[Any, ...]]

_state = (*STATE_COLUMNS, "seq")
_fresh_fixed = itemgetter(*(TASK_COLUMNS.index(c) for c in FRESH), CHECKPOINT)
_fresh_values = (*FRESH.values(), None)
_done_fixed = itemgetter(*(_state.index(c) for c in DONE))
_done_values = tuple(DONE.values())

bind_task: Bind = itemgetter(*(i for i in range(len(TASK_COLUMNS)) if i != CHECKPOINT))
bind_fresh: Bind = itemgetter(*(TASK_COLUMNS.index(c) for c in FRESH_BOUND))
bind_done: Bind = itemgetter(*(_state.index(c) for c in DONE_BOUND))


def sort_inserts(rows: Iterable[TaskRow]) -> tuple[list[TaskRow], list[TaskRow], list[tuple[int, bytes]]]:
    """Return new tasks that are ready, all others, and the payloads to store apart, as (seq, bytes)."""
    fresh: list[TaskRow] = []
    others: list[TaskRow] = []
    payloads: list[tuple[int, bytes]] = []
    for given in rows:
        row = given
        payload = row[PAYLOAD]
        if payload is not None and len(payload) > INLINE_PAYLOAD:
            payloads.append((row[SEQ], payload))
            row = (*row[:PAYLOAD], None, *row[PAYLOAD + 1 :])
        (fresh if _fresh_fixed(row) == _fresh_values else others).append(row)
    return fresh, others, payloads


def sort_updates(rows: Iterable[TaskRow]) -> list[tuple[bool, list[TaskRow]]]:
    """Return runs of rows in their own order, each with whether they completed in their first attempt."""
    runs: list[tuple[bool, list[TaskRow]]] = []
    last: bool | None = None
    for row in rows:
        done = _done_fixed(row) == _done_values
        if done is not last:
            runs.append((done, []))
            last = done
        runs[-1][1].append(row)
    return runs
