"""What the commands about nodes share: how a node looks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from omnimind.cli.changes import Effect
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
        ("ordered by", _ordered(node)),
        ("drains until", local(drain, now) if drain else None),
        ("drain", progress(node.get("drain")) or None),
        ("Ray", _ray(node)),
        ("slots", f"{slots(node)} taken"),
        ("machine", f"{node['cpu_cores']} CPUs, {node['memory_gb']:.1f} GiB"),
        ("capabilities", node["capabilities"] or None),
        ("resources", _amounts(node.get("resources") or {})),
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


LEAVES = (
    "Ray's own drain cannot be undone: the node's raylet ends, and it comes back as a new node where "
    "`omnimind node run` looks after its host"
)


def _ordered(node: Mapping[str, Any]) -> str | None:
    by, why = node.get("ordered_by"), node.get("order_reason")
    return (f"{by}: {why}" if why else str(by)) if by else None


def _ray(node: Mapping[str, Any]) -> str | None:
    kind = node.get("node_type")
    words = [f"{kind}, of the autoscaler"] if kind else []
    words += ["drained by Ray: gets nothing any more, for good"] if node.get("ray_draining") else []
    return ", ".join(words) or None


def _amounts(resources: Mapping[str, float]) -> str | None:
    return ", ".join(f"{amount:g} {name}" for name, amount in sorted(resources.items())) or None


def stage(drain: Mapping[str, Any] | None) -> str:
    """Return what is worth a new line of a drain's progress."""
    return "" if drain is None else f"{drain['left']} {drain['asked_to_stop']}"


def progress(drain: Mapping[str, Any] | None) -> str:
    """Return how far a drain is, in one line; empty when there is none."""
    if drain is None:
        return ""
    if drain["drained_at"] is not None:
        return "over: nothing runs there"
    line = f"{drain['left']} of {drain['attempts']} attempts left"
    if drain["asked_to_stop"]:
        line += ", asked to stop"
    left = drain["deadline_in"]
    return line if left is None else f"{line}, moved in {span(left)} at the latest"


def moves(plan: Mapping[str, Any] | None, deadline: float | None) -> list[Effect]:
    """Return what a drain would do to the attempts that run, and to work that no other node could take."""
    if plan is None:
        return []
    effects = []
    for attempt in plan["attempts"]:
        usual, ran = attempt["usual"], attempt["running"]
        known = usual is not None and deadline is not None
        in_time = deadline is None or (known and usual - ran < deadline)
        verb = "finishes" if in_time else "moves"
        note = f"{attempt['task_type']}, runs for {span(ran)}"
        if usual is not None:
            note += f", usually takes {span(usual)}"
        if not in_time:
            note += (
                "; ends as lost, since it may run once"
                if attempt["at_most_once"]
                else "; runs again elsewhere"
            )
        effects.append(Effect(attempt["task_id"], verb, "running", "running", note, passing=True))
    for item in plan["waits"]:
        what = ", ".join(item["needs"]) or "nothing in particular"
        note = f"{item['running']} running and {item['pending']} pending tasks: no other node has this"
        subject = f"needs {what}, {item['slots']} CPUs" if item["slots"] > 1 else f"needs {what}"
        effects.append(Effect(subject, "waits", "pending", "pending", note, passing=True))
    return effects
