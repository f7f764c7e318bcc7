"""When the first and the last of a queue were done, and how their rates compare."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks import backlog


def an_answer(**changes: Any) -> dict[str, Any]:
    """Return 1,000 tasks that were drained at 100 a second, but the last 100 at 50."""
    points = [(float(second), 100 * second) for second in range(10)] + [(11.0, 1_000)]
    return {
        "count": 1_000,
        "accepted": 1_000,
        "accepting": 2.0,
        "listed": 1_000,
        "listing": 0.5,
        "points": points,
        "drained": 1_000,
        "rss": 599 * 2**20,
        **changes,
    }


def test_a_moment_is_interpolated_between_two_looks() -> None:
    points = [(0.0, 0), (1.0, 100), (1.5, 100), (2.0, 300)]
    assert backlog.moment(points, 50) == pytest.approx(0.5)
    assert backlog.moment(points, 100) == pytest.approx(1.0)
    assert backlog.moment(points, 200) == pytest.approx(1.75)
    assert backlog.moment([(0.3, 500)], 100) == 0.3
    with pytest.raises(ValueError, match="400 tasks never ended"):
        backlog.moment(points, 400)


def test_a_queue_that_gets_slower_is_judged_by_its_ends() -> None:
    by = {figure.name: figure for figure in backlog.evaluate(an_answer())}
    assert by["backlog.last_to_first"].value == pytest.approx(0.5)
    assert by["backlog.last_to_first"].holds is False
    assert by["backlog.accepted"].holds is True
    assert by["backlog.listed"].holds is True
    assert by["backlog.drained"].holds is True
    assert by["backlog.memory"].holds is True
    assert by["backlog.accept_rate"].value == pytest.approx(500)


def test_a_lost_a_doubled_and_a_failed_task_are_seen() -> None:
    by = {
        figure.name: figure
        for figure in backlog.evaluate(an_answer(accepted=1_001, listed=999, drained=999, rss=600 * 2**20))
    }
    for name in ("accepted", "listed", "drained", "memory"):
        assert by[f"backlog.{name}"].holds is False, name
