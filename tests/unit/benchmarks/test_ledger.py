"""The suite `ledger`: ratios are of medians, and the measurement of a ledger alone writes what it says."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import ledger
from omnimind.ledger.opening import open_ledger


def an_answer(rate: float, seconds: float) -> dict[str, object]:
    return {"instance": rate, "insert": seconds / 2, "end": seconds / 2, "latency": [0.002, 0.001, 0.004]}


def test_the_ratio_is_that_of_the_medians() -> None:
    rounds = {
        "sqlite": [an_answer(1000, 1e-5), an_answer(9000, 1e-5), an_answer(1100, 1e-5)],
        "postgres": [an_answer(770, 2e-5), an_answer(10, 2e-5), an_answer(880, 2e-5)],
    }
    found = {figure.name: figure for figure in ledger.evaluate(rounds)}
    assert found["ledger.postgres.ratio"].rounded == 0.7
    assert found["ledger.postgres.ratio"].holds
    assert found["ledger.postgres.alone_ratio"].rounded == 0.5
    assert found["ledger.sqlite.p50"].rounded == 2.0
    rounds["postgres"][0]["instance"] = 769
    assert not {f.name: f for f in ledger.evaluate(rounds)}["ledger.postgres.ratio"].holds


def test_alone_writes_every_task_and_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "_ALONE", 500)
    assert set(ledger.alone(open_ledger("", tmp_path))) == {"insert", "end"}
    again = open_ledger("", tmp_path)
    assert again.usage().by_status == {"completed": 500}
    again.close()
