"""A backup of an instance at work, everything killed, restored into an empty home: nothing is lost."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import psutil
import pytest

import omnimind
from omnimind import config, launch
from omnimind.config.sections import LedgerSettings
from omnimind.errors import AlreadyRunning
from omnimind.instance import Paths, running
from omnimind.ledger import backup as backups
from omnimind.ledger import soundness, transfer
from omnimind.ledger.restore import restore
from omnimind.ledger.stores import epoch_of, quiet
from omnimind.testing.witness import Journal

SETTINGS = LedgerSettings()
SUBMITTER = Path(__file__).with_name("submitter.py")
COUNT = 6_000
SECONDS = 0.004
QUIET = {"ray.num_cpus": "1", "ray.dashboard": "false"}


def acknowledged(journal: Path) -> set[str]:
    return {line.split(" ")[1] for line in journal.read_text().splitlines() if line.startswith("ACK ")}


def kill_everything(home: Path) -> None:
    """Kill the supervisor and all that it has started, at once."""
    record = running(Paths(home))
    assert record is not None
    root = psutil.Process(record.supervisor.pid)
    for process in [root, *root.children(recursive=True)]:
        if process.is_running():
            os.kill(process.pid, signal.SIGKILL)


def until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    give_up = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up, f"waited in vain for {what}"
        time.sleep(0.2)


@pytest.mark.timeout(300)
def test_all_that_was_acknowledged_before_a_backup_is_there_after_it(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    runs, journal = tmp_path / "runs", tmp_path / "sent"
    Journal(runs)
    launch.start(old, config.load(old, QUIET))
    words = [sys.executable, str(SUBMITTER), str(old), str(journal), str(runs), str(COUNT), "0", str(SECONDS)]
    driver = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until(lambda: journal.exists() and len(acknowledged(journal)) > COUNT // 10, 90, "the first tasks")
        before = acknowledged(journal)
        made = backups.make(SETTINGS, old, tmp_path / "backups", quiet)
        done_then = runs.read_text().count("END ")
        # Commits go on while and after it is made.
        until(lambda: len(acknowledged(journal)) > len(before), 60, "further tasks")
        with pytest.raises(AlreadyRunning):
            restore(made, SETTINGS, old, replace=True, progress=quiet)
        with closing(transfer.store_of(SETTINGS, old)) as store:
            assert soundness.check(store, quiet) == []
            at_work = epoch_of(store)
    finally:
        kill_everything(old)
        driver.kill()
        driver.wait(30)
    assert done_then < len(before), "the backup held nothing that was still to be done"
    first = {t["task_id"]: t for t in completed(made.path, sorted(before))}
    shutil.rmtree(old)

    moved = restore(backups.load(made.path), SETTINGS, new, replace=False, progress=quiet)
    assert moved.epoch > at_work
    instance = launch.start(new, config.load(new, QUIET))
    try:
        with omnimind.connect(new) as client:
            ids = sorted(before)

            def all_ended() -> bool:
                status = client.cluster_status()
                return not status["pending_tasks"] and not status["running_tasks"]

            until(all_ended, 120, "the end of all tasks")
            found = {id_: client.task(id_) for id_ in ids}
    finally:
        instance.stop()
    assert {t["status"] for t in found.values()} == {"completed"}
    # What had a result keeps it; what had none has one that an attempt has returned.
    returned: dict[str, set[str]] = {}
    for line in runs.read_text().splitlines():
        words_ = line.split(" ")
        if words_[0] == "END":
            returned.setdefault(words_[1], set()).add(words_[2])
    assert len(first) > 0
    assert len(first) < len(ids)
    for id_, task in found.items():
        assert task["result"] in returned[id_]
        if id_ in first:
            assert task["result"] == first[id_]["result"]


def completed(path: Path, ids: list[str]) -> list[dict[str, str]]:
    """Return which tasks had their result when the backup was made, read from its file by itself."""
    with closing(sqlite3.connect(f"file:{path / 'ledger.db'}?immutable=1", uri=True)) as connection:
        rows = connection.execute("SELECT id, result FROM tasks WHERE status = 'completed'").fetchall()
    wanted = set(ids)
    return [{"task_id": id_, "result": json.loads(result)} for id_, result in rows if id_ in wanted]
