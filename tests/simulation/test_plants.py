"""The checker can fail: each planted bug is caught by the invariant that it names, within its budget."""

from __future__ import annotations

import pytest

from omnimind.testing import invariants
from omnimind.testing.options import draw_options
from omnimind.testing.plants import PLANTS, planted
from omnimind.testing.simulation import run


@pytest.mark.parametrize("name", PLANTS)
def test_caught(name: str) -> None:
    plant = PLANTS[name]
    others: dict[str, int] = {}
    with planted(name):
        for seed in range(plant.seeds):
            result = run(draw_options(seed, plant.fixed))
            if result.invariant == plant.invariant:
                print(f"{name}: {plant.invariant} at seed {seed}")
                return
            if result.invariant is not None:
                others[result.invariant] = others.get(result.invariant, 0) + 1
    pytest.fail(f"{plant.story}: not caught by {plant.invariant} in {plant.seeds} seeds, only {others}")


def test_a_plant_is_taken_out_again() -> None:
    options = draw_options(0, {"profile": "ageing"})
    clean = run(options)
    with planted("starvation"):
        assert run(options).invariant == "A"
    assert run(options) == clean
    assert clean.failure is None


def test_every_invariant_has_a_plant() -> None:
    documented = {
        line.split()[0]
        for line in (invariants.__doc__ or "").splitlines()
        if line[:1] in {"P", "N", "S", "D", "A", "R", "F"} and len(line.split()[0]) <= 3
    }
    # What is gone from the ledger (P1b) breaks only a ledger that loses: tests/contracts and tests/faults.
    assert documented - {plant.invariant for plant in PLANTS.values()} <= {"P1b"}
    assert {plant.invariant for plant in PLANTS.values()} <= documented
