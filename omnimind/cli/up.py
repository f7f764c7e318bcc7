"""`omnimind up` and `down`: start and stop the instance of a home."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from omnimind.cli import lifecycle
from omnimind.cli.changes import Change, Effect
from omnimind.cli.options import current_output, write
from omnimind.cli.output import View, emit, next_steps, say
from omnimind.cli.session import Session
from omnimind.cli.table import sheet
from omnimind.cli.times import Duration, local
from omnimind.errors import OmniMindError

if TYPE_CHECKING:
    from omnimind.config import Settings
    from omnimind.joining import Join
    from omnimind.launch import Instance


@click.command()
@click.option("--detach", "-d", is_flag=True, help="Return when it takes work; `omnimind down` stops it.")
@lifecycle.instance_options
@write()
def up(session: Session, detach: bool, **flags: Any) -> Change:
    """Start OmniMind on this machine.

    It stays in the foreground and stops with Ctrl-C, unless it is detached. Everything it keeps lies below
    the home; instances of different homes run side by side.
    """
    from omnimind import launch  # noqa: PLC0415

    settings = lifecycle.settings_of(session, **flags)

    def plan() -> list[Effect]:
        home = str(session.home)
        if (found := launch.find(session.home)) is not None:
            return [Effect(home, "start", "running", "running", f"pid {found.record.supervisor.pid}")]
        return [Effect(home, "start", "not running", "running", _wanted(settings))]

    def apply() -> View | None:
        return launched(session, settings, detach=detach)

    return Change(plan, apply)


def _wanted(settings: Settings) -> str:
    cores = "all cores" if settings.ray.num_cpus is None else f"{settings.ray.num_cpus} cores"
    return f"with {cores}, reachable on {settings.ray.node_ip}"


def launched(session: Session, settings: Settings, *, detach: bool, join: Join | None = None) -> View | None:
    """Start the instance of a home, and stay until it ends unless it is detached. See `launch.start`."""
    from omnimind import launch  # noqa: PLC0415

    found = launch.find(session.home) if detach else None
    if found is not None:
        ready = lifecycle.wait_ready(found, settings)
        say(f"an instance runs in {session.home} already; its settings stay those of its start")
        return instance_view(ready)
    output = current_output()
    with lifecycle.ending_as_interrupts():
        tell = lifecycle.progress(output)
        made = launch.start(session.home, settings, detach=detach, join=join, on_progress=tell)
        if detach:
            return instance_view(made)
        try:
            emit(instance_view(made, "Ctrl-C stops it"), output)
            made.wait(lifecycle.progress(output))
            say("it was stopped")
        except KeyboardInterrupt:
            lifecycle.stop(made, output)
    return None


def instance_view(instance: Instance, *hints: str) -> View:
    """Return a running instance as `up` shows it."""
    record = instance.record
    data = {
        "home": str(instance.home),
        "pid": record.supervisor.pid,
        "state": record.state,
        "started_at": record.started_at,
        "socket": str(instance.paths.socket),
        "ray_address": record.ray_address,
        "api_url": record.api_url or None,
        "dashboard_url": record.dashboard_url or None,
        "logs": str(instance.paths.logs),
        "versions": record.versions,
    }
    text = sheet([
        ("home", data["home"]),
        ("supervisor", f"pid {data['pid']}"),
        ("since", local(record.started_at)),
        ("ray", data["ray_address"]),
        ("api", data["api_url"]),
        ("dashboard", data["dashboard_url"]),
        ("logs", data["logs"]),
    ])  # fmt: skip
    notes = [*next_steps("omnimind status", "omnimind top"), *hints]
    return View(data=data, text=text, key="home", notes=notes)


@click.command()
@click.option("--timeout", type=Duration(), default=None, help="Kill it when it has not ended by then.")
@write()
def down(session: Session, timeout: float | None) -> Change:
    """Stop what `up` or `node run` started in this home, and nothing else.

    Accepted work is safe: what runs is stopped, and runs again after the next `up`.
    """
    from omnimind import launch, ownership  # noqa: PLC0415
    from omnimind.instance import Paths  # noqa: PLC0415

    home = str(session.home)

    def plan() -> list[Effect]:
        found = launch.find(session.home)
        if found is not None:
            note = f"pid {found.record.supervisor.pid}; {_running(session)}"
            return [Effect(home, "stop", "running", "stopped", note)]
        left = ownership.leftovers(Paths(session.home))
        if left:
            return [Effect(home, "stop", f"{len(left)} processes left over", "ended")]
        return [Effect(home, "stop", "stopped", "stopped")]

    def apply() -> View:
        report = launch.stop(session.home, timeout=timeout)
        data = {
            "home": home,
            "was_running": report.was_running,
            "leftovers": report.leftovers,
            "killed": report.killed,
            "seconds": round(report.seconds, 3),
        }
        return View(data=data, text="", key="home", notes=[_told(data)])

    return Change(plan, apply)


def _told(data: dict[str, Any]) -> str:
    if not data["was_running"] and not data["leftovers"]:
        return f"nothing runs in {data['home']}"
    text = f"stopped {data['home']} in {data['seconds']:.1f} s"
    if data["leftovers"]:
        text += f"; {data['leftovers']} processes had to be ended"
    return text + ("; its supervisor had to be killed" if data["killed"] else "")


def _running(session: Session) -> str:
    try:
        count = session.call("status", None, 2.0)["running_tasks"]
    except OmniMindError:
        return "its coordinator does not answer"
    return f"{count:,} running tasks run again after the next start"
