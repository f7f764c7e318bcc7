"""Who asks: a bearer token for programs, a session cookie for the console; what they may do: `roles`."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Annotated, Protocol

import msgspec
from fastapi import Depends, Request
from starlette.exceptions import HTTPException

from omnimind.errors import Forbidden
from omnimind.tokens import Role, digest_of

COOKIE = "omnimind_session"
CSRF_HEADER = "x-omnimind-csrf"
SESSION_SECONDS = 12 * 3600
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})

FAILURES = 10
"""Wrong tokens from one address within `FAILURE_WINDOW` seconds, after which it has to wait."""
FAILURE_WINDOW = 60.0
_ADDRESSES = 10_000


class Identity(msgspec.Struct, frozen=True):
    """Who asks: the token's name goes to the audit as ``http:NAME``."""

    name: str
    role: Role
    token_id: str = ""

    @property
    def actor(self) -> str:
        """Return how the audit calls this person or program."""
        return f"http:{self.name}"


class TokenBook(Protocol):
    """Where tokens are kept."""

    async def identify(self, digest: str) -> Identity | None:
        """Return whose token has this `roles.digest_of`; None when it is nobody's, expired or revoked."""


class Failures:
    """Counts wrong tokens by address, in bounded memory."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._seen: OrderedDict[str, list[float]] = OrderedDict()

    def wait(self, address: str) -> float:
        """Return for how many seconds this address must wait, 0 when it may try."""
        times = self._recent(address)
        return max(0.0, times[0] + FAILURE_WINDOW - self._now()) if len(times) >= FAILURES else 0.0

    def failed(self, address: str) -> None:
        """Note a wrong token."""
        times = [*self._recent(address), self._now()][-FAILURES:]
        self._seen[address] = times
        self._seen.move_to_end(address)
        while len(self._seen) > _ADDRESSES:
            self._seen.popitem(last=False)

    def _recent(self, address: str) -> list[float]:
        since = self._now() - FAILURE_WINDOW
        return [t for t in self._seen.get(address, ()) if t > since]


class Sessions:
    """Session cookies: signed, not stored, so that every replica can read them.

    key: a secret that all replicas share. A cookie holds the digest of the token that it stands for: it is
    no token itself, and a revoked token ends its sessions too.
    """

    def __init__(self, key: bytes, now: Callable[[], float] = time.time) -> None:
        self._key = key
        self._now = now

    def seal(self, digest: str) -> str:
        """Return the cookie of a token."""
        expires = int(self._now() + SESSION_SECONDS)
        body = f"{expires}.{digest}"
        return f"{body}.{self._sign(body)}"

    def open(self, cookie: str) -> str | None:
        """Return the digest of a cookie's token, or None when it is not ours or too old."""
        body, _, signature = cookie.rpartition(".")
        expires, _, digest = body.partition(".")
        if not hmac.compare_digest(signature.encode(), self._sign(body).encode()):
            return None
        return digest if expires.isdigit() and int(expires) > self._now() else None

    def csrf(self, cookie: str) -> str:
        """Return the value that a change must carry in its header; a foreign page cannot know it."""
        return self._sign("csrf:" + cookie)

    def _sign(self, text: str) -> str:
        return hmac.new(self._key, text.encode("utf-8", "surrogateescape"), hashlib.sha256).hexdigest()


class Door:
    """Decides who comes in."""

    def __init__(
        self,
        book: TokenBook,
        sessions: Sessions,
        *,
        failures: Failures | None = None,
    ) -> None:
        self.book = book
        self.sessions = sessions
        self._failures = failures or Failures()

    async def identify(self, request: Request) -> Identity:
        """Return who asks. Raises HTTPException 401 without a valid token, 429 after too many wrong ones."""
        digest, cookie = self._presented(request)
        if digest is None and cookie is None:
            raise _unauthenticated("this needs a token")
        address = request.client.host if request.client else ""
        wait = self._failures.wait(address)
        if wait:
            headers = {"Retry-After": str(int(wait) + 1)}
            raise HTTPException(429, "too many wrong tokens came from this address", headers=headers)
        if cookie is not None:
            digest = self.sessions.open(cookie)
        found = await self.book.identify(digest) if digest else None
        if found is None:
            self._failures.failed(address)
            raise _unauthenticated("this token is wrong, expired or revoked")
        if cookie is not None and request.method not in _SAFE:
            self._check_csrf(request, cookie)
        return found

    def _presented(self, request: Request) -> tuple[str | None, str | None]:
        header = request.headers.get("authorization")
        if header is None:
            return None, request.cookies.get(COOKIE)
        scheme, _, secret = header.partition(" ")
        if scheme.lower() != "bearer" or not secret.strip():
            raise _unauthenticated("the header is `Authorization: Bearer TOKEN`")
        return digest_of(secret.strip()), None

    def _check_csrf(self, request: Request, cookie: str) -> None:
        given = request.headers.get(CSRF_HEADER, "")
        if not hmac.compare_digest(given.encode(), self.sessions.csrf(cookie).encode()):
            raise Forbidden(
                f"a change with a session needs the header {CSRF_HEADER}",
                hint="take its value from GET /api/v1/session, or use a bearer token",
            )


class Needs(msgspec.Struct, frozen=True):
    """The dependency by which a route says which role it needs."""

    role: Role

    async def __call__(self, request: Request) -> Identity:
        door: Door = request.app.state.door
        found = await door.identify(request)
        if found.role < self.role:
            raise Forbidden(
                f"this needs the role {self.role.label}; {found.name} has {found.role.label}",
                hint="ask an admin for a token with that role: omnimind token create",
            )
        return found


Viewer = Annotated[Identity, Depends(Needs(Role.VIEWER))]
Submitter = Annotated[Identity, Depends(Needs(Role.SUBMITTER))]
Operator = Annotated[Identity, Depends(Needs(Role.OPERATOR))]
Admin = Annotated[Identity, Depends(Needs(Role.ADMIN))]


def _unauthenticated(detail: str) -> HTTPException:
    return HTTPException(401, detail, headers={"WWW-Authenticate": 'Bearer realm="omnimind"'})
