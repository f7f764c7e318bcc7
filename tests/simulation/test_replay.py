"""The log of a core, fed to a fresh one, gives the same effects: the core decides by its events alone."""

from __future__ import annotations

from typing import Any

import pytest

from omnimind.cluster.core import CoordinatorCore
from omnimind.testing.cluster import SimCluster
from omnimind.testing.options import draw_options
from omnimind.testing.simulation import judge


def simulated(seed: int) -> SimCluster:
    sim = SimCluster(draw_options(seed))
    sim.keep_log = True
    assert judge(sim).failure is None
    return sim


@pytest.mark.parametrize("seed", range(25))
def test_a_fresh_core_repeats_what_the_first_one_did(seed: int) -> None:
    sim = simulated(seed)
    assert sum(len(log) for _, log in sim.logs) > 10
    for epoch, log in sim.logs:
        assert log.differs(sim.new_core(epoch)) is None, f"epoch {epoch}"


def test_a_core_that_looks_elsewhere_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    sim = simulated(1)
    epoch, log = max(sim.logs, key=lambda entry: len(entry[1]))
    assert log.differs(sim.new_core(epoch)) is None
    original: Any = CoordinatorCore.next_fence
    secret = iter(range(7, 10_000, 3))
    monkeypatch.setattr(
        CoordinatorCore, "next_fence", lambda self, tasks: original(self, tasks) + next(secret)
    )
    assert log.differs(sim.new_core(epoch)) is not None
