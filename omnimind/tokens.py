"""Tokens of the HTTP API: four roles, each with the rights of those below it; tokens are kept as hashes."""

from __future__ import annotations

import enum
import hashlib
import secrets
from typing import Any

import msgspec

from omnimind.errors import InvalidInput

PREFIX = "omt_"
_BITS = 256


class Role(enum.IntEnum):
    """viewer ⊂ submitter ⊂ operator ⊂ admin."""

    VIEWER = 1
    """Reads everything but payloads' secrets, which nobody should put there."""
    SUBMITTER = 2
    """Brings work in, and ends or repeats tasks."""
    OPERATOR = 3
    """Changes queues, schedules and nodes; answers the healer."""
    ADMIN = 4
    """Makes and revokes tokens."""

    @property
    def label(self) -> str:
        """Return the name that people use."""
        return self.name.lower()


def role_named(name: str) -> Role:
    """Return a role by its name. Raises InvalidInput."""
    try:
        return Role[name.upper()]
    except KeyError:
        known = ", ".join(role.label for role in Role)
        raise InvalidInput(f"{name!r} is no role", field="role", hint=f"they are: {known}") from None


class Token(msgspec.Struct, frozen=True):
    """A token as it is kept: never itself, only the SHA-256 of it (it has 256 random bits: no salt needed).

    Times in Unix seconds; expires_at None: never.
    """

    token_id: str
    name: str
    role: Role
    digest: str
    created_at: float = 0.0
    created_by: str = ""
    expires_at: float | None = None
    revoked_at: float | None = None
    last_used_at: float | None = None

    def view(self) -> dict[str, Any]:
        """Return what people see of it."""
        shown = {name: getattr(self, name) for name in self.__struct_fields__ if name != "digest"}
        return shown | {"role": self.role.label}

    def valid(self, now: float) -> bool:
        """Return whether it opens anything at `now`."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


def new_secret() -> str:
    """Return a fresh token of 256 random bits, recognisable to secret scanners by its prefix."""
    return PREFIX + secrets.token_urlsafe(_BITS // 8)


def digest_of(secret: str) -> str:
    """Return what is stored of a token."""
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()
