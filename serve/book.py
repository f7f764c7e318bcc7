"""The book of tokens that a replica looks into: the coordinator's, at most a second old."""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import Awaitable, Callable
from typing import Any

from omnimind.client.protocol import TokensUsed
from omnimind.errors import OmniMindError
from omnimind.tokens import Role, role_named
from serve.auth import Identity

Ask = Callable[..., Awaitable[Any]]

FRESH = 1.0
"""Seconds for which what was read holds: a revoked token opens nothing after that."""

_STALE = 60.0
"""Seconds for which it holds while the coordinator cannot be asked."""

_REPORT = 60.0


class CoordinatorBook:
    """Tokens of the ledger, and the instance's own admin token, which is known by its digest.

    ask: calls the coordinator. now: seconds that only grow; wall: Unix seconds.
    """

    def __init__(
        self,
        ask: Ask,
        admin: str,
        *,
        now: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._ask = ask
        self._admin = admin
        self._now, self._wall = now, wall
        self._tokens: list[dict[str, Any]] = []
        self._read_at = float("-inf")
        self._reading = asyncio.Lock()
        self._used: dict[str, float] = {}
        self._reported_at = now()

    async def identify(self, digest: str) -> Identity | None:
        """Return whose token this is. Raises Unavailable when it cannot be known now."""
        if hmac.compare_digest(digest.encode(), self._admin.encode()):
            return Identity("admin", Role.ADMIN)
        await self._refresh()
        found = None
        for token in self._tokens:
            if hmac.compare_digest(token["digest"].encode(), digest.encode()):
                found = token
        if found is None or not self._valid(found):
            return None
        self._used[found["token_id"]] = self._wall()
        return Identity(found["name"], role_named(found["role"]), found["token_id"])

    def _valid(self, token: dict[str, Any]) -> bool:
        expires = token["expires_at"]
        return token["revoked_at"] is None and (expires is None or self._wall() < expires)

    async def _refresh(self) -> None:
        if self._now() - self._read_at < FRESH:
            return
        async with self._reading:
            if self._now() - self._read_at < FRESH:
                return
            try:
                self._tokens = await self._ask("tokens")
            except OmniMindError:
                if self._now() - self._read_at > _STALE:
                    raise
                return
            self._read_at = self._now()
            if self._used and self._now() - self._reported_at > _REPORT:
                used, self._used, self._reported_at = self._used, {}, self._now()
                await self._ask("tokens_used", TokensUsed(used))
