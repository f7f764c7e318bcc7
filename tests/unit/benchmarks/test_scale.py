"""The simulated clusters of the scale suite run every task once, beyond the window of the core."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks import scale
from omnimind.cluster.core import CoordinatorCore
from omnimind.cluster.policies import CoreLimits


@pytest.fixture
def small_window(monkeypatch: pytest.MonkeyPatch) -> None:
    def core(name: str, *, seed: int) -> CoordinatorCore:
        return CoordinatorCore(name, CoreLimits(window=1_000), seed=seed)

    monkeypatch.setattr(scale, "CoordinatorCore", core)


@pytest.mark.usefixtures("small_window")
def test_every_task_runs_once_and_most_come_back_from_disk() -> None:
    told: list[dict[str, Any]] = []
    answer = scale.measure({"count": 20_000}, told.append)
    assert answer["fetched"] > 10_000
    assert answer["few"] > 0
    assert answer["many"] > 0
    assert len(told) == 2 * scale._SLICES


def test_a_row_that_is_lost_on_disk_is_missed(monkeypatch: pytest.MonkeyPatch, small_window: None) -> None:
    monkeypatch.setattr(scale.Cluster, "_row", lambda self, number: scale.task_of(7))
    cluster = scale.Cluster(3, 20_000)
    cluster.submit(20_000)
    cluster.open()

    def run() -> None:
        cluster.run(20_000)
        cluster.check()

    with pytest.raises((AssertionError, KeyError, IndexError)):
        run()


def test_the_ratio_is_what_must_hold() -> None:
    answer = {
        "count": 10, "few": 2e-5, "many": 3e-5, "fetched": 5, "highest": 7, "rss": 1 << 27,
    }  # fmt: skip
    figures = {figure.name: figure for figure in scale.evaluate(answer)}
    assert figures["scale.cost_per_task.ratio"].value == pytest.approx(1.5)
    assert not figures["scale.cost_per_task.ratio"].holds
    assert figures["scale.cost_per_task.1000"].value == pytest.approx(30)
