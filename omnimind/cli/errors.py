"""What a person or a script sees when something went wrong: the exit codes and the two ways to print it.

==  =====================================================
 0  ok
 1  error
 2  usage: an option, an argument or a setting is not valid
 3  there is no such thing
 4  refused: a right, a bound, a brake, a missing confirmation
 5  the task failed
 6  the task was cancelled
 7  the wait timed out; the task goes on
 8  the plan is stale: the world moved since `--plan`
 9  unreachable: no coordinator answers
10  `--plan` alone: it would change something
==  =====================================================

An interrupt (Ctrl-C) ends with 130, as shells expect, except where it is the way to leave.
"""

from __future__ import annotations

import json
import os
from enum import IntEnum
from typing import Any

import click

from omnimind import errors


class ConfirmationNeeded(errors.Conflict):
    """The command would undo something for good, and nobody can be asked."""

    code = "confirmation_needed"


class Exit(IntEnum):
    """The exit codes; see the table above."""

    OK = 0
    ERROR = 1
    USAGE = 2
    NOT_FOUND = 3
    REFUSED = 4
    FAILED = 5
    CANCELLED = 6
    TIMED_OUT = 7
    STALE = 8
    UNREACHABLE = 9
    WOULD_CHANGE = 10
    INTERRUPTED = 130


_CODES: tuple[tuple[type[BaseException], Exit], ...] = (
    (errors.Unavailable, Exit.UNREACHABLE),
    (errors.UnknownTaskType, Exit.NOT_FOUND),
    (errors.UnknownQueue, Exit.NOT_FOUND),
    (errors.NotFound, Exit.NOT_FOUND),
    (errors.InvalidInput, Exit.USAGE),
    (errors.ConfigError, Exit.USAGE),
    (errors.PlanStale, Exit.STALE),
    (errors.Conflict, Exit.REFUSED),
    (errors.Forbidden, Exit.REFUSED),
    (errors.Refused, Exit.REFUSED),
    (errors.AlreadyRunning, Exit.REFUSED),
    (errors.WaitTimeout, Exit.TIMED_OUT),
    (errors.TaskCancelled, Exit.CANCELLED),
    (errors.TaskFailed, Exit.FAILED),
)
"""The first line that fits decides: subclasses stand above their bases."""


def exit_code(error: BaseException) -> Exit:
    """Return the exit code that an error ends the command with."""
    return next((code for cls, code in _CODES if isinstance(error, cls)), Exit.ERROR)


TASK_EXITS = {"completed": Exit.OK, "cancelled": Exit.CANCELLED}
"""How a task's end becomes an exit code; every other end is `Exit.FAILED`."""


def outcome_code(statuses: list[str]) -> Exit:
    """Return the exit code for several tasks: a failure counts over a cancellation, that over success."""
    codes = {TASK_EXITS.get(status, Exit.FAILED) for status in statuses}
    return next((code for code in (Exit.FAILED, Exit.CANCELLED) if code in codes), Exit.OK)


def usage_problem(error: click.ClickException) -> dict[str, Any]:
    """Return click's complaint as a problem document."""
    problem: dict[str, Any] = {
        "type": f"{errors.DOCS}usage",
        "title": "The command line is not valid.",
        "status": 400,
        "detail": error.format_message(),
        "code": "usage",
        "retryable": False,
    }
    if isinstance(error, click.UsageError) and error.ctx is not None:
        problem["hint"] = f"see: {error.ctx.command_path} --help"
    return problem


def unexpected(error: BaseException) -> errors.OmniMindError:
    """Return an error of somebody else's making (a file, a socket, a bug) as one of ours."""
    if isinstance(error, ConnectionError):
        return errors.Unavailable(f"the connection to the coordinator broke: {error}")
    if isinstance(error, OSError):
        return errors.OmniMindError(f"{error.filename}: {error.strerror}" if error.filename else str(error))
    return errors.OmniMindError(
        f"{type(error).__name__}: {error}",
        hint="this is a bug in OmniMind; OMNIMIND_DEBUG=1 prints where it happened",
    )


def report(error: errors.OmniMindError, *, as_json: bool) -> None:
    """Print an error on stderr: a problem document in one line, or `error:` and `hint:` for people."""
    if as_json:
        click.echo(json.dumps(error.to_problem(), ensure_ascii=False, default=str), err=True)
        return
    where = f"{error.field}: " if error.field else ""
    click.echo(f"{click.style('error:', fg='red', bold=True)} {where}{error.message}", err=True)
    if error.retry_after is not None:
        click.echo(f"{click.style('retry:', bold=True)} in {error.retry_after:g} s", err=True)
    if error.hint:
        click.echo(f"{click.style('hint:', fg='cyan', bold=True)} {error.hint}", err=True)


def report_usage(error: click.ClickException, *, as_json: bool) -> None:
    """Print click's complaint the same way, with the usage line for people."""
    problem = usage_problem(error)
    if as_json:
        click.echo(json.dumps(problem, ensure_ascii=False), err=True)
        return
    if isinstance(error, click.UsageError) and error.ctx is not None:
        click.echo(error.ctx.get_usage(), err=True)
    click.echo(f"{click.style('error:', fg='red', bold=True)} {problem['detail']}", err=True)
    if "hint" in problem:
        click.echo(f"{click.style('hint:', fg='cyan', bold=True)} {problem['hint']}", err=True)


def debugging() -> bool:
    """Return whether tracebacks are wanted (OMNIMIND_DEBUG)."""
    return os.environ.get("OMNIMIND_DEBUG", "") not in {"", "0"}
