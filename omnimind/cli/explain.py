"""`omnimind explain`: facts, rules and verdict about a task or a node."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from omnimind.cli import complete, resolve
from omnimind.cli.options import read
from omnimind.cli.output import View
from omnimind.cli.session import Session
from omnimind.cli.table import Column, Styled, prose, sheet, show, status, table, terminal_width, whole
from omnimind.cli.times import TIME_FIELDS, local
from omnimind.errors import NotFound

CHECKS = (
    Column("NODE", "node"),
    Column("CHECK", "check"),
    Column("VERDICT", lambda c: "ok" if c["ok"] else "no", kind="status"),
    Column("WHY", "detail", elastic=True),
)


@click.command()
@click.argument("ident", metavar="ID", shell_complete=complete.tasks_and_nodes)
@read(watch=True)
def explain(session: Session, ident: str) -> View:
    """Say why a task or a node is as it is: facts, each check node by node, and the story so far."""
    from omnimind.client.protocol import NameRequest  # noqa: PLC0415

    answer = session.call("explain", NameRequest(name=_meant(session, ident)))
    return View(data=answer, text=_page(answer), key="id")


def _meant(session: Session, ident: str) -> str:
    """Return the id of the task or, failing that, of the node."""
    try:
        return resolve.task_id(session, ident)
    except NotFound as no_task:
        try:
            return str(resolve.node_of(session, ident)["node_id"])
        except NotFound as no_node:
            hint = no_node.hint if no_node.hint.startswith("did") else no_task.hint
            raise NotFound(f"there is no task and no node {ident!r}", hint=hint) from None


def _step(step: Mapping[str, Any]) -> str:
    return f"{local(step['at']) if step['at'] else 'then'}  {prose(step['what'])}"


def _page(answer: Mapping[str, Any]) -> str:
    facts = [
        (name.replace("_", " "), local(value) if name in TIME_FIELDS and value else show(value))
        for name, value in (answer.get("facts") or {}).items()
    ]
    head = [(answer["kind"], whole(answer["id"])), ("status", status(answer["status"]))]
    parts = [sheet([*head, ("verdict", Styled(prose(answer["verdict"]), {"bold": True})), *facts])]
    checks = answer.get("checks") or []
    if checks:
        parts.append(table(checks, CHECKS, terminal_width()))
    story = answer.get("story") or []
    if story:
        parts.append("\n".join(_step(step) for step in story))
    return "\n\n".join(parts)
