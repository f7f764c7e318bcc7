"""What is particular to the SQLite ledger: its files, its settings, its errors, its readers."""

from __future__ import annotations

import os
import pickle
import sqlite3
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from omnimind import failpoints
from omnimind.errors import (
    LedgerCorrupt,
    LedgerError,
    LedgerFull,
    LedgerUnavailable,
    OmniMindError,
    from_problem,
)
from omnimind.ledger import sqlite as sqlite_module
from omnimind.ledger import sqlite_database
from omnimind.ledger.interface import TaskFilter
from omnimind.ledger.sqlite import SqliteLedger
from omnimind.ledger.sqlite_errors import as_ours
from omnimind.ledger.sqlite_files import Reserve
from omnimind.testing.rows import a_task, ended, id_of, inserts, row, updates


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[SqliteLedger]:
    ledger = SqliteLedger(tmp_path / "home" / "ledger.db", reserve=1 << 16)
    ledger.open(100)
    yield ledger
    failpoints.arm("")
    ledger.close()


def test_only_the_owner_may_read_any_of_it(ledger: SqliteLedger) -> None:
    ledger.write(inserts(a_task(1)))
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in ledger.path.parent.iterdir()}
    assert modes == dict.fromkeys(
        ("ledger.db", "ledger.db-wal", "ledger.db-shm", "ledger.db.reserve"), 0o600
    ), modes
    assert stat.S_IMODE(ledger.path.parent.stat().st_mode) == 0o700


def test_an_open_mode_is_closed(ledger: SqliteLedger) -> None:
    ledger.path.chmod(0o644)
    ledger.open(1)
    assert stat.S_IMODE(ledger.path.stat().st_mode) == 0o600


def test_commits_are_durable_by_setting(ledger: SqliteLedger) -> None:
    """`tests/chaos/test_ledger_power.py` sees that these are the settings that lose nothing."""
    read = ledger._database.writer.execute
    assert read("PRAGMA journal_mode").fetchone() == ("wal",)
    assert read("PRAGMA synchronous").fetchone() == (2,)


def test_the_log_is_bounded_by_checkpoints(ledger: SqliteLedger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_database, "CHECKPOINT_PAGES", 50)
    ledger.open(1)
    for n in range(1, 400):
        ledger.write(inserts(a_task(n, payload=b"x" * 1000)))
    assert ledger.statistics()["wal_bytes"] < 100 * 4200
    ledger.maintain()
    assert ledger.statistics()["wal_bytes"] == 0


def test_a_reader_that_stays_cannot_make_the_log_grow_for_ever(
    ledger: SqliteLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_database, "CHECKPOINT_PAGES", 10)
    monkeypatch.setattr(sqlite_module, "WAL_MOST", 100_000)
    ledger.open(1)
    reader = sqlite3.connect(ledger.path, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM tasks").fetchone()
    for n in range(1, 100):
        ledger.write(inserts(a_task(n, payload=b"x" * 1000)))
    assert ledger.statistics()["wal_bytes"] > 200_000, "the reader did not hold the log"
    reader.close()
    for n in range(100, 170):
        ledger.write(inserts(a_task(n, payload=b"x" * 1000)))
    assert ledger.statistics()["wal_bytes"] < 150_000


def test_reads_see_what_is_committed_while_a_write_is_on_its_way(ledger: SqliteLedger) -> None:
    ledger.write(inserts(a_task(1)))
    at_commit, go_on = threading.Event(), threading.Event()
    real = failpoints.failpoint

    def wait(name: str) -> None:
        real(name)
        if name == "ledger.before_commit":
            at_commit.set()
            assert go_on.wait(10)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sqlite_module, "failpoint", wait)
        writer = threading.Thread(target=ledger.write, args=(inserts(a_task(2)),))
        writer.start()
        assert at_commit.wait(10)
        try:
            assert [r[0] for r in ledger.list(TaskFilter(), None, 10).rows] == [1]
        finally:
            go_on.set()
            writer.join()
    assert [r[0] for r in ledger.list(TaskFilter(), None, 10).rows] == [2, 1]


