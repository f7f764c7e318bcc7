from __future__ import annotations

import math
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks.recovery import evaluate
from benchmarks.recovery.__main__ import _plan
from benchmarks.recovery.trials import BOUND, Times
from benchmarks.recovery.work import Witness, work


def times(*seconds: float | None) -> Times:
    made = Times()
    for one in seconds:
        made.add(one)
    return made


RESULTS = {
    ("cut", "omnimind"): times(5.0, 5.5, 6.0),
    ("cut", "ray_tuned"): times(6.0, 7.0, 8.0),
    ("cut", "ray_default"): times(None, None, 64.0),
    ("coordinator", "omnimind"): times(1.0, 6.0),
}


def test_figures_name_the_worst_what_it_must_be_and_the_ratio_to_tuned_ray() -> None:
    found = {f.name: f for f in evaluate.figures(RESULTS)}
    assert found["recovery.cut.omnimind.worst"].value == 6.0
    assert found["recovery.cut.omnimind.worst"].holds is True
    assert found["recovery.coordinator.omnimind.worst"].holds is False
    assert found["recovery.cut.ratio.p50"].value == pytest.approx(5.5 / 7.0)
    assert found["recovery.cut.ratio.worst"].holds is True
    assert "recovery.coordinator.ratio.p50" not in found
    assert all(f.suite == evaluate.SUITE and not math.isnan(f.value) for f in found.values())


def test_a_trial_that_was_given_up_is_said_so() -> None:
    found = {f.name: f for f in evaluate.figures(RESULTS)}
    assert found["recovery.cut.ray_default.p50"].value == BOUND
    assert "2 of them took longer than 120 s" in found["recovery.cut.ray_default.p50"].note
    console = Console(width=140, record=True, quiet=False, file=Path("/dev/null").open("w"))  # noqa: SIM115
    console.print(evaluate.table(RESULTS))
    text = console.export_text()
    console.file.close()
    assert "> 120 / > 120 (3)" in text
    assert "5.50 / 6.00 (3)" in text


def test_the_plan_has_few_trials_where_each_takes_minutes() -> None:
    whole = _plan(20, (), ())
    assert whole["worker", "ray_default"] == 20
    assert whole["cut", "ray_default"] == 3
    assert whole["head", "omnimind"] == 5
    assert ("coordinator", "ray_tuned") not in whole
    assert _plan(2, ("cut",), ("omnimind",)) == {("cut", "omnimind"): 2}


def test_the_second_attempt_is_done_at_once_and_the_witness_saw_both(tmp_path: Path) -> None:
    witness = Witness(tmp_path)
    witness.release("a")
    work(str(tmp_path), "a")
    (tmp_path / "go-a").unlink()
    work(str(tmp_path), "a")
    assert [line.what for line in witness.lines("a")] == ["START", "END", "START", "END"]
    found = witness.wait("a", "END", count=2, seconds=1)
    assert found is not None
    assert found.at == witness.lines("a")[-1].at
    assert witness.wait("b", "END", seconds=0) is None
