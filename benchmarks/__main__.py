"""`python -m benchmarks`: run suites, print what they found, write `benchmarks/results/`."""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from benchmarks import machine, report, show
from benchmarks.figures import Figure
from benchmarks.peers import PEERS, Entry
from benchmarks.processes import adopt_orphans, end_descendants, interrupt_on_terminate
from benchmarks.progress import Teller
from benchmarks.settings import Settings, Suite, SuiteFailedError
from benchmarks.suites import SUITES

_IN_MEMORY = ("tmpfs", "ramfs")


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--only",
    multiple=True,
    type=click.Choice([suite.name for suite in SUITES]),
    help="Run this suite (may be repeated); the others keep their figures.  [default: all]",
)
@click.option(
    "--skip", multiple=True, type=click.Choice([entry.name for entry in PEERS]), help="Leave this peer out."
)
@click.option("--quick", is_flag=True, help="A short run that proves the harness; written to quick.json.")
@click.option("--rounds", type=click.IntRange(1), help="Repetitions of every peer.  [default: 3]")
@click.option("--seed", default=1, show_default=True, help="Draws the payloads and the order of the peers.")
@click.option(
    "--dir",
    "parent",
    type=click.Path(exists=True, file_okay=False, writable=True, path_type=Path),
    help="Where temporary files go; it must be a disk.  [default: the system's temporary folder]",
)
@click.option("--show", "show_only", is_flag=True, help="Run nothing; show the last results again.")
@click.option("--markdown", is_flag=True, help="Run nothing; write the last results as Markdown to stdout.")
def main(
    only: tuple[str, ...],
    skip: tuple[str, ...],
    quick: bool,
    rounds: int | None,
    seed: int,
    parent: Path | None,
    show_only: bool,
    markdown: bool,
) -> None:
    """Measure OmniMind beside its peers, and its core alone, on this machine.

    Takes about 30 minutes, 5 with --quick. Writes benchmarks/results/latest.json (or quick.json), and a plot.

    Exit status: 0 when everything was measured, whether or not a figure reaches what it must; 1 when
    something could not be measured; 3 when a program or a package is missing.
    """
    console = Console()
    if not console.is_terminal:
        console.width = 130  # a log has no edge that a table must fit into
    path = report.RESULTS / ("quick.json" if quick else "latest.json")
    if show_only or markdown:
        _show_again(path, console, markdown=markdown)
        return
    suites = [suite for suite in SUITES if suite.name in only or not only]
    entries = tuple(entry for entry in PEERS if entry.name not in skip)
    if any(suite.name == "peers" for suite in suites):
        _require(entries)
    adopt_orphans()
    interrupt_on_terminate()
    folder = Path(tempfile.mkdtemp(prefix="omb-", dir=parent))
    folder.chmod(0o711)  # a server that refuses to be root must pass through
    try:
        settings = _settings(folder, seed=seed, rounds=rounds, quick=quick, peers=entries)
        complete = _measure(suites, settings, path, console)
    finally:
        end_descendants()
        shutil.rmtree(folder, ignore_errors=True)
    if not complete:
        sys.exit(1)


def _settings(
    folder: Path, *, seed: int, rounds: int | None, quick: bool, peers: tuple[Entry, ...]
) -> Settings:
    if quick:
        return Settings(
            folder=folder,
            seed=seed,
            seconds=1.0,
            repetitions=rounds or 1,
            calls=200,
            backlog=50_000,
            scale=1_000_000,
            peers=peers,
        )
    return Settings(folder=folder, seed=seed, repetitions=rounds or 3, peers=peers)


def _require(entries: tuple[Entry, ...]) -> None:
    """Exit with status 3, and say what to install, when a peer cannot run."""
    missing = {entry.name: wanted for entry in entries if (wanted := entry.missing())}
    if not missing:
        return
    for name, wanted in missing.items():
        click.echo(f"{name} cannot run here. Install what it needs: {' && '.join(wanted)}", err=True)
    click.echo(f"Or leave it out: {' '.join(f'--skip {name}' for name in missing)}", err=True)
    sys.exit(3)


def _measure(suites: list[Suite], settings: Settings, path: Path, console: Console) -> bool:
    """Run the suites, write and show the report; whether everything could be measured."""
    facts = machine.describe(settings.folder)
    if facts["disk"].startswith(_IN_MEMORY):
        click.echo(
            "The temporary folder is in memory, where durable costs nothing: give a disk by --dir.", err=True
        )
        return False
    commit, when = machine.commit(), _now()
    measured: list[Figure] = []
    runs: dict[str, dict[str, Any]] = {}
    failures: list[str] = []
    with Teller(console, suites, settings) as teller:
        for suite in suites:
            begin = time.monotonic()
            try:
                found = suite.run(settings, partial(teller.step, suite.name))
            except SuiteFailedError as error:
                failures.append(f"{suite.name}: {error}")
                found = list(error.figures)
            teller.done(suite.name)
            measured += found
            runs[suite.name] = {
                "when": when,
                "commit": commit,
                "seconds": round(time.monotonic() - begin),
                "settings": settings.to_dict(),
            }
    new = report.Report(
        when=when,
        commit=commit,
        machine=facts,
        versions=machine.versions(),
        suites=runs,
        figures=tuple(measured),
    )
    merged = report.merge(report.read(path), new, [suite.name for suite in SUITES])
    report.write(merged, path)
    show.print_report(merged, console)
    show.plot(merged, path.with_suffix(".svg"))
    for failure in failures:
        click.echo(f"\nNot measured: {failure}", err=True)
    return not failures


def _show_again(path: Path, console: Console, *, markdown: bool) -> None:
    last = report.read(path)
    if last is None:
        click.echo(f"{path.name} does not exist yet: run the benchmarks first", err=True)
        sys.exit(1)
    if markdown:
        click.echo(show.markdown(last), nl=False)
    else:
        show.print_report(last, console)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


if __name__ == "__main__":
    main(prog_name="python -m benchmarks")
