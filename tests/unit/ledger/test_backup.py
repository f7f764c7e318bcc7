"""Backups: refused when altered, whole or not there at all, and gone in their time."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from omnimind import failpoints, ownership
from omnimind.config.sections import LedgerSettings
from omnimind.errors import AlreadyRunning, BackupDamaged, Conflict, LedgerCorrupt, LedgerFull
from omnimind.instance import Paths
from omnimind.ledger import backup as backups
from omnimind.ledger import transfer
from omnimind.ledger.interface import TaskFilter
from omnimind.ledger.opening import open_ledger
from omnimind.ledger.restore import restore
from omnimind.ledger.stores import epoch_of, quiet
from omnimind.testing.rows import a_task, ended, inserts

SETTINGS = LedgerSettings()
TASKS = 3_000


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a home with a ledger and one backup of it."""
    home = tmp_path_factory.mktemp("original")
    ledger = open_ledger("", home)
    ledger.open(10)
    ledger.write(inserts(*(a_task(n) if n % 2 else ended(a_task(n)) for n in range(1, TASKS + 1))))
    ledger.close()
    backups.make(SETTINGS, home, home / "backups", quiet)
    return home


@pytest.fixture
def made(original: Path, tmp_path: Path) -> Path:
    """Return a copy of the backup, to be spoilt."""
    found = backups.listed(original / "backups")[0]
    return Path(shutil.copytree(found.path, tmp_path / found.name))


def count(home: Path) -> int:
    with closing(open_ledger("", home)) as ledger:
        return len(ledger.list(TaskFilter(), None, TASKS * 2).rows)


def refused(path: Path, home: Path) -> None:
    with pytest.raises(BackupDamaged):
        restore(backups.load(path), SETTINGS, home, replace=False, progress=quiet)
    assert not list(home.glob("**/*ledger*"))


@pytest.mark.parametrize("name", ["ledger.db", backups.MANIFEST])
@pytest.mark.parametrize("seed", range(12))
def test_a_bit_that_was_altered_is_noticed(name: str, seed: int, made: Path, tmp_path: Path) -> None:
    chance = random.Random(seed)
    data = bytearray((made / name).read_bytes())
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    (made / name).write_bytes(data)
    refused(made, tmp_path / "home")


@pytest.mark.parametrize("name", ["ledger.db", backups.MANIFEST])
@pytest.mark.parametrize("part", [0.0, 0.3, 0.999])
def test_a_file_that_was_cut_is_noticed(name: str, part: float, made: Path, tmp_path: Path) -> None:
    data = (made / name).read_bytes()
    (made / name).write_bytes(data[: int(len(data) * part)])
    refused(made, tmp_path / "home")


def test_a_file_that_is_missing_is_noticed(made: Path, tmp_path: Path) -> None:
    (made / "ledger.db").unlink()
    refused(made, tmp_path / "home")


