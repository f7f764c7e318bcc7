"""The simulated disk: what is durable, what a fault leaves, and who may write."""

from __future__ import annotations

import pytest

from omnimind.cluster.records import Records, TaskRow, state_row, task_row
from omnimind.cluster.states import Line, TaskStatus
from omnimind.cluster.task import DistributedTask
from omnimind.errors import LedgerFenced, LedgerFull, LedgerUnavailable
from omnimind.testing.ledger import SimDisk, SimLedger


def a_task(seq: int = 1) -> DistributedTask:
    return DistributedTask(f"tsk_{seq:032x}", "t", b"{}", seq=seq, line=Line.READY, cause="submitted")


def inserted(*tasks: DistributedTask) -> Records:
    return Records(inserts=[task_row(task) for task in tasks])


def opened(disk: SimDisk) -> SimLedger:
    ledger = SimLedger(disk)
    ledger.open(100)
    return ledger


def test_what_was_written_is_there_for_the_next_life() -> None:
    disk = SimDisk()
    opened(disk).write(inserted(a_task(1), a_task(2)))
    recovered = SimLedger(disk).open(1)
    assert (recovered.epoch, recovered.last_seq) == (2, 2)
    assert [task.seq for task in recovered.ready] == [1]
    assert recovered.tails == {"default": 1}


def test_a_life_that_was_replaced_cannot_write() -> None:
    disk = SimDisk()
    old = opened(disk)
    opened(disk)
    with pytest.raises(LedgerFenced):
        old.write(inserted(a_task()))
    assert disk.row(a_task().task_id) is None


@pytest.mark.parametrize(("fault", "error"), [("full", LedgerFull), ("unavailable", LedgerUnavailable)])
def test_a_fault_leaves_nothing_of_a_write(fault: str, error: type[Exception]) -> None:
    disk = SimDisk()
    ledger = opened(disk)
    disk.fault = fault
    with pytest.raises(error):
        ledger.write(inserted(a_task()))
    with pytest.raises(error):
        SimLedger(disk).open(1)
    disk.fault = None
    assert disk.row(a_task().task_id) is None
    ledger.write(inserted(a_task()))


def test_a_full_disk_can_be_read_and_one_that_is_away_cannot() -> None:
    disk = SimDisk()
    ledger = opened(disk)
    ledger.write(inserted(a_task()))
    disk.fault = "full"
    assert len(ledger.tasks([a_task().task_id])) == 1
    disk.fault = "unavailable"
    with pytest.raises(LedgerUnavailable):
        ledger.tasks([a_task().task_id])
    with pytest.raises(LedgerUnavailable):
        ledger.known_keys(["k"])


@pytest.mark.parametrize("written", [True, False])
def test_an_unknown_outcome_may_be_either_and_comes_once(written: bool) -> None:
    disk = SimDisk()
    ledger = opened(disk)
    disk.fault, disk.unknown_commits = "unknown", written
    with pytest.raises(OSError, match="broke"):
        ledger.write(inserted(a_task()))
    assert (disk.row(a_task().task_id) is not None) is written
    ledger.write(inserted(a_task(2)))


def test_each_row_is_shown_with_what_stood_before_also_within_one_transaction() -> None:
    disk = SimDisk()
    seen: list[tuple[str | None, str]] = []

    def watch(before: TaskRow | None, row: TaskRow) -> None:
        column = -15
        seen.append((None if before is None else before[column], row[column]))

    disk.watch = watch
    task = a_task()
    records = inserted(task)
    task.status, task.line, task.cause = TaskStatus.RUNNING, Line.RUNNING, "started"
    records.updates.append(state_row(task))
    task.status, task.line, task.cause = TaskStatus.COMPLETED, Line.NONE, "completed"
    records.updates.append(state_row(task))
    opened(disk).write(records)
    assert seen == [(None, "pending"), ("pending", "running"), ("running", "completed")]
    assert not disk.live
