"""Processes that write to a ledger, and what must hold of it after they died.

The writer (`writer.py`) says what was acknowledged; the checks open the ledger and compare. Nobody asks
the dead process's own memory. Tools are asked for by `tool`: a test whose tool is missing is skipped
with the Debian package's name, and with CI=true a skip fails the session.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from omnimind.ledger.sqlite import SqliteLedger
from omnimind.testing.ledger_history import faults

WRITER = Path(__file__).with_name("writer.py")


@pytest.fixture(scope="session")
def tool() -> Callable[[str, str], str]:
    """Return a function from a program's name and its Debian package to its path."""

    def find(name: str, package: str) -> str:
        found = shutil.which(name)
        if found is None:
            pytest.skip(f"{name} is not there (Debian package: {package})")
        return found

    return find


@pytest.fixture(scope="session")
def root() -> None:
    """Skip without the right to mount."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a file system")


class Told:
    """What a writer said before it ended."""

    def __init__(self, returncode: int, stdout: str, stderr: str) -> None:
        self.returncode = returncode
        self.stderr = stderr
        self.lines = stdout.splitlines()
        self.acknowledged = [int(line.split()[1]) for line in self.lines if line.startswith("ack ")]
        self.errors = [line.split(maxsplit=2)[2] for line in self.lines if line.startswith("error ")]
        self.ended = "end" in self.lines

    def __repr__(self) -> str:
        return f"Told({self.returncode}, {self.lines}, {self.stderr[-2000:]!r})"


@pytest.fixture(scope="session")
def writer_command() -> Callable[..., list[str]]:
    """Return a function that makes the command of a writer of steps FIRST to LAST, from (path, options)."""

    def command(path: Path, first: int, last: int, *options: str) -> list[str]:
        return [sys.executable, str(WRITER), str(path), str(first), str(last), *options]

    return command


@pytest.fixture(scope="session")
def run() -> Callable[..., Told]:
    """Return a function that runs a command to its end, with more environment, and returns what it told."""

    def run(command: list[str], **environment: str) -> Told:
        ended = subprocess.run(
            command,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        return Told(ended.returncode, ended.stdout, ended.stderr)

    return run


@pytest.fixture(scope="session")
def check() -> Callable[[Path, list[int]], tuple[int, list[str]]]:
    """Return a function that opens a ledger: how many steps it holds, and what is wrong."""

    def look(path: Path, acknowledged: list[int]) -> tuple[int, list[str]]:
        ledger = SqliteLedger(path, reserve=0)
        ledger.open(10)
        try:
            return faults(ledger, acknowledged)
        finally:
            ledger.close()

    return look


@pytest.fixture(scope="session")
def empty_ledger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the file of a ledger that is migrated and empty."""
    path = tmp_path_factory.mktemp("empty") / "ledger.db"
    ledger = SqliteLedger(path, reserve=0)
    ledger.open(1)
    ledger.close()
    return path


@pytest.fixture
def new_ledger(empty_ledger: Path, tmp_path: Path) -> Callable[[Any], Path]:
    """Return a function that makes an empty ledger in a folder of that name."""

    def copy(name: Any) -> Path:
        folder = tmp_path / str(name)
        folder.mkdir()
        return Path(shutil.copy(empty_ledger, folder))

    return copy
