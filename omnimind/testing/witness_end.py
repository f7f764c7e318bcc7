"""``python -m omnimind.testing.witness_end``: the last look at a run, for its history.

It waits until nothing is pending or running, or until the bound has passed, and writes a `Listed` for every
task that the ledger lists. The last line that it prints is when all had ended (by `history.now`), or
``never``.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from omnimind.client.protocol import IdsRequest
from omnimind.client.sync import Client, connect
from omnimind.errors import OmniMindError
from omnimind.testing.history import Journal, Listed, Record, Started, now, read

_PAGE = 200
_LOOK_EVERY = 0.5


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
                tuple(attempt["fence"] for attempt in attempts if attempt["outcome"] == "error"),
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


def settle(om: Client, until: float) -> float | None:
    """Wait until nothing is pending or running; return when that was, None when it was not by `until`."""
    while now() < until:
        try:
            found = om.cluster_status()
        except OmniMindError:
            pass
        else:
            if not found["pending_tasks"] and not found["running_tasks"]:
                return now()
        time.sleep(_LOOK_EVERY)
    return None


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m omnimind.testing.witness_end", description=__doc__)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--journal", type=Path, required=True, help="where to write what is listed")
    parser.add_argument("--work", type=Path, required=True, help="the journal of the handlers")
    parser.add_argument("--until", type=float, required=True, help="wait no longer, by the histories' clock")
    given = parser.parse_args(argv)
    om = _connect(given.home, given.until)
    with om:
        settled = settle(om, given.until)
        journal = Journal(given.journal)
        for found in listing(om, started_again(read([given.work]))):
            journal.write(found)
    print("never" if settled is None else repr(settled))  # noqa: T201


def _connect(home: Path, until: float) -> Client:
    while True:
        try:
            return connect(home)
        except OmniMindError:
            if now() > until:
                raise
            time.sleep(_LOOK_EVERY)


if __name__ == "__main__":
    main()
