"""EIO from the disk, once and from then on: what was acknowledged stays, and nothing is written blindly.

After a failed fsync the kernel may have dropped the pages and say "written" the next time. So the ledger
refuses every further write until it is opened again and reads what is really there.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

STEPS = 6
Calls = Callable[..., Any]


@pytest.fixture
def with_errors(tool: Calls, run: Calls, writer_command: Calls) -> Calls:
    """Return a function that runs a writer whose n-th call of a kind on its files fails."""
    strace = tool("strace", "strace")

    def run_with(path: Path, calls: str, when: str, *options: str) -> Any:
        files = [word for suffix in ("", "-wal") for word in ("-P", f"{path}{suffix}")]
        inject = f"inject={calls}:error=EIO:when={when}"
        under = [strace, "-f", "-qq", *files, "-o", os.devnull, "-e", f"trace={calls}", "-e", inject]
        return run([*under, *writer_command(path, 0, STEPS, *options)])

    return run_with


@pytest.mark.parametrize("when", [3, 5])
@pytest.mark.parametrize("calls", ["fdatasync,fsync", "pwrite64"])
def test_one_error_costs_one_opening(
    with_errors: Calls, check: Calls, new_ledger: Calls, calls: str, when: int
) -> None:
    path = new_ledger("x")
    number = when if calls != "pwrite64" else 12 * when
    told = with_errors(path, calls, str(number), "--open-again")
    assert len(told.errors) == 1, told
    assert told.errors[0].startswith("LedgerError"), told
    assert "dmesg" in told.errors[0], told
    assert told.ended, told
    assert told.acknowledged == list(range(STEPS))
    assert check(path, told.acknowledged) == (STEPS, [])


def test_an_error_from_then_on_ends_in_a_clear_refusal(
    with_errors: Calls, check: Calls, new_ledger: Calls
) -> None:
    path = new_ledger("x")
    told = with_errors(path, "fdatasync,fsync", "4+", "--open-again")
    assert told.acknowledged
    assert not told.ended
    assert [line for line in told.lines if line.startswith("closed LedgerError")], told
    found, wrong = check(path, told.acknowledged)
    assert wrong == []
    assert found <= len(told.acknowledged) + 1


def test_without_opening_again_nothing_more_is_written(
    with_errors: Calls, check: Calls, new_ledger: Calls
) -> None:
    path = new_ledger("x")
    told = with_errors(path, "fdatasync,fsync", "4")
    assert len(told.errors) == 1
    found, wrong = check(path, told.acknowledged)
    assert wrong == []
    assert found <= len(told.acknowledged) + 1
