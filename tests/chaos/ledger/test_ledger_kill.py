"""SIGKILL between any two system calls of a commit, and at each failpoint.

A killed program loses nothing that it has written, so this proves the order of things (acknowledged after
the commit, nothing half written); `test_ledger_power.py` proves the disk's half.
OMNIMIND_TEST_KILL_EVERY=1 kills at every write, not at every fourth.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import omnimind.ledger
from omnimind import failpoints

STEPS = 4
EVERY = int(os.environ.get("OMNIMIND_TEST_KILL_EVERY", "4"))
FAILPOINTS = (
    "ledger.before_takeover",
    "ledger.before_begin",
    "ledger.after_inserts",
    "ledger.after_updates",
    "ledger.before_commit",
    "ledger.after_commit",
)

Calls = Callable[..., Any]


class Sweep:
    """Runs writers under strace, each on a new ledger, and kills them at the n-th call on its files."""

    def __init__(self, strace: str, run: Calls, writer_command: Calls, new_ledger: Calls) -> None:
        self._strace = strace
        self._run = run
        self._writer_command = writer_command
        self._new_ledger = new_ledger

    def _under(self, path: Path, call: str, out: str, *options: str) -> Any:
        files = [word for suffix in ("", "-wal") for word in ("-P", f"{path}{suffix}")]
        command = [self._strace, "-f", "-qq", *files, "-o", out, "-e", f"trace={call}"]
        writer = self._writer_command(path, 0, STEPS, "--checkpoint", "2")
        return lambda *more: self._run([*command, *options, *writer, *more])

    def count(self, call: str, folder: Path) -> int:
        """Return how often a writer makes this call when nobody kills it."""
        trace = folder / "trace"
        told = self._under(self._new_ledger(f"{call}-whole"), call, str(trace))()
        assert told.ended, told
        return Counter(re.findall(r"^\d+ +(\w+)\(", trace.read_text(), re.MULTILINE))[call]

    def kill(self, call: str, number: int, *options: str) -> tuple[Path, Any]:
        """Return the ledger of a writer that was killed at its n-th call, and what it had told."""
        path = self._new_ledger(f"{call}-{number}")
        inject = f"inject={call}:signal=KILL:when={number}"
        told = self._under(path, call, os.devnull, "-e", inject)(*options)
        assert not told.ended, f"{call} {number} did not happen: {told}"
        return path, told


@pytest.fixture
def sweep(tool: Callable[[str, str], str], run: Calls, writer_command: Calls, new_ledger: Calls) -> Sweep:
    return Sweep(tool("strace", "strace"), run, writer_command, new_ledger)


@pytest.mark.parametrize(("call", "every"), [("pwrite64", EVERY), ("fdatasync", 1)])
def test_killed_at_a_system_call(sweep: Sweep, check: Calls, tmp_path: Path, call: str, every: int) -> None:
    total = sweep.count(call, tmp_path)
    assert total >= STEPS, "the writer's calls were not seen"
    extra = Counter[int]()
    for number in range(1, total + 1, every):
        path, told = sweep.kill(call, number)
        found, wrong = check(path, told.acknowledged)
        assert wrong == [], f"killed at {call} {number}"
        extra[found - len(told.acknowledged)] += 1
    assert set(extra) <= {0, 1}, "more was found than was on its way"
    assert extra[0] >= STEPS
    if call == "fdatasync":
        assert extra[1], "no kill fell between a commit and its acknowledgement"


def test_the_check_sees_an_acknowledgement_before_the_write(
    sweep: Sweep, check: Calls, tmp_path: Path
) -> None:
    total = sweep.count("pwrite64", tmp_path)
    seen = []
    for number in range(total // 2, total, total // 8):
        path, told = sweep.kill("pwrite64", number, "--plant-ack-first")
        seen += check(path, told.acknowledged)[1]
    assert [w for w in seen if "acknowledged and is lost" in w]


@pytest.mark.parametrize("name", FAILPOINTS)
def test_killed_at_a_failpoint(
    run: Calls, check: Calls, writer_command: Calls, new_ledger: Calls, name: str
) -> None:
    path = new_ledger(name)
    at_opening = name == "ledger.before_takeover"
    visit = 1 if at_opening else 3
    told = run(writer_command(path, 0, STEPS), **{failpoints.VARIABLE: f"{name}=kill@{visit}"})
    assert told.returncode == -9, f"{name} was not hit: {told}"
    found, wrong = check(path, told.acknowledged)
    assert wrong == []
    # Step 0 has no updates.
    before = 0 if at_opening else visit - 1 + (name == "ledger.after_updates")
    assert told.acknowledged == list(range(before))
    assert found == before + (name == "ledger.after_commit")


def test_each_failpoint_of_the_ledger_is_killed_at() -> None:
    folder = Path(omnimind.ledger.__file__).parent
    texts = [path.read_text(encoding="utf-8") for path in folder.rglob("*.py")]
    # Those of transfers, backups and shards have tests of their own.
    found = {name for text in texts for name in re.findall(r'failpoint\("(ledger\.[^"]+)"\)', text)}
    assert found == set(FAILPOINTS)
