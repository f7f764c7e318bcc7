from __future__ import annotations

import math

import pytest

from omnimind import InvalidInput, TaskPriority
from omnimind.homeostasis import ladder
from omnimind.homeostasis.ladder import DEFAULT, STATES, Ladder, ResourceState, Thresholds


@pytest.mark.parametrize(
    ("percent", "state"),
    [
        (0, "optimal"), (59.9, "optimal"), (60, "good"), (79.9, "good"), (80, "warning"), (89.9, "warning"),
        (90, "critical"), (95, "critical"), (95.1, "emergency"), (100, "emergency"), (250, "emergency"),
    ],
)  # fmt: skip
def test_the_rungs_of_the_design(percent: float, state: str) -> None:
    assert DEFAULT.state(percent) == state


def test_what_each_state_admits() -> None:
    classes = list(TaskPriority)
    admitted = {s.value: [p.name.lower() for p in classes if ladder.admits(s, p)] for s in STATES}
    everything = ["critical", "high", "medium", "low", "background"]
    assert admitted == {
        "optimal": everything,
        "good": everything,
        "warning": everything[:4],
        "critical": everything[:2],
        "emergency": everything[:1],
    }
    assert ladder.admits(ResourceState.CRITICAL, "high")
    assert not ladder.admits(ResourceState.CRITICAL, 5)


def test_batches_shrink() -> None:
    assert [ladder.batch_size(s, 100) for s in STATES] == [100, 100, 75, 50, 25]
    assert [ladder.batch_size(s, 1) for s in STATES] == [1] * 5


@pytest.mark.parametrize("priority", ["urgent", 0, 11, True, None, 2.5])
def test_no_priority(priority: object) -> None:
    with pytest.raises(InvalidInput, match="priority"):
        ladder.admits(ResourceState.GOOD, priority)  # type: ignore[arg-type]


@pytest.mark.parametrize("base", [0, -3, True, 2.5])
def test_no_batch(base: object) -> None:
    with pytest.raises(InvalidInput, match="base"):
        ladder.batch_size(ResourceState.GOOD, base)  # type: ignore[arg-type]


def test_it_rises_at_once_and_falls_by_degrees() -> None:
    it = Ladder({"memory": DEFAULT}, rise_hold=1.0, fall_hold=10.0)
    change = it.update({"memory": 97.0}, 100.0)
    assert change is not None
    assert (change.before, change.after, change.resource) == ("optimal", "emergency", "memory")
    fell = [c.after for t in range(101, 160) if (c := it.update({"memory": 10.0}, float(t)))]
    assert fell == ["critical", "warning", "good", "optimal"]


def test_the_margin_keeps_a_rung() -> None:
    it = Ladder({"cpu": DEFAULT}, margin=3.0, fall_hold=1.0)
    it.update({"cpu": 81.0}, 0.0)
    assert it.update({"cpu": 78.0}, 50.0) is None
    change = it.update({"cpu": 76.9}, 51.0)
    assert change is not None
    assert change.after is ResourceState.GOOD


def test_the_worst_resource_counts_and_unknown_ones_do_not() -> None:
    it = Ladder({"cpu": DEFAULT, "disk": Thresholds(10, 20, 30, 40)})
    change = it.update({"cpu": 70.0, "disk": 25.0, "other": 99.0}, 0.0)
    assert change is not None
    assert (change.after, change.resource) == ("warning", "disk")
    assert it.update({"cpu": math.nan, "disk": math.inf}, 100.0) is None
    assert it.update({}, 200.0) is None
    assert it.state is ResourceState.WARNING


def test_a_clock_that_was_set_back_holds_it_no_longer_than_the_hold() -> None:
    it = Ladder({"cpu": DEFAULT}, rise_hold=1.0, fall_hold=10.0)
    it.update({"cpu": 99.0}, 1_000_000.0)
    assert it.update({"cpu": 1.0}, 500.0) is None
    assert it.update({"cpu": 1.0}, 509.0) is None
    assert it.update({"cpu": 1.0}, 510.0) is not None


@pytest.mark.parametrize(
    ("warning", "critical"), [(0, 90), (90, 80), (80, 80), (80, 100), (math.nan, 90), ("80", 90)]
)
def test_thresholds_that_make_no_sense(warning: float, critical: float) -> None:
    with pytest.raises(InvalidInput, match="cpu_threshold"):
        ladder.thresholds(warning, critical, "cpu_threshold")


def test_a_ladder_needs_sense() -> None:
    with pytest.raises(InvalidInput, match="resource"):
        Ladder({})
    with pytest.raises(InvalidInput, match="hold"):
        Ladder({"cpu": DEFAULT}, rise_hold=5.0, fall_hold=1.0)
    with pytest.raises(InvalidInput, match="fall_hold"):
        Ladder({"cpu": DEFAULT}, rise_hold=0.0, fall_hold=0.0).most_switches(10.0)
    with pytest.raises(InvalidInput, match="thresholds grow"):
        Thresholds(60, 50)