def test_many_threads_may_read(ledger: SqliteLedger) -> None:
    ledger.write(inserts(*(a_task(n) for n in range(1, 100))))
    wrong: list[object] = []

    def read() -> None:
        for n in range(1, 100):
            found = ledger.tasks([id_of(n)])
            if found != [row(a_task(n))]:
                wrong.append(found)

    threads = [threading.Thread(target=read) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_ledger_may_be_read_without_being_opened(ledger: SqliteLedger) -> None:
    ledger.write(inserts(a_task(1)))
    onlooker = SqliteLedger(ledger.path)
    assert onlooker.tasks([id_of(1)]) == [row(a_task(1))]
    onlooker.close()
    ledger.write(inserts(a_task(2)))


def test_a_write_needs_an_open_ledger(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="not open"):
        SqliteLedger(tmp_path / "ledger.db").write(inserts(a_task(1)))


# ------------------------------------------------------------------------------------------------ errors


def test_what_cannot_be_stored_is_refused_and_the_ledger_goes_on(ledger: SqliteLedger) -> None:
    for bad in (a_task(1, task_type="\ud800"), a_task(1, fence=1 << 64), a_task(1, rank=float("nan"))):
        with pytest.raises(LedgerError):
            ledger.write(inserts(a_task(2), bad))
    ledger.write(inserts(a_task(2)))
    assert [r[0] for r in ledger.list(TaskFilter(), None, 10).rows] == [2]


@pytest.mark.parametrize("name", ["ledger.before_begin", "ledger.after_inserts", "ledger.before_commit"])
def test_after_an_error_of_the_system_nothing_is_written_until_it_is_opened_again(
    ledger: SqliteLedger, name: str
) -> None:
    failpoints.arm(f"{name}=raise")
    with pytest.raises(LedgerError):
        ledger.write(inserts(a_task(1)))
    with pytest.raises(LedgerError, match="outcome is unknown"):
        ledger.write(inserts(a_task(2)))
    with pytest.raises(LedgerError, match="outcome is unknown"):
        ledger.prune(9e9, 0, 1)
    ledger.maintain()
    assert ledger.open(10).ready == []
    ledger.write(inserts(a_task(1)))


def test_an_error_after_the_commit_is_an_unknown_outcome(ledger: SqliteLedger) -> None:
    failpoints.arm("ledger.after_commit=raise")
    with pytest.raises(LedgerError):
        ledger.write(inserts(a_task(1)))
    with pytest.raises(LedgerError, match="outcome is unknown"):
        ledger.write(inserts(a_task(2)))
    assert [t.seq for t in ledger.open(10).ready] == [1]


def test_an_interrupt_passes_through_and_undoes(ledger: SqliteLedger) -> None:
    def interrupt(_name: str) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sqlite_module, "failpoint", interrupt)
        with pytest.raises(KeyboardInterrupt):
            ledger.write(inserts(a_task(1)))
    ledger.write(inserts(a_task(1)))


def an_error(code: int) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("it says")
    error.sqlite_errorcode = code
    error.sqlite_errorname = f"CODE_{code}"
    return error


@pytest.mark.parametrize(
    ("code", "expected", "mend"),
    [
        (sqlite3.SQLITE_FULL, LedgerFull, "free space"),
        (sqlite3.SQLITE_BUSY, LedgerUnavailable, "end the process"),
        (sqlite3.SQLITE_BUSY_SNAPSHOT, LedgerUnavailable, "end the process"),
        (sqlite3.SQLITE_READONLY, LedgerUnavailable, "writable"),
        (sqlite3.SQLITE_CANTOPEN, LedgerUnavailable, "writable"),
        (sqlite3.SQLITE_CORRUPT, LedgerCorrupt, ".recover"),
        (sqlite3.SQLITE_NOTADB, LedgerCorrupt, ".recover"),
        (sqlite3.SQLITE_IOERR_FSYNC, LedgerError, "disk"),
        (sqlite3.SQLITE_NOMEM, LedgerError, ""),
    ],
)
def test_each_error_of_sqlite_becomes_one_of_ours(
    tmp_path: Path, code: int, expected: type[OmniMindError], mend: str
) -> None:
    ours = as_ours(an_error(code), tmp_path / "ledger.db")
    assert type(ours) is expected
    assert mend in ours.hint
    assert str(tmp_path) in ours.message
    again = pickle.loads(pickle.dumps(ours))
    assert type(again) is type(from_problem(ours.to_problem())) is expected
    assert str(again) == str(ours)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LedgerUnavailable, match="cannot be opened") as caught:
        SqliteLedger(tmp_path / "file" / "ledger.db").open(1)
    assert "writable" in caught.value.hint


# ----------------------------------------------------------------------------------------------- reserve


def test_the_reserve_is_kept_and_given_back(tmp_path: Path) -> None:
    reserve = Reserve(tmp_path / "x", 1 << 16)
    assert reserve.release() is False
    assert reserve.take() is True
    assert (tmp_path / "x").stat().st_blocks * 512 >= 1 << 16, "not allocated"
    assert reserve.take() is True
    assert reserve.release() is True
    assert not (tmp_path / "x").exists()


def test_no_reserve_is_taken_where_there_is_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = os.statvfs(tmp_path)
    reserve = Reserve(tmp_path / "x", free.f_bavail * free.f_frsize)
    assert reserve.take() is False
    assert not (tmp_path / "x").exists()


def test_while_it_is_full_only_new_tasks_are_refused(
    ledger: SqliteLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real thing is in `tests/chaos/test_ledger_full.py`."""
    ledger.write(inserts(a_task(1)))
    task = ended(a_task(1))
    ledger._full = True
    monkeypatch.setattr(Reserve, "take", lambda _self: False)
    with pytest.raises(LedgerFull) as caught:
        ledger.write(inserts(a_task(2)))
    assert caught.value.retry_after is not None
    ledger.write(updates(task))
    ledger.maintain()
    assert ledger.full is True
    assert ledger.statistics()["full"] is True
    monkeypatch.undo()
    ledger.maintain()
    assert ledger.full is False
    ledger.write(inserts(a_task(2)))


def test_a_new_ledgers_name_is_made_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite syncs the bytes of a database, but not the folders that lead to it."""
    synced: list[str] = []
    real = os.fsync

    def fsync(handle: int) -> None:
        synced.append(str(Path(f"/proc/self/fd/{handle}").readlink()))
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    ledger = SqliteLedger(tmp_path / "home" / "ledger.db", reserve=0)
    ledger.open(1)
    assert synced == [str(tmp_path / "home"), str(tmp_path)]
    ledger.open(1)
    assert len(synced) == 2
    ledger.close()
