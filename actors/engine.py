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
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from actors.facts import FactReader
from omnimind.clock import Clock
from omnimind.cluster import events as ev
from omnimind.cluster.core import CoordinatorCore
from omnimind.cluster.events import KnownTask
from omnimind.cluster.gate import CommitGate, Facts
from omnimind.cluster.records import task_from_row
from omnimind.cluster.sends import Ended, Fetch, Refusal, Reply, Send
from omnimind.cluster.task import DistributedTask
from omnimind.errors import LedgerFenced, LedgerUnavailable, OmniMindError, Refused
from omnimind.ledger.interface import Ledger

log = logging.getLogger("omnimind.coordinator")

_REOPEN_EVERY = 1.0
_MAINTAIN_EVERY = 60.0
_MAINTAIN_FULL = 2.0
_MAINTAIN_REMOTE = 5.0
"""Seconds: a database on the network is asked this often whether it is there, and who owns it."""
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
        # A listing must not hold up those who wait for facts, or the next page of a line.
        self._reader = ThreadPoolExecutor(2 if ledger.remote else 1, thread_name_prefix="omnimind-read")
        self._fact_reader = ThreadPoolExecutor(1, thread_name_prefix="omnimind-facts")
        self._tasks: list[asyncio.Task[None]] = []
        self._reads: set[asyncio.Task[None]] = set()
        self._generation = 0
        self._facts = FactReader(ledger, partial(self._in, self._fact_reader))
        self._broken: OmniMindError | None = None
        """What the writer's connection was found to suffer from outside a commit."""

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
            try:
                await self._in(self._writer, self.ledger.write, records)
            except OmniMindError as error:
                # Nobody was told that it was accepted, and the nodes keep what they owe.
                log.warning("the last commit failed: %s", error)
            else:
                self._release(self.gate.committed())
        await self._in(self._writer, self.ledger.close)
        self._writer.shutdown(wait=True)
        self._reader.shutdown(wait=False)
        self._fact_reader.shutdown(wait=False)

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
        usual = _MAINTAIN_REMOTE if self.ledger.remote else _MAINTAIN_EVERY
        while True:
            await asyncio.sleep(_MAINTAIN_FULL if self.ledger.full else usual)
            await self._maintain()

    async def _maintain(self) -> None:
        if self.trouble is not None or self._broken is not None:
            return
        generation = self._generation
        try:
            await self.on_writer(self.ledger.maintain)
        except OmniMindError as error:
            log.warning("the ledger cannot be maintained: %s", error)
            if self.ledger.remote and generation == self._generation:
                self._broken = error
                self._dirty.set()
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

    async def submit(
        self,
        tasks: list[DistributedTask],
        elsewhere: dict[str, KnownTask] | None = None,
        owners: dict[str, KnownTask] | None = None,
    ) -> Any:
        """Submit tasks, with the facts that the core must know.

        elsewhere: facts about ids in `after` that other shards keep. owners: which tasks of other shards
        have keys of these.
        """

        def make(request: int, facts: Facts) -> ev.Submit:
            event = ev.Submit(request, tasks)
            self.gate.look_up(event, self.core.tasks, facts)
            if elsewhere:
                event.known_ids = elsewhere | event.known_ids
            if owners:
                event.known_keys = owners | event.known_keys
            return event

        first = next(([t.task_id] for t in tasks if t.key is None), [])
        after = [i for t in tasks for i in t.after]
        return await self._ask_knowing(make, ids=[*first, *after], keys=[t.key for t in tasks if t.key])

    async def ask_about(self, ids: list[str], make: Callable[[int, list[DistributedTask]], ev.Event]) -> Any:
        """Do as `ask`, with those of the tasks `ids` that the core does not hold."""

        def with_tasks(request: int, facts: Facts) -> ev.Event:
            return make(request, self.gate.load(ids, self.core.tasks, facts))

        return await self._ask_knowing(with_tasks, rows=ids)

    async def _ask_knowing(self, make: Callable[[int, Facts], ev.Event], **wanted: list[str]) -> Any:
        """Do as `ask`, with the facts about `wanted`: read at once where that is quick, else off the loop."""
        if not self.ledger.remote or not any(wanted.values()):
            return await self.ask(lambda request: make(request, self.ledger))
        while True:
            if self.trouble is not None:
                raise self.trouble
            gate, generation = self.gate, self._generation
            hold = gate.hold()
            try:
                facts = await self._facts(**wanted)
            except LedgerUnavailable:
                # Is it gone for the writer, too? Then those who come next need not wait for it.
                self._spawn(self._maintain())
                gate.release(hold)
                raise
            except BaseException:
                gate.release(hold)
                raise
            if generation == self._generation:
                break
            gate.release(hold)

        def fed(request: int) -> ev.Event:
            try:
                return make(request, facts)
            finally:
                gate.release(hold)

        # Nothing was awaited since the facts came, nor is it before the event is fed.
        return await self.ask(fed)

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
                    self._spawn(self._fetch(send, self._generation))
                case _:
                    self._outside(send)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._reads.add(task)
        task.add_done_callback(self._reads.discard)

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
            if self._broken is not None and not await self._survived(self._broken):
                return
            records = self.gate.take()
            while records is not None:
                try:
                    if records:
                        await self._in(self._writer, self.ledger.write, records)
                except Exception as error:  # noqa: BLE001 (whatever it was, nothing of it may be released)
                    if not await self._survived(error):
                        return
                    break
                self._release(self.gate.committed())
                self._look_at_space()
                records = self.gate.take()

    async def _survived(self, error: Exception) -> bool:
        """Open the ledger again after an error; return False when another coordinator owns it now."""
        try:
            if isinstance(error, LedgerFenced):
                raise error
            await self._recover(error)
        except LedgerFenced:
            log.error("another coordinator owns the ledger: this one stops")  # noqa: TRY400
            self._fenced()
            return False
        return True

    async def _recover(self, error: Exception) -> None:
        """Refuse those who wait, and open the ledger again as soon as that is possible."""
        self._broken = None
        refusal = error if isinstance(error, Refused) else _as_refusal(error)
        log.warning("a commit failed, nothing of it was accepted: %s", error)
        self.trouble = refusal
        self._generation += 1
        self._release(self.gate.failed(refusal))
        while True:
            await asyncio.sleep(_REOPEN_EVERY)
            try:
                await self._in(self._writer, self.ledger.close)
                await self._open(self.core.epoch)
            except LedgerFenced:
                raise
            except OmniMindError as again:
                self.trouble = again if isinstance(again, Refused) else _as_refusal(again)
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


def _as_refusal(error: Exception) -> LedgerUnavailable:
    """Return what callers are told while the ledger is not open: to come again."""
    if isinstance(error, OmniMindError):
        again = error.retry_after or _REOPEN_EVERY
        return LedgerUnavailable(f"the ledger failed: {error.message}", hint=error.hint, retry_after=again)
    return LedgerUnavailable(f"the ledger failed: {error}", retry_after=_REOPEN_EVERY)
