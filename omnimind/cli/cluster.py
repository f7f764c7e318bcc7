"""`omnimind cluster`: all hosts of a cluster at once: up, down, check, wait."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from omnimind.cli import lifecycle, nodes
from omnimind.cli.changes import Change, Effect
from omnimind.cli.errors import Exit
from omnimind.cli.options import read, write
from omnimind.cli.output import View, next_steps, say
from omnimind.cli.session import Session
from omnimind.cli.table import Column
from omnimind.cli.times import Duration, span
from omnimind.cli.up import launched
from omnimind.errors import HostUnreachable, InvalidInput, Unavailable, WaitTimeout

if TYPE_CHECKING:
    from omnimind.rayfile import Cluster
    from omnimind.remote import Remote

WAIT = 300.0
_LOOK_EVERY = 0.5
_PORT = 6379
_PARALLEL = 32
_REMOTE_TIMEOUT = 120.0
_DAEMONS = {"raylet", "gcs_server"}

HOSTS = (
    Column("HOST", "host"),
    Column("STATE", "state", kind="status"),
    Column("PROCESSES", "processes", kind="number"),
    Column("NOTE", "note", elastic=True),
)

_config = click.option(
    "--config",
    metavar="FILE",
    help="The file of `ray up`.  [~/ray_bootstrap_config.yaml, which `ray up` leaves on the head]",
)


@click.group()
def cluster() -> None:
    """Start, stop, check and await all hosts of a cluster."""


@cluster.command("up")
@_config
@lifecycle.instance_options
@write()
def cluster_up(session: Session, config: str | None, **flags: Any) -> Change:
    """Start the head of the cluster that a file of `ray up` describes. For cluster.yaml; runs on the head.

    Ray's autoscaler, which it starts, then brings up the other hosts. Where the head runs already, nothing is
    restarted: hosts that are new in the file join, those that are gone from it leave.
    """
    from omnimind import launch, rayfile, remote  # noqa: PLC0415

    file = _read(config)
    own = {"ray.autoscaling_config": str(file.path)}
    own["ray.node_ip"] = file.head if file.provider == "local" else remote.own_address()
    given = tuple(f"{key}={value}" for key, value in own.items())
    # What the file's start command sets comes last, and so stands.
    flags["given"] = (*given, f"ray.port={_PORT}", *flags["given"])
    settings = lifecycle.settings_of(session, **flags)

    def plan() -> list[Effect]:
        runs = launch.find(session.home) is not None
        now = sorted(rayfile.known(file)) if runs else []
        head = Effect(file.head, "start", "running" if runs else "not running", "running")
        return [
            head,
            *(Effect(ip, "add", "", "a host") for ip in file.workers if ip not in now),
            *(Effect(ip, "remove", "a host", "") for ip in now if ip not in file.workers),
        ]

    def apply() -> View | None:
        if launch.find(session.home) is None:
            rayfile.forget(file)
        else:
            gone = [ip for ip in rayfile.known(file) if ip not in file.workers]
            # The rows first: the autoscaler would take a host that ends for lost, and start it again.
            rayfile.sync(file)
            for row in each([remote_of(file, ip) for ip in gone], _stop):
                say(f"{row['host']} leaves the cluster: {row['state']} {row['note']}".rstrip())
        return launched(session, settings, detach=True)

    return Change(plan, apply)


@cluster.command("down")
@_config
@write()
def cluster_down(session: Session, config: str | None) -> Change:
    """Stop OmniMind and its Ray on all hosts of the cluster, and look whether anything is left.

    Accepted work is safe: it is in the ledger, and runs again after the next start. Hosts that could not be
    reached are named, and the exit code is 1: call it again when they are back. With
    --config cluster.yaml it may run on any machine from which ssh reaches the hosts, also when the head is
    dead.
    """
    from omnimind import launch, rayfile, remote  # noqa: PLC0415

    file = _read(config)
    here = not file.head or remote.is_here(file.head)

    def plan() -> list[Effect]:
        return [
            Effect(row["host"], "stop", row["state"], "stopped", row["note"]) for row in _check(file, here)
        ]

    def apply() -> View:
        others = [remote_of(file, ip) for ip in file.workers]
        if here:
            # The autoscaler would take the hosts that end for lost, and start them again.
            rayfile.sync(msgspec.structs.replace(file, workers=[]))
        else:
            each([remote_of(file, file.head)], _stop)
        each(others, _stop)
        if here:
            launch.stop(session.home)
            rayfile.forget(file)
        # Again: the head may have been about to start one.
        rows = [
            row if row["state"] == "stopped" else _stop(host)
            for host, row in zip(others, each(others, _look), strict=True)
        ]
        rows.insert(0, _here(file.head) if here else _look(remote_of(file, file.head)))
        return _hosts_view(rows, wanted={"stopped"})

    return Change(plan, apply)


@cluster.command("check")
@_config
@click.option("--stopped", is_flag=True, help="Exit with 1 unless nothing runs on any host.")
@click.option("--here", is_flag=True, help="Look at this host alone.")
@read()
def cluster_check(session: Session, config: str | None, stopped: bool, here: bool) -> View:
    """Say for each host of the cluster what runs there: OmniMind, and Ray's daemons, whoever started them."""
    from omnimind import remote  # noqa: PLC0415

    if here:
        rows = [_here("", session.home)]
    else:
        file = _read(config)
        rows = _check(file, not file.head or remote.is_here(file.head))
    return _hosts_view(rows, wanted={"stopped"} if stopped else {"running", "stopped"})


