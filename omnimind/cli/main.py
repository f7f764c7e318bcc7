"""The root of the command: global options, the list of commands, and the one place that ends the program."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import click

from omnimind.cli.errors import Exit, debugging, exit_code, report, report_usage, unexpected
from omnimind.cli.lazy import Lazy, LazyGroup
from omnimind.cli.output import wants_colour
from omnimind.cli.session import Session
from omnimind.errors import OmniMindError

WORK = "Work"
INSTANCE = "This machine"
THINGS = "Things"
TOOL = "This command"

COMMANDS = {
    "submit": Lazy("omnimind.cli.submit:submit", "Give a task to the runtime.", WORK),
    "status": Lazy("omnimind.cli.status:status", "Show the cluster in one page.", WORK),
    "explain": Lazy("omnimind.cli.explain:explain", "Say why a task or a node is as it is.", WORK),
    "top": Lazy("omnimind.cli.top:top", "Watch nodes, queues and tasks live.", WORK),
    "up": Lazy("omnimind.cli.up:up", "Start OmniMind on this machine.", INSTANCE),
    "down": Lazy("omnimind.cli.up:down", "Stop what `up` started, and nothing else.", INSTANCE),
    "demo": Lazy("omnimind.cli.demo:demo", "Analyse this machine's Python files, live.", INSTANCE),
    "doctor": Lazy("omnimind.cli.doctor:doctor", "Check everything, and say how to mend it.", INSTANCE),
    "config": Lazy("omnimind.cli.config:config", "Show each setting and where it came from.", INSTANCE),
    "cluster": Lazy("omnimind.cli.cluster:cluster", "Start, stop and check all hosts.", INSTANCE),
    "task": Lazy("omnimind.cli.task:task", "List, show, wait for, cancel and retry tasks.", THINGS),
    "node": Lazy("omnimind.cli.node:node", "List, show, drain, add and remove nodes.", THINGS),
    "queue": Lazy("omnimind.cli.queue:queue", "List, show, limit, pause and remove queues.", THINGS),
    "schedule": Lazy("omnimind.cli.schedule:schedule", "List, show, set and run schedules.", THINGS),
    "token": Lazy("omnimind.cli.token:token", "List, make and revoke tokens of the HTTP API.", THINGS),
    "deadletter": Lazy("omnimind.cli.deadletter:deadletter", "Show, replay or drop dead tasks.", THINGS),
    "ledger": Lazy("omnimind.cli.ledger:ledger", "Check, back up, restore and move the ledger.", THINGS),
    "handler": Lazy("omnimind.cli.handler:handler", "List the task types that are registered.", THINGS),
    "completion": Lazy("omnimind.cli.completion:completion", "Print the completion script of a shell.", TOOL),
}  # fmt: skip


class Cli(LazyGroup):
    """The root group. It ends the program with the exit codes of `errors`, whatever happens below."""

    def main(self, args: Sequence[str] | None = None, **extra: Any) -> NoReturn:  # type: ignore[override]
        """Run and exit."""
        words = list(sys.argv[1:] if args is None else args)
        as_json = wants_json(words)
        extra["standalone_mode"] = False
        extra.setdefault("prog_name", "omnimind")
        sys.exit(self._run(words, extra, as_json=as_json))

    def _run(self, words: list[str], extra: dict[str, Any], *, as_json: bool) -> int:
        try:
            code = super().main(args=words, **extra)
        except click.NoSuchCommand as error:
            report_usage(error, as_json=as_json)
            return Exit.USAGE
        except click.ClickException as error:
            report_usage(error, as_json=as_json)
            return error.exit_code
        except click.Abort:
            click.echo("interrupted", err=True)
            return Exit.INTERRUPTED
        except OmniMindError as error:
            if debugging():
                raise
            report(error, as_json=as_json)
            return exit_code(error)
        except Exception as error:
            if debugging():
                raise
            report(unexpected(error), as_json=as_json)
            return exit_code(unexpected(error))
        return code if isinstance(code, int) else Exit.OK


def wants_json(words: Sequence[str]) -> bool:
    """Return whether errors shall be problem documents: known before the line is parsed, or never."""
    structured = {"json", "jsonl", "yaml"}
    pairs = itertools.pairwise(words)
    return (
        "--json" in words
        or any(a in {"-o", "--output"} and b in structured for a, b in pairs)
        or any(w.partition("=")[2] in structured for w in words if w.startswith("--output="))
        or any(w[2:] in structured for w in words if w.startswith("-o"))
    )


def version() -> str:
    """Return the installed version, or ``unknown`` in a checkout that is not installed."""
    from importlib import metadata  # noqa: PLC0415

    try:
        return metadata.version("omnimind-runtime")
    except metadata.PackageNotFoundError:
        return "unknown"


def _version(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        click.echo(f"omnimind {version()}")
        ctx.exit()


@click.group(
    cls=Cli,
    lazy=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "--home", metavar="DIR", help="Folder of the instance.  [OMNIMIND_HOME, else the XDG state folder]"
)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Show the version."
)
@click.pass_context
def cli(ctx: click.Context, home: str | None) -> None:
    """Durable tasks on Ray, on machines that are watched and mended.

    Every read takes -o table|json|jsonl|yaml|name, every write takes --plan. Ids may be
    shortened to a prefix that is unique.

    \b
    Exit codes: 0 ok, 1 error, 2 usage, 3 not found, 4 refused, 5 task failed, 6 cancelled,
    7 timed out, 8 plan stale, 9 unreachable, 10 the plan would change something.
    """  # noqa: D301 - click wants the backspace itself
    ctx.color = wants_colour()
    if not isinstance(ctx.obj, Session):
        ctx.obj = Session()
    if home is not None:
        ctx.obj.use_home(home)
    ctx.call_on_close(ctx.obj.close)


def main() -> NoReturn:
    """Run the command line of this process; the entry point of the script `omnimind`."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    cli.main()
