"""`python -m benchmarks.recovery`: measure recovery times, print the table, join `benchmarks/results/`."""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import click
from rich.console import Console

from benchmarks import machine, report
from benchmarks.processes import adopt_orphans, end_descendants, interrupt_on_terminate
from benchmarks.recovery import evaluate
from benchmarks.recovery.clusters import (
    TUNED,
    Cluster,
    ClusterFailedError,
    OmniMind,
    OmniMindOnPostgres,
    PlainRay,
)
from benchmarks.recovery.trials import Times, Trials
from benchmarks.suites import SUITES
from tests.hosts.harness import missing

_FEW = 5
_FEWER = 3
_PLAN: dict[str, dict[str, int | None]] = {
    # fault: system: most trials (None: as many as are asked for)
    "worker": {"omnimind": None, "ray_tuned": None, "ray_default": None},
    "node_actor": {"omnimind": None},
    "raylet": {"omnimind": None, "ray_tuned": None, "ray_default": _FEW},
    "cut": {"omnimind": None, "ray_tuned": None, "ray_default": _FEWER},
    "coordinator": {"omnimind": None},
    "head": {"omnimind": _FEW, "ray_tuned": _FEW, "ray_default": 1},
    "postgres": {"omnimind": _FEW},
}
_ALONE = frozenset({"head", "postgres"})
"""Each of their trials gets a cluster of its own: a supervisor waits longer before each further restart."""


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--trials", type=click.IntRange(1), default=20, show_default=True, help="Trials of each fault.")
@click.option(
    "--only", multiple=True, type=click.Choice(list(evaluate.FAULTS)), help="This fault (may be repeated)."
)
@click.option(
    "--system",
    multiple=True,
    type=click.Choice(list(evaluate.SYSTEMS)),
    help="On this system (may be repeated).",
)
@click.option("--dry", is_flag=True, help="Print the table, write nothing.")
def main(trials: int, only: tuple[str, ...], system: tuple[str, ...], dry: bool) -> None:
    """Measure how long it takes until work that was on a part that died is done all the same.

    OmniMind beside plain Ray tasks (max_retries=-1, default and tuned settings), on hosts made of namespaces
    of this machine. Takes about 40 minutes; the trials of the head and of PostgreSQL are 5, and those of
    Ray's default settings fewer, since they take up to two minutes each.

    A whole run joins benchmarks/results/latest.json; one with --only or --system prints its table alone.
    Exit status: 0 when everything was measured, 1 when something could not be, 3 without namespaces.
    """
    if reason := missing():
        click.echo(reason, err=True)
        sys.exit(3)
    adopt_orphans()
    interrupt_on_terminate()
    console = Console()
    if not console.is_terminal:
        console.width = 130
        sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    folder = Path(tempfile.mkdtemp(prefix="omr-"))
    folder.chmod(0o711)
    facts, commit = machine.describe(folder), machine.commit()
    when, began = datetime.now(UTC).isoformat(timespec="seconds"), time.monotonic()
    plan = _plan(trials, only, system)
    run = _Run(console, folder, sum(plan.values()))
    try:
        for name in evaluate.SYSTEMS:
            run.system(name, {fault: count for (fault, s), count in plan.items() if s == name})
    finally:
        end_descendants()
        shutil.rmtree(folder, ignore_errors=True)
    console.print(evaluate.table(run.results))
    for failure in run.failures:
        click.echo(f"Not measured: {failure}", err=True)
    if not (only or system or dry) and not run.failures:
        _join(run.results, when, commit, facts, round(time.monotonic() - began), trials)
    sys.exit(1 if run.failures else 0)


def _plan(trials: int, only: tuple[str, ...], system: tuple[str, ...]) -> dict[tuple[str, str], int]:
    return {
        (fault, name): min(trials, most or trials)
        for fault, systems in _PLAN.items()
        for name, most in systems.items()
        if (not only or fault in only) and (not system or name in system)
    }


class _Run:
    """All trials, one cluster after the other, with a line for each."""

    def __init__(self, console: Console, folder: Path, total: int) -> None:
        self.results: dict[tuple[str, str], Times] = {}
        self.failures: list[str] = []
        self._console = console
        self._folder = folder
        self._total = total
        self._done = 0
        self._clusters = 0

    def system(self, name: str, plan: dict[str, int]) -> None:
        """Run the trials of one system: those that can, on one cluster."""
        shared = {fault: count for fault, count in plan.items() if fault not in _ALONE}
        if shared:
            self._on(lambda folder: _make(name, "", folder), name, shared)
        for fault in [fault for fault in plan if fault in _ALONE]:
            for _ in range(plan[fault]):
                self._on(lambda folder, fault=fault: _make(name, fault, folder), name, {fault: 1})  # type: ignore[misc]

    def _on(self, make: Callable[[Path], Cluster], name: str, plan: dict[str, int]) -> None:
        self._clusters += 1
        folder = self._folder / f"c{self._clusters}"
        folder.mkdir(mode=0o711)
        try:
            with make(folder) as cluster:
                trials = Trials(cluster)
                for fault, count in plan.items():
                    for _ in range(count):
                        self._note(fault, name, trials.run(fault))
        except (ClusterFailedError, AssertionError) as error:
            self.failures.append(f"{evaluate.SYSTEMS[name]}, {', '.join(plan)}: {error}")

    def _note(self, fault: str, name: str, seconds: float | None) -> None:
        self._done += 1
        self.results.setdefault((fault, name), Times()).add(seconds)
        text = "longer than the bound" if seconds is None else f"{seconds:.2f} s"
        what = f"{evaluate.SYSTEMS[name]}: {evaluate.FAULTS[fault]}: {text}"
        self._console.print(f"[{self._done}/{self._total}] {what}", markup=False, highlight=False)


def _make(name: str, fault: str, folder: Path) -> Cluster:
    title = evaluate.SYSTEMS[name]
    match name:
        case "omnimind":
            return OmniMindOnPostgres(folder) if fault == "postgres" else OmniMind(folder)
        case "ray_tuned":
            return PlainRay(folder, title, TUNED, lasting=True)
        case _:
            return PlainRay(folder, title, {}, lasting=False)


def _join(
    results: dict[tuple[str, str], Times],
    when: str,
    commit: str,
    facts: dict[str, object],
    seconds: int,
    trials: int,
) -> None:
    """Write the figures beside those of the other suites."""
    path = report.RESULTS / "latest.json"
    about = {"when": when, "commit": commit, "seconds": seconds, "settings": {"trials": trials}}
    new = report.Report(
        when=when,
        commit=commit,
        machine=facts,
        versions=machine.versions(),
        suites={evaluate.SUITE: about},
        figures=tuple(evaluate.figures(results)),
    )
    order = [*(suite.name for suite in SUITES), evaluate.SUITE]
    report.write(report.merge(report.read(path), new, order), path)


if __name__ == "__main__":
    main(prog_name="python -m benchmarks.recovery")
