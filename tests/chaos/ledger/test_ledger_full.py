"""A full disk: new tasks are refused, nothing acknowledged is lost, all goes on when there is room again."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from omnimind.errors import LedgerFull
from omnimind.ledger import sqlite_database
from omnimind.ledger.interface import TaskFilter
from omnimind.ledger.sqlite import SqliteLedger
from omnimind.testing.rows import a_task, ended, id_of, inserts, updates

RESERVE = 512 << 10

Calls = Callable[..., Any]


@pytest.fixture
def disk(root: None, tool: Calls, tmp_path: Path) -> Iterator[Path]:
    """Return a folder with 2 MiB of space."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount, unmount = tool("mount", "mount"), tool("umount", "mount")
    subprocess.run([mount, "-t", "tmpfs", "-o", "size=2m", "omnimind-test", str(folder)], check=True)
    yield folder
    subprocess.run([unmount, "--lazy", str(folder)], check=True)


@pytest.fixture
def ledger(disk: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SqliteLedger]:
    # As on a real disk the reserve is twice what the log may hold.
    monkeypatch.setattr(sqlite_database, "CHECKPOINT_PAGES", 60)
    ledger = SqliteLedger(disk / "ledger.db", reserve=RESERVE)
    ledger.open(1000)
    yield ledger
    ledger.close()


def remount(disk: Path, size: str) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", str(disk)], check=True)


def fill(ledger: SqliteLedger, first: int = 1, size: int = 4000) -> int:
    """Write tasks one by one until the disk is full; return the number of the first that was refused."""
    number = first
    while True:
        try:
            ledger.write(inserts(a_task(number, payload=b"x" * size)))
        except LedgerFull:
            return number
        number += 1
        assert number < 10_000


def numbers(ledger: SqliteLedger) -> list[int]:
    return sorted(row[0] for row in ledger.list(TaskFilter(), None, 100_000).rows)


def test_what_was_acknowledged_is_there_and_nothing_else(ledger: SqliteLedger) -> None:
    refused = fill(ledger)
    assert refused > 10
    assert numbers(ledger) == list(range(1, refused))
    assert ledger.check() == []
    assert ledger.full is True


def test_a_large_transaction_is_refused_whole(ledger: SqliteLedger) -> None:
    ledger.write(inserts(a_task(1)))
    many = inserts(*(a_task(n, payload=b"x" * 4000) for n in range(2, 1000)))
    many.extend(updates(ended(a_task(1))))
    with pytest.raises(LedgerFull) as caught:
        ledger.write(many)
    assert "free space" in caught.value.hint
    assert [row[14] for row in ledger.tasks([id_of(n) for n in range(1, 1000)])] == ["pending"]
    assert ledger.check() == []


def test_running_tasks_can_still_end(ledger: SqliteLedger) -> None:
    """That is what the reserve is for: the next refusal would be of work that was done."""
    refused = fill(ledger)
    for number in range(1, refused):
        ledger.write(updates(ended(a_task(number, payload=b"x" * 4000))))
    assert ledger.usage().by_status == {"completed": refused - 1}
    with pytest.raises(LedgerFull):
        ledger.write(inserts(a_task(refused)))


def test_an_end_is_written_even_if_it_is_the_first_to_find_the_disk_full(
    ledger: SqliteLedger, disk: Path
) -> None:
    ledger.write(inserts(*(a_task(n) for n in range(1, 101))))
    (disk / "other").write_bytes(b"x" * free_bytes(disk))
    for number in range(1, 101):
        ledger.write(updates(ended(a_task(number), result=b"r" * 500)))
    assert ledger.full is True
    assert ledger.usage().by_status == {"completed": 100}


def free_bytes(disk: Path) -> int:
    found = subprocess.run(
        ["stat", "-f", "-c", "%a %S", str(disk)], check=True, capture_output=True, text=True
    )
    blocks, size = found.stdout.split()
    return int(blocks) * int(size)


def test_reads_and_retention_go_on(ledger: SqliteLedger) -> None:
    refused = fill(ledger)
    done = refused // 2
    ledger.write(updates(*(ended(a_task(n, payload=b"x" * 4000)) for n in range(1, done))))
    assert len(ledger.ready("default", (float("-inf"), 0), 10_000)) == refused - done
    assert ledger.prune(9e9, 0, 10_000) == done - 1
    assert ledger.check() == []


def test_the_log_is_carried_into_the_database(ledger: SqliteLedger) -> None:
    refused = fill(ledger)
    ledger.maintain()
    assert ledger.statistics()["wal_bytes"] == 0
    assert numbers(ledger) == list(range(1, refused))


def test_a_restart_on_a_full_disk_takes_over(ledger: SqliteLedger) -> None:
    refused = fill(ledger)
    for _ in range(3):
        found = ledger.open(1000)
        assert len(found.ready) == refused - 1
        assert ledger.full is True
        with pytest.raises(LedgerFull):
            ledger.write(inserts(a_task(refused)))
    ledger.write(updates(ended(a_task(1, payload=b"x" * 4000))))


def test_a_restart_that_finds_no_room_for_its_epoch_uses_the_reserve(disk: Path) -> None:
    """Filled by others, after a shutdown: there is not even a page for the log."""
    ledger = SqliteLedger(disk / "ledger.db", reserve=RESERVE)
    ledger.open(10)
    ledger.write(inserts(a_task(1)))
    ledger.close()
    (disk / "other").write_bytes(b"x" * free_bytes(disk))
    found = ledger.open(10)
    assert (found.epoch, len(found.ready)) == (2, 1)
    assert ledger.full is True
    ledger.close()


def test_it_heals_when_there_is_room_again(ledger: SqliteLedger, disk: Path) -> None:
    refused = fill(ledger)
    remount(disk, "8m")
    assert ledger.full is True
    ledger.write(inserts(a_task(refused)))
    assert ledger.full is False
    again = fill(ledger, refused + 1)
    assert again > refused + 10
    remount(disk, "16m")
    ledger.maintain()
    assert ledger.full is False
    assert Path(f"{ledger.path}.reserve").stat().st_size == RESERVE
    assert numbers(ledger) == list(range(1, again))


def test_without_a_reserve_nothing_is_lost_either(disk: Path) -> None:
    ledger = SqliteLedger(disk / "ledger.db", reserve=0)
    ledger.open(10)
    refused = fill(ledger)
    assert numbers(ledger) == list(range(1, refused))
    remount(disk, "8m")
    ledger.write(inserts(a_task(refused)))
    ledger.close()
