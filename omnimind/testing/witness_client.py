"""``python -m omnimind.testing.witness_client``: a client that writes down all it asks and hears.

It submits mixed work from a seed and reads, cancels and repeats on the way; each id is written down before
it is sent, so that this process may be killed at any moment. It ends after `--seconds`, or when it is asked
to (SIGTERM), with what it waits for left open.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
from collections import deque
from pathlib import Path
from random import Random
from typing import Any

import msgspec

from omnimind.client.client import AsyncClient
from omnimind.client.handlers import Known
from omnimind.client.protocol import SubmitRequest
from omnimind.errors import (
    NotFound,
    OmniMindError,
    QueueFull,
    Refused,
    TaskCancelled,
    TaskDead,
    TaskExpired,
    TaskFailed,
)
from omnimind.ids import task_id
from omnimind.testing.history import Answered, Called, Journal, now
from omnimind.testing.witnessed import KIND, witnessed

_RECENT = 60
_READ_PATIENCE = 4.0
_SHARED_KEYS = 40
_CALL_TIMEOUT = 12.0
_ENDS: dict[type[TaskFailed], str] = {
    TaskCancelled: "cancelled",
    TaskExpired: "expired",
    TaskDead: "dead",
    TaskFailed: "failed",
}

PLOTS: dict[str, tuple[int, dict[str, Any], dict[str, Any]]] = {
    "noop": (30, {}, {}),
    "slab": (12, {}, {}),
    "second": (10, {"seconds": 1.0}, {}),
    "long": (4, {"seconds": 4.0}, {}),
    "once": (8, {"seconds": 0.3}, {"at_most_once": True}),
    "key": (12, {"seconds": 0.05}, {}),
    "retry": (8, {"raises": 1, "seconds": 0.05}, {"retries": 3, "retry_base": 0.2}),
    "fail": (4, {"raises": 99}, {"retries": 1, "retry_base": 0.2}),
    "delay": (4, {}, {"delay": 2.0}),
    "deadline": (4, {"seconds": 3.0}, {}),
    "after": (8, {"seconds": 0.05}, {}),
    "checkpoint": (8, {"seconds": 2.4, "marks": 8}, {}),
    "cancel": (6, {"seconds": 2.0}, {}),
}
"""Kind of work -> (how often, the handler's payload, options of the submission)."""


class WitnessedClient:
    """The client. rate: requests a second, about. bulk: characters that a payload is made longer by."""

    def __init__(
        self,
        om: AsyncClient,
        name: str,
        seed: str,
        journal: Journal,
        work: str,
        *,
        rate: float,
        bulk: int = 0,
    ) -> None:
        self.om = om
        self.name = name
        self.random = Random(f"{seed} {name}")
        self.seed = seed
        self.journal = journal
        self.work = work
        self.pause = 1.0 / rate
        self.bulk = bulk
        self.recent: deque[str] = deque(maxlen=_RECENT)
        self.n = 0
        self._known: Known | None = None
        self._reads: set[asyncio.Task[None]] = set()

    async def run(self, until: float) -> None:
        """Ask until that time."""
        known = await self._handler(until)
        names = [name for name, plot in PLOTS.items() for _ in range(plot[0])]
        while now() < until and known is not None:
            await self._submit(known, self.random.choice(names))
            for _ in range(2):
                if self.recent:
                    self._beside(self._read(self.random.choice(self.recent)))
            await asyncio.sleep(self.pause * 2 * self.random.random())
        if self._reads:
            await asyncio.wait(self._reads, timeout=_READ_PATIENCE)

    async def _handler(self, until: float) -> Known | None:
        while now() < until:
            try:
                return await self.om.handlers.resolve(witnessed)
            except OmniMindError:
                await asyncio.sleep(0.5)
        return None

    def _beside(self, call: Any) -> None:
        if len(self._reads) < _RECENT:
            task = asyncio.ensure_future(call)
            self._reads.add(task)
            task.add_done_callback(self._reads.discard)
        else:
            call.close()

    # --- submissions --------------------------------------------------------------------------------

    async def _submit(self, known: Known, plot: str) -> None:
        _, payload, options = PLOTS[plot]
        payload, options = {**payload, "journal": self.work}, dict(options)
        count, key, tag, life = 1, None, "", None
        after: tuple[str, ...] = ()
        match plot:
            case "slab":
                count = self.random.randrange(2, 30)
            case "key":
                # Keys are shared by all clients, and one in ten uses another payload.
                key = f"{self.seed}-{self.random.randrange(_SHARED_KEYS)}"
                tag = "other" if self.random.random() < 0.1 else "one"  # noqa: PLR2004
            case "deadline":
                life = 1.0 + 4.0 * self.random.random()
            case "after" if self.recent:
                after = (self.random.choice(self.recent),)
                options["after"] = list(after)
        if key is not None:
            options["key"] = key
            payload["tag"] = tag
        elif self.bulk:
            payload["tag"] = "x" * self.bulk
        request = self.om.request(known, (), {**options, "payload": payload})
        request.ttl = life
        request.payloads *= count
        ids = tuple(task_id(request.slab, i) for i in range(count))
        call = Called(
            self.name, 0, 0.0, "submit", ids, key, tag,
            once=bool(options.get("at_most_once")), retries=options.get("retries", 3),
            raises=payload.get("raises", 0), wait=options.get("delay", 0.0), life=life, after=after,
        )  # fmt: skip
        told = await self._send(known, request, call)
        if told is None and self.random.random() < 0.7:  # noqa: PLR2004
            # Nobody knows whether it was taken: the same submission again must not make a second task.
            told = await self._send(known, request, msgspec.structs.replace(call, again=self.n))
        if told is None:
            return
        self.recent.extend(told[:3])
        if plot == "cancel":
            self._beside(self._cancel(told[0], self.random.random()))

    async def _send(self, known: Known, request: SubmitRequest, call: Called) -> tuple[str, ...] | None:
        n = self._ask(call)
        try:
            answer = await self.om.send(known, request)
        except OmniMindError as error:
            self._hear(n, error)
            return () if isinstance(error, QueueFull) else None
        ids = tuple(answer.existing.get(i, task) for i, task in enumerate(call.tasks))
        self.journal.write(Answered(self.name, n, now(), "ok", ids))
        return ids

    def _ask(self, call: Called) -> int:
        self.n += 1
        self.journal.write(msgspec.structs.replace(call, n=self.n, at=now()))
        return self.n

    def _hear(self, n: int, error: OmniMindError) -> None:
        known = error.status < 500 or isinstance(error, Refused)  # noqa: PLR2004
        self.journal.write(Answered(self.name, n, now(), "refused" if known else "unknown", code=error.code))

    # --- the rest -----------------------------------------------------------------------------------

    async def _read(self, task: str) -> None:
        verb = self.random.choice(("result", "status"))
        n = self._ask(Called(self.name, 0, 0.0, verb, (task,)))
        value = None
        try:
            if verb == "result":
                value = str(await self.om.result(task, timeout=_READ_PATIENCE))
                status = "completed"
            else:
                status = str(await self.om.status(task))
        except TaskFailed as error:
            status = _ENDS[type(error)]
        except NotFound as error:
            self.journal.write(Answered(self.name, n, now(), "refused", code=error.code))
            return
        except OmniMindError as error:
            self._hear(n, error)
            return
        self.journal.write(Answered(self.name, n, now(), "ok", (task,), status, value))

    async def _cancel(self, task: str, wait: float) -> None:
        await asyncio.sleep(wait)
        n = self._ask(Called(self.name, 0, 0.0, "cancel", (task,)))
        try:
            done = await self.om.cancel(task)
        except OmniMindError as error:
            self._hear(n, error)
            return
        self.journal.write(Answered(self.name, n, now(), "ok", (task,), done))


def main(argv: list[str] | None = None) -> None:
    """Run the client."""
    parser = argparse.ArgumentParser(prog="python -m omnimind.testing.witness_client", description=__doc__)
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--home", type=Path, help="of an instance on this host")
    where.add_argument("--address", help="HOST:PORT of the Ray cluster; its token is in the environment")
    parser.add_argument("--name", required=True, help="no two clients of a history have the same")
    parser.add_argument("--seed", required=True)
    parser.add_argument("--journal", type=Path, required=True, help="what it asks and hears")
    parser.add_argument("--work", type=Path, required=True, help="the journal of the handlers")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--rate", type=float, default=15.0, help="submissions a second, about")
    parser.add_argument("--bulk", type=int, default=0, help="characters that payloads are made longer by")
    given = parser.parse_args(argv)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_run(given))


async def _run(given: argparse.Namespace) -> None:
    until = now() + given.seconds
    journal = Journal(given.journal)
    running = asyncio.current_task()
    assert running is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, running.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        while now() < until:
            try:
                om = AsyncClient(given.home, address=given.address, timeout=_CALL_TIMEOUT)
                async with om:
                    client = WitnessedClient(
                        om, given.name, given.seed, journal, str(given.work), rate=given.rate, bulk=given.bulk
                    )
                    await client.run(until)
            except OmniMindError as error:
                print(f"{given.name}: {error}", flush=True)  # noqa: T201
                await asyncio.sleep(1.0)


__all__ = ["KIND", "PLOTS", "WitnessedClient", "main"]

if __name__ == "__main__":
    main()
