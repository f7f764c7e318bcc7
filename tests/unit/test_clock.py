"""Clocks: how far another one is away, by messages that take their time."""

from __future__ import annotations

from omnimind.clock import SkewMeter


def test_a_message_that_waited_does_not_make_a_clock_late() -> None:
    meter = SkewMeter()
    assert meter.note("n1", 100.0, 103.4) == -3.4
    assert meter.note("n1", 104.0, 104.01) == -0.01
    assert meter.note("n1", 105.0, 108.0) == -0.01
    assert meter.note("n2", 3_700.0, 100.0) == 3_600.0


def test_a_clock_that_is_set_is_noticed_within_the_last_messages() -> None:
    meter = SkewMeter(kept=3)
    for second in range(5):
        assert meter.note("n1", 100.0 + second, 100.0 + second) == 0.0
    # Set forward: seen at once. Set back: when the messages from before are forgotten.
    assert meter.note("n1", 165.0, 105.0) == 60.0
    found = [meter.note("n1", 100.0 + second - 60.0, 100.0 + second) for second in (6, 7, 8)]
    assert found[-1] == -60.0
    meter.forget("n1")
    assert meter.note("n1", 109.0, 109.5) == -0.5
