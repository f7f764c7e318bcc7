"""Planned load is not pressure; a foreign process that takes the same cores is."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from omnimind.homeostasis.ladder import DEFAULT
from omnimind.homeostasis.pressure import CpuSample, MemorySample, cpu_pressure

SHARE = st.floats(0, 1)


def state(**sample: float) -> str:
    full = {"cores": 2.0, "slots": 2, "busy_slots": 2.0, "busy": 2.0, "own": 2.0, "stalled": 0.0} | sample
    return DEFAULT.state(cpu_pressure(CpuSample(**full))).value  # type: ignore[arg-type]


def test_full_slots_are_no_pressure_even_when_their_own_threads_queue() -> None:
    assert state() == "optimal"
    assert state(stalled=0.2) == "optimal"
    assert state(own=1.9, stalled=0.4) in {"optimal", "good"}
    assert state(stalled=1.0) == "good"


def test_a_foreign_process_on_the_same_cores_moves_it_down() -> None:
    # One hog beside two handlers on two cores gets a third of them, and somebody always waits.
    assert state(own=1.33, stalled=1.0) == "warning"
    # Two hogs get half, six get three quarters.
    assert state(own=1.0, stalled=1.0) == "warning"
    assert state(own=0.5, stalled=1.0) == "critical"
    assert state(own=0.1, stalled=1.0) == "emergency"


def test_foreign_load_on_cores_that_no_slot_counts_on_is_none_of_ours() -> None:
    assert state(cores=8.0, busy=6.0, own=2.0) == "optimal"
    assert state(cores=8.0, busy=8.0, own=0.1, busy_slots=0.1) in {"critical", "emergency"}


def test_an_idle_node_whose_cores_are_taken_is_not_fit_for_work() -> None:
    assert state(own=0.0, busy_slots=0.0, busy=2.0, stalled=0.0) == "emergency"
    assert state(own=0.0, busy_slots=0.0, busy=0.9, stalled=0.0) == "optimal"


def test_more_slots_than_cores_explain_their_own_stall() -> None:
    assert state(slots=4, busy_slots=4.0, stalled=1.0) == "optimal"


@given(st.integers(1, 64), st.integers(1, 64), SHARE, SHARE, SHARE)
def test_without_foreign_load_it_is_optimal_or_good(
    cores: int, slots: int, busy_slots: float, busy: float, stalled: float
) -> None:
    own = busy * cores
    sample = CpuSample(float(cores), slots, busy_slots * slots, own, own, stalled)
    assert cpu_pressure(sample) <= 75.0 + 1e-9


@given(st.integers(1, 64), SHARE, SHARE, SHARE)
def test_pressure_is_at_least_what_is_taken_and_grows_with_it(
    cores: int, busy: float, own: float, stalled: float
) -> None:
    used, mine = busy * cores, own * busy * cores
    sample = CpuSample(float(cores), cores, 0.0, used, mine, stalled)
    assert cpu_pressure(sample) >= 100.0 * (used - mine) / cores - 1e-6
    more = CpuSample(float(cores), cores, 0.0, used, mine * 0.5, stalled)
    assert cpu_pressure(more) >= cpu_pressure(sample) - 1e-9


@given(*[st.floats(allow_nan=True, allow_infinity=True)] * 5, st.integers(-5, 100))
def test_nonsense_gives_a_percentage_all_the_same(
    cores: float, busy_slots: float, busy: float, own: float, stalled: float, slots: int
) -> None:
    pressure = cpu_pressure(CpuSample(cores, slots, busy_slots, busy, own, stalled))
    assert math.isfinite(pressure)
    assert 0.0 <= pressure <= 100.0


def test_memory_counts_without_reclaimable_cache() -> None:
    sample = MemorySample(1000, 950, reclaimable=400)
    assert (sample.percent, sample.available) == (55.0, 450)
    assert MemorySample(0, 0).percent == 0.0
    assert MemorySample(1000, 1200).percent == 100.0
