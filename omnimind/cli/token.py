"""`omnimind token`: tokens of the HTTP API."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import click

from omnimind.cli import complete
from omnimind.cli.changes import Change, Effect
from omnimind.cli.options import read, write
from omnimind.cli.output import View, next_steps
from omnimind.cli.session import Session, actor
from omnimind.cli.table import Column
from omnimind.cli.times import Duration
from omnimind.errors import NotFound

ROLES = ("viewer", "submitter", "operator", "admin")


def state(found: Mapping[str, Any]) -> str:
    """Return whether a token opens anything now: ok, revoked or expired."""
    if found["revoked_at"] is not None:
        return "revoked"
    expires = found["expires_at"]
    return "expired" if expires is not None and expires <= time.time() else "ok"


COLUMNS = (
    Column("TOKEN", "token_id"),
    Column("NAME", "name", elastic=True),
    Column("STATE", state, kind="status"),
    Column("ROLE", "role"),
    Column("CREATED", "created_at", kind="time"),
    Column("EXPIRES", "expires_at", kind="time"),
    Column("LAST USED", "last_used_at", kind="time"),
)


@click.group()
def token() -> None:
    """List, make and revoke tokens of the HTTP API."""


@token.command("list")
@read(watch=True)
def list_tokens(session: Session) -> View:
    """List the tokens; what opens the door is not kept, only a hash of it."""
    return View(
        data=_tokens(session), columns=COLUMNS, key="token_id", empty="there is no token but the admin's"
    )


@token.command()
@click.argument("name")
@click.option(
    "--role", type=click.Choice(ROLES), default="submitter", show_default=True, help="What it may do."
)
@click.option(
    "--expires", "expires_in", type=Duration(), default=None, metavar="TIME", help="For example 90d; never."
)
@write()
def create(session: Session, name: str, role: str, expires_in: float | None) -> Change:
    """Make a token. It is shown this once.

    \b
        omnimind token create ci --role submitter --expires 90d
    """  # noqa: D301 - click wants the backspace itself
    from omnimind.client.protocol import TokenRequest  # noqa: PLC0415

    def ask(*, plan: bool) -> Any:
        wanted = TokenRequest(name=name, role=role, expires_in=expires_in, plan=plan, actor=actor())
        return session.call("token_create", wanted)

    def plan() -> list[Effect]:
        ask(plan=True)
        return [Effect(name, "create", "", f"role {role}")]

    def apply() -> View:
        answer = ask(plan=False)
        notes = ["keep it now: only a hash of it stays here", *next_steps(f"omnimind token revoke {name}")]
        return View(data=answer, text=answer["secret"], key="secret", notes=notes)

    return Change(plan, apply)


@token.command()
@click.argument("name", metavar="TOKEN", shell_complete=complete.tokens)
@write(reason=True)
def revoke(session: Session, name: str, reason: str) -> Change:
    """End a token now, by its name or id; sessions of the console that came by it end too."""
    from omnimind.client.protocol import NameRequest  # noqa: PLC0415

    found = _find(session, name)

    def plan() -> list[Effect]:
        return [Effect(found["name"], "revoke", state(found), "revoked", f"role {found['role']}")]

    def apply() -> View:
        wanted = NameRequest(name=found["token_id"], actor=actor(), reason=reason)
        answer = session.call("token_revoke", wanted)
        return View(data=answer, text=f"revoked {found['name']} ({found['token_id']})", key="token_id")

    return Change(plan, apply, destructive=True)


def _tokens(session: Session) -> list[dict[str, Any]]:
    return [
        {key: value for key, value in found.items() if key != "digest"} for found in session.call("tokens")
    ]


def _find(session: Session, name: str) -> dict[str, Any]:
    named = [t for t in _tokens(session) if name in {t["token_id"], t["name"]}]
    if not named:
        raise NotFound(f"there is no token {name!r}", field="token", hint="see: omnimind token list")
    return next((t for t in named if state(t) == "ok"), named[-1])
