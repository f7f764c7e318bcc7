"""From times to figures, and to the table that people read."""

from __future__ import annotations

from collections.abc import Mapping

from rich.table import Table

from benchmarks.figures import Figure, percentile
from benchmarks.recovery.trials import BOUND, Times

SUITE = "recovery"
SYSTEMS = {
    "omnimind": "OmniMind",
    "ray_tuned": "Ray tasks, tuned",
    "ray_default": "Ray tasks, default settings",
}
FAULTS = {
    "worker": "worker killed",
    "node_actor": "Node actor killed",
    "raylet": "raylet killed",
    "cut": "link cut silently",
    "coordinator": "coordinator killed",
    "head": "all of Ray on the head killed",
    "postgres": "PostgreSQL killed",
}
TARGETS = {"worker": 1, "node_actor": 3, "raylet": 3, "cut": 7, "coordinator": 5, "head": 30}
"""Seconds within which OmniMind must recover, in the worst trial."""

Results = Mapping[tuple[str, str], Times]
"""By (fault, system)."""


def figures(results: Results) -> list[Figure]:
    """Return what was measured, and how OmniMind compares with tuned Ray."""
    found = []
    for (fault, system), times in results.items():
        note = f"{FAULTS[fault]}, {SYSTEMS[system]}, {len(times.seconds)} trials"
        if times.beyond:
            note += f", {times.beyond} of them took longer than {BOUND:g} s and count as that"
        target = TARGETS.get(fault) if system == "omnimind" else None
        for label, value in (("p50", percentile(times.seconds, 0.5)), ("worst", max(times.seconds))):
            must = f"< {target}" if target is not None and label == "worst" else None
            name = f"{SUITE}.{fault}.{system}.{label}"
            found.append(Figure(name=name, value=value, unit="s", must=must, note=note))
    for fault, title in FAULTS.items():
        ours, tuned = results.get((fault, "omnimind")), results.get((fault, "ray_tuned"))
        if ours is None or tuned is None:
            continue
        for label, share in (("p50", 0.5), ("worst", 1.0)):
            found.append(
                Figure(
                    name=f"{SUITE}.{fault}.ratio.{label}",
                    value=percentile(ours.seconds, share) / percentile(tuned.seconds, share),
                    unit="x",
                    must="<= 1",
                    note=f"{title}: OmniMind's time divided by tuned Ray's",
                )
            )
    return found


def table(results: Results) -> Table:
    """Return p50 and worst of each fault, in seconds, side by side."""
    made = Table(title="Recovery, seconds: p50 / worst (trials)")
    made.add_column("what dies")
    for title in SYSTEMS.values():
        made.add_column(title, justify="right")
    made.add_column("target", justify="right")
    for fault, title in FAULTS.items():
        cells = [_cell(results.get((fault, system))) for system in SYSTEMS]
        if any(cells):
            target = TARGETS.get(fault)
            made.add_row(title, *(cell or "-" for cell in cells), f"< {target}" if target else "-")
    return made


def _cell(times: Times | None) -> str:
    if times is None or not times.seconds:
        return ""
    return f"{_text(percentile(times.seconds, 0.5))} / {_text(max(times.seconds))} ({len(times.seconds)})"


def _text(seconds: float) -> str:
    return f"> {BOUND:g}" if seconds >= BOUND else f"{seconds:.2f}"
