"""`omnimind node`: list, show, cordon, drain, uncordon."""

from __future__ import annotations

import time
from typing import Any

import click

from omnimind.cli import complete, node_hosts, node_run, nodes, resolve
from omnimind.cli.changes import Change, Effect
from omnimind.cli.options import read, write
from omnimind.cli.output import View, next_steps, say
from omnimind.cli.session import Session, actor
from omnimind.cli.table import Column
from omnimind.cli.times import Duration, span
from omnimind.errors import WaitTimeout

DRAIN_DEADLINE = 600.0

CONTROLLED = (
    Column("NODE", "node_id"),
    Column("STATUS", "status", kind="status"),
    Column("ATTEMPTS", "attempts", kind="number"),
)


@click.group()
def node() -> None:
    """List, show, cordon and drain nodes; run, add and remove hosts."""


for _command in (node_run.run, node_hosts.add, node_hosts.remove):
    node.add_command(_command)


@node.command("list")
@read(watch=True)
def list_nodes(session: Session) -> View:
    """List the nodes, with their slots and their last heartbeat."""
    found = nodes.listed(session.call("nodes"))
    return View(data=found, columns=nodes.COLUMNS, key="node_id", empty="no node has joined yet")


@node.command()
@click.argument("node_id", metavar="NODE", shell_complete=complete.nodes)
@read(watch=True)
def show(session: Session, node_id: str) -> View:
    """Show one node: its state, its processes, the attempts that run on it."""
    from omnimind.client.protocol import NameRequest  # noqa: PLC0415

    found = session.call("node", NameRequest(name=resolve.node_of(session, node_id)["node_id"]))
    return View(data=found, text=nodes.page(found, time.time()), key="node_id")


@node.command()
@click.argument("node_id", metavar="NODE", shell_complete=complete.nodes)
@write(reason=True)
def cordon(session: Session, node_id: str, reason: str) -> Change:
    """Give a node no new work; what runs there goes on."""
    return controlled(session, node_id, "cordon", "cordoned", reason)


@node.command()
@click.argument("node_id", metavar="NODE", shell_complete=complete.nodes)
@write(reason=True)
def uncordon(session: Session, node_id: str, reason: str) -> Change:
    """Give a node work again; ends a drain too.

    Ray's own drain, which follows when a drain is over, cannot be undone: such a node leaves, and comes
    back as a new one where `omnimind node run` looks after its host.
    """
    return controlled(session, node_id, "uncordon", "active", reason)


@node.command()
@click.argument("node_id", metavar="NODE", shell_complete=complete.nodes)
@click.option(
    "--deadline", type=Duration(), default=DRAIN_DEADLINE,
    help=f"What still runs then is requeued elsewhere.  [default: {span(DRAIN_DEADLINE)}]",
)  # fmt: skip
@click.option("--wait", is_flag=True, help="Return when nothing runs there any more.")
@write(reason=True)
def drain(session: Session, node_id: str, deadline: float, wait: bool, reason: str) -> Change:
    """Give a node no new work, and move what runs there elsewhere when the deadline is over.

    No work is lost: attempts that end in time count, the others are asked to stop shortly before the
    deadline, and run again on another node. When nothing runs there any more, Ray drains the node too, so
    that no task of Ray comes there either. Until then `uncordon` takes it all back; afterwards only a new
    life of the node's raylet does.
    """
    change = controlled(session, node_id, "drain", "draining", reason, deadline)
    if not wait:
        return change

    def apply() -> View:
        change.apply()
        return drained(session, resolve.node_of(session, node_id)["node_id"], deadline)

    return Change(change.plan, apply)


def controlled(
    session: Session, text: str, verb: str, then: str, reason: str, deadline: float | None = None
) -> Change:
    """Return the change of a node by one of the coordinator's verbs."""
    from omnimind.client.protocol import NodeRequest  # noqa: PLC0415

    found = resolve.node_of(session, text)

    def request(*, plan: bool) -> dict[str, Any]:
        answer: dict[str, Any] = session.call(
            "node_control",
            NodeRequest(
                node_id=found["node_id"],
                verb=verb,
                deadline=deadline,
                plan=plan,
                actor=actor(),
                reason=reason,
            ),
        )
        return answer

    def plan() -> list[Effect]:
        answer = request(plan=True)
        now = found["status"]
        same = now == then or (verb == "uncordon" and now not in {"cordoned", "draining"})
        note = "" if same or verb == "uncordon" else _note(session, found["node_id"], deadline)
        if answer.get("leaves"):
            return [Effect(found["node_id"], verb, now, "offline", nodes.LEAVES)]
        effect = Effect(found["node_id"], verb, now, now if same else then, note)
        return [effect, *nodes.moves(answer.get("drain"), deadline)]

    def apply() -> View:
        answer = request(plan=False)
        row = {"node_id": found["node_id"], "status": answer["status"], "attempts": answer["attempts"]}
        steps = {
            "drain": [f"omnimind node show {row['node_id']} --watch"],
            "cordon": [f"omnimind node uncordon {row['node_id']}"],
        }
        return View(data=[row], columns=CONTROLLED, key="node_id", notes=next_steps(*steps.get(verb, [])))

    return Change(plan, apply)


def _note(session: Session, node_id: str, deadline: float | None) -> str:
    """Return what it costs, in units of work."""
    from omnimind.client.protocol import NameRequest  # noqa: PLC0415

    price = nodes.price(session.call("node", NameRequest(name=node_id))["attempts"], time.time())
    return price if deadline is None else f"{price}; what runs after {span(deadline)} is requeued elsewhere"


def drained(session: Session, node_id: str, deadline: float) -> View:
    """Wait until nothing runs on a node, saying how far it is. Raises WaitTimeout a minute late."""
    from omnimind.client.protocol import NameRequest  # noqa: PLC0415

    give_up = time.monotonic() + deadline + 60
    told = ""
    while True:
        found = session.call("node", NameRequest(name=node_id))
        left = len(found.get("attempts") or ())
        if not left and not found["current_tasks"]:
            return View(data=[{**found, "attempts": 0}], columns=CONTROLLED, key="node_id")
        if time.monotonic() > give_up:
            raise WaitTimeout(f"{found['current_tasks']} slots of {node_id} are still taken", node_id=node_id)
        line = nodes.progress(found.get("drain"))
        if line and nodes.stage(found.get("drain")) != told:
            told = nodes.stage(found.get("drain"))
            say(line)
        time.sleep(0.5)
