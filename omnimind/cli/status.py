"""`omnimind status`: the cluster in one page."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

import click

from omnimind.cli.nodes import COLUMNS, listed, missing
from omnimind.cli.options import read
from omnimind.cli.output import View, next_steps
from omnimind.cli.session import Session
from omnimind.cli.table import STYLES, Styled, sheet, table, terminal_width
from omnimind.cli.times import local
from omnimind.errors import Refused

SHOWN = ("pending", "running", "completed", "failed", "cancelled", "expired", "dead")


@click.command()
@read(watch=True)
def status(session: Session) -> View:
    """Show the cluster in one page: coordinator, tasks, load, nodes."""
    data = session.call("status")
    data["home"] = str(session.home)
    with contextlib.suppress(Refused):
        # The coordinator counts since its start, the ledger all that is kept; but short attempts leave no
        # trace of their start there, so what runs is the coordinator's to say.
        counted = session.call("usage")["by_status"]
        data["tasks"] = counted | {"pending": data["pending_tasks"], "running": data["running_tasks"]}
    return View(data=data, text=_page(data), key="coordinator_node_id", notes=next_steps(*_next(data)))


def _page(data: Mapping[str, Any]) -> str:
    coordinator = data.get("coordinator") or {}
    api = data.get("api") or {}
    since = coordinator.get("started_at")
    gone = len(missing(listed(data["nodes"])))
    lines = [
        ("home", data["home"]),
        ("coordinator", f"pid {coordinator.get('pid')}, epoch {coordinator.get('epoch')}"),
        ("since", local(since) if since else None),
        ("ledger", ledger_line(data.get("ledger"))),
        ("api", api.get("url")),
        ("tasks", counts(data)),
        ("nodes", f"{data['active_nodes']} active" + (f", {gone} missing" if gone else "")),
        (
            "load",
            f"{data['current_load']} of {data['total_capacity']} slots ({data['load_percentage']:.0f} %)",
        ),
    ]
    nodes = listed(data["nodes"])
    return sheet(lines) + ("\n\n" + table(nodes, COLUMNS, terminal_width()) if nodes else "")


def ledger_line(about: Mapping[str, Any] | None) -> str | None:
    """Return which ledger it is: its kind and where it is."""
    if not about:
        return None
    kind = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}.get(about["kind"], about["kind"])
    return f"{kind} {about['version']}".strip() + f", {about['where']}"


def counts(data: Mapping[str, Any]) -> Styled:
    """Return how many tasks are in each status; of those that have ended, only what there is."""
    found = {
        "pending": data["pending_tasks"],
        "running": data["running_tasks"],
        **ended(data),
    }
    words = [
        click.style(f"{count:,} {name}", **(STYLES[name] if count else {})) for name, count in found.items()
    ]
    return Styled(" · ".join(words), wraps=False)


def ended(data: Mapping[str, Any]) -> dict[str, int]:
    """Return how many tasks have ended, by status."""
    counts = data.get("tasks") or {}
    return {name: counts[name] for name in SHOWN[2:] if counts.get(name)}


def _next(data: Mapping[str, Any]) -> list[str]:
    if (data.get("tasks") or {}).get("dead"):
        return ["omnimind deadletter list"]
    if missing(listed(data["nodes"])):
        return ["omnimind node list"]
    return []
