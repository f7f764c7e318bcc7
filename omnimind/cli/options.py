"""The two kinds of command. `read` and `write` add the options that every command of a kind has.

A read's function returns a `View`; it may be called again and again (`--watch`). A write's function
returns a `Change`, which can say what it would do, and do it. The session comes as the first argument.
"""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Callable
from typing import Any, TypeVar

import click

from omnimind.cli.changes import Change, permit, plan_view
from omnimind.cli.output import FORMATS, Output, View, emit
from omnimind.cli.session import Session

F = TypeVar("F", bound=Callable[..., Any])

WATCH_SECONDS = 2.0
_OUTPUT = "omnimind.output"


def read(*, watch: bool = False) -> Callable[[F], F]:
    """Make a function a read: -o, --json, --fields, --home, and --watch where it is useful."""

    def decorate(function: F) -> F:
        @click.pass_obj
        @functools.wraps(function)
        def run(session: Session, /, **values: Any) -> None:
            output = _output(session, values)
            seconds = values.pop("watch", None)
            if seconds is None:
                _finish(function(session, **values), output)
            else:
                _watch(lambda: function(session, **values), output, seconds)

        wrapped = _with_home(_with_fields(_with_output(run)))
        wrapped.kind = "read"
        if watch:
            wrapped = click.option(
                "--watch",
                is_flag=False,
                flag_value=WATCH_SECONDS,
                type=click.FloatRange(min=0.1),
                metavar="[SECONDS]",
                help=f"Show it again every SECONDS ({WATCH_SECONDS:g} when left out), until Ctrl-C.",
            )(wrapped)
        return wrapped  # type: ignore[no-any-return]

    return decorate


def write(*, reason: bool = False) -> Callable[[F], F]:
    """Make a function a write: --plan, --plan-id, --yes, -o, --home, --reason where the audit takes one."""

    def decorate(function: F) -> F:
        @click.pass_obj
        @functools.wraps(function)
        def run(session: Session, /, **values: Any) -> None:
            output = _output(session, values)
            only_plan, expected = values.pop("plan"), values.pop("plan_id")
            session.assume_yes = values.pop("yes")
            change: Change = function(session, **values)
            if only_plan:
                _finish(plan_view(change.plan()), output)
                return
            permit(change, expected, session, output)
            done = change.apply()
            if done is not None:
                _finish(done, output)

        wrapped = _with_home(_with_output(run))
        wrapped.kind = "write"
        options = [
            click.option(
                "--plan", is_flag=True, help="Say what it would do, do nothing; exit 10 if it would."
            ),
            click.option(
                "--plan-id", metavar="ID", help="Do it only if the plan is still this one; else exit 8."
            ),
            click.option("--yes", "-y", is_flag=True, help="Do not ask."),
        ]
        if reason:
            options.append(click.option("--reason", default="", help="Why; kept in the audit."))
        for option in reversed(options):
            wrapped = option(wrapped)
        return wrapped  # type: ignore[no-any-return]

    return decorate


def kind_of(command: click.Command) -> str:
    """Return ``read``, ``write``, or ``tool`` for what is neither."""
    return getattr(command.callback, "kind", "tool")


def _with_output(function: Any) -> Any:
    form = click.option(
        "-o", "--output", type=click.Choice(FORMATS), default=None, help="Format.  [default: table]"
    )
    short = click.option("--json", "as_json", is_flag=True, help="The same as -o json.")
    return form(short(function))


def _with_fields(function: Any) -> Any:
    return click.option(
        "--fields", metavar="A,B.C", default=None, help="Only these fields; dots lead into nested ones."
    )(function)


def _with_home(function: Any) -> Any:
    return click.option("--home", metavar="DIR", default=None, help="Folder of the instance.")(function)


def _output(session: Session, values: dict[str, Any]) -> Output:
    home = values.pop("home", None)
    if home is not None:
        session.use_home(home)
    form, as_json = values.pop("output"), values.pop("as_json")
    if as_json and form not in {None, "json"}:
        raise click.UsageError(f"--json and -o {form} contradict each other")
    fields = tuple(f.strip() for f in (values.pop("fields", None) or "").split(",") if f.strip())
    output = Output("json" if as_json else form or "table", fields)
    click.get_current_context().meta[_OUTPUT] = output
    return output


def current_output() -> Output:
    """Return how the person wants the output of the running command."""
    output: Output = click.get_current_context().meta[_OUTPUT]
    return output


def _finish(view: View, output: Output) -> None:
    emit(view, output)
    if view.code:
        click.get_current_context().exit(view.code)


def _watch(again: Callable[[], View], output: Output, seconds: float) -> None:
    """Show the view until Ctrl-C, which is the way to leave. On a terminal each replaces the one before."""
    clear = sys.stdout.isatty() and output.format == "table"
    try:
        while True:
            view = again()
            if clear:
                click.clear()
            emit(view, output)
            time.sleep(seconds)
    except KeyboardInterrupt:
        return
