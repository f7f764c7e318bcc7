"""No input makes the ladder switch more often than its hold times allow."""

from __future__ import annotations

import math
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from omnimind.homeostasis.ladder import DEFAULT, STATES, Change, Ladder

PERCENT = st.one_of(
    st.floats(0, 100), st.sampled_from([59.9, 60, 79.9, 80, 89.9, 90, 95, 95.1]), st.just(math.nan)
)
STEP = st.one_of(st.floats(0, 3), st.sampled_from([0.0, 0.1, 1.0, 10.0, 60.0]))
INPUT = st.lists(st.tuples(STEP, PERCENT, PERCENT), max_size=120)
HOLDS = st.tuples(st.floats(0, 5), st.floats(0.5, 20)).map(lambda h: (min(h), max(h)))


def switches(
    steps: list[tuple[float, float, float]], margin: float, rise: float, fall: float
) -> tuple[Ladder, list[Change]]:
    ladder = Ladder({"cpu": DEFAULT, "memory": DEFAULT}, margin=margin, rise_hold=rise, fall_hold=fall)
    now, found = 0.0, []
    for step, cpu, memory in steps:
        now += step
        change = ladder.update({"cpu": cpu, "memory": memory}, now)
        if change is not None:
            found.append(change)
    return ladder, found


@given(INPUT, st.floats(0, 20), HOLDS)
def test_it_switches_no_more_often_than_its_hold_times_allow(
    steps: list[tuple[float, float, float]], margin: float, holds: tuple[float, float]
) -> None:
    rise, fall = holds
    ladder, found = switches(steps, margin, rise, fall)
    for first, second in pairwise(found):
        rising = second.after.rank > second.before.rank
        assert second.at - first.at >= (rise if rising else fall)
        assert first.after is second.before
    for start, first in enumerate(found):
        for last in range(start, len(found)):
            # The bound is about a window of time; the counting is this test's own.
            assert last - start + 1 <= ladder.most_switches(found[last].at - first.at)


@given(INPUT, st.floats(0, 20), HOLDS)
def test_it_falls_one_rung_and_never_while_a_resource_is_at_the_threshold(
    steps: list[tuple[float, float, float]], margin: float, holds: tuple[float, float]
) -> None:
    ladder = Ladder({"cpu": DEFAULT}, margin=margin, rise_hold=holds[0], fall_hold=holds[1])
    now = 0.0
    for step, cpu, _ in steps:
        now += step
        change = ladder.update({"cpu": cpu}, now)
        if change is not None and change.after.rank < change.before.rank:
            assert change.before.rank - change.after.rank == 1
            assert DEFAULT.state(cpu + margin).rank < change.before.rank


@given(st.floats(0, 100), st.sampled_from(STATES))
def test_what_stays_the_same_is_reached_and_kept(percent: float, start: str) -> None:
    """Whatever it stood on, a steady input leads to its raw state, or to one rung kept by the margin."""
    ladder = Ladder({"cpu": DEFAULT}, margin=3.0, rise_hold=1.0, fall_hold=10.0)
    ladder.update(
        {"cpu": {"optimal": 0, "good": 70, "warning": 85, "critical": 93, "emergency": 99}[start]}, 0.0
    )
    for n in range(1, 10):
        ladder.update({"cpu": percent}, 10.0 * n)
    settled = ladder.state
    assert settled.rank in {DEFAULT.state(percent).rank, DEFAULT.state(percent + 3.0).rank}
    assert ladder.update({"cpu": percent}, 1000.0) is None
