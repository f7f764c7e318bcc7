"""`omnimind handler`: the registered task types."""

from __future__ import annotations

import click

from omnimind.cli.options import read
from omnimind.cli.output import View, next_steps
from omnimind.cli.session import Session
from omnimind.cli.table import Column

COLUMNS = (
    Column("TYPE", "task_type"),
    Column("KIND", "kind"),
    Column("TRAVELS BY", "by"),
    Column("DEFAULTS", "defaults", elastic=True),
    Column("WHAT", lambda h: (h.get("doc") or "").strip().split("\n")[0], elastic=True),
)


@click.group()
def handler() -> None:
    """List the task types that are registered."""


@handler.command("list")
@read()
def list_handlers(session: Session) -> View:
    """List the task types, with the defaults of their tasks."""
    found = sorted(session.call("handlers"), key=lambda h: h["task_type"])
    notes = next_steps(f"omnimind submit {found[0]['task_type']} '{{…}}'") if found else []
    empty = "no handler is registered yet: a program that submits one registers it"
    return View(data=found, columns=COLUMNS, key="task_type", notes=notes, empty=empty)
