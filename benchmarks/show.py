"""The report for people: tables on the terminal, Markdown for the README, a plot."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.compare import OURS
from benchmarks.peers import PEERS
from benchmarks.report import Report, asked
from benchmarks.workloads import WORKLOADS

_TITLES: Mapping[str, str] = {entry.name: entry.title for entry in PEERS}
_LATENCIES = ("p50", "p99")
_WIDE = 40.0
"""From this ratio of the largest to the smallest on, a panel is drawn to a logarithmic scale."""


def number(value: float, unit: str = "") -> str:
    """Return a value for reading: three significant digits, thousands apart; whole counts as they are."""
    rounded = value if isinstance(value, int) else float(f"{value:.3g}")
    text = f"{rounded:,.0f}" if abs(rounded) >= 100 else f"{rounded:g}"
    return f"{text} {unit}".strip()


def _values(report: Report) -> dict[str, float]:
    return {figure.name: figure.value for figure in report.figures}


def _peers(report: Report) -> list[str]:
    """Return the peers of this report, ours first."""
    names = {figure.name.split(".")[-1] for figure in report.figures if figure.suite == "peers"}
    return [entry.name for entry in PEERS if entry.name in names]


def comparison(report: Report) -> Table:
    """Return the table of all peers: throughput with OmniMind's ratio, and latency."""
    values = _values(report)
    table = Table(title="Tasks a second, and latency of one task (OmniMind's divided by the peer's)")
    table.add_column("system")
    for workload in WORKLOADS:
        table.add_column(workload.title, justify="right")
    for label in _LATENCIES:
        table.add_column(label, justify="right")
    for name in _peers(report):
        table.add_row(_TITLES[name], *_row(values, name), style="bold" if name == OURS else None)
    return table


def _row(values: Mapping[str, float], name: str) -> list[str]:
    """Return the cells of one peer: each workload, then each latency."""
    kinds = [(f"throughput.{w.name}", f"ratio.{w.name}", "") for w in WORKLOADS]
    kinds += [(f"latency.{label}", f"latency_ratio.{label}", "ms") for label in _LATENCIES]
    return [_cell(values, absolute, relative, name, unit) for absolute, relative, unit in kinds]


def _cell(values: Mapping[str, float], absolute: str, relative: str, name: str, unit: str) -> str:
    if (value := values.get(f"peers.{absolute}.{name}")) is None:
        return "-"
    ratio = values.get(f"peers.{relative}.{name}")
    return number(value, unit) if ratio is None else f"{number(value, unit)} ({number(ratio)}x)"


def requirements(report: Report) -> Table:
    """Return the table of everything that must reach something, and whether it does."""
    table = Table(title="What must hold")
    for title in ("figure", "value", "must", "holds"):
        table.add_column(title, justify="right" if title == "value" else "left")
    for figure in asked(report.figures):
        verdict = "[green]yes[/green]" if figure.holds else "[bold red]no[/bold red]"
        table.add_row(figure.name, number(figure.value, figure.unit), figure.must, verdict)
    return table


def origin(report: Report) -> str:
    """Return the sentence that says where the figures come from."""
    facts = report.machine
    return (
        f"Measured {report.when[:10]} at commit {report.commit[:12]} on {facts['cpu']}, "
        f"{facts['cores']} cores, {facts['memory_gib']} GiB, {facts['system']}, Python {facts['python']}, "
        f"{facts['disk']}."
    )


def print_report(report: Report, console: Console) -> None:
    if _peers(report):
        console.print(comparison(report))
    if asked(report.figures):
        console.print(requirements(report))
    console.print(origin(report), style="dim", highlight=False)


def markdown(report: Report) -> str:
    """Return what the README says: both tables and the machine they came from."""
    values = _values(report)
    titles = [*(workload.title for workload in WORKLOADS), *_LATENCIES]
    lines = [
        f"| tasks a second, latency (OmniMind's divided by the peer's) | {' | '.join(titles)} |",
        "| --- |" + " ---: |" * len(titles),
        *(f"| {_TITLES[name]} | {' | '.join(_row(values, name))} |" for name in _peers(report)),
        "",
        "| figure | value | must | holds |",
        "| --- | ---: | --- | --- |",
    ]
    for figure in asked(report.figures):
        verdict = "yes" if figure.holds else "no"
        lines.append(f"| `{figure.name}` | {number(figure.value, figure.unit)} | {figure.must} | {verdict} |")
    return "\n".join([*lines, "", origin(report)]) + "\n"


def plot(report: Report, path: Path) -> None:
    """Draw throughput by workload and latency, of all peers, as SVG; nothing when no peers were measured."""
    names = _peers(report)
    if not names:
        return
    import matplotlib as mpl  # noqa: PLC0415  drawing is the last step: without it all else still works

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    values = _values(report)
    mpl.rcParams.update({"svg.hashsalt": "omnimind", "svg.fonttype": "none"})
    panels = [(f"throughput.{w.name}", f"{w.title}, tasks/s") for w in WORKLOADS]
    panels += [(f"latency.{label}", f"one task alone, {label}, ms") for label in _LATENCIES]
    figure, axes = plt.subplots(3, 2, figsize=(12, 10), layout="constrained")
    for axis, (kind, title) in zip(axes.flat, panels, strict=True):
        shown = [name for name in reversed(names) if f"peers.{kind}.{name}" in values]
        widths = [values[f"peers.{kind}.{name}"] for name in shown]
        colours = ["#c2410c" if name == OURS else "#64748b" for name in shown]
        bars = axis.barh([_TITLES[name] for name in shown], widths, color=colours)
        axis.bar_label(bars, [number(width) for width in widths], padding=3)
        if max(widths) > _WIDE * min(widths):
            axis.set_xscale("log")
            axis.set_xlim(10 ** math.floor(math.log10(min(widths)) - 0.5), 5 * max(widths))
            axis.set_title(f"{title} (log scale)", loc="left")
        else:
            axis.set_xlim(0, 1.2 * max(widths))
            axis.set_title(title, loc="left")
        axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle(textwrap.fill(origin(report), 130), fontsize="small")
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
