"""Plans of faults: the same seed makes the same plan, and a long one leaves out no kind."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from omnimind.testing.fault_plan import KILLS, LASTING, describe, draw_plan

HOSTS = ("head", "w1", "w2")
KINDS = (*KILLS, *LASTING)


@given(st.integers(0, 2**64), st.floats(20.0, 700.0))
def test_a_plan_is_in_order_and_over_in_time(seed: int, duration: float) -> None:
    plan = draw_plan(seed, duration, HOSTS, KINDS)
    assert plan == draw_plan(seed, duration, HOSTS, KINDS)
    assert [fault.at for fault in plan] == sorted(fault.at for fault in plan)
    for fault in plan:
        assert 0 <= fault.at < duration * 0.9
        assert fault.at + fault.seconds <= duration + 0.01
        assert fault.where in HOSTS
        assert (fault.seconds > 0) == (fault.what in LASTING)
        if fault.what in {"coordinator", "pause coordinator", "head"}:
            assert fault.where == "head"
        elif fault.what in {"raylet", "node supervisor", "cut", "drop incoming", "drop outgoing", "slow"}:
            assert fault.where != "head"
    assert len(describe(plan).splitlines()) == len(plan)


@given(st.integers(0, 2**64))
def test_ten_minutes_have_every_kind(seed: int) -> None:
    plan = draw_plan(seed, 600.0, HOSTS, KINDS)
    assert {fault.what for fault in plan} == set(KINDS)
    # Some come two at once.
    assert any(later.at < sooner.at + sooner.seconds for sooner, later in itertools.pairwise(plan))


def test_another_seed_is_another_plan() -> None:
    assert draw_plan(1, 100.0, HOSTS, KINDS) != draw_plan(2, 100.0, HOSTS, KINDS)
