"""`omnimind node add` and `node remove`: hosts join and leave while all others go on."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from omnimind.cli import complete, nodes, resolve
from omnimind.cli.changes import Change, Effect
from omnimind.cli.options import write
from omnimind.cli.output import View, say
from omnimind.cli.session import Session
from omnimind.cli.times import Duration, span
from omnimind.errors import Conflict, HostUnreachable, StartFailed, WaitTimeout

if TYPE_CHECKING:
    from omnimind.rayfile import Cluster
    from omnimind.remote import Remote

DEADLINE = 600.0
PATIENCE = 300.0
_LOOK_EVERY = 0.5
_COMMAND_TIMEOUT = 180.0

_identity = click.option("--identity", metavar="FILE", default="", help="Key for ssh.  [ssh's own choice]")


@click.command()
@click.argument("host", metavar="[USER@]HOST")
@_identity
@click.option("--labels", metavar="K=V,…", default="", help="Labels of the node.")
@click.option("--num-cpus", type=click.IntRange(min=1), help="Cores that tasks may use.  [all there are]")
@click.option(
    "--timeout", type=Duration(), default=PATIENCE,
    help=f"Give up when it takes no work by then.  [default: {span(PATIENCE)}]",
)  # fmt: skip
@write()
def add(
    session: Session, host: str, identity: str, labels: str, num_cpus: int | None, timeout: float
) -> Change:
    """Let a host join this cluster, and return when it takes work. Nothing else is restarted.

    OmniMind must be installed there as it is here, and ssh must get there without a question. In a cluster
    that was started by `ray up`, HOST is an address, and all is done as for the hosts of its file, from which
    a later `ray up` would remove it again: write it there too.
    """
    from omnimind import rayfile  # noqa: PLC0415

    name = host.rpartition("@")[2]
    file = _file(session)

    def plan() -> list[Effect]:
        on = [n for n in _on(session, name) if n["status"] != "offline"]
        return [Effect(name, "add", "a node" if on else "no node", "a node")]

    def apply() -> View:
        before = {n["node_id"] for n in nodes.listed(session.call("nodes")) if n["status"] != "offline"}
        if file is None:
            _join(session, _remote(host, identity), labels, num_cpus)
        elif labels or num_cpus:
            hint = "write them into the file's start command"
            raise Conflict("the hosts of this cluster are started by the file of `ray up`", hint=hint)
        else:
            rayfile.change_workers(file, add=[name], remove=[])
            say(f"{name} is set up and started by Ray's autoscaler; its log: monitor.log of this session")
        found = _await_new(session, name, before, timeout)
        return View(data=[found], columns=nodes.COLUMNS, key="node_id")

    return Change(plan, apply)


@click.command()
@click.argument("node_id", metavar="NODE", shell_complete=complete.nodes)
@click.option(
    "--deadline", type=Duration(), default=DEADLINE,
    help=f"What still runs there then is requeued elsewhere.  [default: {span(DEADLINE)}]",
)  # fmt: skip
@click.option("--ssh", "host", metavar="[USER@]HOST", help="How ssh gets there.  [the node's address]")
@_identity
@write(reason=True)
def remove(
    session: Session, node_id: str, deadline: float, host: str | None, identity: str, reason: str
) -> Change:
    """Drain a node, end OmniMind on its host, and return when it has left. Nothing else is restarted."""
    from omnimind.cli.node import controlled, drained  # noqa: PLC0415 (a cycle: it shows these commands)

    found = resolve.node_of(session, node_id)
    address = found["ip_address"]
    file = _file(session)
    head = _head_address(session)
    if address == head:
        raise Conflict("this is the head: it ends with the cluster", hint="stop it with: omnimind down")
    drain = controlled(session, found["node_id"], "drain", "draining", reason, deadline)

    def plan() -> list[Effect]:
        if found["status"] == "offline":
            return [Effect(found["node_id"], "remove", "offline", "offline")]
        return [*drain.plan(), Effect(address, "end", "a host", "no host")]

    def apply() -> View:
        from omnimind import rayfile  # noqa: PLC0415

        if found["status"] != "offline":
            drain.apply()
            drained(session, found["node_id"], deadline)
        if file is not None:
            # First: the autoscaler would take the host for lost and start it again.
            rayfile.change_workers(file, add=[], remove=[address])
        done = _way(host or address, identity, file).run(["down", "--json"], timeout=_COMMAND_TIMEOUT)
        if done.returncode:
            raise HostUnreachable(f"omnimind down failed on {address}: {done.stderr.strip()[-500:]}")
        gone = _await_gone(session, found["node_id"])
        return View(data=[gone], columns=nodes.COLUMNS, key="node_id")

    return Change(plan, apply)


def _join(session: Session, way: Remote, labels: str, num_cpus: int | None) -> None:
    from omnimind.instance import Paths  # noqa: PLC0415

    paths = Paths(session.home)
    words = ["node", "run", "--detach", "--address", _address(session), "--token-file", "-"]
    words += ["--labels", labels] if labels else []
    words += ["--num-cpus", str(num_cpus)] if num_cpus else []
    token = paths.ray_token.read_text(encoding="ascii")
    done = way.run(words, text=token, timeout=_COMMAND_TIMEOUT)
    if done.returncode:
        said = done.stderr.strip()[-1000:] or "it said nothing"
        raise StartFailed(f"{way.host} did not join (exit {done.returncode}):\n{said}")


def _address(session: Session) -> str:
    """Return the head's address for other hosts. Raises Conflict where no other host could reach it."""
    from omnimind import launch  # noqa: PLC0415

    found = launch.find(session.home)
    address = "" if found is None else found.record.ray_address
    if address.startswith(("127.", "localhost", "[::1]")):
        hint = "start it with its own address: omnimind up --set ray.node_ip=ADDRESS --set ray.port=6379"
        raise Conflict(f"this head listens on {address}, where no other host reaches it", hint=hint)
    if not address:
        raise Conflict(f"no head runs in {session.home}", hint="run this on the head of the cluster")
    return address


