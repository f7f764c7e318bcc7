"""`omnimind status`: the cluster in one page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from omnimind.cli.nodes import COLUMNS, listed
from omnimind.cli.options import read
from omnimind.cli.output import View, next_steps
from omnimind.cli.session import Session
from omnimind.cli.table import STYLES, Styled, sheet, table
from omnimind.cli.times import local

SHOWN = ("pending", "running", "completed", "failed", "cancelled", "expired", "dead")


@click.command()
@read(watch=True)
def status(session: Session) -> View:
    """Show the cluster in one page: coordinator, tasks, load, nodes."""
    data = session.call("status")
    data["home"] = str(session.home)
    return View(data=data, text=_page(data), key="coordinator_node_id", notes=next_steps(*_next(data)))


def _page(data: Mapping[str, Any]) -> str:
    coordinator = data.get("coordinator") or {}
    api = data.get("api") or {}
    since = coordinator.get("started_at")
    lines = [
        ("home", data["home"]),
        ("coordinator", f"pid {coordinator.get('pid')}, epoch {coordinator.get('epoch')}"),
        ("since", local(since) if since else None),
        ("api", api.get("url")),
        ("tasks", counts(data)),
        ("nodes", f"{data['active_nodes']} of {data['total_nodes']} active"),
        (
            "load",
            f"{data['current_load']} of {data['total_capacity']} slots ({data['load_percentage']:.0f} %)",
        ),
    ]
    nodes = listed(data["nodes"])
    return sheet(lines) + ("\n\n" + table(nodes, COLUMNS, None) if nodes else "")


def counts(data: Mapping[str, Any]) -> Styled:
    """Return how many tasks are in each status, leaving out the empty ones that need no look."""
    found = {
        "pending": data["pending_tasks"],
        "running": data["running_tasks"],
        **{k: v for k, v in (data.get("tasks") or {}).items() if k not in {"pending", "running"}},
    }
    words = [
        click.style(f"{found[name]:,} {name}", **(STYLES[name] if found[name] else {}))
        for name in SHOWN
        if name in found and (found[name] or name in {"pending", "running"})
    ]
    return Styled(" · ".join(words))


def _next(data: Mapping[str, Any]) -> list[str]:
    if (data.get("tasks") or {}).get("dead"):
        return ["omnimind deadletter list"]
    if data["offline_nodes"]:
        return ["omnimind node list"]
    return []
