"""The questions that a ledger in a database answers. Each is one statement and sees what is committed."""

from __future__ import annotations

import heapq
from itertools import islice
from typing import Any, NamedTuple

import msgspec

from omnimind.cluster.events import KnownTask, Recovered
from omnimind.cluster.node import NodeInfo
from omnimind.cluster.policies import QueuePolicy, Schedule
from omnimind.cluster.records import ClaimSaved, TaskRow, task_from_row
from omnimind.cluster.states import Line, TaskStatus
from omnimind.ledger import statements as sql
from omnimind.ledger.interface import (
    Attempts,
    AuditEntries,
    Claims,
    Ids,
    Layout,
    LogLines,
    Page,
    Sentences,
    TaskFilter,
    Usage,
)
from omnimind.ledger.rows import SEQ

_FEW = 20_000
"""Tasks in a line up to which a listing of that line reads its index instead of all tasks from the newest."""


class _Query(NamedTuple):
    statement: str
    values: list[Any]


_Queries = list[_Query]


class Reads:
    """The reading half of a ledger; works before `open`, too, and beside another process's writer."""

    def _read(self, statement: str, values: tuple[Any, ...] | list[Any] = ()) -> list[Any]:
        """Return the rows of a query, its placeholders being SQLite's."""
        raise NotImplementedError

    def _size(self) -> int:
        """Return bytes on disk."""
        raise NotImplementedError

    # ----------------------------------------------------------------------------------- by id and line

    def tasks(self, ids: list[str]) -> list[TaskRow]:
        return [row for query in sql.among(sql.TASKS_BY_ID, ids) for row in self._read(*query)]

    def known_ids(self, ids: list[str]) -> dict[str, KnownTask]:
        return self._known(sql.KNOWN_BY_ID, ids)

    def known_keys(self, keys: list[str]) -> dict[str, KnownTask]:
        return self._known(sql.KNOWN_BY_KEY, keys)

    def _known(self, statement: str, values: list[str]) -> dict[str, KnownTask]:
        return {
            name: KnownTask(task_id, status, digest, cause)
            for query in sql.among(statement, values)
            for name, task_id, status, digest, cause in self._read(*query)
        }

    def claims(self, keys: list[str]) -> dict[str, ClaimSaved]:
        return {
            row[0]: ClaimSaved(*row) for query in sql.among(sql.CLAIMS, keys) for row in self._read(*query)
        }

    def documents(self, kind: str) -> dict[str, bytes]:
        return {name: bytes(data) for name, data in self._read(sql.DOCUMENTS, (kind,))}

    def old_claims(self, before: float, after: tuple[float, str], limit: int) -> Claims:
        return [ClaimSaved(*row) for row in self._read(sql.OLD_CLAIMS, (before, *after, limit))]

    def layout(self) -> Layout:
        found = self._read(sql.LAYOUT)
        return Layout(*found[0]) if found else Layout()

    def ready(self, queue: str, after: tuple[float, int], limit: int) -> list[TaskRow]:
        return self._read(sql.READY, (queue, *after, limit))

    def delayed(self, after: tuple[float, int], limit: int) -> list[TaskRow]:
        return self._read(sql.DELAYED, (*after, limit))

    def overdue(self, before: float, limit: int) -> list[TaskRow]:
        return self._read(sql.OVERDUE, (before, limit))

    def find(self, prefix: str, limit: int) -> Ids:
        return [row[0] for row in self._read(sql.FIND, (prefix, prefix + "\U0010ffff", limit))]

    # ------------------------------------------------------------------------------------------ listing

    def list(self, where: TaskFilter, before_seq: int | None, limit: int) -> Page:
        pages = [self._read(*query) for query in self._listings(where, before_seq, limit + 1)]
        rows = list(islice(heapq.merge(*pages, key=lambda row: -row[SEQ]), limit + 1))
        if len(rows) <= limit:
            return Page(rows, None)
        return Page(rows[:limit], rows[limit - 1][SEQ] if limit else before_seq)

    def _listings(self, where: TaskFilter, before_seq: int | None, limit: int) -> _Queries:
        """Return queries whose results together hold the page: each newest first, no task in two."""
        terms = [
            ("queue = ?", where.queue),
            ("type = ?", where.task_type),
            ("node = ?", where.node),
            ("created_at >= ?", where.since),
            ("created_at < ?", where.until),
            ("seq < ?", before_seq),
        ]
        common = [(term, value) for term, value in terms if value is not None]
        every = {None: sql.ALL, True: sql.DISCARDED, False: f"NOT {sql.DISCARDED}"}[where.discarded]
        if where.status is None:
            return [_listing(f"{sql.ALL} AND {every}", common, limit)]
        queries: _Queries = []
        for status in dict.fromkeys(where.status):
            exactly = [("status = ?", status), *common]
            sources = self._sources(status)
            queries += [_listing(f"{source} AND {every}", exactly, limit) for source in sources]
        return queries

    def _sources(self, status: str) -> tuple[str, ...]:
        """Return the conditions under which an index leads to the tasks of a status, if that is short."""
        match status:
            case TaskStatus.RUNNING:
                return ("line >= 1 AND line = 3",)
            case TaskStatus.PENDING if self._read(sql.COUNT_PENDING, (_FEW,))[0][0] < _FEW:
                return ("line = 0", "line >= 1")
            case TaskStatus.COMPLETED if self._read(sql.COUNT_COMPLETED, (_FEW,))[0][0] < _FEW:
                return ("line = -1",)
            case TaskStatus.FAILED | TaskStatus.CANCELLED | TaskStatus.EXPIRED | TaskStatus.DEAD:
                return ("line = -1",)
            case _:
                return (sql.ALL,)

    # ------------------------------------------------------------------------------------------- others

    def attempts(self, task_id: str) -> Attempts:
        return self._read(sql.ATTEMPTS, (task_id,))

    def logs(self, task_id: str, after: int, limit: int) -> LogLines:
        return self._read(sql.LOGS, (task_id, after, limit))

    def handlers(self) -> dict[str, tuple[str, bytes]]:
        return {task_type: (digest, spec) for task_type, digest, spec in self._read(sql.HANDLERS)}

    def handler(self, digest: str) -> bytes | None:
        return self._one(sql.HANDLER, digest)

    def blob(self, digest: str) -> bytes | None:
        return self._one(sql.BLOB, digest)

    def _one(self, statement: str, name: str) -> bytes | None:
        found = self._read(statement, (name,))
        return found[0][0] if found else None

    def audit(self, limit: int) -> AuditEntries:
        return self._read(sql.AUDIT, (limit,))

    def pruned_before(self) -> float | None:
        return self._read(sql.PRUNED)[0][1]  # type: ignore[no-any-return]

    def usage(self) -> Usage:
        by_queue: dict[str, dict[str, int]] = {}
        for queue, count in self._read(sql.COUNT_READY):
            by_queue.setdefault(queue, {})["ready"] = count
        for queue, line, count in self._read(sql.COUNT_HELD):
            by_queue.setdefault(queue, {})[Line(line).name.lower()] = count
        running = sum(lines.get("running", 0) for lines in by_queue.values())
        counts = {
            "pending": sum(sum(lines.values()) for lines in by_queue.values()) - running,
            "running": running,
            **dict(self._read(sql.COUNT_BY_END)),
        }
        pruned, pruned_before = self._read(sql.PRUNED)[0]
        return Usage({s: n for s, n in counts.items() if n}, by_queue, self._size(), pruned, pruned_before)

    def recovered(self, epoch: int, window: int) -> Recovered:
        """Return what a new coordinator needs, its `epoch` being this one."""
        ready = _tasks(self._read(sql.FIRST_READY, (window,)))
        tails: dict[str, int] = dict(self._read(sql.COUNT_READY))
        for task in ready:
            tails[task.queue] -= 1
        delayed = _tasks(self.delayed((float("-inf"), 0), window))
        delayed_tails: dict[str, int] = dict(self._read(sql.COUNT_DELAYED))
        for task in delayed:
            delayed_tails[task.queue] -= 1
        waiting = _tasks(self._read(sql.HELD, (Line.WAITING,)))
        return Recovered(
            epoch=epoch,
            last_seq=self._read(sql.LAST_SEQ)[0][0],
            ready=ready,
            delayed=delayed,
            waiting=waiting,
            running=_tasks(self._read(sql.HELD, (Line.RUNNING,))),
            tails={queue: count for queue, count in tails.items() if count},
            delayed_tails={queue: count for queue, count in delayed_tails.items() if count},
            nodes=[msgspec.json.decode(row[0], type=NodeInfo) for row in self._read(sql.NODES)],
            queues=[msgspec.json.decode(row[0], type=QueuePolicy) for row in self._read(sql.QUEUES)],
            schedules=[msgspec.msgpack.decode(row[0], type=Schedule) for row in self._read(sql.SCHEDULES)],
            known_ids=self.known_ids([*dict.fromkeys(i for task in waiting for i in task.after)]),
        )

    def contradictions(self) -> Sentences:
        """Return which rows contradict themselves, in sentences."""
        found: Sentences = []
        for sentence, statement in sql.CONTRADICTIONS:
            found += [f"{sentence}: {row[0]}" for row in self._read(f"{statement} LIMIT 5")]
        return found


def _listing(source: str, terms: list[tuple[str, Any]], limit: int) -> _Query:
    condition = " AND ".join((source, *(term for term, _ in terms)))
    # With a plus the order is no reason for a planner to walk all tasks instead of the source's index.
    order = "seq" if source.startswith(sql.ALL) else "+seq"
    statement = f"SELECT {sql.LISTED} FROM tasks WHERE {condition} ORDER BY {order} DESC LIMIT ?"
    return _Query(statement, [*(value for _, value in terms), limit])


def _tasks(rows: list[TaskRow]) -> list[Any]:
    return [task_from_row(row) for row in rows]
