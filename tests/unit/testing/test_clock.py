"""Virtual time: order, bounds, and the way out of a loop."""

from __future__ import annotations

import pytest

from omnimind.testing.clock import SimClock
from omnimind.testing.draws import Draws, key_of, mix


def test_calls_come_in_order_of_time_and_then_of_entry() -> None:
    clock, got = SimClock(0.0), list[str]()
    clock.at(2.0, got.append, "later")
    clock.after(1.0, got.append, "first")
    clock.at(1.0, got.append, "second")
    clock.at(-5.0, got.append, "now")
    clock.run(1.5)
    assert got == ["now", "first", "second"]
    assert clock.now == 1.5
    clock.run(3.0)
    assert got[-1] == "later"


def test_it_stops_when_done() -> None:
    clock, got = SimClock(0.0), list[int]()
    for n in range(5):
        clock.at(float(n), got.append, n)
    assert clock.run(10.0, lambda: len(got) == 2)
    assert got == [0, 1]
    assert clock.now == 1.0


def test_a_loop_without_time_is_found() -> None:
    clock = SimClock(0.0)

    def again() -> None:
        clock.after(0.0, again)

    again()
    with pytest.raises(RuntimeError, match="goes round in circles"):
        clock.run(1.0, limit=100)


def test_draws_depend_on_seed_stream_and_number_alone() -> None:
    draws, other = Draws(7), Draws(7)
    first = [draws.next("a", "x") for _ in range(5)]
    for _ in range(100):
        other.next("b", "y")
    assert [other.next("a", "x") for _ in range(5)] == first
    assert [draws.value("a", "x", n) for n in range(5)] == first
    assert Draws(8).value("a", "x", 0) != first[0]
    assert len({mix(7, key_of("a"), n) for n in range(1000)}) == 1000


def test_draws_are_about_even() -> None:
    draws = Draws(3)
    values = [draws.value("even", "x", n) for n in range(4000)]
    for low in (0.0, 0.25, 0.5, 0.75):
        assert 850 < sum(low <= v < low + 0.25 for v in values) < 1150
