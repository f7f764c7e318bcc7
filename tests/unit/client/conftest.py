"""Clients on a coordinator in memory.

Faked: the coordinator (`omnimind.testing.fake`), which really runs handlers. Left alone: the clients, the
encoding of every request and answer, and in `test_socket` the socket.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any

import pytest

from omnimind import AsyncClient, Client
from omnimind.testing.fake import FakeCoordinator
from omnimind.testing.transport import FakeTransport

Look = Callable[[], Any]
Until = Callable[[Look], Coroutine[Any, Any, Any]]


@pytest.fixture
def until() -> Until:
    """Return a wait for what another part of the program does: polls, since nothing there can be awaited."""

    async def wait(look: Look) -> Any:
        async with asyncio.timeout(5):
            while not (found := look()):  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        return found

    return wait


@pytest.fixture
def fake() -> Iterator[FakeCoordinator]:
    coordinator = FakeCoordinator()
    yield coordinator
    coordinator.close()


@pytest.fixture
def idle() -> Iterator[FakeCoordinator]:
    """Return a coordinator that runs nothing by itself: the test ends the tasks."""
    coordinator = FakeCoordinator(run=False)
    yield coordinator
    coordinator.close()


@pytest.fixture
def om(fake: FakeCoordinator) -> Iterator[Client]:
    with Client(transport=FakeTransport(fake), actor="test") as client:
        yield client


@pytest.fixture
async def aom(fake: FakeCoordinator) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(transport=FakeTransport(fake), actor="test") as client:
        yield client


@pytest.fixture
async def idle_om(idle: FakeCoordinator) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(transport=FakeTransport(idle), actor="test") as client:
        yield client
