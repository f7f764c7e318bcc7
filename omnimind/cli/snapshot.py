"""What `omnimind top` shows at one moment, and what changed since the moment before."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from omnimind.cli.nodes import listed
from omnimind.cli.session import Session
from omnimind.cli.status import ended
from omnimind.errors import Refused

FAILURES = ("failed", "dead", "expired")
ROWS = 10
PATIENCE = 2.0
"""Seconds for one call while the view is live: keys are read between calls."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One moment. `at` in Unix seconds, `trouble` says why a part is missing."""

    at: float
    status: Mapping[str, Any]
    queues: list[dict[str, Any]] = field(default_factory=list)
    running: list[dict[str, Any]] = field(default_factory=list)
    failures: list[dict[str, Any]] = field(default_factory=list)
    trouble: str = ""

    @property
    def nodes(self) -> list[dict[str, Any]]:
        """Return the nodes."""
        return listed(self.status.get("nodes") or [])

    def to_dict(self) -> dict[str, Any]:
        """Return the public form."""
        return {
            "at": self.at,
            "status": self.status,
            "queues": self.queues,
            "running": self.running,
            "failures": self.failures,
        }


def take(session: Session, timeout: float | None = None) -> Snapshot:
    """Ask for everything. Raises what the calls raise."""
    from omnimind.client.protocol import ListRequest  # noqa: PLC0415

    def tasks(*statuses: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = session.call(
            "list", ListRequest(status=list(statuses), limit=ROWS), timeout
        )["items"]
        return [{k: v for k, v in t.items() if k not in {"payload", "result"}} for t in found]

    return Snapshot(
        at=time.time(),
        status=session.call("status", None, timeout),
        queues=session.call("queues", None, timeout),
        running=tasks("running"),
        failures=tasks(*FAILURES),
    )


def again(session: Session, before: Snapshot) -> Snapshot:
    """Ask again; where nobody answers, keep what was known and say so."""
    try:
        return take(session, PATIENCE)
    except Refused as error:
        return Snapshot(
            before.at, before.status, before.queues, before.running, before.failures, error.message
        )


def rate(now: Snapshot, before: Snapshot | None) -> float | None:
    """Return tasks ended a second between two moments, or None where there is nothing to compare."""
    if before is None or now.at <= before.at:
        return None
    done = sum(ended(now.status).values()) - sum(ended(before.status).values())
    return max(0, done) / (now.at - before.at)


def node_rates(now: Snapshot, before: Snapshot | None) -> dict[str, float]:
    """Return tasks completed a second by node id."""
    if before is None or now.at <= before.at:
        return {}
    old = {n["node_id"]: n["total_tasks_completed"] for n in before.nodes}
    seconds = now.at - before.at
    return {
        n["node_id"]: max(0, n["total_tasks_completed"] - old.get(n["node_id"], 0)) / seconds
        for n in now.nodes
    }
