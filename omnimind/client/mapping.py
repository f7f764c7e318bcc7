"""The engine of `map`: slabs in, ends of tasks out, a bounded number of tasks on the way.

Two halves. `Run` lives on the event loop: it submits slabs, repeats what was refused for the moment,
watches, and delivers. `Gauge` lives where the user iterates: it says how much more may be taken from the
input, and puts results in order where asked to.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from omnimind.client.protocol import Result, SubmitAnswer, SubmitRequest, WatchAnswer, WatchRequest
from omnimind.client.results import TaskResult, value_of
from omnimind.client.slabs import SLAB_TASKS, Slab
from omnimind.client.watching import WATCH_SECONDS
from omnimind.errors import InvalidInput, LedgerFull, Refused, Unavailable

LINGER = 0.025
"""Seconds that a slab's other results may still come in before the first ones are delivered."""
WINDOW = 8192
_PATIENCE = 60.0
_PAUSE = 0.25
_LOOKS_MAX = 128
_SHORT_SECONDS = 0.5
_WINDOW_BYTES = 64 << 20
_RESULT_BYTES = 256 << 20

Submit = Callable[[SubmitRequest], Awaitable[SubmitAnswer]]
Watch = Callable[[WatchRequest], Awaitable[WatchAnswer]]


class Chunk:
    """Some ends: (index, result) pairs, and the payload bytes that are off the way with them."""

    __slots__ = ("pairs", "size")

    def __init__(self, pairs: list[tuple[int, Result]], size: int) -> None:
        self.pairs = pairs
        self.size = size


Delivery = Chunk | BaseException


class Run:
    """One `map` on the event loop. `deliver` may be called from the loop's thread at any time."""

    def __init__(
        self, template: dict[str, Any], submit: Submit, watch: Watch, deliver: Callable[[Delivery], None]
    ) -> None:
        self._template = template
        self._submit = submit
        self._watch = watch
        self._deliver = deliver
        self._tasks: set[asyncio.Task[None]] = set()
        self._last_answer = time.monotonic()
        self._looks = asyncio.Semaphore(_LOOKS_MAX)

    def add(self, slab: Slab) -> None:
        """Send a slab on its way."""
        task = asyncio.get_running_loop().create_task(self._drive(slab))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def close(self) -> None:
        """Ask for nothing more; what was submitted goes on."""
        for task in self._tasks:
            task.cancel()

    async def _drive(self, slab: Slab) -> None:
        try:
            await self._see_through(slab)
        except Exception as error:  # noqa: BLE001 (whoever iterates must hear of it)
            self._deliver(error)

    async def _see_through(self, slab: Slab) -> None:
        request = slab.request(self._template, watch=True)
        answer = await self._patiently(lambda: self._submit(request))
        share = slab.size // len(slab.indexes)
        request.payloads = slab.payloads = []  # they are durable now
        waiting: dict[str, list[int]] = {}
        for task, index in zip(slab.ids(answer.existing), slab.indexes, strict=True):
            waiting.setdefault(task, []).append(index)
        while waiting:
            ended = await self._patiently(lambda: self._look(list(waiting)))
            pairs = [(index, result) for result in ended.results for index in waiting.pop(result.task_id, ())]
            if pairs:
                self._deliver(Chunk(pairs, share * len(pairs)))

    async def _look(self, ids: list[str]) -> WatchAnswer:
        """Ask for ends, with so many calls open at one time as one connection carries."""
        async with self._looks:
            seconds = _SHORT_SECONDS if self._looks.locked() else WATCH_SECONDS
            return await self._watch(WatchRequest(ids=ids, timeout=seconds, linger=LINGER))

    async def _patiently(self, ask: Callable[[], Awaitable[Any]]) -> Any:
        """Ask again what was refused for the moment: a full queue, a locked ledger, a restart."""
        while True:
            try:
                answer = await ask()
            except LedgerFull:
                raise
            except Refused as error:
                silent = time.monotonic() - self._last_answer
                if isinstance(error, Unavailable) and silent > _PATIENCE:
                    raise
                await asyncio.sleep(error.retry_after or _PAUSE)
            else:
                self._last_answer = time.monotonic()
                return answer


class Gauge:
    """How much of a `map` is on the way, and what may be given to the user next."""

    def __init__(self, window: int, *, ordered: bool, whole: bool) -> None:
        if isinstance(window, bool) or not isinstance(window, int) or window < 1:
            msg = f"it must be a whole number from 1 on, not {window!r}"
            raise InvalidInput(msg, field="window", hint="it is the most tasks on the way at one time")
        self.slab_tasks = min(SLAB_TASKS, max(1, window // 4))
        self._window = window
        self._ordered = ordered
        self._whole = whole
        self._held: dict[int, Result] = {}
        self._next = 0
        self.out = 0
        self._bytes = 0
        self._ended = 0
        self._result_bytes = 0
        self.exhausted = False

    @property
    def room(self) -> int:
        """Return how many more tasks may be taken from the input now."""
        if self.exhausted or self._bytes >= _WINDOW_BYTES:
            return 0
        window = self._window
        if self._result_bytes > _RESULT_BYTES // 16:
            # Large results: keep what may lie here unread within bounds too.
            window = min(window, max(1, _RESULT_BYTES * self._ended // self._result_bytes))
        return max(0, window - self.out)

    @property
    def finished(self) -> bool:
        """Return whether everything was taken and given out."""
        return self.exhausted and not self.out

    def sent(self, slab: Slab) -> None:
        """Count a slab that goes out."""
        self.out += len(slab.payloads)
        self._bytes += slab.size

    def took(self, delivery: Delivery) -> Iterator[Any]:
        """Yield what the user gets for a delivery. Raises what went wrong."""
        if isinstance(delivery, BaseException):
            raise delivery
        self._bytes -= delivery.size
        self._ended += len(delivery.pairs)
        self._result_bytes += sum(len(r.value) for _, r in delivery.pairs if r.value is not None)
        if self._ordered:
            yield from self._in_order(delivery.pairs)
            return
        self.out -= len(delivery.pairs)
        for index, result in delivery.pairs:
            yield TaskResult(result, index) if self._whole else value_of(result)

    def _in_order(self, pairs: list[tuple[int, Result]]) -> Iterator[Any]:
        self._held.update(pairs)
        while (result := self._held.pop(self._next, None)) is not None:
            index = self._next
            self._next += 1
            self.out -= 1
            yield TaskResult(result, index) if self._whole else value_of(result)
