"""The arithmetic of monitors, against plain witnesses."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omnimind.healing.trends.baseline import Baseline, Quantile
from omnimind.healing.trends.crashes import Crashes
from omnimind.healing.trends.fill import Filling
from omnimind.healing.trends.slope import SAMPLES, Growth, Window, leaks, theil_sen
from omnimind.healing.trends.stragglers import Running, slow_nodes, stragglers

MIB = float(1 << 20)


def window(values: list[float], step: float = 5.0, seconds: float = 600.0) -> Growth:
    it = Window(seconds)
    for n, value in enumerate(values):
        it.add(n * step, value)
    return it.growth()


def leaking(growth: Growth) -> bool:
    return leaks(growth, per_second=10_000.0, least_seconds=120.0)


def test_a_leak_under_noise_and_outliers_is_found_with_its_rate() -> None:
    rng = random.Random(1)
    values = [100 * MIB + 50_000 * n * 5 + rng.uniform(-1, 1) * MIB for n in range(100)]
    for n in range(0, 100, 5):
        values[n] = rng.uniform(0, 500) * MIB  # a fifth is nonsense
    growth = window(values)
    assert growth.per_second == pytest.approx(50_000, rel=0.25)
    clean = window([100 * MIB + 50_000 * n * 5 + rng.uniform(-1, 1) * MIB for n in range(100)])
    assert leaking(clean)


@pytest.mark.parametrize(
    "values",
    [
        [100 * MIB] * 100,
        [100 * MIB + (n % 20) * 5 * MIB for n in range(100)],  # a sawtooth
        [100 * MIB] * 50 + [300 * MIB] * 50,  # one jump
        [min(n * 20, 200) * MIB for n in range(100)],  # a cache that is full after a while
        [(300 - n) * MIB for n in range(100)],
        [100 * MIB + n * MIB for n in range(10)],  # too short
    ],
)  # fmt: skip
def test_what_is_no_leak(values: list[float]) -> None:
    assert not leaking(window(values))


def test_one_wild_sample_at_the_end_does_not_make_a_slope() -> None:
    values = [100 * MIB] * 99 + [9000 * MIB]
    assert window(values).per_second == 0.0
    assert (values[-1] - values[0]) / 495 > 10_000_000  # as two points would say


def test_the_window_is_bounded_and_forgets() -> None:
    it = Window(60.0)
    for n in range(100_000):
        it.add(n * 0.01, math.nan if n % 7 == 0 else float(n))
    assert it.growth().samples <= SAMPLES
    assert it.growth().seconds <= 60.0
    assert it.growth().per_second == pytest.approx(100.0, rel=0.05)
    it.clear()
    assert it.growth() == Growth(0.0, 0.0, 0.0, 0)


@given(st.floats(-1e6, 1e6), st.floats(-1e3, 1e3), st.integers(2, 30))
def test_a_line_has_its_own_slope(start: float, slope: float, count: int) -> None:
    times = [float(n) for n in range(count)]
    found, steady = theil_sen(times, [start + slope * t for t in times])
    assert found == pytest.approx(slope, abs=1e-6 * max(1.0, abs(start)))
    if slope > 1e-3:
        assert steady == 1.0


def test_when_a_disk_will_be_full() -> None:
    disk = Filling()
    for n in range(60):
        disk.add(float(n), 1000.0 - 10 * n)
    assert disk.until_full() == pytest.approx(410.0 / 10)
    disk.add(60.0, 900.0)  # somebody has cleaned up
    assert disk.until_full() is None
    for n in range(61, 200):
        disk.add(float(n), 900.0)
    assert disk.until_full() is None
    disk.add(200.0, 0.0)
    assert disk.until_full() == 0.0


@pytest.mark.parametrize("share", [0.5, 0.95, 0.99])
@pytest.mark.parametrize("draw", ["uniform", "exponential", "two"])
def test_the_quantile_is_near_the_sorted_one(share: float, draw: str) -> None:
    rng = random.Random(f"{share}{draw}")
    make: Callable[[], float] = {
        "uniform": rng.random,
        "exponential": lambda: rng.expovariate(1.0),
        "two": lambda: rng.gauss(1.0, 0.1) if rng.random() < 0.8 else rng.gauss(3.0, 0.2),
    }[draw]
    values = [make() for _ in range(20_000)]
    it = Quantile(share)
    for value in values:
        it.add(value)
    estimate = it.value()
    assert estimate is not None
    below = sum(v <= estimate for v in values) / len(values)
    assert abs(below - share) < 0.02


def test_the_quantile_of_few_is_exact_and_nonsense_is_left_out() -> None:
    it = Quantile(0.95)
    assert it.value() is None
    for value in (3.0, math.nan, 1.0, math.inf, 2.0):
        it.add(value)
    assert (it.value(), it.count) == (3.0, 3)


def test_a_handler_that_gets_slow_is_seen_and_does_not_become_normal() -> None:
    rng = random.Random(3)
    it = Baseline()
    for _ in range(1000):
        it.add(rng.uniform(0.09, 0.11))
    assert it.ratio() == pytest.approx(1.0, abs=0.2)
    for _ in range(5000):
        it.add(rng.uniform(0.45, 0.55))
    assert it.ratio() == pytest.approx(5.0, rel=0.2)
    it.accept()
    for _ in range(500):
        it.add(rng.uniform(0.45, 0.55))
    assert it.ratio() == pytest.approx(1.0, abs=0.2)


def test_stragglers_are_measured_by_their_own_type() -> None:
    running = [
        Running("a", "quick", "n1", 40.0),
        Running("b", "slow", "n1", 40.0),
        Running("c", "quick", "n1", 5.0),
        Running("d", "new", "n1", 9999.0),
    ]
    assert [r.task_id for r in stragglers(running, {"quick": 1.0, "slow": 30.0})] == ["a"]


def test_a_slow_node_is_slow_at_what_others_do_quickly() -> None:
    seconds = {
        "n1": {"a": 1.0, "b": 2.0},
        "n2": {"a": 1.1, "b": 2.1},
        "n3": {"a": 5.0, "b": 9.0, "only": 99.0},
        "n4": {"a": 0.9, "b": 1.9},
    }
    found = slow_nodes(seconds)
    assert list(found) == ["n3"]
    assert found["n3"] == pytest.approx(4.75, rel=0.05)
    assert slow_nodes({"n1": {"a": 1.0}, "n2": {"a": 50.0}}) == {}


def test_crash_loops() -> None:
    it = Crashes()
    assert [it.ended(10.0 * n, 1.0) for n in range(5)] == [False, False, False, False, True]
    assert not it.looping(200.0)
    slow = Crashes()
    assert not any(slow.ended(100.0 * n, 1.0) for n in range(50))
    once_a_day = Crashes()
    assert not any(once_a_day.ended(n * 86400.0, 86400.0) for n in range(50))


def test_the_delay_grows_and_is_capped_and_starts_again() -> None:
    it = Crashes()
    delays = []
    for n in range(15):
        it.ended(float(n), 0.1)
        delays.append(it.delay())
    assert delays[:4] == [0.0, 0.1, 0.2, 0.4]
    assert delays[-1] == 30.0
    it.ended(5000.0, 700.0)
    assert it.delay() == 0.0
