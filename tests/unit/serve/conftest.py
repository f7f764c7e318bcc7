"""The app of one replica on a coordinator in memory, reached without a socket."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from omnimind import AsyncClient
from omnimind.testing.fake import FakeCoordinator
from omnimind.testing.transport import FakeTransport
from omnimind.tokens import Role, digest_of
from serve.app import build
from serve.auth import Door, Identity, Sessions


class Book:
    """Tokens in memory: each role's token is the role's name."""

    def __init__(self) -> None:
        self.known = {digest_of(role.label): Identity(f"the-{role.label}", role) for role in Role}

    async def identify(self, digest: str) -> Identity | None:
        return self.known.get(digest)


def add(a: int, b: int) -> int:
    return a + b


def fail() -> None:
    raise ValueError("as planned")


@pytest.fixture
def coordinator() -> FakeCoordinator:
    return FakeCoordinator()


@pytest.fixture
def book() -> Book:
    return Book()


@pytest.fixture
async def om(coordinator: FakeCoordinator) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(transport=FakeTransport(coordinator)) as client:
        for handler in (add, fail):
            payload = {"a": 1, "b": 2} if handler is add else {}
            await (await client.submit(handler, payload=payload, retries=0)).wait(5)
        yield client


@pytest.fixture
async def app(om: AsyncClient, book: Book) -> FastAPI:
    return build(om, Door(book, Sessions(b"key")))


class Web:
    """An httpx client with a role's token; `problem` checks the shape of an error on the way."""

    def __init__(self, client: httpx.AsyncClient, role: str) -> None:
        self.http = client
        self.headers = {"Authorization": f"Bearer {role}"}

    async def ask(self, method: str, path: str, status: int = 200, **kwargs: Any) -> Any:
        headers = {**self.headers, **kwargs.pop("headers", {})}
        answer = await self.http.request(method, path, headers=headers, **kwargs)
        assert answer.status_code == status, answer.text
        if status >= 400:
            assert answer.headers["content-type"] == "application/problem+json"
            found = answer.json()
            assert found["status"] == status
            assert {"type", "title", "detail", "code", "retryable"} <= found.keys()
        return answer

    async def get(self, path: str, status: int = 200, **kwargs: Any) -> Any:
        return (await self.ask("GET", path, status, **kwargs)).json()

    async def post(self, path: str, json: Any = None, status: int = 200, **kwargs: Any) -> Any:
        return (await self.ask("POST", path, status, json=json, **kwargs)).json()


@pytest.fixture
async def http(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://api") as client:
        yield client


@pytest.fixture
def admin(http: httpx.AsyncClient) -> Web:
    return Web(http, "admin")


@pytest.fixture
def web(http: httpx.AsyncClient) -> Any:
    return lambda role: Web(http, role)


@pytest.fixture
def add_type(om: AsyncClient) -> str:
    return f"{add.__module__}.{add.__qualname__}"
