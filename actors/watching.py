"""Who waits for which results. Bounded: what nobody fetches is dropped here, the ledger has it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable

from omnimind.client.protocol import Result
from omnimind.cluster.sends import Ended
from omnimind.cluster.task import DistributedTask

_KEPT_RESULTS = 100_000
_KEPT_BYTES = 64 << 20
_EXPECTED = 2_000_000
ANSWER_BYTES = 16 << 20
"""Results in one answer, but for the last one: far below a frame. What is left is asked for again."""


def result_of(task: DistributedTask) -> Result:
    """Return how a task ended, as the protocol says it."""
    return Result(task.task_id, task.status.value, task.result, task.result_encoding, task.error, task.cause)


class Watch:
    """One waiting call: the ids it asked for, and the results so far."""

    def __init__(self, ids: list[str], found: dict[str, Result]) -> None:
        self.ids = [i for i in ids if i not in found]
        self.open = dict.fromkeys(self.ids)
        self.results = found
        self._bytes = sum(len(r.value or b"") for r in found.values())
        self._first = asyncio.Event()
        self._all = asyncio.Event()
        self._signal()

    @property
    def full(self) -> bool:
        """Return whether the answer has no room for more."""
        return self._bytes >= ANSWER_BYTES

    def _signal(self) -> None:
        if self.results:
            self._first.set()
        if not self.open or self.full:
            self._all.set()

    def add(self, task: DistributedTask) -> None:
        """Take a result in."""
        if task.task_id in self.open and not self.full:
            del self.open[task.task_id]
            self.results[task.task_id] = result_of(task)
            self._bytes += len(task.result or b"")
            self._signal()

    async def wait(self, timeout: float, linger: float) -> None:
        """Return when all have ended, `linger` after the first one, or after `timeout` seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, timeout)):
                await self._first.wait()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(linger):
                        await self._all.wait()


class Watchers:
    """All waiting calls, and results that somebody said they would ask for."""

    def __init__(self) -> None:
        self._watches: dict[str, list[Watch]] = {}
        self._expected: dict[str, None] = {}
        self._kept: dict[str, Result] = {}
        self._bytes = 0

    def expect(self, ids: Iterable[str]) -> None:
        """Keep the results of these tasks for the call that will ask for them."""
        self._expected.update(dict.fromkeys(ids))
        while len(self._expected) > _EXPECTED:
            del self._expected[next(iter(self._expected))]

    def forget(self, ids: Iterable[str]) -> None:
        """Keep nothing of these tasks: they were refused."""
        for id_ in ids:
            self._expected.pop(id_, None)

    def take(self, ids: list[str]) -> dict[str, Result]:
        """Return and drop what was kept of these tasks, as much as an answer holds."""
        found: dict[str, Result] = {}
        size = 0
        for id_ in ids:
            self._expected.pop(id_, None)
            result = self._kept.pop(id_, None) if size < ANSWER_BYTES else None
            if result is not None:
                size += len(result.value or b"")
                found[id_] = result
        self._bytes -= size
        return found

    def open(self, ids: list[str], found: dict[str, Result]) -> Watch:
        """Begin to wait."""
        watch = Watch(ids, found)
        for id_ in watch.open:
            self._watches.setdefault(id_, []).append(watch)
        return watch

    def close(self, watch: Watch) -> None:
        """Wait no more; what has not ended may be asked for again."""
        for id_ in watch.ids:
            watches = self._watches.get(id_)
            if watches is not None and watch in watches:
                watches.remove(watch)
                if not watches:
                    del self._watches[id_]
        self._expected.update(watch.open)

    def ended(self, send: Ended) -> None:
        """Hand results to those who wait, keep those that are expected."""
        watches = self._watches
        for task in send.tasks:
            waiting = watches.pop(task.task_id, None)
            if waiting is not None:
                for watch in waiting:
                    watch.add(task)
            elif task.task_id in self._expected:
                del self._expected[task.task_id]
                self._kept[task.task_id] = result_of(task)
                self._bytes += len(task.result or b"")
        while self._kept and (len(self._kept) > _KEPT_RESULTS or self._bytes > _KEPT_BYTES):
            dropped = self._kept.pop(next(iter(self._kept)))
            self._bytes -= len(dropped.value or b"")