@cluster.command("wait")
@click.option("--nodes", "count", type=click.IntRange(min=1), required=True, help="Nodes that take work.")
@click.option(
    "--timeout", type=Duration(), default=WAIT, help=f"Give up after so long.  [default: {span(WAIT)}]"
)
@read()
def cluster_wait(session: Session, count: int, timeout: float) -> View:
    """Wait until so many nodes take work; exit with 7 when they do not in time."""
    give_up = time.monotonic() + timeout
    while True:
        said, found = "", []
        try:
            found = nodes.listed(session.call("nodes"))
        except Unavailable as error:
            said = f": {error.message}"
            session.close()
        there = [n for n in found if n["status"] in nodes.IN_USE]
        if len(there) >= count:
            return View(data=there, columns=nodes.COLUMNS, key="node_id")
        if time.monotonic() > give_up:
            msg = f"{len(there)} of {count} nodes take work after {span(timeout)}{said}"
            raise WaitTimeout(msg, hint="see: omnimind node list; omnimind cluster check")
        time.sleep(_LOOK_EVERY)


def remote_of(file: Cluster, host: str) -> Remote:
    """Return a host of a file as `ray up` reaches it."""
    from omnimind.remote import Remote  # noqa: PLC0415

    return Remote(host, file.user, file.key, any_key=True)


def each(hosts: list[Remote], what: Any) -> list[dict[str, Any]]:
    """Return what a function says of each host, asked at the same time."""
    with ThreadPoolExecutor(max_workers=_PARALLEL) as pool:
        return list(pool.map(what, hosts))


def _read(config: str | None) -> Cluster:
    from omnimind import rayfile  # noqa: PLC0415

    path = Path(config).expanduser() if config else rayfile.BOOTSTRAP.expanduser()
    if config is None and not path.exists():
        hint = "name the file of `ray up`: --config cluster.yaml"
        raise InvalidInput("this machine is not the head of a cluster of `ray up`", field="config", hint=hint)
    return rayfile.read(path)


def _stop(host: Remote) -> dict[str, Any]:
    try:
        done = host.run(["down", "--json"], timeout=_REMOTE_TIMEOUT)
    except HostUnreachable as error:
        return _row(host.host, "unreachable", note=error.message)
    if done.returncode:
        return _row(host.host, "failed", note=_last(done.stderr))
    return _look(host)


def _look(host: Remote) -> dict[str, Any]:
    try:
        done = host.run(["cluster", "check", "--here", "--json"], timeout=_REMOTE_TIMEOUT)
    except HostUnreachable as error:
        return _row(host.host, "unreachable", note=error.message)
    try:
        (row,) = json.loads(done.stdout)["items"]
    except (ValueError, KeyError):
        return _row(host.host, "failed", note=_last(done.stderr))
    return {**row, "host": host.host}


def _check(file: Cluster, here: bool) -> list[dict[str, Any]]:
    others = [remote_of(file, ip) for ip in file.workers]
    rows = each(others if here else [remote_of(file, file.head), *others], _look)
    return [_here(file.head), *rows] if here else rows


def _here(host: str, home: Path | None = None) -> dict[str, Any]:
    """Return what runs on this host."""
    import socket  # noqa: PLC0415

    from omnimind import instance, launch, ownership, processes  # noqa: PLC0415

    paths = instance.Paths(instance.home_path(home))
    found = launch.find(paths.home)
    marked = {p.pid for p in ownership.leftovers(paths)}
    daemons = {
        pid for pid in processes.parents() if Path((processes.command(pid) or [""])[0]).name in _DAEMONS
    }
    if found is not None:
        state, note = "running", found.record.state
    elif marked or daemons:
        state = "left over"
        note = f"processes {', '.join(map(str, sorted(marked | daemons)[:5]))}; omnimind down ends its own"
    else:
        state, note = "stopped", ""
    return _row(host or socket.gethostname(), state, len(marked | daemons), note)


def _row(host: str, state: str, processes: int | None = None, note: str = "") -> dict[str, Any]:
    return {"host": host, "state": state, "processes": processes, "note": note}


def _last(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else "it said nothing"


def _hosts_view(rows: list[dict[str, Any]], wanted: set[str]) -> View:
    bad = [row["host"] for row in rows if row["state"] not in wanted]
    notes = [f"not {' or '.join(sorted(wanted))}: {', '.join(bad)}"] if bad else []
    code = Exit.ERROR if bad else Exit.OK
    steps = next_steps("omnimind cluster check") if bad else []
    return View(data=rows, columns=HOSTS, key="host", notes=[*notes, *steps], code=code)
