"""`omnimind task`: list, show, wait, cancel, retry, logs, progress."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import click

from omnimind.cli import complete, resolve, task_view, tasks
from omnimind.cli.changes import Change, Effect
from omnimind.cli.errors import outcome_code
from omnimind.cli.options import current_output, read, write
from omnimind.cli.output import View, next_steps, say
from omnimind.cli.session import Session, actor
from omnimind.cli.table import show
from omnimind.cli.times import Duration, Past, local, rfc3339
from omnimind.errors import InvalidInput

LIVE = ("pending", "running")
BULK_MAX = 10_000
"""Tasks that one bulk cancel takes at most: it says when there are more."""


@click.group()
def task() -> None:
    """List, show, wait for, cancel and retry tasks."""


def filters(function: Any) -> Any:
    """Add the options that choose tasks."""
    statuses = click.Choice(tasks.STATUSES)
    for option in (
        click.option("--node", shell_complete=complete.nodes, help="Ran or runs on this node."),
        click.option("--until", type=Past(), help="Submitted before: a time, or 10m for ten minutes ago."),
        click.option("--since", type=Past(), help="Submitted after, likewise."),
        click.option("--type", "task_type", shell_complete=complete.types, help="Of this task type."),
        click.option("--queue", shell_complete=complete.queues, help="In this queue."),
        click.option("--status", "-s", multiple=True, type=statuses, help="In this status; repeatable."),
    ):
        function = option(function)
    return function


@task.command("list")
@filters
@click.option(
    "--limit", "-n", type=click.IntRange(1, 500), default=50, show_default=True, help="At most so many."
)
@click.option("--cursor", default=None, help="Go on where the last page ended.")
@read(watch=True)
def list_tasks(session: Session, limit: int, cursor: str | None, **where: Any) -> View:
    """List tasks, newest first."""
    return tasks.page(session, where, limit, cursor)


@task.command("show")
@click.argument("task_id", metavar="ID", shell_complete=complete.tasks)
@read(watch=True)
def show_task(session: Session, task_id: str) -> View:
    """Show one task: its state, payload, result and each attempt that failed."""
    return tasks.one(session, resolve.task_id(session, task_id))


@task.command()
@click.argument("ids", metavar="ID...", nargs=-1, required=True, shell_complete=complete.live_tasks)
@click.option(
    "--timeout", type=Duration(), default=None, help="Give up after this long; exit 7.  [default: never]"
)
@read()
def wait(session: Session, ids: tuple[str, ...], timeout: float | None) -> View:
    """Wait until the tasks have ended, however they end; the exit code tells which way."""
    wanted = resolve.task_ids(session, ids)
    tasks.wait(session, wanted, timeout)
    ended = tasks.fetch(session, wanted)
    code = outcome_code([t["status"] for t in ended])
    if len(ended) == 1:
        return task_view.outcome(ended[0], code)
    return View(data=ended, columns=task_view.COLUMNS, key="task_id", code=code)


@task.command()
@click.argument("ids", metavar="[ID]...", nargs=-1, shell_complete=complete.live_tasks)
@click.option(
    "--all", "everything", is_flag=True, help="All pending and running tasks that the filters choose."
)
@filters
@write(reason=True)
def cancel(session: Session, ids: tuple[str, ...], everything: bool, reason: str, **where: Any) -> Change:
    """Cancel tasks: waiting ones at once, running ones are asked to stop first.

    Many at a time: --all with a filter, for example --all --queue mail.
    """
    from omnimind.client.protocol import IdsRequest  # noqa: PLC0415

    chosen = _chosen(session, ids, everything, where)

    def plan() -> list[Effect]:
        return [
            Effect(t["task_id"], "cancel", t["status"], "cancelled" if t["status"] in LIVE else t["status"],
                   "its attempt is asked to stop" if t["status"] == "running" else "")
            for t in tasks.fetch(session, chosen)
        ]  # fmt: skip

    def apply() -> View:
        done: dict[str, str] = {}
        if chosen:
            done = session.call("cancel", IdsRequest(ids=chosen, actor=actor(), reason=reason))
        rows = [{"task_id": t, "done": what} for t, what in done.items()]
        running = [t for t, what in done.items() if what == "cancelling"]
        notes = next_steps(f"omnimind task wait {running[0]}") if len(running) == 1 else []
        return View(data=rows, columns=task_view.DONE, key="task_id", notes=notes, empty="no task to cancel")

    return Change(plan, apply, destructive=everything)


@task.command()
@click.argument("ids", metavar="ID...", nargs=-1, required=True, shell_complete=complete.ended_tasks)
@write(reason=True)
def retry(session: Session, ids: tuple[str, ...], reason: str) -> Change:
    """Run ended tasks again, as new tasks that point back to them."""
    return tasks.rerun(session, "retry", resolve.task_ids(session, ids), reason)


@task.command()
@click.argument("task_id", metavar="ID", shell_complete=complete.tasks)
@click.option("--follow", "-f", is_flag=True, help="Go on until the task has ended.")
@click.option("--tail", type=click.IntRange(min=0), default=None, help="Only the last so many lines.")
@read()
def logs(session: Session, task_id: str, follow: bool, tail: int | None) -> View:
    """Print what the handler logged."""
    wanted = resolve.task_id(session, task_id)
    lines = tasks.log_lines(session, wanted, 0)
    if tail is not None:
        lines = lines[-tail:] if tail else []
    if follow:
        return _follow(session, wanted, lines)
    return _log_view(lines)


def _log_view(lines: list[dict[str, Any]]) -> View:
    text = "\n".join(f"{rfc3339(line['at'])} {line['level']:<7} {show(line['text'])}" for line in lines)
    return View(data=lines, text=text, key="text", empty="it logged nothing")


def _follow(session: Session, task_id: str, lines: list[dict[str, Any]]) -> View:
    """Print lines as they come; the last page becomes the view that ends the command."""
    from omnimind.cli.output import emit  # noqa: PLC0415

    output = current_output()
    if output.format in {"json", "yaml"}:
        raise InvalidInput("a stream has no end to close the list with", field="output", hint="use -o jsonl")
    last, looked_again = 0, False
    while True:
        ended = tasks.fetch(session, [task_id])[0]["status"] not in LIVE
        if lines:
            emit(_log_view(lines), output)
            last = lines[-1]["number"]
        elif not ended:
            time.sleep(0.5)
        lines = tasks.log_lines(session, task_id, last)
        if ended and not lines:
            if looked_again:
                return View(data=[], text="", key="text")
            # The last lines of a short attempt travel beside its result, and may come after it.
            looked_again = True
            time.sleep(0.5)


@task.command()
@click.argument("task_id", metavar="ID", shell_complete=complete.live_tasks)
@read(watch=True)
def progress(session: Session, task_id: str) -> View:
    """Show the last progress that the handler reported."""
    from omnimind.client.protocol import NameRequest  # noqa: PLC0415

    wanted = resolve.task_id(session, task_id)
    answer = session.call("progress", NameRequest(name=wanted))
    data = {"task_id": wanted, **answer}
    said = "it has not reported any" if answer["progress"] is None else how_far(answer["progress"])
    when = "" if answer["at"] is None else f"  ({local(answer['at'])})"
    return View(data=data, text=f"{answer['status']}: {said}{when}", key="progress")


def how_far(value: Any) -> str:
    """Return progress in words: ``3 of 6 (50 %), half way``; anything but a context's own form as it is."""
    if not isinstance(value, Mapping) or not isinstance(value.get("done"), int | float):
        return show(value)
    done, total, message = value["done"], value.get("total"), value.get("message")
    text = (
        f"{done:g} of {total:g} ({done / total:.0%})"
        if total
        else f"{done:.0%}"
        if done <= 1
        else f"{done:g}"
    )
    text = text.replace("%", " %")
    return f"{text}, {show(message)}" if message else text


def _chosen(session: Session, ids: tuple[str, ...], everything: bool, where: dict[str, Any]) -> list[str]:
    given = {name for name, value in where.items() if value}
    if ids and (everything or given):
        raise click.UsageError("name tasks, or choose them with --all and filters, not both")
    if ids:
        return resolve.task_ids(session, ids)
    if not everything or not given:
        raise click.UsageError("name the tasks, or choose them with --all and at least one filter")
    where["status"] = tuple(s for s in LIVE if not where["status"] or s in where["status"])
    found, more = tasks.matching(session, where, BULK_MAX) if where["status"] else ([], False)
    if more:
        say(f"more than {BULK_MAX:,} tasks match: repeat it for the rest")
    return found
