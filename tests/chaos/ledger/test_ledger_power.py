"""A power cut: what was not synced is gone, or a part of it got to the disk, in any order.

On a file system of our own (`lossy_fs.py`), since SIGKILL alone loses nothing that a program has written.
The control is `synchronous=NORMAL`: it must lose, or this test proves nothing.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from omnimind import failpoints

LOSSY = Path(__file__).with_name("lossy_fs.py")
STEPS = 40


class PowerCut:
    """Runs a writer on the lossy file system and cuts the power after a number of acknowledgements."""

    def __init__(self, unmount: str, folder: Path, writer_command: Callable[..., list[str]]) -> None:
        self._unmount = unmount
        self._folder = folder
        self._writer_command = writer_command

    def __call__(
        self, after: int, *options: str, seed: int | None = None, failpoint: str = ""
    ) -> tuple[Path, list[int]]:
        """Return the ledger as the disk holds it afterwards, and what was acknowledged.

        failpoint: where the writer dies by itself, instead.
        """
        number = len(list(self._folder.iterdir()))
        mount, kept = self._folder / f"mount{number}", self._folder / f"kept{number}"
        mount.mkdir()
        kept.mkdir()
        command = [sys.executable, str(LOSSY), str(mount), str(kept)]
        files = subprocess.Popen(
            [*command, str(seed)] if seed is not None else command, stderr=subprocess.PIPE
        )
        try:
            wait_for(lambda: os.path.ismount(mount) or files.poll() is not None)
            assert files.poll() is None, files.communicate()
            acknowledged = self._write(mount / "ledger.db", after, options, failpoint)
        finally:
            subprocess.run([self._unmount, "-u", str(mount)], check=False, capture_output=True)
            errors = files.communicate(timeout=30)[1]
        assert files.returncode == 0, errors
        return kept / "ledger.db", acknowledged

    def _write(self, path: Path, after: int, options: tuple[str, ...], failpoint: str) -> list[int]:
        command = self._writer_command(path, 0, STEPS, *options)
        environment = {**os.environ, failpoints.VARIABLE: failpoint}
        with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as writer:
            assert writer.stdout is not None
            told = b""
            while f"ack {after - 1}\n".encode() not in told:
                ready, _, _ = select.select([writer.stdout], [], [], 30)
                part = os.read(writer.stdout.fileno(), 65536) if ready else b""
                assert part, told
                told += part
            writer.kill()
            told += writer.stdout.read()
        return [int(line.split()[1]) for line in told.decode().splitlines() if line.startswith("ack ")]


def wait_for(condition: Callable[[], Any]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.fixture
def cut_power(
    tool: Callable[[str, str], str], tmp_path: Path, writer_command: Callable[..., list[str]]
) -> PowerCut:
    unmount = tool("fusermount3", "fuse3")
    if not os.access("/dev/fuse", os.W_OK):
        pytest.skip(
            "/dev/fuse may not be used (start the container with --device /dev/fuse --cap-add SYS_ADMIN)"
        )
    return PowerCut(unmount, tmp_path, writer_command)


@pytest.mark.parametrize("after", [1, 20])
@pytest.mark.parametrize("checkpoint", [(), ("--checkpoint", "3")], ids=["plain", "checkpoints"])
def test_what_was_acknowledged_survives(
    cut_power: PowerCut, check: Any, after: int, checkpoint: tuple[str, ...]
) -> None:
    path, acknowledged = cut_power(after, *checkpoint)
    assert len(acknowledged) >= after
    found, wrong = check(path, acknowledged)
    assert wrong == []
    assert len(acknowledged) <= found <= len(acknowledged) + 1


@pytest.mark.parametrize("seed", range(3))
def test_a_disk_that_wrote_a_part_in_any_order_changes_nothing(
    cut_power: PowerCut, check: Any, seed: int
) -> None:
    path, acknowledged = cut_power(7 + seed, "--checkpoint", "3", seed=seed)
    found, wrong = check(path, acknowledged)
    assert wrong == []
    assert len(acknowledged) <= found <= len(acknowledged) + 1


def test_the_control_loses(cut_power: PowerCut, check: Any) -> None:
    """The same writer without a sync at each commit; were nothing lost, these tests would mean nothing."""
    path, acknowledged = cut_power(20, "--synchronous", "NORMAL")
    found, wrong = check(path, acknowledged)
    assert found < len(acknowledged)
    assert wrong == [f"step {step} was acknowledged and is lost" for step in range(found, len(acknowledged))]


def test_the_check_sees_an_acknowledgement_before_the_write(cut_power: PowerCut, check: Any) -> None:
    path, acknowledged = cut_power(10, "--plant-ack-first", failpoint="ledger.before_commit=kill@10")
    assert check(path, acknowledged) == (9, ["step 9 was acknowledged and is lost"])
