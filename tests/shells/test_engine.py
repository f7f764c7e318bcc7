"""`Engine` on real ledgers: acknowledged after the commit, refused and whole when a commit fails."""

from __future__ import annotations

import asyncio
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
from omnimind.cluster.policies import CoreLimits
from omnimind.cluster.records import Records
from omnimind.cluster.sends import Dispatch, Ended, Send
from omnimind.cluster.task import DistributedTask
from omnimind.errors import KeyConflict, LedgerFull
from omnimind.ids import new_slab, task_id
from omnimind.ledger.memory import MemoryLedger
from omnimind.ledger.sqlite import SqliteLedger


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a state that has no event of its own."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


class Watched:
    """What left an engine, in order."""

    def __init__(self) -> None:
        self.sends: list[Send] = []
        self.ended: list[DistributedTask] = []
        self.fenced = 0

    def out(self, send: Send) -> None:
        self.sends.append(send)

    def end(self, send: Ended) -> None:
        self.ended += send.tasks

    def fence(self) -> None:
        self.fenced += 1


@asynccontextmanager
async def running(ledger: Any, limits: CoreLimits | None = None) -> AsyncIterator[tuple[Engine, Watched]]:
    seen = Watched()
    engine = Engine(
        lambda: CoordinatorCore("me", limits),
        ledger,
        SystemClock(),
        outside=seen.out,
        ended=seen.end,
        fenced=seen.fence,
    )
    await engine.start()
    try:
        yield engine, seen
    finally:
        await engine.stop()


def tasks(count: int, **more: Any) -> list[DistributedTask]:
    slab = new_slab()
    return [DistributedTask(task_id(slab, i), "kind", b"{}", **more) for i in range(count)]


async def join(engine: Engine, slots: int = 2) -> None:
    await engine.ask(
        lambda n: ev.NodeJoined(NodeInfo("a", max_concurrent_tasks=slots, incarnation="1"), request=n)
    )


async def work_off(engine: Engine, seen: Watched, total: int) -> None:
    """Stand for a node that completes whatever it is given."""
    done = 0
    async with asyncio.timeout(30):
        while done < total:
            batches = [s.batch for s in seen.sends if isinstance(s, Dispatch)]
            seen.sends.clear()
            for batch in batches:
                outcomes = [ev.Outcome(i, "ok", b"1", seconds=1e-5) for i in range(len(batch.items))]
                await engine.ask(
                    lambda n, b=batch, o=outcomes: ev.Outcomes(n, "a", "1", b.fence, o, final=True)  # type: ignore[misc]
                )
                done += len(outcomes)
            await asyncio.sleep(0)


def test_what_is_acknowledged_is_on_disk_and_dispatched_after_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        ledger = SqliteLedger(tmp_path / "ledger.db")
        written: list[int] = []
        write = ledger.write

        def slow_write(records: Records) -> None:
            assert not [s for s in seen.sends if isinstance(s, Dispatch)]
            write(records)
            written.append(len(records.inserts))

        async with running(ledger) as (engine, seen):
            await join(engine)
            ledger.write = slow_write  # type: ignore[method-assign]
            [task] = tasks(1)
            await engine.submit([task])
            assert written == [1]
            assert len(ledger.tasks([task.task_id])) == 1
            ledger.write = write  # type: ignore[method-assign]

    asyncio.run(scenario())


def test_a_backlog_beyond_the_window_is_worked_off_whole(tmp_path: Path) -> None:
    async def scenario() -> None:
        ledger = SqliteLedger(tmp_path / "ledger.db")
        async with running(ledger, CoreLimits(window=300)) as (engine, seen):
            for _ in range(10):
                await engine.submit(tasks(200))
            assert len(engine.core.tasks) < 700
            await join(engine)
            await work_off(engine, seen, 2000)
            assert len({t.task_id for t in seen.ended}) == len(seen.ended) == 2000
            engine.core.validate()
        ledger.open(10)
        assert ledger.usage().by_status == {"completed": 2000}
        ledger.close()

    asyncio.run(scenario())


def test_a_restart_goes_on_with_what_was_acknowledged(tmp_path: Path) -> None:
    async def scenario() -> None:
        path = tmp_path / "ledger.db"
        async with running(SqliteLedger(path)) as (engine, _):
            await engine.submit(tasks(50, key=None))
            await engine.submit(tasks(1, key="k"))
        async with running(SqliteLedger(path)) as (engine, seen):
            assert engine.core.epoch == 2
            await engine.submit(tasks(1, key="k"))
            with pytest.raises(KeyConflict):
                await engine.submit([DistributedTask(task_id(new_slab()), "kind", b"other", key="k")])
            await join(engine)
            await work_off(engine, seen, 51)
            assert len(seen.ended) == 51

    asyncio.run(scenario())


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_a_commit_that_fails_has_never_happened(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "_REOPEN_EVERY", 0.02)

    async def scenario() -> None:
        ledger: Any = MemoryLedger() if kind == "memory" else SqliteLedger(tmp_path / "ledger.db")
        async with running(ledger) as (engine, seen):
            await join(engine)
            await engine.submit(tasks(1))
            write, open_, failing = ledger.write, ledger.open, True

            def full_write(records: Records) -> None:
                if failing:
                    msg = "no space"
                    raise LedgerFull(msg)
                write(records)

            def full_open(window: int, *, after: int | None = None) -> Any:
                if failing:
                    msg = "no space"
                    raise LedgerFull(msg)
                return open_(window, after=after)

            ledger.write, ledger.open = full_write, full_open
            lost = tasks(3)
            with pytest.raises(LedgerFull):
                await engine.submit(lost)
            with pytest.raises(LedgerFull):
                await engine.submit(tasks(1))
            assert ledger.known_ids([t.task_id for t in lost]) == {}
            failing = False
            await until(lambda: engine.trouble is None)
            assert engine.core.epoch == 2
            # The same submission, sent again, is accepted now: it was never there.
            await engine.submit(lost)
            assert len(ledger.known_ids([t.task_id for t in lost])) == 3
            assert seen.fenced == 0

    asyncio.run(scenario())


def test_a_second_coordinator_stops_the_first(tmp_path: Path) -> None:
    async def scenario() -> None:
        path = tmp_path / "ledger.db"
        async with running(SqliteLedger(path)) as (first, seen):
            async with running(SqliteLedger(path)) as (second, _):
                request = asyncio.ensure_future(first.submit(tasks(1)))
                await until(lambda: seen.fenced > 0)
                assert not request.done()
                request.cancel()
                await second.submit(tasks(1))
                assert second.ledger.usage().by_status == {"pending": 1}
            first.gate.failed(LedgerFull("the first one has nothing left to write"))

    asyncio.run(scenario())
