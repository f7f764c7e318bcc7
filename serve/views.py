"""What the coordinator answers, as HTTP shows it: times as RFC 3339 in UTC, JSON values only."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from typing import Any

import msgspec

from omnimind import encoding

TASK_TIMES = ("created_at", "started_at", "completed_at", "deadline", "not_before")
NODE_TIMES = ("last_heartbeat", "drain_deadline", "drain_started", "drained_at")
SCHEDULE_TIMES = ("next_run", "last_run")

Info = dict[str, Any]


def rfc3339(seconds: float | None) -> str | None:
    """Return Unix seconds as text: ``2026-11-24T10:16:46.250Z``."""
    if seconds is None:
        return None
    moment = dt.datetime.fromtimestamp(seconds, dt.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def with_times(info: Info, names: Iterable[str]) -> Info:
    """Return a copy whose times are text."""
    return info | {name: rfc3339(info[name]) for name in names if name in info}


def task_view(info: Info) -> Info:
    """Return a task; a pickle is named, never read: its value is for Python clients."""
    shown = with_times(info, TASK_TIMES)
    for name in ("payload", "result"):
        if name in shown:
            shown[name] = json_value(shown[name], info.get(f"{name}_encoding", encoding.JSON))
    return shown


def summary_view(info: Info) -> Info:
    """Return a task as lists have it: without payload and result."""
    shown = with_times(info, TASK_TIMES)
    for name in ("payload", "result", "payload_encoding", "result_encoding"):
        shown.pop(name, None)
    return shown


def json_value(value: Any, tag: str) -> Any:
    """Return a stored value, null where it is a pickle."""
    if not isinstance(value, bytes):
        return value
    return msgspec.json.decode(value) if tag == encoding.JSON else None


def node_view(info: Info) -> Info:
    """Return a node, with the times of its attempts where it has them."""
    shown = with_times(info, NODE_TIMES)
    if "attempts" in shown:
        shown["attempts"] = [with_times(attempt, ("started_at",)) for attempt in shown["attempts"]]
    return shown


def schedule_view(info: Info) -> Info:
    """Return a schedule."""
    return with_times(info, SCHEDULE_TIMES)


def queue_view(info: Info) -> Info:
    """Return a queue."""
    return with_times(info, ("oldest",))


def status_view(info: Info) -> Info:
    """Return the cluster's status."""
    shown = dict(info)
    shown["nodes"] = [node_view(node) for node in info["nodes"]]
    if "coordinator" in shown:
        shown["coordinator"] = with_times(shown["coordinator"], ("started_at",))
    return shown


def audit_view(info: Info) -> Info:
    """Return an entry of the audit."""
    return with_times(info, ("at",))


def explain_view(info: Info) -> Info:
    """Return an explanation; its story has times."""
    return info | {"story": [with_times(step, ("at",)) for step in info.get("story", ())]}
