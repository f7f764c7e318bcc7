"""`MemoryLedger`: the ledger as plain dicts, with the same answers and no file.

For tests, and the model that the database is compared with. Deterministic, no I/O, no clock. What `write`
took is kept until the process ends; `snapshot` and `restore` model a crash that loses later writes.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec

from omnimind.cluster.events import KnownTask, Recovered
from omnimind.cluster.node import NodeInfo
from omnimind.cluster.records import (
    ClaimSaved,
    Records,
    TaskRow,
    references,
    task_from_row,
)
from omnimind.cluster.states import Line
from omnimind.errors import LedgerFenced
from omnimind.ledger import retention
from omnimind.ledger.interface import (
    About,
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
from omnimind.ledger.memory_store import Store, with_values
from omnimind.ledger.rows import (
    CAUSE,
    COMPLETED_AT,
    CREATED_AT,
    DEADLINE,
    DIGEST,
    ID,
    KEY,
    LINE,
    NODE,
    OPTIONS,
    PAYLOAD,
    QUEUE,
    RANK,
    RESULT,
    SEQ,
    STATUS,
    TYPE,
)

_FIRST = (float("-inf"), 0)


class MemoryLedger:
    """A ledger in memory, on a `Store` of its own or a given one."""

    remote = False

    def __init__(self, store: Store | None = None) -> None:
        self.store = store or Store()
        self.epoch = 0
        self._commits = 0
        self._written = 0

    # -------------------------------------------------------------------------------- opening, writing

    def open(self, window: int, *, after: int | None = None) -> Recovered:
        store = self.store
        if after is not None and after != store.epoch:
            raise _over(after)
        store.epoch += 1
        self.epoch = store.epoch
        self._commits = self._written = 0
        ready = self._line(Line.READY)
        delayed = self._line(Line.DELAYED)
        waiting = [task_from_row(row) for row in self._line(Line.WAITING)]
        tails: dict[str, int] = {}
        for row in ready[window:]:
            tails[row[QUEUE]] = tails.get(row[QUEUE], 0) + 1
        return Recovered(
            epoch=self.epoch,
            last_seq=max(store.pruned_seq, *store.rows) if store.rows else store.pruned_seq,
            ready=[task_from_row(row) for row in ready[:window]],
            delayed=[task_from_row(row) for row in delayed[:window]],
            waiting=waiting,
            running=[task_from_row(row) for row in self._line(Line.RUNNING)],
            tails=tails,
            delayed_tails=dict(Counter(row[QUEUE] for row in delayed[window:])),
            nodes=[msgspec.json.decode(store.nodes[name], type=NodeInfo) for name in sorted(store.nodes)],
            queues=[store.queues[name] for name in sorted(store.queues)],
            schedules=[store.schedules[name] for name in sorted(store.schedules)],
            known_ids=self.known_ids([*dict.fromkeys(i for task in waiting for i in task.after)]),
        )

    def close(self) -> None:
        """Do nothing: there is nothing to release."""

    def snapshot(self) -> Store:
        """Return the store as it is now."""
        return self.store.copied()

    def restore(self, snapshot: Store) -> None:
        """Go back to a snapshot, as if all later writes had been lost; the snapshot stays usable."""
        self.store = snapshot.copied()

    def write(self, records: Records) -> None:
        if not records:
            return
        self._check_epoch()
        self.store.apply(records)
        self._commits += 1
        self._written += len(records.inserts) + len(records.updates)

    def _check_epoch(self) -> None:
        if self.epoch != self.store.epoch:
            raise _over(self.epoch)

    # ----------------------------------------------------------------------------------------- reading

    def tasks(self, ids: list[str]) -> list[TaskRow]:
        store = self.store
        return [store.rows[store.seq_of[i]] for i in dict.fromkeys(ids) if i in store.seq_of]

    def known_ids(self, ids: list[str]) -> dict[str, KnownTask]:
        return {row[ID]: _known(row) for row in self.tasks(ids)}

    def known_keys(self, keys: list[str]) -> dict[str, KnownTask]:
        store = self.store
        return {key: _known(store.rows[store.keys[key]]) for key in keys if key in store.keys}

    def claims(self, keys: list[str]) -> dict[str, ClaimSaved]:
        return {key: self.store.claims[key] for key in keys if key in self.store.claims}

    def documents(self, kind: str) -> dict[str, bytes]:
        kept = self.store.documents
        return {name: kept[key, name] for key, name in sorted(kept) if key == kind}

    def old_claims(self, before: float, after: tuple[float, str], limit: int) -> Claims:
        found = [c for c in self.store.claims.values() if c.at < before and (c.at, c.key) > after]
        return sorted(found, key=lambda c: (c.at, c.key))[:limit]

    def layout(self) -> Layout:
        return Layout()

    def _line(self, line: Line, queue: str | None = None, after: tuple[float, int] = _FIRST) -> list[TaskRow]:
        rows = [
            row
            for row in self.store.rows.values()
            if row[LINE] == line and (queue is None or row[QUEUE] == queue) and _place(row) > after
        ]
        rows.sort(key=_place)
        return rows

    def ready(self, queue: str, after: tuple[float, int], limit: int) -> list[TaskRow]:
        return self._line(Line.READY, queue, after)[:limit]

    def delayed(self, after: tuple[float, int], limit: int) -> list[TaskRow]:
        return self._line(Line.DELAYED, None, after)[:limit]

    def overdue(self, before: float, limit: int) -> list[TaskRow]:
        rows = [
            row
            for row in self.store.rows.values()
            if row[STATUS] == "pending" and row[DEADLINE] is not None and row[DEADLINE] <= before
        ]
        rows.sort(key=lambda row: (row[DEADLINE], row[SEQ]))
        return rows[:limit]

    def list(self, where: TaskFilter, before_seq: int | None, limit: int) -> Page:
        rows: list[TaskRow] = []
        for seq in sorted(self.store.rows, reverse=True):
            row = self.store.rows[seq]
            if (before_seq is None or seq < before_seq) and self._matches(row, where):
                if len(rows) == limit:
                    return Page(rows, rows[-1][SEQ] if rows else before_seq)
                rows.append(with_values(row, {PAYLOAD: None, RESULT: None}))
        return Page(rows, None)

    def find(self, prefix: str, limit: int) -> Ids:
        return sorted(i for i in self.store.seq_of if i.startswith(prefix))[:limit]

    def attempts(self, task_id: str) -> Attempts:
        return [*self.store.attempts.get(task_id, ())]

    def logs(self, task_id: str, after: int, limit: int) -> LogLines:
        return [line for line in self.store.logs.get(task_id, ()) if line[0] > after][:limit]

    def handlers(self) -> dict[str, tuple[str, bytes]]:
        return {name: (digest, self.store.handlers[digest]) for name, digest in self.store.types.items()}

    def handler(self, digest: str) -> bytes | None:
        return self.store.handlers.get(digest)

    def blob(self, digest: str) -> bytes | None:
        return self.store.blobs.get(digest)

    def audit(self, limit: int) -> AuditEntries:
        newest = self.store.audit[: -limit - 1 : -1]
        return [(a.at, a.actor, a.verb, a.subject, a.detail) for a in newest]

    def usage(self) -> Usage:
        by_status: dict[str, int] = {}
        by_queue: dict[str, dict[str, int]] = {}
        for row in self.store.rows.values():
            by_status[row[STATUS]] = by_status.get(row[STATUS], 0) + 1
            if row[LINE] != Line.NONE:
                lines = by_queue.setdefault(row[QUEUE], {})
                line = Line(row[LINE]).name.lower()
                lines[line] = lines.get(line, 0) + 1
        return Usage(by_status, by_queue, 0, self.store.pruned, self.store.pruned_before)

    def pruned_before(self) -> float | None:
        return self.store.pruned_before

    def _matches(self, row: TaskRow, where: TaskFilter) -> bool:
        return (
            (where.status is None or row[STATUS] in where.status)
            and (where.queue is None or row[QUEUE] == where.queue)
            and (where.task_type is None or row[TYPE] == where.task_type)
            and (where.node is None or row[NODE] == where.node)
            and (where.since is None or row[CREATED_AT] >= where.since)
            and (where.until is None or row[CREATED_AT] < where.until)
            and (where.discarded is None or where.discarded is (row[SEQ] in self.store.discarded))
        )

    # --------------------------------------------------------------------------------------- retention

    def prune(self, before: float, keep: int, limit: int) -> int:
        self._check_epoch()
        store = self.store
        needed = retention.needed_ids(row[OPTIONS] for row in self._line(Line.WAITING))
        ended = [row for row in store.rows.values() if row[LINE] == Line.NONE]
        ended.sort(key=lambda row: (row[COMPLETED_AT] or 0.0, row[SEQ]))
        surplus = len(ended) - keep
        gone = [
            row
            for n, row in enumerate(ended)
            if (n < surplus or (row[COMPLETED_AT] or 0.0) < before) and row[ID] not in needed
        ][:limit]
        for row in gone:
            del store.rows[row[SEQ]]
            del store.seq_of[row[ID]]
            store.keys.pop(row[KEY], None)
            store.discarded.pop(row[SEQ], None)
            store.attempts.pop(row[ID], None)
            store.logs.pop(row[ID], None)
            store.pruned_seq = max(store.pruned_seq, row[SEQ])
        store.pruned += len(gone)
        store.pruned_before = retention.youngest((row[ID] for row in gone), store.pruned_before)
        if len(gone) < limit:
            self._sweep(before)
        return len(gone)

    def _sweep(self, before: float) -> None:
        store = self.store
        schedules = [schedule.task for schedule in store.schedules.values()]
        used = [references(row[OPTIONS])[0] for row in store.rows.values()]
        handlers = retention.handlers_needed(used, store.types.values(), schedules)
        self._sweep_table(store.handlers, handlers, before)
        self._sweep_table(store.blobs, retention.blobs_needed([*store.handlers.values(), *schedules]), before)
        del store.audit[: -retention.AUDIT_ENTRIES]

    def _sweep_table(self, table: dict[str, bytes], needed: set[str], before: float) -> None:
        orphans = self.store.orphans
        mark, unmark, delete = retention.sweep({d: orphans.get(d) for d in table}, needed, before)
        orphans |= dict.fromkeys(mark, before)
        for digest in (*unmark, *delete):
            orphans.pop(digest, None)
        for digest in delete:
            del table[digest]

    # ------------------------------------------------------------------------------------- maintenance

    def maintain(self) -> None:
        """Do nothing: there is nothing to tidy."""

    @property
    def full(self) -> bool:
        """Return False."""
        return False

    def about(self) -> About:
        return About("memory", "this process", "", [])

    def check(self) -> Sentences:
        return []

    def statistics(self) -> dict[str, Any]:
        return {
            "commits": self._commits, "rows": self._written, "seconds": 0.0, "bytes": 0, "wal_bytes": 0,
            "full": False, "epoch": self.epoch,
        }  # fmt: skip


def _over(epoch: int) -> LedgerFenced:
    msg = f"epoch {epoch} is over: a newer coordinator owns this ledger"
    return LedgerFenced(msg, hint="this coordinator must stop")


def _known(row: TaskRow) -> KnownTask:
    return KnownTask(row[ID], row[STATUS], row[DIGEST], row[CAUSE])


def _place(row: TaskRow) -> tuple[float, int]:
    return row[RANK], row[SEQ]
