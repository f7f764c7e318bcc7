"""`omnimind demo`, which is `make run`: the runtime at work on this machine's Python files."""

from __future__ import annotations

import asyncio
import io
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from omnimind.cli import lifecycle
from omnimind.cli.changes import Change, Effect
from omnimind.cli.errors import Exit
from omnimind.cli.options import current_output, write
from omnimind.cli.output import Output, View, emit, say
from omnimind.cli.session import Session

if TYPE_CHECKING:
    from omnimind.survey.files import Tree


@click.command()
@click.option("--path", metavar="DIR", default=None, help="Files below this folder.  [this Python's own]")
@click.option("--out", metavar="DIR", default="out", show_default=True, help="Folder of the report.")
@click.option("--once", is_flag=True, help="Stop everything after the report.")
@lifecycle.instance_options
@write()
def demo(session: Session, path: str | None, out: str, once: bool, **flags: Any) -> Change:
    """Analyse this machine's Python files, each as one task, and show it live.

    Starts OmniMind unless it runs, writes report.html and report.json, and leaves it up until Ctrl-C, which
    stops what was started here and nothing else. Interrupted and started again, it goes on where it was.
    """
    from omnimind import launch  # noqa: PLC0415
    from omnimind.survey.demo import plan_demo  # noqa: PLC0415
    from omnimind.survey.files import find_files  # noqa: PLC0415

    settings = lifecycle.settings_of(session, **flags)
    folder = Path(out)

    def plan() -> list[Effect]:
        files = len(find_files(path).files)
        effects = [Effect(str(folder), "write", "", "report.html, report.json", f"about {files:,} files")]
        if launch.find(session.home) is None:
            note = "and stop it after the report" if once else "and stop it at Ctrl-C"
            effects.insert(0, Effect(str(session.home), "start", "not running", "running", note))
        return effects

    def apply() -> None:
        tree = plan_demo(path, folder)
        output = current_output()
        with lifecycle.ending_as_interrupts():
            mine = None
            if (found := launch.find(session.home)) is not None:
                lifecycle.wait_ready(found, settings)
            else:
                mine = launch.start(session.home, settings, on_progress=lifecycle.progress(output))
            code = Exit.INTERRUPTED
            try:
                report = asyncio.run(_survey(session, tree, folder, output))
                code = Exit.OK
                if output.structured:
                    emit(View(data=report), output)
                if mine is None:
                    say(f"OmniMind ran in {session.home} before, and runs on")
                elif not once:
                    say("OmniMind stays up: look at it with `omnimind top`, stop it with Ctrl-C")
                    mine.wait(lifecycle.progress(output))
            except (KeyboardInterrupt, asyncio.CancelledError):
                pass
            finally:
                if mine is not None and mine.alive():
                    lifecycle.stop(mine, output)
        if code:
            click.get_current_context().exit(code)

    return Change(plan, apply)


async def _survey(session: Session, tree: Tree, out: Path, output: Output) -> dict[str, Any]:
    """Run the survey; SIGTERM and SIGHUP cancel it, as asyncio lets Ctrl-C do."""
    from omnimind.client.client import AsyncClient  # noqa: PLC0415
    from omnimind.survey.demo import run_demo  # noqa: PLC0415

    me = asyncio.current_task()
    assert me is not None
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, me.cancel)
    quiet = io.StringIO()
    async with AsyncClient(session.home) as client:
        return await run_demo(
            client,
            tree,
            once=True,
            out=out,
            home=session.home,
            nodes=client.nodes.list,
            stdout=quiet if output.format != "table" else sys.stdout,
            stderr=quiet if output.structured else sys.stderr,
        )
