from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from omnimind import failpoints
from omnimind.failpoints import arm, failpoint, parse


@pytest.fixture(autouse=True)
def disarmed() -> Iterator[None]:
    yield
    arm("")


def test_a_text_names_actions_and_visits() -> None:
    assert parse("a.b=kill@3, c=raise,") == {"a.b": ("kill", 3), "c": ("raise", 1)}
    assert parse("d=sleep:0.5") == {"d": ("sleep:0.5", 1)}
    assert parse("") == {}


@pytest.mark.parametrize("text", ["a", "a=", "a=die", "a=kill@x"])
def test_a_text_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"none|invalid literal"):
        parse(text)


def test_an_unarmed_failpoint_only_counts() -> None:
    arm("")
    failpoint("x")
    failpoint("x")
    assert failpoints.hits["x"] == 2


def test_it_happens_at_the_visit_that_was_named_and_no_other() -> None:
    arm("x=raise@2")
    failpoint("x")
    with pytest.raises(OSError, match="failpoint x"):
        failpoint("x")
    failpoint("x")


def test_it_can_wait() -> None:
    arm("x=sleep:0.02")
    start = time.monotonic()
    failpoint("x")
    assert time.monotonic() - start >= 0.02


def test_it_kills_by_the_variable() -> None:
    code = "from omnimind.failpoints import failpoint; failpoint('x'); print('alive')"
    environment = {failpoints.VARIABLE: "x=kill"}
    ended = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=False)
    assert (ended.returncode, ended.stdout) == (-9, b"")
