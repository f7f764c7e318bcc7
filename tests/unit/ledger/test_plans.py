"""Each hot read is a range scan of an index: that is what a million rows need.

Without statistics (nobody runs ANALYZE), so what SQLite plans here it plans for every ledger. Counts walk
an index; older versions of SQLite do not call it covering, since its condition names a column, but seek in
the table only for columns that are read.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from omnimind.cluster.states import Line, TaskStatus
from omnimind.ledger import statements as sql
from omnimind.ledger.interface import TaskFilter
from omnimind.ledger.sqlite import SqliteLedger
from omnimind.testing.rows import a_task, ended, inserts


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[SqliteLedger]:
    ledger = SqliteLedger(tmp_path / "ledger.db", reserve=0)
    ledger.open(1)
    ledger.write(inserts(*(a_task(n, deadline=5.0, key=f"k{n}") for n in range(1, 50))))
    ledger.write(inserts(*(a_task(n, line=Line.DELAYED) for n in range(50, 60))))
    ledger.write(inserts(*(ended(a_task(n), TaskStatus.FAILED) for n in range(60, 99))))
    yield ledger
    ledger.close()


def plan_of(ledger: SqliteLedger, statement: str, values: Sequence[object]) -> list[str]:
    connection = sqlite3.connect(ledger.path)
    try:
        return [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}", values)]
    finally:
        connection.close()


def by_id(statement: str) -> str:
    return next(sql.among(statement, ["x"]))[0]


READS = {
    "ready": (sql.READY, ("q", 1.0, 2, 10), "tasks USING INDEX tasks_ready (queue=? AND rank>?)"),
    "delayed": (sql.DELAYED, (1.0, 2, 10), "tasks USING INDEX tasks_held (line=? AND rank>?)"),
    "waiting": (sql.HELD, (2,), "tasks USING INDEX tasks_held (line=?)"),
    "overdue": (sql.OVERDUE, (1.0, 10), "tasks USING INDEX tasks_deadline (deadline>? AND deadline<?)"),
    "tasks": (by_id(sql.TASKS_BY_ID), ("x",), "tasks USING INDEX tasks_id (id=?)"),
    "known_ids": (by_id(sql.KNOWN_BY_ID), ("x",), "tasks USING INDEX tasks_id (id=?)"),
    "known_keys": (by_id(sql.KNOWN_BY_KEY), ("x",), "tasks USING INDEX tasks_key (key=?)"),
    "find": (sql.FIND, ("a", "b", 10), "tasks USING COVERING INDEX tasks_id (id>? AND id<?)"),
    "attempts": (sql.ATTEMPTS, ("x",), "attempts USING INDEX attempts_task (task_id=?)"),
    "logs": (sql.LOGS, ("x", 1, 10), "logs USING PRIMARY KEY (task_id=? AND number>?)"),
    "last log": (sql.LAST_LOG, ("x",), "tasks USING COVERING INDEX tasks_id (id=?)"),
}


@pytest.mark.parametrize(("statement", "values", "expected"), READS.values(), ids=READS)
def test_a_read_seeks_in_its_index(
    ledger: SqliteLedger, statement: str, values: tuple[object, ...], expected: str
) -> None:
    plan = plan_of(ledger, statement, values)
    assert f"SEARCH {expected}" in plan, plan
    assert not [step for step in plan if "SCAN" in step and "CONSTANT" not in step], plan
    assert not [step for step in plan if "TEMP B-TREE" in step], plan


COUNTS = {
    "ready": (sql.COUNT_READY, "SCAN tasks USING INDEX tasks_ready"),
    "by end": (sql.COUNT_BY_END, "SCAN tasks USING INDEX tasks_ended"),
    "ended": (sql.COUNT_ENDED, "SCAN tasks USING INDEX tasks_ended"),
    "held": (sql.COUNT_HELD, "SEARCH tasks USING INDEX tasks_held (line>?)"),
    "delayed": (sql.COUNT_DELAYED, "SEARCH tasks USING INDEX tasks_held (line=?)"),
}


@pytest.mark.parametrize(("statement", "expected"), COUNTS.values(), ids=COUNTS)
def test_a_count_walks_an_index(ledger: SqliteLedger, statement: str, expected: str) -> None:
    plan = [step.replace("COVERING ", "") for step in plan_of(ledger, statement, ())]
    assert expected in plan


def test_the_first_ready_tasks_are_chosen_from_the_index(ledger: SqliteLedger) -> None:
    plan = [step.replace("COVERING ", "") for step in plan_of(ledger, sql.FIRST_READY, (10,))]
    assert "SCAN tasks USING INDEX tasks_ready" in plan
    assert "SEARCH tasks USING INTEGER PRIMARY KEY (rowid=?)" in plan


def test_pruning_reads_no_more_than_it_deletes(ledger: SqliteLedger) -> None:
    plan = plan_of(ledger, sql.OLDEST_ENDED, (10,))
    assert plan.count("SEARCH tasks USING INDEX tasks_ended (status=?)") == 5, plan


@pytest.mark.parametrize(
    ("where", "index"),
    [
        (TaskFilter(), "SCAN tasks"),
        (TaskFilter(status=("dead",)), "SEARCH tasks USING INDEX tasks_ended (status=?)"),
        (TaskFilter(status=("running",)), "SEARCH tasks USING INDEX tasks_held (line=?)"),
        (TaskFilter(status=("failed",), discarded=False), "SEARCH tasks USING INDEX tasks_ended (status=?)"),
    ],
    ids=["all", "dead", "running", "undiscarded"],
)
def test_a_listing_reads_the_shortest_way(ledger: SqliteLedger, where: TaskFilter, index: str) -> None:
    [query] = ledger._listings(where, None, 10)
    assert index in plan_of(ledger, *query)


def test_a_listing_of_few_pending_tasks_reads_their_lines(ledger: SqliteLedger) -> None:
    plans = [plan_of(ledger, *q) for q in ledger._listings(TaskFilter(status=("pending",)), None, 10)]
    assert [plan[0].partition(" INDEX ")[2].split()[0] for plan in plans] == ["tasks_ready", "tasks_held"]


def test_the_hot_update_seeks_by_number(ledger: SqliteLedger) -> None:
    values = [None] * sql.UPDATE_DONE.count("?")
    assert plan_of(ledger, sql.UPDATE_DONE, values) == ["SEARCH tasks USING INTEGER PRIMARY KEY (rowid=?)"]
