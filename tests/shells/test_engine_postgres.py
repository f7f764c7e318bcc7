"""`Engine` on PostgreSQL: facts are read off the loop and still true, and an outage is told at once."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from actors import engine as engine_module
from actors.engine import Engine
from omnimind.clock import SystemClock
from omnimind.cluster import events as ev
from omnimind.cluster.core import CoordinatorCore
from omnimind.cluster.node import NodeInfo
from omnimind.cluster.sends import Batch, Dispatch, Send
from omnimind.cluster.task import DistributedTask
from omnimind.errors import LedgerUnavailable
from omnimind.ids import new_slab, task_id
from omnimind.ledger.opening import open_ledger
from omnimind.testing.postgres import PostgresServer


def a_task(**more: Any) -> DistributedTask:
    return DistributedTask(task_id(new_slab()), "kind", b"{}", **more)


async def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@asynccontextmanager
async def running(url: str) -> AsyncIterator[tuple[Engine, list[Send]]]:
    sends: list[Send] = []
    engine = Engine(
        lambda: CoordinatorCore("me"),
        open_ledger(url, Path()),
        SystemClock(),
        outside=sends.append,
        ended=lambda _: None,
        fenced=lambda: None,
    )
    await engine.start()
    try:
        yield engine, sends
    finally:
        await engine.stop()


NODE = NodeInfo("a", max_concurrent_tasks=2, incarnation="1")


async def join(engine: Engine) -> None:
    await engine.ask(lambda n: ev.NodeJoined(NODE, request=n))


async def dispatched(sends: list[Send]) -> Batch:
    """Return the first batch that was sent, once it was."""
    await until(lambda: any(isinstance(s, Dispatch) for s in sends))
    return next(s.batch for s in sends if isinstance(s, Dispatch))


async def complete(engine: Engine, batch: Batch) -> None:
    outcomes = [ev.Outcome(i, "ok", b"1", seconds=1e-5) for i in range(len(batch.items))]
    await engine.ask(lambda n: ev.Outcomes(n, "a", "1", batch.fence, outcomes, final=True))


def test_one_key_is_one_task_however_reads_and_commits_interleave(
    new_database: Callable[[], str],
) -> None:
    """A fact that is read before a commit and used after it must not be that of before."""

    async def scenario() -> None:
        async with running(new_database()) as (engine, sends):
            await join(engine)
            read, asked, answer = engine.ledger.known_keys, asyncio.Event(), threading.Event()
            loop = asyncio.get_running_loop()

            def known_keys(keys: list[str]) -> Any:
                found = read(keys)
                loop.call_soon_threadsafe(asked.set)
                assert answer.wait(30)  # the answer is on its way while others commit
                return found

            engine.ledger.known_keys = known_keys  # type: ignore[method-assign]
            late = asyncio.create_task(engine.submit([a_task(key="k")]))
            await asked.wait()
            # Without a look-up of its own; submitted, run, and forgotten by the core before `late` is fed.
            early = a_task(key="k")
            await engine.ask(lambda n: ev.Submit(n, [early]))
            await complete(engine, await dispatched(sends))
            assert engine.core.live(early.task_id) is None
            answer.set()
            accepted = await late
            assert list(accepted.existing.values()) == [early.task_id]
            engine.ledger.known_keys = read  # type: ignore[method-assign]
            many = await asyncio.gather(*(engine.submit([a_task(key=f"k{n % 5}")]) for n in range(100)))
            assert sum(answer.count for answer in many) == 5
            assert engine.trouble is None
            assert engine.core.epoch == 1, "a commit failed"
            assert not engine.gate._kept, "what is committed is kept for ever"

    asyncio.run(scenario())


def test_submissions_keep_their_order(new_database: Callable[[], str]) -> None:
    async def scenario() -> None:
        async with running(new_database()) as (engine, _):
            wanted = [a_task() for _ in range(200)]
            await asyncio.gather(*(engine.submit([task]) for task in wanted))
            seqs = [row[0] for i in wanted for row in engine.ledger.tasks([i.task_id])]
            assert seqs == sorted(seqs)

    asyncio.run(scenario())


def test_while_the_database_is_away_all_are_told_at_once_and_nothing_is_lost(
    monkeypatch: pytest.MonkeyPatch, own_postgres: PostgresServer
) -> None:
    monkeypatch.setattr(engine_module, "_REOPEN_EVERY", 0.1)

    async def scenario() -> None:
        async with running(own_postgres.url()) as (engine, sends):
            await join(engine)
            await engine.submit([a_task(), a_task()])
            batch = await dispatched(sends)
            own_postgres.kill()
            for _ in range(20):
                started = time.monotonic()
                with pytest.raises(LedgerUnavailable) as refused:
                    await engine.submit([a_task()])
                assert refused.value.retry_after
                assert refused.value.status == 503
                assert time.monotonic() - started < 5
            with pytest.raises(LedgerUnavailable):
                await complete(engine, batch)
            assert engine.trouble is not None
            own_postgres.start()
            await until(lambda: engine.trouble is None)
            assert engine.core.epoch == 2
            # As its node does: it joins with what it owes, and says it again.
            held = ev.RunningBatch(
                batch.fence, tuple(i.task_id for i in batch.items), tuple(range(len(batch.items))), None, None
            )
            await engine.ask_about(
                [i.task_id for i in batch.items],
                lambda n, rows: ev.NodeJoined(NODE, (held,), rows, n),
            )
            await complete(engine, batch)
            found = engine.ledger.tasks([i.task_id for i in batch.items])
            assert {row[14] for row in found} == {"completed"}

    asyncio.run(scenario())
