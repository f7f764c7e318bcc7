"""What the commands about nodes share: how a node looks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from omnimind.cli.table import Column, Styled, sheet, status, table, terminal_width, whole
from omnimind.cli.times import local, relative, span

IN_USE = frozenset({"active", "busy"})
"""What a node is that takes work; busy: all its slots are taken just now."""


def listed(nodes: Any) -> list[dict[str, Any]]:
    """Return nodes as a list, whether they came as one or by their ids; the gone ones last."""
    found = list(nodes.values()) if isinstance(nodes, Mapping) else list(nodes)
    return sorted(found, key=lambda n: n["status"] == "offline")


def missing(nodes: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the offline nodes whose machine has not come back as another node, as after a restart."""
    back = {(n["hostname"], n["ip_address"]) for n in nodes if n["status"] != "offline"}
    return [n for n in nodes if n["status"] == "offline" and (n["hostname"], n["ip_address"]) not in back]


def slots(node: Mapping[str, Any]) -> str:
    """Return slots taken of those that there are."""
    return f"{node['current_tasks']}/{node['max_concurrent_tasks']}"


COLUMNS = (
    Column("NODE", "node_id", elastic=True),
    Column("HOST", "hostname", elastic=True),
    Column("STATUS", "status", kind="status"),
    Column("SLOTS", slots, kind="number"),
    Column("DONE", "total_tasks_completed", kind="number"),
    Column("CPUS", "cpu_cores", kind="number", spare=True),
    Column("MEMORY", lambda n: f"{n['memory_gb']:.1f} GiB", kind="number", spare=True),
    Column("HEARTBEAT", "last_heartbeat", kind="time"),
    Column("CAPABILITIES", "capabilities", elastic=True, spare=True),
)
ATTEMPTS = (
    Column("TASK", "task_id"),
    Column("TYPE", "task_type"),
    Column("STARTED", "started_at", kind="time"),
)


def page(node: Mapping[str, Any], now: float) -> str:
    """Return one node for people."""
    drain = node.get("drain_deadline")
    lines = [
        ("node", whole(node["node_id"])),
        ("host", f"{node['hostname']} ({node['ip_address'] or 'no address'})"),
        ("status", status(node["status"])),
        ("drains until", local(drain, now) if drain else None),
        ("slots", f"{slots(node)} taken"),
        ("machine", f"{node['cpu_cores']} CPUs, {node['memory_gb']:.1f} GiB"),
        ("capabilities", node["capabilities"] or None),
        ("tasks done", node["total_tasks_completed"]),
        ("heartbeat", relative(node["last_heartbeat"], now) if node["last_heartbeat"] else "none yet"),
        ("life", node.get("incarnation") or None),
        ("processes", _pids(node.get("pids") or {})),
    ]
    attempts = node.get("attempts") or []
    return sheet(lines) + (f"\n\n{table(attempts, ATTEMPTS, terminal_width())}" if attempts else "")


def _pids(pids: Mapping[str, int]) -> Styled | None:
    return Styled("\n".join(f"{pid} {name}" for name, pid in pids.items())) if pids else None


def price(attempts: Sequence[Mapping[str, Any]], now: float) -> str:
    """Return what stopping a node's attempts would cost, in units of work."""
    if not attempts:
        return "nothing runs on it"
    spent = sum(max(0.0, now - a["started_at"]) for a in attempts if a.get("started_at"))
    return f"{len(attempts)} running, {span(spent)} of work"
