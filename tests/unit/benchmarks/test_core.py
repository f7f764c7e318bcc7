"""The figures of the core: what counts as growth with log n, and that the measurement places what it says."""

from __future__ import annotations

import random

import pytest

from benchmarks import core


@pytest.mark.parametrize(
    ("costs", "value"),
    [
        ({100: 1.0, 10_000: 2.0}, 1.0),
        ({100: 1.0, 10_000: 1.0, 1_000_000: 3.3}, 1.1),
        ({100: 1.0, 1_000_000: 1.0}, 1 / 3),
    ],
)
def test_growth_is_relative_to_log_n(costs: dict[int, float], value: float) -> None:
    assert core.growth(costs) == pytest.approx(value)


def test_the_slowest_length_is_the_one_that_is_judged() -> None:
    figures = core.evaluate(
        {"placement": {"100": [1e-5, 2e-5, 9e-5], "1000": [2.5e-5]}, "beats": [0.3], "cycles": [1e5]}
    )
    by = {figure.name: figure for figure in figures}
    assert by["core.decisions.100"].value == pytest.approx(50_000)
    assert by["core.decisions"].value == pytest.approx(40_000)
    assert by["core.decisions"].holds is False
    assert by["core.beats"].holds is False


def test_a_line_is_held_back_until_its_event_and_then_placed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core, "NODES", 8)
    monkeypatch.setattr(core, "_DECISIONS", 50)
    assert core._placement(20, random.Random("a")) > 0
