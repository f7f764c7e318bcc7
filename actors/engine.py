"""`Engine`: a core, a ledger and the gate between them, on one event loop. Knows no Ray.

Events are handled one at a time on the loop; records are written by one thread, in group commits; what
the core wants sent is released after its commit. When a commit fails, nothing of it has happened: those
who wait are refused, the core is thrown away, and a new one is made from the ledger as soon as the
ledger can be opened again. That is the same way that a crash goes.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from omnimind.clock import Clock
from omnimind.cluster import events as ev
from omnimind.cluster.core import CoordinatorCore
from omnimind.cluster.gate import CommitGate
from omnimind.cluster.records import task_from_row
from omnimind.cluster.sends import Ended, Fetch, Refusal, Reply, Send
from omnimind.errors import LedgerFenced, LedgerUnavailable, OmniMindError, Refused
from omnimind.ledger.interface import Ledger

log = logging.getLogger("omnimind.coordinator")

_REOPEN_EVERY = 1.0
_MAINTAIN_EVERY = 60.0
_MAINTAIN_FULL = 2.0
_SHORTEST_SLEEP = 0.005


class Engine:
    """Runs a core on a ledger.

    make_core: a fresh core for each opening. outside: carries out sends to nodes. ended: hears of tasks
    that have ended. fenced: called when another coordinator has taken the ledger over.
    """

    def __init__(
        self,
        make_core: Callable[[], CoordinatorCore],
        ledger: Ledger,
        clock: Clock,
        *,
        outside: Callable[[Send], None],
        ended: Callable[[Ended], None],
        fenced: Callable[[], None],
    ) -> None:
        self._make_core = make_core
        self.ledger = ledger
        self.clock = clock
        self.core = make_core()
        self.gate = CommitGate()
        self.trouble: OmniMindError | None = None
        """Why nothing can be accepted now, None when all is well."""
        self._outside = outside
        self._ended = ended
        self._fenced = fenced
        self._requests: dict[int, asyncio.Future[Any]] = {}
        self._number = 0
        self._dirty = asyncio.Event()
        self._early = asyncio.Event()
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="omnimind-ledger")
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="omnimind-read")
        self._tasks: list[asyncio.Task[None]] = []
        self._reads: set[asyncio.Task[None]] = set()
        self._generation = 0

    async def start(self) -> None:
        """Open the ledger, recover the core from it and begin to work."""
        await self._open()
        loops = (self._commit_loop(), self._tick_loop(), self._maintain_loop())
        self._tasks = [asyncio.create_task(loop) for loop in loops]

    async def stop(self) -> None:
        """Commit what waits and close the ledger."""
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        records = self.gate.take()
        if records and self.trouble is None:
            await self._in(self._writer, self.ledger.write, records)
            self._release(self.gate.committed())
        await self._in(self._writer, self.ledger.close)
        self._writer.shutdown(wait=True)
        self._reader.shutdown(wait=False)

    async def _open(self, after: int | None = None) -> None:
        """Open the ledger; `after` is this engine's own last epoch, when it is not the first time."""
        opening = partial(self.ledger.open, self.core.limits.window, after=after)
        recovered = await self._in(self._writer, opening)
        self._generation += 1
        self.core = self._make_core()
        self.gate = CommitGate()
        self.trouble = None
        self.feed(recovered)
        self._look_at_space()

    def _look_at_space(self) -> None:
        """Tell the core when the ledger's room for new tasks has run out, or is there again."""
        if self.trouble is None and self.ledger.full != self.core.full:
            log.warning("the ledger's disk is %s", "full" if self.ledger.full else "no longer full")
            self.feed(ev.Space(self.ledger.full))

    async def _maintain_loop(self) -> None:
        """Let the ledger do what can wait, and look for room when there was none."""
        while True:
            await asyncio.sleep(_MAINTAIN_FULL if self.ledger.full else _MAINTAIN_EVERY)
            if self.trouble is None:
                try:
                    await self.on_writer(self.ledger.maintain)
                except OmniMindError as error:
                    log.warning("the ledger cannot be maintained: %s", error)
                self._look_at_space()

    async def _in(self, pool: ThreadPoolExecutor, call: Callable[..., Any], *args: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(pool, call, *args)

    def feed(self, event: ev.Event) -> None:
        """Let the core handle an event now. While there is trouble, nothing is taken in."""
        if self.trouble is not None:
            return
        effects = self.core.handle(event, self.clock.now())
        if not effects.records and self.gate.idle:
            self._release(effects.sends)
        else:
            self.gate.add(effects)
            self._dirty.set()
        if self.core.next_wakeup() < self._sleeping_until:
            self._early.set()

    _sleeping_until = float("inf")

    async def ask(self, make: Callable[[int], ev.Event]) -> Any:
        """Feed the event that `make(request)` returns, and return its reply once it is durable.

        Raises what the core refuses with, and the ledger's trouble while there is one.
        """
        if self.trouble is not None:
            raise self.trouble
        self._number += 1
        number = self._number
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._requests[number] = future
        try:
            self.feed(make(number))
            return await future
        finally:
            self._requests.pop(number, None)

    async def submit(self, tasks: list[Any]) -> Any:
        """Submit tasks, with the facts that the core must know."""

        def make(request: int) -> ev.Submit:
            event = ev.Submit(request, tasks)
            self.gate.look_up(event, self.core.tasks, self.ledger)
            return event

        return await self.ask(make)

    def read(self, call: Callable[..., Any], *args: Any) -> Awaitable[Any]:
        """Run a read of the ledger beside the loop."""
        return self._in(self._reader, call, *args)

    def on_writer(self, call: Callable[..., Any], *args: Any) -> Awaitable[Any]:
        """Run housekeeping of the ledger between two commits."""
        return self._in(self._writer, call, *args)

    def _release(self, sends: list[Send]) -> None:
        for send in sends:
            match send:
                case Reply(request, value):
                    future = self._requests.get(request)
                    if future is not None and not future.done():
                        future.set_result(value)
                case Refusal(request, error):
                    future = self._requests.get(request)
                    if future is not None and not future.done():
                        future.set_exception(error)
                case Ended():
                    self._ended(send)
                case Fetch():
                    task = asyncio.create_task(self._fetch(send, self._generation))
                    self._reads.add(task)
                    task.add_done_callback(self._reads.discard)
                case _:
                    self._outside(send)

    async def _fetch(self, send: Fetch, generation: int) -> None:
        rows: list[Any] | None = None
        while rows is None:
            try:
                match send.line:
                    case "ready":
                        rows = await self.read(self.ledger.ready, send.queue, send.after, send.limit)
                    case "delayed":
                        rows = await self.read(self.ledger.delayed, send.after, send.limit)
                    case _:
                        rows = await self.read(self.ledger.overdue, send.before, send.limit)
            except OmniMindError as error:
                log.warning("reading the %s line failed: %s", send.line, error)
                await asyncio.sleep(_REOPEN_EVERY)
        if generation == self._generation:
            tasks = [task_from_row(row) for row in rows]
            self.feed(ev.Loaded(send.line, send.queue, tasks, more=len(rows) >= send.limit))

    async def _commit_loop(self) -> None:
        while True:
            await self._dirty.wait()
            self._dirty.clear()
            records = self.gate.take()
            while records is not None:
                try:
                    if records:
                        await self._in(self._writer, self.ledger.write, records)
                except LedgerFenced:
                    log.error("another coordinator owns the ledger: this one stops")  # noqa: TRY400
                    self._fenced()
                    return
                except Exception as error:  # noqa: BLE001 (whatever it was, nothing of it may be released)
                    await self._recover(error)
                    break
                self._release(self.gate.committed())
                self._look_at_space()
                records = self.gate.take()

    async def _recover(self, error: Exception) -> None:
        """Refuse those who wait, and open the ledger again as soon as that is possible."""
        refusal = error if isinstance(error, Refused) else LedgerUnavailable(f"the ledger failed: {error}")
        log.warning("a commit failed, nothing of it was accepted: %s", error)
        self.trouble = refusal
        self._generation += 1
        self._release(self.gate.failed(refusal))
        while True:
            await asyncio.sleep(_REOPEN_EVERY)
            try:
                await self._in(self._writer, self.ledger.close)
                await self._open()
            except OmniMindError as again:
                self.trouble = again
                log.warning("the ledger cannot be opened yet: %s", again)
            else:
                log.warning("the ledger is back: epoch %d", self.core.epoch)
                return

    async def _tick_loop(self) -> None:
        while True:
            now = self.clock.now()
            wait = 0.25 if self.trouble else min(1.0, self.core.next_wakeup() - now)
            self._sleeping_until = now + wait
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._early.wait(), max(_SHORTEST_SLEEP, wait))
            self._early.clear()
            if self.trouble is None:
                self.feed(ev.Tick())
