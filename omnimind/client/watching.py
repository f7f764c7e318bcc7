"""Waiting for the ends of single tasks: many waiters, few calls."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable

from omnimind.client.protocol import Result, WatchAnswer, WatchRequest
from omnimind.errors import NotFound, OmniMindError, WaitTimeout

WATCH_SECONDS = 30.0
"""How long one `watch` call stays open before it is asked again."""
_LINGER = 0.005
_IDS_MAX = 1024
_LONG_ROUNDS = 32
_SHORT_SECONDS = 0.25
_ROUNDS_MAX = 512
"""Below what a coordinator carries out for one connection at a time."""

Ask = Callable[[WatchRequest], Awaitable[WatchAnswer]]
Split = Callable[[list[str]], list[list[str]]]
"""Ids in groups that are asked about apart, since different coordinators have them."""


class Watcher:
    """Gathers what is asked for within one turn of the event loop into one `watch` call.

    The first few calls stay open for long; further ones come back soon, and what they still wait for is
    asked again together. So thousands of waiters keep some tens of calls open.
    """

    def __init__(self, ask: Ask, split: Split = lambda ids: [ids]) -> None:
        self._ask = ask
        self._split = split
        self._waiters: dict[str, list[asyncio.Future[Result]]] = {}
        self._fresh: list[str] = []
        self._flushing = False
        self._rounds: set[asyncio.Task[None]] = set()

    def close(self) -> None:
        """End all rounds; who still waits is cancelled."""
        for task in self._rounds:
            task.cancel()
        for waiters in self._waiters.values():
            for future in waiters:
                future.cancel()

    def future(self, task_id: str) -> asyncio.Future[Result]:
        """Return a future of the task's end. Who loses interest cancels it."""
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        waiters = self._waiters.get(task_id)
        if waiters is None:
            self._waiters[task_id] = [future]
            self._queue([task_id])
        else:
            waiters.append(future)
        return future

    async def result(self, task_id: str, timeout: float | None = None) -> Result:
        """Return how a task ended. Raises WaitTimeout after `timeout` seconds, NotFound, Pruned."""
        future = self.future(task_id)
        timer = None
        if timeout is not None:
            timer = asyncio.get_running_loop().call_later(timeout, _overdue, future, task_id, timeout)
        try:
            return await future
        finally:
            future.cancel()
            if timer is not None:
                timer.cancel()

    def _queue(self, ids: list[str]) -> None:
        self._fresh += ids
        if not self._flushing:
            self._flushing = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        while self._fresh and len(self._rounds) < _ROUNDS_MAX:
            ids = self._fresh[:_IDS_MAX]
            del self._fresh[:_IDS_MAX]
            for group in self._split(ids):
                self._start(group)

    def _start(self, ids: list[str]) -> None:
        task = asyncio.get_running_loop().create_task(self._round(ids))
        self._rounds.add(task)
        task.add_done_callback(self._rounds.discard)

    async def _round(self, ids: list[str]) -> None:
        ids = self._wanted(ids)
        if not ids:
            return
        seconds = WATCH_SECONDS if len(self._rounds) <= _LONG_ROUNDS else _SHORT_SECONDS
        try:
            answer = await self._ask(WatchRequest(ids=ids, timeout=seconds, linger=_LINGER))
        except NotFound as error:
            if len(ids) == 1:
                self._fail(ids, error)
            else:
                # One of them is unknown: the others must not suffer for it.
                half = len(ids) // 2
                self._start(ids[:half])
                self._start(ids[half:])
            return
        except OmniMindError as error:
            self._fail(ids, error)
            return
        for result in answer.results:
            for future in self._waiters.pop(result.task_id, ()):
                if not future.done():
                    future.set_result(result)
        self._queue(self._wanted(ids))

    def _wanted(self, ids: Iterable[str]) -> list[str]:
        """Return those that somebody still waits for, and forget the others."""
        wanted = []
        for task_id in ids:
            waiters = [f for f in self._waiters.get(task_id, ()) if not f.done()]
            if waiters:
                self._waiters[task_id] = waiters
                wanted.append(task_id)
            else:
                self._waiters.pop(task_id, None)
        return wanted

    def _fail(self, ids: list[str], error: OmniMindError) -> None:
        for task_id in ids:
            for future in self._waiters.pop(task_id, ()):
                if not future.done():
                    future.set_exception(error)


def _overdue(future: asyncio.Future[Result], task_id: str, timeout: float) -> None:
    if not future.done():
        message = f"{task_id} has not ended within {timeout:g} s; it goes on"
        future.set_exception(WaitTimeout(message, hint=f"see: omnimind explain {task_id}", task_id=task_id))
