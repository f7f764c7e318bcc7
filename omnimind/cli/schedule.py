"""`omnimind schedule`: recurring submissions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from omnimind.cli import complete, resolve
from omnimind.cli.changes import Change, Effect, difference
from omnimind.cli.options import read, write
from omnimind.cli.output import View, next_steps
from omnimind.cli.session import Session, actor
from omnimind.cli.submit import call_payload, check, make_request, read_payload, task_options
from omnimind.cli.table import Column, sheet
from omnimind.cli.times import Duration, local, span

SEE = "omnimind schedule list"


def times(found: Mapping[str, Any]) -> str:
    """Return when a schedule runs, in words."""
    return (
        f"{found['cron']} ({found['timezone']})" if found.get("cron") else f"every {span(found['interval'])}"
    )


COLUMNS = (
    Column("SCHEDULE", "name", elastic=True),
    Column("STATE", lambda s: "paused" if s["paused"] else "ok", kind="status"),
    Column("TYPE", "task_type", elastic=True),
    Column("TIMES", times),
    Column("NEXT", lambda s: None if s["paused"] else s["next_run"], kind="time"),
    Column("LAST", "last_run", kind="time"),
    Column("RUNS", "runs", kind="number"),
)


@click.group()
def schedule() -> None:
    """List, show, set and run schedules: tasks that are submitted again and again."""


@schedule.command("list")
@read(watch=True)
def list_schedules(session: Session) -> View:
    """List the schedules, with their next run."""
    return View(data=session.call("schedules"), columns=COLUMNS, empty="there is no schedule")


@schedule.command()
@click.argument("name", shell_complete=complete.schedules)
@read(watch=True)
def show(session: Session, name: str) -> View:
    """Show one schedule."""
    found = _find(session, name)
    return View(data=found, text=_page(found))


@schedule.command("set")
@click.argument("name", shell_complete=complete.schedules)
@click.argument("task_type", metavar="TYPE", shell_complete=complete.types)
@click.argument("payload", metavar="[JSON|@FILE|-]", required=False)
@click.option("--cron", default=None, metavar="EXPR", help="Five fields, for example '0 7 * * 1-5'.")
@click.option("--every", "interval", type=Duration(), default=None, help="An interval, for example 15m.")
@click.option("--timezone", default="UTC", show_default=True, metavar="ZONE", help="Of the cron expression.")
@click.option("--paused", is_flag=True, help="Do not run it yet.")
@task_options
@write()
def set_schedule(
    session: Session, name: str, task_type: str, payload: str | None, cron: str | None,
    interval: float | None, timezone: str, paused: bool, **options: Any,
) -> Change:  # fmt: skip
    """Create or replace a schedule. Runs that were missed are made up for by one run.

    \b
        omnimind schedule set nightly shop.report '{}' --cron '0 2 * * *' --timezone Europe/Berlin
    """  # noqa: D301 - click wants the backspace itself
    from omnimind.client.options import check_name  # noqa: PLC0415
    from omnimind.client.protocol import ScheduleRequest  # noqa: PLC0415

    if (cron is None) == (interval is None):
        raise click.UsageError("say when: either --cron or --every")
    check_name(name, "name")
    task = make_request(session, task_type, [call_payload(read_payload(payload))], options)
    known = {s["name"]: s for s in session.call("schedules")}
    then = {
        "task_type": task_type,
        "cron": cron,
        "interval": interval,
        "timezone": timezone,
        "paused": paused,
    }

    def request(*, plan: bool) -> Any:
        return session.call(
            "schedule_set",
            ScheduleRequest(
                name=name, task=task, cron=cron, interval=interval, timezone=timezone, paused=paused,
                plan=plan, actor=actor(),
            ),
        )  # fmt: skip

    def plan() -> list[Effect]:
        check(session, task)
        request(plan=True)
        before, after = difference(known.get(name, {}), then)
        note = "its payload is replaced too" if name in known else ""
        return [Effect(name, "replace" if name in known else "create", before, after, note)]

    def apply() -> View:
        answer = request(plan=False)
        return View(data=answer, text=_page(answer), notes=next_steps(f"omnimind schedule run {name}"))

    return Change(plan, apply)


@schedule.command()
@click.argument("name", shell_complete=complete.schedules)
@write(reason=True)
def pause(session: Session, name: str, reason: str) -> Change:
    """Run a schedule no more, until it is resumed."""
    return _turn(session, name, "schedule_pause", reason, paused=True)


@schedule.command()
@click.argument("name", shell_complete=complete.schedules)
@write(reason=True)
def resume(session: Session, name: str, reason: str) -> Change:
    """Run a paused schedule at its times again."""
    return _turn(session, name, "schedule_resume", reason, paused=False)


@schedule.command()
@click.argument("name", shell_complete=complete.schedules)
@write(reason=True)
def run(session: Session, name: str, reason: str) -> Change:
    """Submit a schedule's task now, besides its times."""
    from omnimind.client.protocol import NameRequest  # noqa: PLC0415

    found = _find(session, name)

    def plan() -> list[Effect]:
        session.call("schedule_run", NameRequest(name=name, plan=True))
        return [Effect(name, "run", "", "a new task", f"of type {found['task_type']}")]

    def apply() -> View:
        answer = session.call("schedule_run", NameRequest(name=name, actor=actor(), reason=reason))
        task_id = answer["task_id"]
        return View(
            data=answer, text=task_id, key="task_id", notes=next_steps(f"omnimind task wait {task_id}")
        )

    return Change(plan, apply)


@schedule.command()
@click.argument("name", shell_complete=complete.schedules)
@write(reason=True)
def remove(session: Session, name: str, reason: str) -> Change:
    """Remove a schedule; tasks that it submitted stay."""
    from omnimind.client.protocol import NameRequest  # noqa: PLC0415

    found = _find(session, name)

    def plan() -> list[Effect]:
        session.call("schedule_remove", NameRequest(name=name, plan=True))
        return [Effect(name, "remove", f"{found['task_type']}, {times(found)}", "removed")]

    def apply() -> View:
        session.call("schedule_remove", NameRequest(name=name, actor=actor(), reason=reason))
        return View(data={"name": name, "done": "removed"}, text=f"removed {name}")

    return Change(plan, apply, destructive=True)


def _turn(session: Session, name: str, method: str, reason: str, *, paused: bool) -> Change:
    from omnimind.client.protocol import NameRequest  # noqa: PLC0415

    found = _find(session, name)
    words = {True: "paused", False: "running at its times"}

    def plan() -> list[Effect]:
        return [Effect(name, "pause" if paused else "resume", words[found["paused"]], words[paused])]

    def apply() -> View:
        answer = session.call(method, NameRequest(name=name, actor=actor(), reason=reason))
        return View(data=answer, text=_page(answer))

    return Change(plan, apply)


def _find(session: Session, name: str) -> dict[str, Any]:
    return resolve.named(session.call("schedules"), name, "schedule", SEE)


def _page(found: Mapping[str, Any]) -> str:
    return sheet([
        ("schedule", found["name"]),
        ("state", "paused" if found["paused"] else "runs at its times"),
        ("type", found["task_type"]),
        ("queue", found.get("queue")),
        ("times", times(found)),
        ("next run", local(found["next_run"]) if found["next_run"] and not found["paused"] else None),
        ("last run", local(found["last_run"]) if found["last_run"] else "never"),
        ("runs", found["runs"]),
    ])  # fmt: skip
