"""The last look at a run: every task that the ledger lists, with its result and its attempts on record."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from omnimind.client.protocol import IdsRequest
from omnimind.client.sync import Client
from omnimind.testing.history import Listed, Record, Started, now

_PAGE = 200


def listing(om: Client, again: Iterable[str] = ()) -> Iterator[Listed]:
    """Yield what the ledger lists, by the ways that clients have: the list, and each task with its result.

    again: tasks whose attempts are of interest although they completed, as those that started twice.
    """
    wanted = {*again}
    ids = [task["task_id"] for task in om.list()]
    for begin in range(0, len(ids), _PAGE):
        found: list[dict[str, Any]] = om.loop.run(
            om.inner.ask("tasks", IdsRequest(ids=ids[begin : begin + _PAGE]))
        )
        for task in found:
            name = task["task_id"]
            tried = task["status"] != "completed" or name in wanted
            attempts = om.attempts(name) if tried else []
            yield Listed(
                name,
                task["status"],
                now(),
                _text(task.get("result")) if task["status"] == "completed" else None,
                task["cause"] or "",
                task["key"],
                tuple(attempt["fence"] for attempt in attempts),
            )


def started_again(records: Iterable[Record]) -> list[str]:
    """Return the tasks with more than one start."""
    seen: dict[str, int] = {}
    for record in records:
        if isinstance(record, Started):
            seen[record.task] = seen.get(record.task, 0) + 1
    return [task for task, count in seen.items() if count > 1]


def _text(value: Any) -> str:
    """Return a result, which travels as JSON: a string in quotes."""
    text = value.decode() if isinstance(value, bytes) else str(value)
    return text[1:-1] if text[:1] == '"' else text
