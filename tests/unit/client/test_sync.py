from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from omnimind import Client, OmniMindError, Unavailable, task
from omnimind.client.loop import background
from omnimind.testing.fake import FakeCoordinator
from omnimind.testing.transport import FakeTransport


@task
def double(x: int) -> int:
    return 2 * x


@pytest.fixture
def idle_sync(idle: FakeCoordinator) -> Iterator[Client]:
    with Client(transport=FakeTransport(idle)) as client:
        yield client


def test_values_and_errors_come_over() -> None:
    async def value() -> int:
        return 1

    async def error() -> None:
        raise KeyError("k")

    assert background().run(value()) == 1
    with pytest.raises(KeyError):
        background().run(error())


def test_all_clients_share_one_thread(fake: FakeCoordinator) -> None:
    clients = [Client(transport=FakeTransport(fake)) for _ in range(3)]
    assert len({id(client.loop) for client in clients}) == 1
    assert sum(thread.name == "omnimind-client" for thread in threading.enumerate()) == 1
    for client in clients:
        client.close()


def test_threads_share_a_client(om: Client) -> None:
    found: list[int] = []

    def work(start: int) -> None:
        found.extend(om.submit(double, x).result(5) for x in range(start, start + 20))

    threads = [threading.Thread(target=work, args=(n,)) for n in (0, 100, 200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == sorted(2 * x for start in (0, 100, 200) for x in range(start, start + 20))


def test_ctrl_c_ends_the_wait_and_not_the_client(idle_sync: Client, idle: FakeCoordinator) -> None:
    handle = idle_sync.submit(double, 1)

    def interrupt() -> None:
        deadline = time.monotonic() + 5
        while not idle.called("watch") and time.monotonic() < deadline:
            time.sleep(0.005)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        handle.result()
    thread.join()
    idle_sync.loop.soon(idle.end, handle.id, 2)
    assert handle.result(5) == 2


def test_closing_frees_who_waits(idle: FakeCoordinator) -> None:
    client = Client(transport=FakeTransport(idle))
    handle = client.submit(double, 1)
    ends: list[Any] = []

    def wait() -> None:
        try:
            handle.result()
        except Unavailable as error:
            ends.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    while not idle.called("watch"):
        time.sleep(0.005)
    client.close()
    thread.join(5)
    assert "closed" in str(ends[0])


def test_the_loop_must_not_wait_for_itself(om: Client) -> None:
    async def nested() -> None:
        om.submit(double, 1)

    with pytest.raises(OmniMindError, match="use AsyncClient"):
        om.loop.run(nested())


async def test_a_sync_client_works_beside_another_loop(fake: FakeCoordinator) -> None:
    with Client(transport=FakeTransport(fake)) as client:
        assert client.submit(double, 1).result(5) == 2
    await asyncio.sleep(0)


def test_after_a_fork_clients_are_made_anew(om: Client) -> None:
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        said = b"nothing"
        try:
            om.submit(double, 1)
        except OmniMindError as error:
            said = str(error).encode()
        os.write(writer, said)
        os._exit(0 if background() is not om.loop else 1)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        assert b"connect again in the new process" in pipe.read()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_handles_compare_by_task(om: Client) -> None:
    handle = om.submit(double, 1)
    assert handle == om.handle(handle.id)
    assert len({handle, om.handle(handle.id)}) == 1
    assert handle != handle.id
    assert repr(handle) == f"<Handle {handle.id}>"


def test_docs_of_the_async_verbs_are_kept() -> None:
    for verb in (Client.cancel, Client.result, Client.logs, Client.explain):
        assert verb.__doc__
