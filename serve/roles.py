"""Who may do what: four roles, each with the rights of those below it, and tokens as hashes."""

from __future__ import annotations

import enum
import hashlib
import hmac
import secrets
from collections.abc import Iterable

import msgspec

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
    """Return a role by its name. Raises KeyError."""
    return Role[name.upper()]


class Identity(msgspec.Struct, frozen=True):
    """Who asks: the token's name goes to the audit as ``http:NAME``."""

    name: str
    role: Role
    token_id: str = ""

    @property
    def actor(self) -> str:
        """Return how the audit calls this person or program."""
        return f"http:{self.name}"


class Token(msgspec.Struct, frozen=True):
    """A token as it is kept: never itself, only the SHA-256 of it (it has 256 random bits: no salt needed).

    Times in Unix seconds; expires_at None: never.
    """

    token_id: str
    name: str
    role: Role
    digest: str
    created_at: float = 0.0
    expires_at: float | None = None
    revoked_at: float | None = None

    def valid(self, now: float) -> bool:
        """Return whether it opens anything at `now`."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


def new_secret() -> str:
    """Return a fresh token of 256 random bits, recognisable to secret scanners by its prefix."""
    return PREFIX + secrets.token_urlsafe(_BITS // 8)


def digest_of(secret: str) -> str:
    """Return what is stored of a token."""
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


def find(tokens: Iterable[Token], secret: str) -> Token | None:
    """Return the token that `secret` is, valid or not; the time tells nothing."""
    wanted = digest_of(secret)
    found = None
    for token in tokens:
        if hmac.compare_digest(token.digest, wanted):
            found = token
    return found
