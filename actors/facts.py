"""`FactReader`: the facts that a core needs, read beside the loop from a ledger that may be far away.

All who ask while one read is under way share the next one: however far the database, submissions wait for
two round trips at most, and are fed in the order in which they came.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from omnimind.cluster.events import KnownTask
from omnimind.cluster.records import TASK_COLUMNS, TaskRow
from omnimind.ledger.interface import Ledger

_ID = TASK_COLUMNS.index("id")
_MOST = 2_000
"""Ids and keys beyond which those who still wait get the read after this one."""


class Found:
    """What was read: the `gate.Facts` of these ids and keys, and of no others."""

    def __init__(
        self, known: dict[str, KnownTask], keys: dict[str, KnownTask], rows: dict[str, TaskRow]
    ) -> None:
        self._known, self._keys, self._rows = known, keys, rows

    def tasks(self, ids: list[str], /) -> list[TaskRow]:
        """Return rows by id."""
        return [self._rows[i] for i in ids if i in self._rows]

    def known_ids(self, ids: list[str], /) -> dict[str, KnownTask]:
        """Return states by id."""
        return {i: self._known[i] for i in ids if i in self._known}

    def known_keys(self, keys: list[str], /) -> dict[str, KnownTask]:
        """Return tasks by idempotency key."""
        return {k: self._keys[k] for k in keys if k in self._keys}


class _Wish:
    def __init__(self, ids: Iterable[str], keys: Iterable[str], rows: Iterable[str]) -> None:
        self.ids, self.keys, self.rows = [*ids], [*keys], [*rows]
        self.answer: asyncio.Future[Found] = asyncio.get_running_loop().create_future()

    def __len__(self) -> int:
        return len(self.ids) + len(self.keys) + len(self.rows)


class FactReader:
    """Reads facts. read: runs a call of the ledger beside the loop (`Engine.read`)."""

    def __init__(self, ledger: Ledger, read: Callable[..., Awaitable[Any]]) -> None:
        self._ledger = ledger
        self._read = read
        self._wishes: list[_Wish] = []
        self._reading: asyncio.Task[None] | None = None

    async def __call__(
        self, *, ids: Iterable[str] = (), keys: Iterable[str] = (), rows: Iterable[str] = ()
    ) -> Found:
        """Return the facts about ids, keys and whole rows; raises what the ledger raises."""
        wish = _Wish(ids, keys, rows)
        self._wishes.append(wish)
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._go())
        return await wish.answer

    async def _go(self) -> None:
        while self._wishes:
            portion = self._portion()
            try:
                found = await self._read(self._ask, portion)
            except Exception as error:  # noqa: BLE001 (it is theirs who asked)
                for wish in portion:
                    if not wish.answer.done():
                        wish.answer.set_exception(error)
            else:
                for wish in portion:
                    if not wish.answer.done():
                        wish.answer.set_result(found)

    def _portion(self) -> list[_Wish]:
        count, size = 0, 0
        while count < len(self._wishes) and (count == 0 or size + len(self._wishes[count]) <= _MOST):
            size += len(self._wishes[count])
            count += 1
        portion, self._wishes = self._wishes[:count], self._wishes[count:]
        return portion

    def _ask(self, portion: list[_Wish]) -> Found:
        ids = [*dict.fromkeys(i for wish in portion for i in wish.ids)]
        keys = [*dict.fromkeys(k for wish in portion for k in wish.keys)]
        rows = [*dict.fromkeys(i for wish in portion for i in wish.rows)]
        ledger = self._ledger
        return Found(
            ledger.known_ids(ids) if ids else {},
            ledger.known_keys(keys) if keys else {},
            {row[_ID]: row for row in ledger.tasks(rows)} if rows else {},
        )
