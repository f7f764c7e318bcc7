"""Files that are torn, garbled, locked or read-only: the committed beginning, or a clear word."""

from __future__ import annotations

import random
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from omnimind.errors import LedgerCorrupt, LedgerError, LedgerUnavailable, OmniMindError
from omnimind.ledger.sqlite import SqliteLedger
from omnimind.testing.ledger_history import faults, transaction
from omnimind.testing.rows import a_task, id_of, inserts

STEPS = 12
Calls = Callable[..., Any]


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a ledger as a crash leaves it: six steps in the database, six in the log."""
    folder = tmp_path_factory.mktemp("image")
    ledger = SqliteLedger(folder / "ledger.db", reserve=0)
    ledger.open(1)
    for step in range(STEPS):
        ledger.write(transaction(step))
        if step == STEPS // 2 - 1:
            ledger.maintain()
    left = folder / "left"
    left.mkdir()
    for suffix in ("", "-wal"):
        shutil.copy(f"{ledger.path}{suffix}", left)
    ledger.close()
    return left


@pytest.fixture
def copy(image: Path, tmp_path: Path) -> Calls:
    def make(name: Any = "copy") -> Path:
        return Path(shutil.copytree(image, tmp_path / str(name))) / "ledger.db"

    return make


def found_in(path: Path) -> int:
    """Return how many steps a ledger holds, after seeing that they are whole and the first ones."""
    ledger = SqliteLedger(path, reserve=0)
    ledger.open(1)
    try:
        count, wrong = faults(ledger, list(range(STEPS)))
        assert [w for w in wrong if "is lost" not in w] == []
        ledger.write(transaction(count))
        return count
    finally:
        ledger.close()


def test_a_log_cut_short_holds_the_committed_beginning(copy: Calls) -> None:
    assert found_in(copy()) == STEPS
    size = (copy("size").with_name("ledger.db-wal")).stat().st_size
    counts = []
    for number, length in enumerate(range(0, size + 1, size // 24)):
        path = copy(number)
        with path.with_name("ledger.db-wal").open("r+b") as wal:
            wal.truncate(length)
        counts.append(found_in(path))
    assert counts == sorted(counts), "a longer log holds less"
    assert counts[0] == STEPS // 2
    assert len(set(counts)) > STEPS // 3


def test_a_garbled_log_holds_the_committed_beginning(copy: Calls) -> None:
    chance = random.Random(1)
    counts = []
    for number in range(16):
        path = copy(number)
        with path.with_name("ledger.db-wal").open("r+b") as wal:
            wal.seek(chance.randrange(wal.seek(0, 2) - 64))
            wal.write(chance.randbytes(64))
        counts.append(found_in(path))
    assert min(counts) >= STEPS // 2
    assert len(set(counts)) > 2


def test_a_lost_log_holds_what_was_carried_over(copy: Calls) -> None:
    path = copy()
    path.with_name("ledger.db-wal").unlink()
    assert found_in(path) == STEPS // 2


def damage(path: Path, offset: int, data: bytes) -> None:
    path.with_name("ledger.db-wal").unlink()
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


@pytest.mark.parametrize(
    ("offset", "data"),
    [(0, b"no SQLite file at all"), (100, b"\xff" * 200), (0, b"\0" * 8192)],
    ids=["header", "first page", "zeroes"],
)
def test_a_damaged_start_is_named(copy: Calls, offset: int, data: bytes) -> None:
    path = copy()
    damage(path, offset, data)
    before = path.read_bytes()
    ledger = SqliteLedger(path, reserve=0)
    with pytest.raises(OmniMindError) as caught:
        ledger.open(1)
    ledger.close()
    assert isinstance(caught.value, LedgerCorrupt), caught.value
    assert str(path) in caught.value.message
    assert ".recover" in caught.value.hint
    assert path.read_bytes() == before, "evidence was overwritten"


def test_damage_within_is_found_by_the_check_or_the_first_read(copy: Calls) -> None:
    named = 0
    for page in range(4, 40, 3):
        path = copy(page)
        damage(path, page * 4096, b"\xa5" * 4096)
        ledger = SqliteLedger(path, reserve=0)
        try:
            ledger.open(100)
            found = ledger.check()
        except LedgerCorrupt:
            found = ["LedgerCorrupt"]
        finally:
            ledger.close()
        named += bool(found)
    assert named == len(range(4, 40, 3))


def test_a_corrupt_ledger_takes_no_more_writes(copy: Calls) -> None:
    path = copy()
    ledger = SqliteLedger(path, reserve=0)
    ledger.open(1)
    ledger.maintain()
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xa5" * (path.stat().st_size - 4096))
    ledger._database.writer.execute("PRAGMA shrink_memory")
    with pytest.raises(LedgerCorrupt):
        ledger.write(inserts(a_task(1000)))
    with pytest.raises(LedgerCorrupt):
        ledger.write(inserts(a_task(1001)))
    ledger.close()


# ------------------------------------------------------------------------------------------------- locks


HOLD = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def another_process_holds(path: Path) -> Iterator[int]:
    command = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        try:
            yield process.pid
        finally:
            process.communicate()


def test_a_lock_is_named_with_its_holder(new_ledger: Calls) -> None:
    ledger = SqliteLedger(new_ledger("x"), lock_timeout=0.1, reserve=0)
    with another_process_holds(ledger.path) as pid, pytest.raises(LedgerUnavailable) as caught:
        ledger.open(1)
    assert f"{pid} (python" in caught.value.hint, caught.value
    assert caught.value.retryable
    ledger.open(1)
    with another_process_holds(ledger.path) as pid:
        with pytest.raises(LedgerUnavailable) as caught:
            ledger.write(inserts(a_task(1)))
        assert str(pid) in caught.value.hint
        assert ledger.tasks([id_of(1)]) == [], "reads go on"
    ledger.write(inserts(a_task(1)))
    ledger.close()


def test_a_reader_and_a_backup_do_not_lock_it(new_ledger: Calls, tmp_path: Path) -> None:
    ledger = SqliteLedger(new_ledger("x"), lock_timeout=0.1, reserve=0)
    ledger.open(1)
    reader = sqlite3.connect(ledger.path, isolation_level=None)
    reader.execute("BEGIN")
    assert reader.execute("SELECT count(*) FROM tasks").fetchone() == (0,)
    ledger.write(inserts(a_task(1)))
    with sqlite3.connect(tmp_path / "backup.db") as backup:
        reader.backup(backup)
    ledger.write(inserts(a_task(2)))
    reader.close()
    backup.close()
    ledger.close()


# --------------------------------------------------------------------------------------------- read-only


@pytest.fixture
def read_only(root: None, tool: Calls, new_ledger: Calls, tmp_path: Path) -> Iterator[Path]:
    """Return a ledger on a file system that is mounted read-only."""
    source = new_ledger("source")
    folder = tmp_path / "mount"
    folder.mkdir()
    mount, unmount = tool("mount", "mount"), tool("umount", "mount")
    subprocess.run([mount, "-t", "tmpfs", "omnimind-test", str(folder)], check=True)
    shutil.copy(source, folder)
    subprocess.run([mount, "-o", "remount,ro", str(folder)], check=True)
    yield folder / "ledger.db"
    subprocess.run([unmount, "--lazy", str(folder)], check=True)


def test_a_read_only_ledger_says_so(read_only: Path) -> None:
    ledger = SqliteLedger(read_only)
    with pytest.raises(LedgerUnavailable) as caught:
        ledger.open(1)
    assert "writable" in caught.value.hint
    ledger.close()


def test_a_new_ledger_in_a_read_only_folder_says_so(read_only: Path) -> None:
    ledger = SqliteLedger(read_only.parent / "sub" / "ledger.db")
    with pytest.raises(LedgerUnavailable, match="cannot be opened"):
        ledger.open(1)


def test_a_folder_in_the_ledgers_place_says_so(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").mkdir()
    with pytest.raises((LedgerUnavailable, LedgerError)) as caught:
        SqliteLedger(tmp_path / "ledger.db").open(1)
    assert str(tmp_path) in str(caught.value)