def _head_address(session: Session) -> str:
    return _address(session).rpartition(":")[0].removeprefix("[").removesuffix("]")


def _file(session: Session) -> Cluster | None:
    """Return the file of `ray up` by which the running head was started, if it was."""
    from omnimind import config, rayfile  # noqa: PLC0415
    from omnimind.instance import Paths  # noqa: PLC0415

    scaling = config.effective(Paths(session.home).settings).ray.autoscaling_config
    if not scaling:
        return None
    from pathlib import Path  # noqa: PLC0415

    file = rayfile.read(Path(scaling).expanduser())
    return file if file.provider == "local" else None


def _way(host: str, identity: str, file: Cluster | None) -> Remote:
    from omnimind.cli.cluster import remote_of  # noqa: PLC0415

    return (
        remote_of(file, host)
        if file is not None and "@" not in host and not identity
        else _remote(host, identity)
    )


def _remote(host: str, identity: str) -> Remote:
    from omnimind.remote import Remote  # noqa: PLC0415

    user, _, name = host.rpartition("@")
    return Remote(name, user, identity)


def _on(session: Session, host: str) -> list[dict[str, Any]]:
    """Return the nodes on a host, by its name or address."""
    return [n for n in nodes.listed(session.call("nodes")) if host in (n["hostname"], n["ip_address"])]


def _await_new(session: Session, host: str, before: set[str], timeout: float) -> dict[str, Any]:
    give_up = time.monotonic() + timeout
    while True:
        found = nodes.listed(session.call("nodes"))
        new = [n for n in found if n["status"] in nodes.IN_USE and n["node_id"] not in before]
        named = [n for n in new if host in (n["hostname"], n["ip_address"])]
        if named or new:
            return (named or new)[0]
        old = [n for n in found if n["node_id"] in before and host in (n["hostname"], n["ip_address"])]
        if old:
            say(f"{host} is a node already")
            return old[0]
        if time.monotonic() > give_up:
            hint = "see there: omnimind cluster check --here, and HOME/logs/supervisor.log"
            raise WaitTimeout(f"{host} takes no work after {span(timeout)}", hint=hint)
        time.sleep(_LOOK_EVERY)


def _await_gone(session: Session, node_id: str) -> dict[str, Any]:
    give_up = time.monotonic() + PATIENCE
    while True:
        found = next((n for n in session.call("nodes") if n["node_id"] == node_id), None)
        if found is None or found["status"] == "offline":
            return found or {"node_id": node_id, "status": "offline"}
        if time.monotonic() > give_up:
            raise WaitTimeout(f"{node_id} is still {found['status']}", node_id=node_id)
        time.sleep(_LOOK_EVERY)
