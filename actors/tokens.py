"""`Tokens`: the methods of the protocol about tokens of the HTTP API. They are documents of the ledger."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from actors.engine import Engine
from omnimind.client import protocol as p
from omnimind.client.options import check_name
from omnimind.cluster import events as ev
from omnimind.cluster.records import AuditSaved, DocumentSaved, Record
from omnimind.errors import Conflict, InvalidInput, NotFound
from omnimind.tokens import Token, digest_of, new_secret, role_named

KIND = "token"
MOST = 1000
"""Tokens that are kept, revoked ones too: each has a line in every replica's memory."""

_USED_STEP = 60.0
"""Seconds by which a token's last use must be later to be written down again."""

_LONGEST = 10 * 365 * 86_400.0


class Tokens:
    """Makes, lists and revokes tokens; every change is in the audit."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def _all(self) -> list[Token]:
        kept = await self._engine.read(self._engine.ledger.documents, KIND)
        return sorted(
            (msgspec.json.decode(data, type=Token) for data in kept.values()), key=lambda t: t.created_at
        )

    async def tokens(self, _request: p.Empty) -> list[dict[str, Any]]:
        """Return all tokens, oldest first, as hashes."""
        return [token.view() | {"digest": token.digest} for token in await self._all()]

    async def create(self, request: p.TokenRequest) -> dict[str, Any]:
        """Make a token; its secret is in this answer and nowhere else."""
        name, role, now = check_name(request.name, "name"), role_named(request.role), self._engine.clock.now()
        if request.expires_in is not None and not 0 < request.expires_in <= _LONGEST:
            hint = "give seconds, such as 2592000 for 30 days, or leave it out"
            raise InvalidInput("a token expires within ten years, if at all", field="expires_in", hint=hint)
        kept = await self._all()
        if any(token.name == name and token.valid(now) for token in kept):
            hint = f"revoke it first: omnimind token revoke {name}"
            raise Conflict(f"a token called {name!r} is in force", field="name", hint=hint)
        if len(kept) >= MOST:
            raise Conflict(f"there are {MOST} tokens", hint="revoked ones leave after 30 days")
        secret = new_secret()
        expires = None if request.expires_in is None else now + request.expires_in
        token = Token(
            f"tok_{secrets.token_hex(8)}", name, role, digest_of(secret), now, request.actor, expires
        )
        if request.plan:
            return token.view()
        await self._save(token)
        await self._audit(request.actor, "token.create", token, f"role {role.label}")
        return token.view() | {"secret": secret}

    async def revoke(self, request: p.NameRequest) -> dict[str, Any]:
        """End a token now, given by its id or name."""
        now = self._engine.clock.now()
        kept = await self._all()
        named = [t for t in kept if t.token_id == request.name]
        named += [t for t in reversed(kept) if t.name == request.name]
        if not named:
            raise NotFound(f"there is no token {request.name!r}", hint="see: omnimind token list")
        token = next((t for t in named if t.valid(now)), named[0])
        if token.revoked_at is None and not request.plan:
            token = msgspec.structs.replace(token, revoked_at=now)
            await self._save(token)
            await self._audit(request.actor, "token.revoke", token, request.reason)
        return token.view()

    async def used(self, request: p.TokensUsed) -> None:
        """Write down when tokens were last used, to the minute."""
        for token in await self._all():
            at = request.used.get(token.token_id)
            if at is not None and at > (token.last_used_at or 0.0) + _USED_STEP:
                await self._save(msgspec.structs.replace(token, last_used_at=at))

    async def _save(self, token: Token) -> None:
        await self._note(DocumentSaved(KIND, token.token_id, msgspec.json.encode(token)))

    async def _audit(self, actor: str, verb: str, token: Token, detail: str) -> None:
        now = self._engine.clock.now()
        subject = f"{token.name} ({token.token_id})"
        await self._note(AuditSaved(now, actor or "unknown", verb, subject, detail))

    async def _note(self, record: Record) -> None:
        await self._engine.ask(lambda n: ev.Note(n, record))

    def methods(self) -> dict[str, Callable[[Any], Awaitable[Any]]]:
        """Return this object's part of the protocol, by method name."""
        return {
            "tokens": self.tokens,
            "token_create": self.create,
            "token_revoke": self.revoke,
            "tokens_used": self.used,
        }