def test_whoever_owns_the_home_keeps_it(made: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    paths = Paths(home)
    paths.run.mkdir(parents=True)
    with ownership.Lock(paths), pytest.raises(AlreadyRunning, match="owned"):
        restore(backups.load(made), SETTINGS, home, replace=True, progress=quiet)
    restore(backups.load(made), SETTINGS, home, replace=True, progress=quiet)
    assert count(home) == TASKS


def test_a_damaged_ledger_gives_no_backup(original: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    data = bytearray((original / "ledger.db").read_bytes())
    data[len(data) // 2 : len(data) // 2 + 4096] = b"\xaa" * 4096
    (home / "ledger.db").write_bytes(data)
    with pytest.raises(LedgerCorrupt):
        backups.make(SETTINGS, home, home / "backups", quiet)
    assert backups.listed(home / "backups") == []
    assert [p.name for p in (home / "backups").iterdir()] == [".lock"]


def test_two_at_once_do_not_meet(original: Path, tmp_path: Path) -> None:
    folder = tmp_path / "backups"

    def again(_what: str, _done: int, _total: int) -> None:
        with pytest.raises(Conflict, match="another backup"):
            backups.make(SETTINGS, original, folder, quiet)

    backups.make(SETTINGS, original, folder, again)
    assert len(backups.listed(folder)) == 1


def a_backup(name: str, made_at: float) -> backups.Backup:
    manifest = backups.Manifest(
        omnimind="", kind="sqlite", revision="", epoch=1, made_at=made_at, shards=[0], counts={}, files={}
    )
    return backups.Backup(Path(name), manifest)


@pytest.mark.parametrize(
    ("keep", "age", "gone"),
    [
        (None, None, ""),
        (2, None, "cd"),
        (1, None, "bcd"),
        (9, None, ""),
        (None, 25.0, "cd"),
        (None, 0.0, "bcd"),
        (3, 35.0, "d"),
        (3, 15.0, "bcd"),
    ],
)
def test_the_newest_stays_whatever_the_bounds(keep: int | None, age: float | None, gone: str) -> None:
    there = [a_backup(name, 100.0 - 10 * n) for n, name in enumerate("abcd", 1)]
    assert [b.name for b in backups.surplus(there, keep, age, 100.0 + 1)] == list(gone)


def test_old_ones_are_removed_and_other_files_are_not(original: Path, tmp_path: Path) -> None:
    folder = tmp_path / "backups"
    for _ in range(3):
        backups.make(SETTINGS, original, folder, quiet)
    (folder / "mine").mkdir()
    there = backups.listed(folder)
    assert len(there) == 3
    backups.remove(folder, backups.surplus(there, 1, None, 1e12))
    assert [b.name for b in backups.listed(folder)] == [there[0].name]
    assert (folder / "mine").is_dir()
    assert len(list(folder.iterdir())) == 3


# ------------------------------------------------------------------------------------- killed on the way

BACKUP = """
import sys; from pathlib import Path; from omnimind.config.sections import LedgerSettings
from omnimind.ledger import backup; from omnimind.ledger.stores import quiet
backup.PAGES = 5
backup.make(LedgerSettings(), Path(sys.argv[1]), Path(sys.argv[2]), quiet)
"""
RESTORE = """
import sys; from pathlib import Path; from omnimind.config.sections import LedgerSettings
from omnimind.ledger import backup, restore; from omnimind.ledger.stores import quiet
found = backup.load(Path(sys.argv[2]))
restore.restore(found, LedgerSettings(), Path(sys.argv[1]), replace=True, progress=quiet)
"""
IMPORT = """
import sys; from pathlib import Path; from omnimind.config.sections import LedgerSettings
from omnimind.ledger import transfer; from omnimind.ledger.stores import quiet
transfer.import_file(Path(sys.argv[2]), LedgerSettings(), Path(sys.argv[1]), quiet)
"""
EXPORT = """
import sys; from pathlib import Path; from omnimind.config.sections import LedgerSettings
from omnimind.ledger import transfer; from omnimind.ledger.stores import quiet
transfer.export(transfer.store_of(LedgerSettings(), Path(sys.argv[1])), Path(sys.argv[2]), quiet)
"""


def killed(code: str, point: str, *words: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, words)],
        env={failpoints.VARIABLE: f"{point}=kill", "PATH": ""},
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == -9, done.stderr


@pytest.mark.parametrize("point", ["backup.before_copy", "backup.after_pages", "backup.before_rename"])
def test_a_backup_that_is_killed_leaves_none_by_half(point: str, original: Path, tmp_path: Path) -> None:
    folder = tmp_path / "backups"
    killed(BACKUP, f"{point}", original, folder)
    assert backups.listed(folder) == []
    assert backups.make(SETTINGS, original, folder, quiet).manifest.tasks() == TASKS
    assert len(list(folder.iterdir())) == 2, "what the killed one left is cleared away"


@pytest.mark.parametrize("point", ["restore.after_portion", "transfer.before_publish"])
def test_a_restore_that_is_killed_leaves_the_ledger_that_was_there(
    point: str, original: Path, made: Path, tmp_path: Path
) -> None:
    home = Path(shutil.copytree(original, tmp_path / "home"))
    with closing(open_ledger("", home)) as ledger:
        ledger.open(1)
        ledger.write(inserts(a_task(90_000)))
    killed(RESTORE, point, home, made)
    assert count(home) == TASKS + 1
    restore(backups.load(made), SETTINGS, home, replace=True, progress=quiet)
    assert count(home) == TASKS
    assert not list(home.glob(".ledger*"))


def test_a_restore_that_is_killed_at_its_end_has_happened(made: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    killed(RESTORE, "transfer.after_publish", home, made)
    assert count(home) == TASKS
    with closing(transfer.store_of(SETTINGS, home)) as store:
        assert epoch_of(store) > backups.load(made).manifest.epoch


@pytest.mark.parametrize("point", ["transfer.after_rows", "transfer.before_publish"])
def test_an_import_that_is_killed_leaves_no_ledger(point: str, original: Path, tmp_path: Path) -> None:
    home, path = tmp_path / "home", tmp_path / "x.omnimind"
    with closing(transfer.store_of(SETTINGS, original)) as store:
        transfer.export(store, path, quiet)
    killed(IMPORT, point, home, path)
    with closing(transfer.store_of(SETTINGS, home)) as store:
        assert list(store.shards) == []
    transfer.import_file(path, SETTINGS, home, quiet)
    assert count(home) == TASKS


@pytest.mark.parametrize("point", ["transfer.after_item", "transfer.before_rename"])
def test_an_export_that_is_killed_leaves_no_file(point: str, original: Path, tmp_path: Path) -> None:
    killed(EXPORT, point, original, tmp_path / "x.omnimind")
    assert not (tmp_path / "x.omnimind").exists()


# ------------------------------------------------------------------------------------------- a full disk


@pytest.fixture
def small_disk(tmp_path: Path) -> Path:
    folder = tmp_path / "small"
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)], check=False, capture_output=True
    )
    if done.returncode:
        pytest.skip(f"a small disk cannot be mounted: {done.stderr.decode()}")
    return folder


@pytest.fixture
def mounted(small_disk: Path) -> object:
    yield small_disk
    subprocess.run(["umount", "--lazy", str(small_disk)], check=True)


def test_a_full_disk_leaves_no_half_backup(original: Path, mounted: Path) -> None:
    with pytest.raises(LedgerFull) as caught:
        backups.make(SETTINGS, original, mounted / "backups", quiet)
    assert "free space" in caught.value.hint
    assert [p.name for p in (mounted / "backups").iterdir()] == [".lock"]


def test_a_full_disk_leaves_no_half_restore(made: Path, mounted: Path) -> None:
    with pytest.raises(LedgerFull):
        restore(backups.load(made), SETTINGS, mounted / "home", replace=False, progress=quiet)
    assert not list((mounted / "home").glob("**/*ledger*"))


def test_a_full_disk_leaves_no_half_export(original: Path, mounted: Path) -> None:
    (mounted / "filler").write_bytes(bytes(240 << 10))
    with closing(transfer.store_of(SETTINGS, original)) as store, pytest.raises(LedgerFull):
        transfer.export(store, mounted / "x.omnimind", quiet)
    assert [p.name for p in mounted.iterdir()] == ["filler"]


def test_a_manifest_can_be_read_by_a_person(made: Path) -> None:
    text = (made / backups.MANIFEST).read_text()
    known = msgspec.json.decode(text)
    assert known["counts"]["0"]["tasks"] == TASKS
    assert len(text.splitlines()) > 10
