"""`omnimind deadletter`: tasks that kept killing their workers."""

from __future__ import annotations

import click

from omnimind.cli import complete, resolve, task_view, tasks
from omnimind.cli.changes import Change, Effect
from omnimind.cli.options import read, write
from omnimind.cli.output import View
from omnimind.cli.session import Session, actor
from omnimind.cli.table import Column
from omnimind.errors import Conflict

COLUMNS = (
    Column("TASK", "task_id"),
    Column("TYPE", "task_type", elastic=True),
    Column("QUEUE", "queue", elastic=True),
    Column("DEATHS", "worker_deaths", kind="number"),
    Column("PARKED", "completed_at", kind="time"),
    Column("CAUSE", "cause", elastic=True),
)


@click.group()
def deadletter() -> None:
    """List, show, replay and discard tasks that are parked in the dead letters."""


@deadletter.command("list")
@click.option("--queue", default=None, shell_complete=complete.queues, help="In this queue.")
@click.option("--type", "task_type", default=None, shell_complete=complete.types, help="Of this task type.")
@click.option(
    "--limit", "-n", type=click.IntRange(1, 500), default=50, show_default=True, help="At most so many."
)
@click.option("--cursor", default=None, help="Go on where the last page ended.")
@read(watch=True)
def list_dead(
    session: Session, queue: str | None, task_type: str | None, limit: int, cursor: str | None
) -> View:
    """List the dead letters, newest first."""
    where = {"status": ("dead",), "queue": queue, "task_type": task_type}
    found = tasks.page(session, where, limit, cursor)
    return View(
        data=found.data,
        columns=COLUMNS,
        key="task_id",
        envelope=found.envelope,
        left_off=found.left_off,
        empty="no dead letters",
    )


@deadletter.command()
@click.argument("task_id", metavar="ID", shell_complete=complete.dead_tasks)
@read()
def show(session: Session, task_id: str) -> View:
    """Show a dead letter: its payload, and each attempt with its error."""
    wanted = resolve.task_id(session, task_id)
    _dead(session, [wanted])
    return tasks.one(session, wanted)


@deadletter.command()
@click.argument("ids", metavar="ID...", nargs=-1, required=True, shell_complete=complete.dead_tasks)
@write(reason=True)
def replay(session: Session, ids: tuple[str, ...], reason: str) -> Change:
    """Run dead letters again, as new tasks that point back to them."""
    return tasks.rerun(session, "replay", resolve.task_ids(session, ids), reason)


@deadletter.command()
@click.argument("ids", metavar="ID...", nargs=-1, required=True, shell_complete=complete.dead_tasks)
@write(reason=True)
def discard(session: Session, ids: tuple[str, ...], reason: str) -> Change:
    """Take dead letters off the list: nobody needs to look at them any more."""
    from omnimind.client.protocol import IdsRequest  # noqa: PLC0415

    wanted = resolve.task_ids(session, ids)

    def plan() -> list[Effect]:
        _dead(session, wanted)
        session.call("discard", IdsRequest(ids=wanted, plan=True))
        return [Effect(task_id, "discard", "dead", "discarded") for task_id in wanted]

    def apply() -> View:
        done = session.call("discard", IdsRequest(ids=wanted, actor=actor(), reason=reason))
        rows = [{"task_id": task_id, "done": what} for task_id, what in done.items()]
        return View(data=rows, columns=task_view.DONE, key="task_id")

    return Change(plan, apply, destructive=True)


def _dead(session: Session, ids: list[str]) -> None:
    for task in tasks.fetch(session, ids):
        if task["status"] != "dead":
            raise Conflict(
                f"task {task['task_id']} is {task['status']}, no dead letter",
                hint=f"see: omnimind task show {task['task_id']}",
            )
