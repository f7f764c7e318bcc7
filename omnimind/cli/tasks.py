"""What the commands about tasks share: fetching, listing, waiting, running again."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

from omnimind.cli.changes import Change, Effect
from omnimind.cli.output import View, next_steps
from omnimind.cli.session import Session, actor
from omnimind.cli.table import Column
from omnimind.cli.task_view import COLUMNS, next_of, page_text
from omnimind.cli.times import local, span
from omnimind.errors import NotFound, WaitTimeout

STATUSES = ("pending", "running", "completed", "failed", "cancelled", "expired", "dead")
LIVE = frozenset({"pending", "running"})
BATCH = 1000
LOG_PAGE = 500
POLL = 30.0
"""Seconds of one `watch` call: the coordinator answers earlier when a task ends."""


def decoded(value: Any, encoding: str) -> Any:
    """Return payload or result bytes as JSON values. A pickle is not opened: it may run code."""
    if not isinstance(value, bytes):
        return value
    if encoding == "json":
        return json.loads(value)
    return {"encoding": encoding, "bytes": len(value)}


def clear(task: dict[str, Any]) -> dict[str, Any]:
    """Return a task with its payload and result decoded where they are JSON."""
    task["payload"] = decoded(task.get("payload"), task.get("payload_encoding", "json"))
    task["result"] = decoded(task.get("result"), task.get("result_encoding", "json"))
    return task


def fetch(session: Session, ids: Sequence[str]) -> list[dict[str, Any]]:
    """Return the tasks of these ids, in that order. Raises NotFound naming one that does not exist."""
    from omnimind.client.protocol import IdsRequest  # noqa: PLC0415

    found: dict[str, dict[str, Any]] = {}
    for start in range(0, len(ids), BATCH):
        answer = session.call("tasks", IdsRequest(ids=list(ids[start : start + BATCH])))
        found.update({t["task_id"]: clear(t) for t in answer})
    for task_id in ids:
        if task_id not in found:
            raise NotFound(f"there is no task {task_id}", hint="see: omnimind task list", task_id=task_id)
    return [found[task_id] for task_id in ids]


def page(session: Session, where: Mapping[str, Any], limit: int, cursor: str | None) -> View:
    """Return one page of the list, with what it does not show."""
    answer = session.call("list", _request(where, limit, cursor))
    items = [_slim(t) for t in answer["items"]]
    left_off, total = [], _total(session, where) if answer["next"] is not None or cursor else len(items)
    if answer["next"] is not None:
        of = f"{len(items):,} of {total:,}" if total is not None else f"the newest {len(items):,}"
        left_off.append(f"{of} tasks shown; go on with --cursor {answer['next']}, or raise --limit")
    if answer.get("truncated_before"):
        left_off.append(f"ended tasks from before {local(answer['truncated_before'])} have been removed")
    envelope = {
        "next_cursor": answer["next"], "truncated_before": answer.get("truncated_before"), "total": total,
    }  # fmt: skip
    return View(
        data=items,
        columns=COLUMNS,
        key="task_id",
        envelope=envelope,
        left_off=left_off,
        empty="no task matches",
    )


def _slim(task: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in task.items() if k not in {"payload", "result"} and not k.endswith("_encoding")}


def _request(where: Mapping[str, Any], limit: int, cursor: int | str | None) -> Any:
    from omnimind.client.protocol import ListRequest  # noqa: PLC0415

    values = {**where, "status": list(where.get("status") or ()) or None}
    # A number with one shard; with several, one for each.
    place = int(cursor) if isinstance(cursor, str) and cursor.isdigit() else cursor
    return ListRequest(limit=limit, cursor=place, **values)


def _total(session: Session, where: Mapping[str, Any]) -> int | None:
    """Return how many tasks match, where counters tell: filters on the status alone."""
    if any(value for name, value in where.items() if name != "status"):
        return None
    wanted = set(where.get("status") or STATUSES)
    counts: dict[str, int] = session.call("usage")["by_status"]
    if len(wanted & LIVE) == 1:
        # The ledger does not tell them apart: short attempts leave no trace of their start.
        now = session.call("status")
        counts = counts | {"pending": now["pending_tasks"], "running": now["running_tasks"]}
    return sum(counts.get(s, 0) for s in wanted)


def matching(session: Session, where: Mapping[str, Any], most: int) -> tuple[list[str], bool]:
    """Return the ids of at most `most` matching tasks, and whether there are more."""
    found: list[str] = []
    cursor: int | str | None = None
    while True:
        answer = session.call("list", _request(where, 500, cursor))
        found += [t["task_id"] for t in answer["items"]]
        cursor = answer["next"]
        if cursor is None or len(found) >= most:
            return found[:most], cursor is not None or len(found) > most


def log_lines(session: Session, task_id: str, after: int) -> list[dict[str, Any]]:
    """Return all lines that a task logged beyond line number `after`."""
    from omnimind.client.protocol import LogsRequest  # noqa: PLC0415

    lines: list[dict[str, Any]] = []
    while True:
        answer = session.call("logs", LogsRequest(task_id=task_id, after=after, limit=LOG_PAGE))
        lines += [{"number": n, "at": at, "level": level, "text": text} for n, at, level, text in answer]
        if len(answer) < LOG_PAGE:
            return lines
        after = lines[-1]["number"]


def wait(session: Session, ids: Sequence[str], timeout: float | None) -> None:
    """Return when all tasks have ended. Raises WaitTimeout after `timeout` seconds."""
    from omnimind.client.protocol import WatchRequest  # noqa: PLC0415

    give_up = None if timeout is None else time.monotonic() + timeout
    open_ids = list(ids)
    while open_ids:
        left = POLL if give_up is None else min(POLL, give_up - time.monotonic())
        if left <= 0:
            what = f"task {open_ids[0]} has" if len(open_ids) == 1 else f"{len(open_ids)} tasks have"
            hint = f"they go on; see why with: omnimind explain {open_ids[0]}"
            raise WaitTimeout(f"{what} not ended after {span(timeout or 0)}", hint=hint, task_ids=open_ids)
        answer = session.call("watch", WatchRequest(ids=open_ids, timeout=left, linger=0.05))
        ended = {result[0] for result in answer["results"]}
        open_ids = [task_id for task_id in open_ids if task_id not in ended]


def one(session: Session, task_id: str) -> View:
    """Return everything about one task."""
    from omnimind.client.protocol import NameRequest  # noqa: PLC0415

    task = fetch(session, [task_id])[0]
    task["attempts"] = session.call("attempts", NameRequest(name=task_id))
    return View(data=task, text=page_text(task), key="task_id", notes=next_steps(*next_of(task)))


def rerun(session: Session, method: str, ids: Sequence[str], reason: str) -> Change:
    """Return the change that runs ended tasks again: `retry`, or `replay` of dead letters."""
    from omnimind.client.protocol import IdsRequest  # noqa: PLC0415

    def plan() -> list[Effect]:
        session.call(method, IdsRequest(ids=list(ids), plan=True))
        return [
            Effect(t["task_id"], method, t["status"], "a new task runs it again", f"of type {t['task_type']}")
            for t in fetch(session, ids)
        ]

    def apply() -> View:
        done = session.call(method, IdsRequest(ids=list(ids), actor=actor(), reason=reason))
        rows = [{"task_id": new, "retry_of": old} for old, new in done.items()]
        columns = (Column("NEW TASK", "task_id"), Column("RETRY OF", "retry_of"))
        notes = next_steps(f"omnimind task wait {rows[0]['task_id']}") if len(rows) == 1 else []
        return View(data=rows, columns=columns, key="task_id", notes=notes)

    return Change(plan, apply)
