"""How a task looks to people: its row in a table, its own page, its end."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

from omnimind.cli.errors import Exit
from omnimind.cli.output import View, next_steps, say
from omnimind.cli.table import Column, Styled, block, prose, sheet, show, status, table, terminal_width
from omnimind.cli.times import local, span


def took(task: Mapping[str, Any]) -> str | None:
    """Return how long the task has run, or ran."""
    if not task.get("started_at"):
        return None
    return span((task.get("completed_at") or time.time()) - task["started_at"])


COLUMNS = (
    Column("TASK", "task_id"),
    Column("TYPE", "task_type", elastic=True),
    Column("STATUS", "status", kind="status"),
    Column("QUEUE", "queue", elastic=True, spare=True),
    Column("PRIORITY", "priority_class", spare=True),
    Column("RETRIES", "retry_count", kind="number", spare=True),
    Column("SUBMITTED", "created_at", kind="time"),
    Column("TOOK", took, spare=True),
    Column("CAUSE", "cause", elastic=True),
)
DONE = (Column("TASK", "task_id"), Column("DONE", "done", kind="status"))
ATTEMPTS = (
    Column("ATTEMPT", lambda a: a["attempt"] + 1, kind="number"),
    Column("OUTCOME", "outcome", kind="status"),
    Column("NODE", "node"),
    Column("ENDED", "ended_at", kind="time"),
    Column("TOOK", lambda a: None if a.get("seconds") is None else span(a["seconds"])),
    Column("WHY", lambda a: first_line(a.get("error")) or a.get("cause"), elastic=True),
)


def first_line(error: Any) -> str | None:
    """Return an error in one line: its type and the first line of its message."""
    if not isinstance(error, Mapping):
        return None
    kind = error.get("type") or error.get("error_type") or ""
    message = str(error.get("message") or error.get("detail") or "").strip().splitlines()
    return ": ".join(part for part in (str(kind), message[0] if message else "") if part)


def next_of(task: Mapping[str, Any]) -> list[str]:
    """Return what to type next."""
    name = task["task_id"]
    match task["status"]:
        case "pending":
            return [f"omnimind explain {name}"]
        case "running":
            return [f"omnimind task wait {name}", f"omnimind task logs {name} --follow"]
        case "dead":
            return [f"omnimind deadletter replay {name}", f"omnimind deadletter discard {name}"]
        case "failed" | "expired" | "cancelled":
            return [f"omnimind task retry {name}"]
        case _:
            return []


def page_text(task: Mapping[str, Any]) -> str:
    """Return everything about one task."""
    now = time.time()
    moments = [
        (label, local(task[key], now) if task.get(key) else None)
        for label, key in (
            ("submitted", "created_at"), ("not before", "not_before"), ("deadline", "deadline"),
            ("started", "started_at"), ("ended", "completed_at"),
        )
    ]  # fmt: skip
    lines = [
        ("task", task["task_id"]),
        ("type", task["task_type"]),
        ("status", status(task["status"])),
        ("cause", _cause(task) or None),
        ("queue", f"{task['queue']}, priority {task['priority_class']} ({task['priority']})"),
        ("node", task.get("assigned_node")),
        ("retries", f"{task['retry_count']} of {task['max_retries']}"),
        ("worker deaths", task.get("worker_deaths") or None),
        ("needs", task.get("needs") or None),
        ("after", Styled("\n".join(task["after"])) if task.get("after") else None),
        ("key", task.get("key")),
        ("origin", task.get("origin")),
        ("timeout", span(task["timeout"]) if task.get("timeout") else None),
        ("at most once", "yes" if task.get("at_most_once") else None),
        *moments,
        ("took", took(task)),
        ("payload", pretty(task.get("payload"))),
        ("result", pretty(task["result"]) if task["status"] == "completed" else None),
        ("error", _error(task.get("error"))),
    ]
    attempts = task.get("attempts") or []
    tail = f"\n\n{table(attempts, ATTEMPTS, terminal_width())}" if attempts else ""
    return sheet(lines) + tail


def pretty(value: Any) -> Styled:
    """Return a payload or result as indented JSON."""
    if isinstance(value, Mapping) and set(value) == {"encoding", "bytes"}:
        return Styled(f"{value['bytes']:,} bytes as a {value['encoding']}, which Python clients can read")
    return block(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def _cause(task: Mapping[str, Any]) -> str:
    cause = task.get("cause") or ""
    return "" if cause == task["status"] else cause


def _error(error: Any) -> Styled | None:
    if not isinstance(error, Mapping):
        return None
    text = str(error.get("traceback") or prose(first_line(error) or str(error)))
    return block(text.strip(), {"fg": "red"})


def outcome(task: Mapping[str, Any], code: int) -> View:
    """Return how one awaited task ended: its result on stdout, or why there is none."""
    if task["status"] == "completed":
        return View(data=task, text=pretty(task["result"]).text, key="task_id", code=code)
    why = task.get("cause") if task["status"] == "cancelled" else first_line(task.get("error"))
    say(f"{status(task['status']).painted}: {show(why or task.get('cause'))}")
    notes = next_steps(f"omnimind task show {task['task_id']}")
    return View(data=task, text="", key="task_id", notes=notes, code=code or Exit.OK)
