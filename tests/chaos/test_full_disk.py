"""The disk under a whole instance fills up: new work is refused, what was accepted goes on, reads too."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import omnimind
from omnimind.errors import LedgerFull


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a file system of 160 MiB, and give the folder where it is."""
    home = tmp_path / "home"
    home.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=160m", "tmpfs", str(home)], check=True)
    try:
        yield home
    finally:
        subprocess.run(["umount", "--lazy", str(home)], check=True)


def fill(home: Path) -> Path:
    """Take every free byte."""
    filler = home / "filler"
    size = 65_536
    fd = os.open(filler, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        while size:
            try:
                os.write(fd, b"\0" * size)
            except OSError:
                size //= 2
    finally:
        os.close(fd)
    return filler


@pytest.mark.usefixtures("small_disk")
def test_a_full_disk_refuses_new_work_and_loses_none(small_disk: Path, cluster: Any, tmp_path: Path) -> None:
    assert cluster.home == small_disk
    om = cluster.client
    gate = tmp_path / "gate"

    def wait_for(path: str, n: int) -> int:
        while not os.path.exists(path):  # noqa: PTH110
            time.sleep(0.05)
        return n

    accepted = [om.submit(wait_for, path=str(gate), n=n) for n in range(8)]
    cluster.until(lambda: om.cluster_status()["running_tasks"], "the first to start")
    filler = fill(small_disk)
    refused: LedgerFull | None = None
    for n in range(2_000):
        # What the database has in hand already is used up first.
        try:
            accepted.append(om.submit(wait_for, path=str(gate), n=n, timeout=60))
        except LedgerFull as error:
            refused = error
            break
        fill(small_disk)
    assert refused is not None
    assert (refused.status, refused.retryable) == (507, True)
    assert "free space" in refused.hint
    # Reads go on, and so does the work.
    assert om.cluster_status()["total_nodes"] == 1
    assert om.status(accepted[0]) in {"pending", "running"}
    gate.touch()
    assert accepted[0].result(timeout=60) == 0
    filler.unlink()

    def takes_work() -> bool:
        try:
            return bool(om.submit(wait_for, path=str(gate), n=7).result(timeout=60) == 7)
        except omnimind.Refused:
            return False

    cluster.until(takes_work, "work to be taken again")
    for handle in accepted:
        assert handle.result(timeout=60) >= 0
