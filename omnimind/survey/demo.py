"""`omnimind demo`, without what starts and stops the runtime: what `make run` does once OmniMind is up."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from omnimind.survey.files import Tree, find_files
from omnimind.survey.live import open_live
from omnimind.survey.output import prepare_folder
from omnimind.survey.run import PAGE, REPORT, NodesSource, SurveyClient, survey
from omnimind.survey.state import SurveyState
from omnimind.survey.text import below, clip, printable

STATE = "survey.json"
"""Name of the file in OMNIMIND_HOME that remembers unfinished surveys."""


def plan_demo(path: str | None, out: Path) -> Tree:
    """Find the files and try the output folder, before anything is started.

    path: folder to survey; None for the library and packages of this Python.

    Raises InvalidInput (fields `path` and `out`).
    """
    tree = find_files(path)
    prepare_folder(out)
    return tree


async def run_demo(
    client: SurveyClient,
    tree: Tree,
    *,
    once: bool,
    out: Path,
    home: Path,
    nodes: NodesSource | None = None,
    stdout: TextIO | None = None,
    stderr: TextIO | None = None,
) -> dict[str, Any]:
    """Survey `tree` live on stderr, print the result on stdout, and return the report.

    client: an open `AsyncClient`; `nodes` is its `nodes.list`. tree: from `plan_demo`. home: the instance's
    folder. once: return after the report; otherwise wait, with the runtime up, until cancelled (Ctrl-C under
    `asyncio.run`). Cancelled earlier, it says how to go on.

    Raises what `survey` raises.
    """
    stdout, stderr = stdout or sys.stdout, stderr or sys.stderr
    state = SurveyState(home / STATE)
    try:
        report = await survey(client, tree, out=out, state=state, live=open_live(stderr), nodes=nodes)
    except asyncio.CancelledError:
        _say(
            stderr, "interrupted: what is done stands in the ledger, and the same command goes on from there"
        )
        raise
    _say(stdout, summarise(report, out))
    if not once:
        _say(stderr, "OmniMind stays up: look at it with `omnimind status`, stop it with Ctrl-C")
        await asyncio.Event().wait()
    return report


def summarise(report: Mapping[str, Any], out: Path) -> str:
    """Return what a person wants to know of a report, in a few lines."""
    seconds = report["seconds"]
    rate = f", {report['files'] / seconds:,.0f} files/s" if seconds else ""
    packages = sorted(report["by_package"].items(), key=lambda item: (-item[1]["lines"], item[0]))[:5]
    rows = [
        ("files", f"{report['files']:,} in {seconds:,.1f} s{rate}"),
        (
            "lines",
            f"{report['lines']:,} ({report['code']:,} code, {report['comments']:,} comments)",
        ),
        ("functions", f"{report['functions']:,}"),
        ("classes", f"{report['classes']:,}"),
        ("complexity", f"{report['complexity']['mean']:.2f} on average, {_most_complex(report)}"),
        ("documented", f"{report['documented_percent']:.1f} % of {report['public']:,} public names"),
        ("largest", ", ".join(f"{_short(name)} {values['lines']:,}" for name, values in packages)),
        ("warnings", f"{report['warnings']:,}"),
        (
            "failed",
            f"{report['failed']:,}"
            + (" (listed in the report, with the reasons)" if report["failed"] else ""),
        ),
        ("report", f"{printable(str(out / PAGE))}  {printable(str(out / REPORT))}"),
    ]
    if report["resumed"]:
        rows.insert(
            1, ("taken over", f"{report['resumed']:,} tasks from before the interruption, done or waiting")
        )
    return "\n".join(f"{name:<12}{value}" for name, value in rows)


def _most_complex(report: Mapping[str, Any]) -> str:
    if not report["most_complex"]:
        return "no function"
    most = report["most_complex"][0]
    place = f"{below(most['path'], report['roots'])}:{most['line']}"
    return f"at most {most['complexity']:,} in {_short(most['name'])} ({_short(place)})"


def _short(text: str, width: int = 40) -> str:
    return clip(printable(text), width)


def _say(stream: TextIO, text: str) -> None:
    stream.write(f"{text}\n")
    stream.flush()
