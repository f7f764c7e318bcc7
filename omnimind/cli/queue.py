"""`omnimind queue`: shares, limits, pause."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from omnimind.cli import complete, resolve
from omnimind.cli.changes import Change, Effect, difference
from omnimind.cli.options import read, write
from omnimind.cli.output import View, next_steps
from omnimind.cli.session import Session, actor
from omnimind.cli.table import Column, sheet
from omnimind.cli.times import relative
from omnimind.errors import NotFound, UnknownQueue

POLICY = ("weight", "concurrency", "rate", "max_pending", "paused")

COLUMNS = (
    Column("QUEUE", "name", elastic=True),
    Column("STATE", lambda q: "paused" if q["paused"] else "ok", kind="status"),
    Column("WEIGHT", "weight", kind="number"),
    Column("READY", "ready", kind="number"),
    Column("DELAYED", "delayed", kind="number", spare=True),
    Column("WAITING", "waiting", kind="number", spare=True),
    Column("RUNNING", "running", kind="number"),
    Column("CONCURRENCY", "concurrency", kind="number"),
    Column("RATE", lambda q: None if q["rate"] is None else f"{q['rate']:g}/s", kind="number"),
    Column("OLDEST", "oldest", kind="time"),
)


class Limit(click.ParamType):  # type: ignore[type-arg]
    """A number, or ``none`` for no limit."""

    name = "number|none"

    def __init__(self, *, whole: bool) -> None:
        self.whole = whole

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "none" or not isinstance(value, str):
            return value
        try:
            number = int(value) if self.whole else float(value)
        except ValueError:
            number = -1
        if not 0 < number < float("inf"):
            self.fail(
                f"{value!r} is no limit: write a {'whole ' if self.whole else ''}number above 0, or none",
                param,
                ctx,
            )
        return number


@click.group()
def queue() -> None:
    """List, show, limit, pause and remove queues."""


@queue.command("list")
@read(watch=True)
def list_queues(session: Session) -> View:
    """List the queues, with their shares, limits and what waits in them."""
    return View(data=session.call("queues"), columns=COLUMNS, empty="there is no queue")


@queue.command()
@click.argument("name", shell_complete=complete.queues)
@read(watch=True)
def show(session: Session, name: str) -> View:
    """Show one queue."""
    found = _queue(session, name)
    return View(data=found, text=_page(found))


@queue.command("set")
@click.argument("name", shell_complete=complete.queues)
@click.option(
    "--weight",
    type=click.FloatRange(min=0, min_open=True),
    default=None,
    help="Share of handler time against other queues.",
)
@click.option("--concurrency", type=Limit(whole=True), default=None, help="Most attempts at one time.")
@click.option("--rate", type=Limit(whole=False), default=None, help="Most starts a second.")
@click.option(
    "--max-pending", type=click.IntRange(min=1), default=None, help="Submissions beyond it are refused."
)
@write()
def set_queue(session: Session, name: str, **given: Any) -> Change:
    """Create a queue, or change its limits; what is not named stays as it is."""
    values = {k: None if v == "none" else v for k, v in given.items() if v is not None}
    return _set(session, name, values, create=True)


@queue.command()
@click.argument("name", shell_complete=complete.queues)
@write()
def pause(session: Session, name: str) -> Change:
    """Start nothing more from a queue; submissions are still accepted."""
    return _set(session, name, {"paused": True})


@queue.command()
@click.argument("name", shell_complete=complete.queues)
@write()
def resume(session: Session, name: str) -> Change:
    """Start tasks of a paused queue again."""
    return _set(session, name, {"paused": False})


@queue.command()
@click.argument("name", shell_complete=complete.queues)
@write(reason=True)
def remove(session: Session, name: str, reason: str) -> Change:
    """Remove an empty queue, with its limits."""
    from omnimind.client.protocol import NameRequest  # noqa: PLC0415

    found = _queue(session, name)

    def plan() -> list[Effect]:
        session.call("queue_remove", NameRequest(name=name, plan=True))
        return [Effect(name, "remove", _policy_text(found), "removed")]

    def apply() -> View:
        session.call("queue_remove", NameRequest(name=name, actor=actor(), reason=reason))
        return View(data={"name": name, "done": "removed"}, text=f"removed {name}")

    return Change(plan, apply, destructive=True)


def _queue(session: Session, name: str) -> dict[str, Any]:
    queues = session.call("queues")
    try:
        return resolve.named(queues, name, "queue", "omnimind queue list")
    except NotFound as error:
        raise UnknownQueue(error.message, hint=error.hint) from None


def _set(session: Session, name: str, values: Mapping[str, Any], *, create: bool = False) -> Change:
    from omnimind.client.options import check_name  # noqa: PLC0415
    from omnimind.client.protocol import QueueRequest  # noqa: PLC0415
    from omnimind.cluster.policies import QueuePolicy, to_builtins  # noqa: PLC0415

    check_name(name, "name")
    known = {q["name"]: q for q in session.call("queues")}
    if name not in known and not create:
        _queue(session, name)
    now = {k: known[name][k] for k in POLICY} if name in known else {}
    policy = QueuePolicy(name=name, **{**now, **values})
    then = {k: v for k, v in to_builtins(policy).items() if k in POLICY}

    def plan() -> list[Effect]:
        session.call("queue_set", QueueRequest(policy=policy, plan=True, actor=actor()))
        before, after = difference(now, then)
        return [Effect(name, "set" if now else "create", before, after)]

    def apply() -> View:
        answer = session.call("queue_set", QueueRequest(policy=policy, actor=actor()))
        steps = [f"omnimind queue resume {name}"] if values.get("paused") else []
        return View(data=answer, text=_page(answer), notes=next_steps(*steps))

    return Change(plan, apply)


def _policy_text(found: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={found[key]}" for key in POLICY)


def _page(found: Mapping[str, Any]) -> str:
    def limit(value: Any, unit: str = "") -> str:
        return "none" if value is None else f"{value:g}{unit}"

    return sheet([
        ("queue", found["name"]),
        ("state", "paused" if found["paused"] else "open"),
        ("weight", f"{found['weight']:g}"),
        ("concurrency", limit(found["concurrency"])),
        ("rate", limit(found["rate"], " starts a second")),
        ("max pending", f"{found['max_pending']:,}"),
        *[(name, found.get(name)) for name in ("ready", "delayed", "waiting", "running")],
        ("oldest", relative(found["oldest"]) if found.get("oldest") else None),
    ])  # fmt: skip
