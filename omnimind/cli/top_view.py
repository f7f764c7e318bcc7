"""How `omnimind top` looks: rich renderables made from snapshots. The only module that imports rich."""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Sequence

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from omnimind.cli import snapshot as shot
from omnimind.cli.status import ended
from omnimind.cli.table import STYLES, clean, prose, show
from omnimind.cli.task_view import first_line, took
from omnimind.cli.times import relative

BARS = "▁▂▃▄▅▆▇█"
BAR_WIDTH = 10
ELASTIC = {"WHY", "TYPE"}
"""Columns that take the width which the others leave, where they stand last."""

RIGHT = {"SLOTS", "DONE", "DONE/S", "READY", "DELAYED", "RUNNING", "RATE", "RETRIES", "WEIGHT"}


def spark(values: Sequence[float]) -> str:
    """Return a line of bars, scaled to the highest."""
    top = max(values, default=0.0)
    if top <= 0:
        return BARS[0] * len(values)
    return "".join(BARS[min(len(BARS) - 1, int(v / top * len(BARS)))] for v in values)


def bar(taken: int, whole: int) -> Text:
    """Return a bar of slots taken."""
    filled = round(BAR_WIDTH * taken / whole) if whole > 0 else 0
    return Text("█" * filled, style="cyan") + Text("░" * (BAR_WIDTH - filled), style="dim")


def styled(word: str) -> Text:
    """Return a status word in its colour."""
    look = STYLES.get(word, {})
    return Text(
        clean(word), style=" ".join(filter(None, ["bold" if look.get("bold") else "", look.get("fg", "")]))
    )


def _table(*titles: str) -> Table:
    elastic = titles[-1] in ELASTIC
    table = Table(box=None, pad_edge=False, expand=elastic, header_style="bold", padding=(0, 2, 0, 0))
    for title in titles:
        table.add_column(
            title,
            justify="right" if title in RIGHT else "left",
            no_wrap=True,
            overflow="ellipsis",
            ratio=1 if title == titles[-1] and elastic else None,
        )
    return table


def head(now: shot.Snapshot, rates: Sequence[float], home: str) -> Text:
    """Return the first lines: instance, tasks, load, rate."""
    status = now.status
    coordinator = status.get("coordinator") or {}
    text = Text().append("OmniMind ", "bold")
    text.append(
        f"{clean(home)}  coordinator pid {coordinator.get('pid')}, epoch {coordinator.get('epoch')}\n", "dim"
    )
    counts = {"pending": status["pending_tasks"], "running": status["running_tasks"]}
    for name, count in (counts | ended(status)).items():
        text.append(f"{count:,} ").append_text(styled(name)).append("   ")
    text.append("since the coordinator's start", "dim")
    text.append(f"\nslots {status['current_load']}/{status['total_capacity']} ")
    text.append_text(bar(status["current_load"], status["total_capacity"]))
    if rates:
        text.append(f"   {rates[-1]:,.1f} tasks/s  ").append(spark(rates), "green")
    if now.trouble:
        text.append(f"\n{clean(now.trouble)}: these figures are {relative(now.at)}", "bold red")
    return text


def nodes(now: shot.Snapshot, before: shot.Snapshot | None) -> Table:
    """Return the nodes."""
    table = _table("NODE", "HOST", "STATUS", "SLOTS", "", "DONE", "DONE/S", "HEARTBEAT")
    rates = shot.node_rates(now, before)
    for n in now.nodes:
        done = rates.get(n["node_id"])
        table.add_row(
            show(n["node_id"]),
            clean(n["hostname"]),
            styled(n["status"]),
            f"{n['current_tasks']}/{n['max_concurrent_tasks']}",
            bar(n["current_tasks"], n["max_concurrent_tasks"]),
            f"{n['total_tasks_completed']:,}",
            "" if done is None else f"{done:,.1f}",
            relative(n["last_heartbeat"]) if n["last_heartbeat"] else "-",
        )
    return table


def queues(now: shot.Snapshot) -> Table:
    """Return the queues, those with work first."""
    table = _table("QUEUE", "STATE", "WEIGHT", "READY", "DELAYED", "RUNNING", "OLDEST")
    for q in sorted(now.queues, key=lambda q: (-q["running"], -q["ready"], q["name"]))[: shot.ROWS]:
        table.add_row(
            clean(q["name"][:40]),
            styled("paused" if q["paused"] else "ok"),
            f"{q['weight']:g}",
            f"{q['ready']:,}",
            f"{q['delayed']:,}",
            f"{q['running']:,}",
            relative(q["oldest"]) if q.get("oldest") else "-",
        )
    return table


def running(now: shot.Snapshot) -> Table:
    """Return tasks that run, the newest first."""
    table = _table("TASK", "FOR", "RETRIES", "NODE", "QUEUE", "TYPE")
    for t in now.running:
        table.add_row(
            t["task_id"],
            took(t) or "-",
            str(t["retry_count"]),
            show(t.get("assigned_node")),
            clean(t["queue"][:20]),
            clean(t["task_type"]),
        )
    return table


def failures(now: shot.Snapshot) -> Table:
    """Return the newest tasks that ended badly, with the reason."""
    table = _table("TASK", "STATUS", "SUBMITTED", "TYPE", "WHY")
    for t in now.failures:
        why = first_line(t.get("error")) or t.get("cause") or "-"
        table.add_row(
            t["task_id"],
            styled(t["status"]),
            relative(t["created_at"]),
            clean(t["task_type"][-24:]),
            prose(why),
        )
    return table


def _part(title: str, table: Table, empty: str) -> list[RenderableType]:
    heading = Text(f"\n{title}", style="bold underline")
    return [heading, table if table.row_count else Text(empty, style="dim")]


def screen(now: shot.Snapshot, before: shot.Snapshot | None, rates: Sequence[float], home: str) -> Group:
    """Return the whole page."""
    return Group(
        head(now, rates, home),
        *_part("Nodes", nodes(now, before), "no node has joined yet"),
        *_part("Queues", queues(now), "no queue"),
        *_part("Running", running(now), "nothing runs"),
        *_part("Failures", failures(now), "none"),
    )


def text(now: shot.Snapshot, home: str, *, colour: bool, width: int) -> str:
    """Return the page as text, for `--once`."""
    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=colour, no_color=not colour, highlight=False)
    console.print(screen(now, None, [], home))
    return "\n".join(line.rstrip() for line in out.getvalue().rstrip().split("\n"))


class History:
    """The last rates, for the sparkline."""

    def __init__(self, length: int = 40) -> None:
        self.rates: deque[float] = deque(maxlen=length)
        self.before: shot.Snapshot | None = None

    def add(self, now: shot.Snapshot) -> shot.Snapshot | None:
        """Take a snapshot in, and return the one before it."""
        before, self.before = self.before, now
        measured = shot.rate(now, before)
        if measured is not None:
            self.rates.append(measured)
        return before
