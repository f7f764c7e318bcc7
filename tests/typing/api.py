"""The public API as users write it. Never run: mypy reads it, and every `assert_type` is its check."""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator, Iterator
from typing import Any, assert_type

import omnimind
from omnimind import AsyncClient, AsyncHandle, Handle, Task, TaskContext, TaskResult, TaskStatus, task


@task
def plain(x: int) -> str:
    return str(x)


@task(retries=3, timeout=30, needs={"gpu"}, priority="high", non_retryable=[ValueError])
def with_options(path: str, width: int = 1) -> dict[str, int]:
    return {path: width}


@task
async def coroutine(x: int) -> float:
    return float(x)


@task
def generator(x: int) -> Generator[float, None, bytes]:
    yield x / 2
    return b""


@task
async def async_generator(context: TaskContext) -> AsyncIterator[int]:
    context.progress(1, 2)
    yield 1


def undecorated(x: int) -> list[int]:
    return [x]


def declarations() -> None:
    assert_type(plain(1), str)
    assert_type(with_options("a", width=2), dict[str, int])
    decorated: Task[[int], str] = plain
    assert decorated.kind == "sync"
    plain("one")  # type: ignore[arg-type]
    task(retires=3)  # type: ignore[call-overload]


def sync() -> None:
    with omnimind.connect() as om:
        assert_type(om.submit(plain, x=1), Handle[str])
        assert_type(om.submit(plain, 1).result(timeout=5), str)
        assert_type(om.submit(with_options, "a", key="k", delay=1.5), Handle[dict[str, int]])
        assert_type(om.submit(coroutine, 1).result(), float)
        assert_type(om.submit(generator, 1).result(), bytes)
        assert_type(om.submit(async_generator).result(), int)
        assert_type(om.submit(undecorated, 1), Handle[list[int]])
        assert_type(om.submit("a.name", x=1), Handle[Any])
        assert_type(om.map(plain, [1, 2]), Iterator[str])
        assert_type(om.map(coroutine, range(3), ordered=True), Iterator[float])
        assert_type(om.map(plain, [1], return_exceptions=True), Iterator[TaskResult[str]])
        assert_type(om.map("a.name", [{"x": 1}]), Iterator[Any])
        for whole in om.map(generator, [1], return_exceptions=True):
            assert_type(whole.result, bytes)
            assert_type(whole.error, omnimind.TaskFailed | None)
        handles = [om.submit(plain, x) for x in range(3)]
        done, pending = om.wait(handles, "any", timeout=1)
        assert_type(done, list[Handle[str]])
        assert_type(pending, list[Handle[str]])
        assert_type(handles[0].status(), TaskStatus)
        assert_type(handles[0].cancel(reason="x"), str)
        assert_type(om.cancel(handles[0]), str)
        assert_type(om.retry(handles[0]), Handle[Any])
        assert_type(om.queues.set("q", weight=2), dict[str, Any])
        assert_type(om.queues.list(), list[dict[str, Any]])
        assert_type(om.schedules.run("nightly"), Handle[Any])
        assert_type([line.text for line in handles[0].logs(follow=True)], list[str])
        om.wait(handles, "most")  # type: ignore[arg-type]
        om.nodes.drain("nod_1", deadlines=3)  # type: ignore[call-arg]


async def asynchronous() -> None:
    async with AsyncClient() as om:
        handle = await om.submit(plain, x=1)
        _ = assert_type(handle, AsyncHandle[str])
        assert_type(await (await om.submit(plain, x=1)), str)
        assert_type(await (await om.submit(coroutine, x=1)).result(5), float)
        async for value in om.map(coroutine, range(3)):
            assert_type(value, float)
        async for whole in om.map(plain, range(3), return_exceptions=True):
            assert_type(whole, TaskResult[str])
        async for listed in om.list(status="failed"):
            assert_type(listed, dict[str, Any])
    async with omnimind.alocal(num_cpus=2) as embedded:
        assert_type(embedded, AsyncClient)
