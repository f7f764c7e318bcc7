"""Tokens over HTTP, and the book that a replica reads."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from omnimind import AsyncClient
from omnimind.errors import Unavailable
from omnimind.testing.fake import FakeCoordinator
from omnimind.tokens import Role, digest_of
from serve.app import build
from serve.auth import Door, Sessions
from serve.book import FRESH, CoordinatorBook


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def book(om: AsyncClient, clock: Clock) -> CoordinatorBook:
    return CoordinatorBook(om.ask, digest_of("admin"), now=clock)


@pytest.fixture
async def app(om: AsyncClient, book: CoordinatorBook) -> FastAPI:
    return build(om, Door(book, Sessions(b"key")))


async def test_a_token_is_made_used_and_revoked(
    admin: Any, http: httpx.AsyncClient, clock: Clock, coordinator: FakeCoordinator
) -> None:
    made = await admin.post("/api/v1/tokens", {"name": "ci", "role": "submitter"}, 201)
    assert made["secret"] not in str(coordinator.tokens)
    clock.now += FRESH
    headers = {"Authorization": f"Bearer {made['secret']}"}
    assert (await http.get("/api/v1/tasks", headers=headers)).status_code == 200
    assert (await http.get("/api/v1/audit", headers=headers)).status_code == 403
    listed = await admin.get("/api/v1/tokens")
    assert [(t["name"], t["role"]) for t in listed] == [("ci", "submitter")]
    assert not {"secret", "digest"} & listed[0].keys()
    again = await admin.post("/api/v1/tokens", {"name": "ci", "role": "viewer"}, 409)
    assert again["code"] == "conflict"
    revoked = (await admin.ask("DELETE", "/api/v1/tokens/ci")).json()
    assert revoked["revoked_at"]
    clock.now += FRESH
    assert (await http.get("/api/v1/tasks", headers=headers)).status_code == 401
    verbs = [e["verb"] for e in await admin.get("/api/v1/audit")]
    assert {"token.create", "token.revoke"} <= set(verbs)


async def test_an_expired_token_opens_nothing(om: AsyncClient, coordinator: FakeCoordinator) -> None:
    wall = [coordinator.now()]
    book = CoordinatorBook(om.ask, "", now=Clock(), wall=lambda: wall[0])
    from omnimind.client.protocol import TokenRequest

    made = await om.ask("token_create", TokenRequest("t", "viewer", 60.0))
    found = await book.identify(digest_of(made["secret"]))
    assert found is not None
    assert found.role is Role.VIEWER
    wall[0] += 61
    assert await book.identify(digest_of(made["secret"])) is None


async def test_the_book_is_read_once_a_second_at_most(
    book: CoordinatorBook, clock: Clock, coordinator: FakeCoordinator
) -> None:
    def reads() -> int:
        return sum(method == "tokens" for method, _ in coordinator.calls)

    for _ in range(5):
        assert await book.identify("nobody") is None
    assert reads() == 1
    clock.now += FRESH
    await book.identify("nobody")
    assert reads() == 2


async def test_the_last_use_is_written_down_in_time(
    admin: Any, http: httpx.AsyncClient, clock: Clock, coordinator: FakeCoordinator
) -> None:
    made = await admin.post("/api/v1/tokens", {"name": "ci", "role": "viewer"}, 201)
    clock.now += FRESH
    headers = {"Authorization": f"Bearer {made['secret']}"}
    await http.get("/api/v1/tasks", headers=headers)
    assert coordinator.tokens[made["token_id"]].last_used_at is None
    clock.now += 61
    await http.get("/api/v1/tasks", headers=headers)
    assert coordinator.tokens[made["token_id"]].last_used_at is not None


async def test_while_the_coordinator_is_away_what_was_known_holds_for_a_minute(
    book: CoordinatorBook, clock: Clock, om: AsyncClient
) -> None:
    from omnimind.client.protocol import TokenRequest

    made = await om.ask("token_create", TokenRequest("t", "viewer"))
    digest = digest_of(made["secret"])
    assert await book.identify(digest) is not None

    async def away(*_: Any) -> Any:
        raise Unavailable("no coordinator answers")

    book._ask = away
    clock.now += 30
    assert await book.identify(digest) is not None
    assert (await book.identify(digest_of("admin"))) is not None
    clock.now += 61
    with pytest.raises(Unavailable):
        await book.identify(digest)
