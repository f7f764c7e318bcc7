"""The figures of the healer's core: the worst weather is judged, and the measurement does what it says."""

from __future__ import annotations

import random

import pytest

from benchmarks import healing


def test_the_worst_weather_is_judged() -> None:
    figures = healing.evaluate(
        {"rates": {"calm": [1e6, 2e6], "mixed": [5e4], "flood": [9_000.0, 8_000.0, 9e9]}, "growth": 5.0}
    )
    by = {figure.name: figure for figure in figures}
    assert by["healing.core"].value == pytest.approx(10_000 / 9_000)
    assert by["healing.core"].holds is False
    assert by["healing.memory"].holds is False


def test_a_flood_opens_issues_and_repairs_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(healing, "NODES", 20)
    assert healing._rate("flood", 400, random.Random(1)) > 0
    fleet = healing._Fleet()
    for number in range(200):
        fleet.now += 1.0
        fleet.take(fleet.observation(number % 20, True))
    assert fleet.core.issues
    assert fleet.acts > 0
