"""The two kinds of command. `read` and `write` add the options that every command of a kind has.

A read's function returns a `View`; it may be called again and again (`--watch`). A write's function
returns a `Change`, which can say what it would do, and do it. The session comes as the first argument.
"""

from __future__ import annotations

import functools
import hashlib
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import click

from omnimind.cli.errors import ConfirmationNeeded, Exit
from omnimind.cli.output import FORMATS, Output, View, emit, say
from omnimind.cli.session import Session
from omnimind.cli.table import Column
from omnimind.errors import InvalidInput, PlanStale

F = TypeVar("F", bound=Callable[..., Any])

WATCH_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Effect:
    """One thing that a write would do. `now` and `then` say what changes; equal means nothing does."""

    subject: str
    verb: str
    now: str = ""
    then: str = ""
    note: str = ""

    @property
    def changes(self) -> bool:
        """Return whether anything would be different."""
        return self.now != self.then

    def to_dict(self) -> dict[str, Any]:
        """Return the public form."""
        return {
            "subject": self.subject,
            "verb": self.verb,
            "now": self.now,
            "then": self.then,
            "changes": self.changes,
            "note": self.note,
        }


@dataclass(frozen=True, slots=True)
class Change:
    """A write that has not happened.

    plan: returns its effects, by asking. apply: does it and returns what was done.
    destructive: cannot be taken back, so it is asked about, or needs `--yes`.
    """

    plan: Callable[[], Sequence[Effect]]
    apply: Callable[[], View]
    destructive: bool = False


PLAN_COLUMNS = (
    Column("SUBJECT", "subject"),
    Column("VERB", "verb"),
    Column("NOW", "now", elastic=True),
    Column("THEN", "then", elastic=True),
    Column("NOTE", "note", elastic=True),
)


def plan_id(effects: Sequence[Effect]) -> str:
    """Return the name of a plan: equal for equal effects. Notes are left out, since they speak of moments."""
    facts = [(e.subject, e.verb, e.now, e.then) for e in effects]
    return "pln_" + hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


def plan_view(effects: Sequence[Effect]) -> View:
    """Return a plan as it is shown; its exit code says whether it would change something."""
    changes = any(e.changes for e in effects)
    name = plan_id(effects)
    note = (
        f"to do exactly this: the same command with --plan-id {name}" if changes else "nothing would change"
    )
    return View(
        data=[e.to_dict() for e in effects],
        columns=PLAN_COLUMNS,
        key="subject",
        envelope={"plan_id": name, "changes": changes},
        notes=[note],
        empty="nothing to do",
        code=Exit.WOULD_CHANGE if changes else Exit.OK,
    )


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
            _permit(change, expected, session, output)
            _finish(change.apply(), output)

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
    click.get_current_context().meta["omnimind.output"] = output
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


def _permit(change: Change, expected: str | None, session: Session, output: Output) -> None:
    """Return when the change may be made. Raises PlanStale, Refused, or Abort for a no."""
    ask = change.destructive and not session.assume_yes and expected is None
    if not ask and expected is None:
        return
    effects = change.plan()
    if expected is not None and plan_id(effects) != expected:
        raise PlanStale(plan_id=plan_id(effects), effects=[e.to_dict() for e in effects])
    if not ask or not any(e.changes for e in effects):
        return
    if not asks() or output.structured:
        raise ConfirmationNeeded(
            f"this cannot be undone: {summary(effects)}",
            hint="look with --plan, then repeat it with --yes",
        )
    say(summary(effects))
    if not click.confirm("This cannot be undone. Go on?", err=True):
        raise click.Abort


def asks() -> bool:
    """Return whether there is somebody to ask."""
    return sys.stdin.isatty()


def summary(effects: Sequence[Effect]) -> str:
    """Return the effects in one line."""
    changing = [e for e in effects if e.changes]
    if len(changing) == 1:
        return f"{changing[0].verb} {changing[0].subject}" + (
            f" ({changing[0].note})" if changing[0].note else ""
        )
    verbs: dict[str, int] = {}
    for effect in changing:
        verbs[effect.verb] = verbs.get(effect.verb, 0) + 1
    return ", ".join(f"{verb} {count:,}" for verb, count in verbs.items())


def difference(now: Mapping[str, Any], then: Mapping[str, Any]) -> tuple[str, str]:
    """Return the fields in which two states of one thing differ, as text, before and after."""
    keys = [key for key in then if now.get(key) != then[key]]
    return (
        ", ".join(f"{key}={now.get(key)}" for key in keys if key in now),
        ", ".join(f"{key}={then[key]}" for key in keys),
    )


def invalid(message: str, field: str, hint: str = "") -> InvalidInput:
    """Return a complaint about an argument."""
    return InvalidInput(message, field=field, hint=hint)
