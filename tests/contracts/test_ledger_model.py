"""Random histories on each ledger, compared after every step with a model that is a dict of tasks.

The model knows tasks as objects and sorts and filters them in the plainest way; it shares no code with
the ledgers. A crash is a ledger object that is dropped and another one opened on the same storage.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from omnimind.cluster.records import CheckpointSaved, Discarded, LogSaved, Records, task_row
from omnimind.cluster.states import TERMINAL, Line, TaskStatus
from omnimind.cluster.task import DistributedTask
from omnimind.errors import LedgerError, LedgerFenced
from omnimind.ledger.interface import Ledger, TaskFilter
from omnimind.ledger.memory import MemoryLedger
from omnimind.ledger.memory_store import Store
from omnimind.ledger.opening import open_ledger
from omnimind.ledger.sqlite import SqliteLedger
from omnimind.testing.postgres import PostgresServer
from omnimind.testing.rows import START, a_task, id_of, inserts, updates

FIRST = (float("-inf"), 0)
QUEUES = ("a", "b")

_fields = st.fixed_dictionaries(
    {
        "queue": st.sampled_from(QUEUES),
        "rank": st.sampled_from([-1.0, 0.0, 0.5, 7.0]),
        "line": st.sampled_from([Line.READY, Line.READY, Line.DELAYED, Line.WAITING]),
        "deadline": st.none() | st.integers(0, 5).map(float),
        "payload": st.sampled_from([b"[]", b"x" * 1025, None]),
        "after": st.lists(st.integers(1, 6), max_size=2),
    }
)


class LedgerModel(RuleBasedStateMachine):
    """Drives a ledger and the model alike."""

    def __init__(self) -> None:
        super().__init__()
        self.tasks: dict[int, DistributedTask] = {}
        self.attempts: dict[int, list[int]] = {}
        self.lines: dict[int, list[str]] = {}
        self.discarded: set[int] = set()
        self.next = 1
        self.epoch = 0
        self.pruned = 0
        self.youngest_pruned: float | None = None
        self.old: Ledger | None = None
        self.ledger = self.make()

    def make(self) -> Ledger:
        raise NotImplementedError

    @initialize()
    def open_first(self) -> None:
        self.ledger.open(5)
        self.epoch += 1

    def live(self, *lines: Line) -> list[DistributedTask]:
        return [task for task in self.tasks.values() if task.line in lines]

    # ------------------------------------------------------------------------------------------- steps

    @rule(several=st.lists(_fields, min_size=1, max_size=4), keyed=st.booleans())
    def submit(self, several: list[dict[str, Any]], keyed: bool) -> None:
        tasks: list[DistributedTask] = []
        for drawn in several:
            key = f"k{self.next % 7}" if keyed else None
            if any(task.key == key for task in [*self.tasks.values(), *tasks]):
                key = None
            # Parents are those of long ago, which end and would be pruned.
            waits = drawn["line"] == Line.WAITING
            fields = {**drawn, "after": tuple(id_of(n) for n in drawn["after"]) if waits else ()}
            tasks.append(a_task(self.next, key=key, **fields))
            self.next += 1
        self.ledger.write(inserts(*tasks))
        self.tasks |= {task.seq: task for task in tasks}

    @precondition(lambda self: self.live(Line.READY, Line.DELAYED))
    @rule(data=st.data())
    def start(self, data: st.DataObject) -> None:
        task = data.draw(st.sampled_from(self.live(Line.READY, Line.DELAYED)))
        task.line, task.status, task.fence = Line.RUNNING, TaskStatus.RUNNING, task.fence + 1
        task.assigned_node = "n1"
        self.ledger.write(updates(task))

    @precondition(lambda self: self.live(*[line for line in Line if line is not Line.NONE]))
    @rule(data=st.data(), status=st.sampled_from([*TERMINAL, TaskStatus.COMPLETED]), at=st.integers(0, 50))
    def end(self, data: st.DataObject, status: TaskStatus, at: int) -> None:
        held = self.live(*[line for line in Line if line is not Line.NONE])
        several = data.draw(
            st.lists(st.sampled_from(held), unique_by=lambda t: t.seq, min_size=1, max_size=3)
        )
        for task in several:
            task.line, task.status, task.cause = Line.NONE, status, status.value
            task.completed_at = START + at
        self.ledger.write(updates(*several))

    @precondition(lambda self: self.live(Line.RUNNING))
    @rule(data=st.data())
    def retry(self, data: st.DataObject) -> None:
        task = data.draw(st.sampled_from(self.live(Line.RUNNING)))
        attempt = (task.task_id, task.retry_count, task.fence, "n1", "error", "E", None, 1.0, None)
        task.line, task.status, task.rank = Line.DELAYED, TaskStatus.PENDING, 3.0
        task.retry_count += 1
        records = updates(task)
        records.attempts.append(attempt)
        self.ledger.write(records)
        self.attempts.setdefault(task.seq, []).append(attempt[1])

    @precondition(lambda self: self.tasks)
    @rule(data=st.data(), text=st.sampled_from(["x", "y\0z", "ü"]))
    def note(self, data: st.DataObject, text: str) -> None:
        task = data.draw(st.sampled_from([*self.tasks.values()]))
        task.checkpoint = text.encode()
        self.ledger.write(
            Records(
                others=[
                    CheckpointSaved(task.seq, task.checkpoint),
                    LogSaved(task.task_id, 1, ((1.0, "info", text),)),
                    Discarded(task.seq, 1.0),
                ]
            )
        )
        self.lines.setdefault(task.seq, []).append(text)
        self.discarded.add(task.seq)

    @precondition(lambda self: self.tasks)
    @rule(data=st.data())
    def submit_twice(self, data: st.DataObject) -> None:
        task = data.draw(st.sampled_from([*self.tasks.values()]))
        fresh = a_task(self.next)
        try:
            self.ledger.write(inserts(fresh, msgspec.structs.replace(a_task(task.seq), key=None)))
        except LedgerError:
            return
        raise AssertionError("a task was written twice")

    @rule(before=st.integers(0, 50), keep=st.sampled_from([0, 3, 1000]), limit=st.sampled_from([1, 100]))
    def prune(self, before: int, keep: int, limit: int) -> None:
        needed = {i for task in self.live(Line.WAITING) for i in task.after}
        ended = sorted(
            (task.completed_at or 0.0, task.seq) for task in self.tasks.values() if task.line is Line.NONE
        )
        surplus = len(ended) - keep
        gone = [
            seq
            for n, (at, seq) in enumerate(ended)
            if (n < surplus or at < START + before) and self.tasks[seq].task_id not in needed
        ][:limit]
        assert self.ledger.prune(START + before, keep, limit) == len(gone)
        for seq in gone:
            self.youngest_pruned = max(self.youngest_pruned or 0.0, START + seq)
            del self.tasks[seq]
            self.attempts.pop(seq, None)
            self.lines.pop(seq, None)
            self.discarded.discard(seq)
        self.pruned += len(gone)

    @rule(window=st.integers(0, 6), quiet=st.booleans())
    def restart(self, window: int, quiet: bool) -> None:
        old = self.ledger
        if quiet:
            old.close()
        if self.old is not None:
            self.old.close()
        self.ledger = self.make()
        found = self.ledger.open(window)
        self.old = None if quiet else old
        self.epoch += 1
        assert found.epoch == self.epoch
        assert found.last_seq == self.next - 1
        ready, delayed = self.ordered(Line.READY), self.ordered(Line.DELAYED)
        assert [t.seq for t in found.ready] == [t.seq for t in ready[:window]]
        assert [t.seq for t in found.delayed] == [t.seq for t in delayed[:window]]
        assert found.tails == Counter(t.queue for t in ready[window:])
        assert found.delayed_tails == Counter(t.queue for t in delayed[window:])
        waiting = self.ordered(Line.WAITING)
        assert [t.seq for t in found.waiting] == [t.seq for t in waiting]
        assert [t.seq for t in found.running] == [t.seq for t in self.ordered(Line.RUNNING)]
        known = {t.task_id for t in self.tasks.values()} & {i for t in waiting for i in t.after}
        assert set(found.known_ids) == known
        for task in (*found.ready, *found.delayed, *found.waiting, *found.running):
            assert task_row(task) == task_row(self.tasks[task.seq])

    @precondition(lambda self: self.old is not None)
    @rule()
    def the_predecessor_is_refused(self) -> None:
        assert self.old is not None
        try:
            self.old.write(inserts(a_task(self.next)))
        except LedgerFenced:
            return
        raise AssertionError("a predecessor wrote")

    @rule()
    def maintain(self) -> None:
        self.ledger.maintain()

    # -------------------------------------------------------------------------------------- comparison

    def ordered(self, line: Line) -> list[DistributedTask]:
        return sorted(self.live(line), key=lambda t: (t.rank, t.seq))

    @invariant()
    def rows_are_equal(self) -> None:
        if not self.epoch:
            return
        rows = self.ledger.tasks([id_of(n) for n in range(1, self.next)])
        assert sorted(r[0] for r in rows) == sorted(self.tasks)
        assert all(r == task_row(self.tasks[r[0]]) for r in rows)

    @invariant()
    def lines_are_equal(self) -> None:
        if not self.epoch:
            return
        for queue in QUEUES:
            expected = [t.seq for t in self.ordered(Line.READY) if t.queue == queue]
            assert [r[0] for r in self.ledger.ready(queue, FIRST, 100)] == expected
            if expected:
                first = self.tasks[expected[0]]
                after = self.ledger.ready(queue, (first.rank, first.seq), 2)
                assert [r[0] for r in after] == expected[1:3]
        assert [r[0] for r in self.ledger.delayed(FIRST, 100)] == [t.seq for t in self.ordered(Line.DELAYED)]
        late = [
            (t.deadline, t.seq)
            for t in self.tasks.values()
            if t.status is TaskStatus.PENDING and t.deadline is not None and t.deadline <= 3
        ]
        assert [r[0] for r in self.ledger.overdue(3.0, 100)] == [seq for _, seq in sorted(late)]

    @invariant()
    def listings_and_figures_are_equal(self) -> None:
        if not self.epoch:
            return
        newest = sorted(self.tasks, reverse=True)
        assert [r[0] for r in self.ledger.list(TaskFilter(), None, 1000).rows] == newest
        ended_badly = ("failed", "dead")
        page = self.ledger.list(TaskFilter(status=ended_badly, discarded=False), None, 1000)
        expected = [n for n in newest if self.tasks[n].status in ended_badly and n not in self.discarded]
        assert [r[0] for r in page.rows] == expected
        usage = self.ledger.usage()
        assert usage.by_status == Counter(t.status.value for t in self.tasks.values())
        assert (usage.pruned, usage.pruned_before) == (self.pruned, self.youngest_pruned)
        keys = {t.key: t.task_id for t in self.tasks.values() if t.key is not None}
        known = self.ledger.known_keys([f"k{n}" for n in range(7)])
        assert {key: fact.task_id for key, fact in known.items()} == keys

    @invariant()
    def what_belongs_to_a_task_is_equal(self) -> None:
        if not self.epoch:
            return
        for seq in range(1, self.next):
            name = id_of(seq)
            assert [a[1] for a in self.ledger.attempts(name)] == self.attempts.get(seq, [])
            assert [text for *_, text in self.ledger.logs(name, 0, 100)] == self.lines.get(seq, [])

    def teardown(self) -> None:
        assert self.ledger.check() == []
        self.ledger.close()
        if self.old is not None:
            self.old.close()


class MemoryModel(LedgerModel):
    def make(self) -> Ledger:
        self.store = getattr(self, "store", None) or Store()
        return MemoryLedger(self.store)


class SqliteModel(LedgerModel):
    def make(self) -> Ledger:
        if not hasattr(self, "place"):
            self.place = tempfile.TemporaryDirectory()
        return SqliteLedger(Path(self.place.name) / "ledger.db", reserve=0)

    def teardown(self) -> None:
        super().teardown()
        self.place.cleanup()


class PostgresModel(LedgerModel):
    server: ClassVar[PostgresServer]

    def make(self) -> Ledger:
        if not hasattr(self, "url"):
            self.server.execute("DROP SCHEMA IF EXISTS omnimind CASCADE", "model")
            self.url = self.server.url("model")
        return open_ledger(self.url, Path())


_common = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow], "derandomize": True}

MemoryModel.TestCase.settings = settings(max_examples=150, stateful_step_count=40, **_common)  # type: ignore[arg-type]
TestMemoryLedger = MemoryModel.TestCase

SqliteModel.TestCase.settings = settings(max_examples=40, stateful_step_count=30, **_common)  # type: ignore[arg-type]
TestSqliteLedger = SqliteModel.TestCase


PostgresModel.TestCase.settings = settings(max_examples=8, stateful_step_count=30, **_common)  # type: ignore[arg-type]


@pytest.mark.usefixtures("model_database")
class TestPostgresLedger(PostgresModel.TestCase):  # type: ignore[misc, valid-type]
    pass


@pytest.fixture(scope="module")
def model_database(postgres: PostgresServer) -> None:
    postgres.create("model")
    PostgresModel.server = postgres
