"""Hundreds of simulated fleets with their healer, and bugs planted into it that the judge must catch."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest

import omnimind.testing.healer as package
from omnimind.healing.actions import Risk, Rung
from omnimind.healing.core import HealingCore
from omnimind.healing.events import NodeState, Observation, Recovered, RungKnown, Tick
from omnimind.healing.issues import IssueType
from omnimind.healing.records import Act, Alert, DecisionSaved, Effects
from omnimind.testing.healer.options import describe, draw_options
from omnimind.testing.healer.plants import PLANTS, planted
from omnimind.testing.healer.sim import REQUIRED, Result, run

FIXED = 300
ENOUGH = 300


def simulate(seed: int) -> Result:
    return run(draw_options(seed))


def count() -> int:
    """Return how many fleets are looked at: in a fast run a fifth of the clusters."""
    chosen = os.environ.get("OMNIMIND_TEST_SEEDS")
    return FIXED if chosen is None else max(20, int(chosen) // 5)


@pytest.mark.timeout(900)
def test_fixed_seeds() -> None:
    counts: dict[str, int] = {}
    failed: list[str] = []
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        for result in pool.map(simulate, range(count()), chunksize=10):
            for name, number in result.counts.items():
                counts[name] = counts.get(name, 0) + number
            if result.failure is not None:
                command = f"python -m omnimind.testing.healer --seeds {result.options.seed}"
                failed.append(f"{command}\n  {': '.join(result.failure)}\n  {describe(result.options)}")
    assert failed == [], "\n".join(failed[:5])
    if count() >= ENOUGH:
        missing = [name for name in REQUIRED if not counts.get(name)]
        assert missing == [], "these never happened, so nothing was tested about them"


@pytest.mark.parametrize("name", PLANTS)
def test_planted_bug_is_caught(name: str) -> None:
    plant = PLANTS[name]
    others: dict[str, int] = {}
    with planted(name):
        for seed in range(plant.seeds):
            result = run(draw_options(seed, plant.fixed))
            if result.invariant == plant.invariant:
                return
            if result.invariant is not None:
                others[result.invariant] = others.get(result.invariant, 0) + 1
    pytest.fail(f"{plant.story}: not caught by {plant.invariant} in {plant.seeds} seeds, only {others}")


def test_every_invariant_has_a_plant_and_every_plant_its_invariant() -> None:
    documented = {
        line.split()[0]
        for line in (package.__doc__ or "").splitlines()
        if len(line.partition(" ")[0]) == 1 and line[:1].isupper()
    }
    assert documented == {plant.invariant for plant in PLANTS.values()}


def test_a_plant_is_taken_out_again() -> None:
    options = draw_options(0, PLANTS["rung_again"].fixed)
    clean = run(options)
    with planted("rung_again"):
        assert run(options).failure is not None
    assert run(options) == clean
    assert clean.failure is None


def test_without_faults_the_campaign_is_vacuous() -> None:
    calm = {"flapping": 0.0, "hang": 0.0, "lie": 0.0, "before": 0.0, "after": 0.0, "people": 0.0, "cut": 0.0}
    counts: dict[str, int] = {}
    for seed in range(10):
        counts.update(run(draw_options(seed, calm)).counts)
    missing = {name for name in REQUIRED if not counts.get(name)}
    assert {"hangs", "lies", "healer_died", "zombie_refused", "nothing_pause", "cuts"} <= missing


def test_the_same_seed_is_the_same_history_in_another_process() -> None:
    program = (
        "from omnimind.testing.healer.sim import run\n"
        "from omnimind.testing.healer.options import draw_options\n"
        "for s in range(6):\n"
        "    r = run(draw_options(s)); print(s, r.events, sorted(r.counts.items()), r.fired, r.failure)\n"
    )
    outputs = [
        subprocess.run(
            [sys.executable, "-c", program],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("0", "1", "random")
    ]
    assert len(set(outputs)) == 1
    assert outputs[0].count("\n") == 6


def test_500_nodes_that_fail_in_one_minute_trip_the_breaker() -> None:
    """The flood of the design, with the defaults of the policy: nothing is set for this test."""
    core = HealingCore()
    now = 1_000_000.0
    rung = Rung(name="restart", issue_type=IssueType.SERVICE_FAILURE, risk=Risk.SAFE)
    more = [Rung(name=f"r{n}", issue_type=IssueType.SERVICE_FAILURE, risk=Risk.SAFE) for n in range(5)]
    core.handle(Recovered(1), now)
    for known in (rung, *more):
        core.handle(RungKnown(known), now)
    for n in range(500):
        core.handle(NodeState(f"n{n}", "up"), now)
    now += 60.0
    happened: list[Effects] = []
    for step in range(600 * 2):
        now += 0.1
        if step < 500:
            effects = core.handle(
                Observation(
                    monitor="m",
                    issue_type=IssueType.SERVICE_FAILURE,
                    node=f"n{step}",
                    entity="u",
                    bad=True,
                    at=now,
                ),
                now,
            )
            happened.append(effects)
        happened.append(core.handle(Tick(), now))
    core.validate()
    sends = [send for effects in happened for send in effects.sends]
    acts = sum(isinstance(send, Act) for send in sends)
    alerts = sum(isinstance(send, Alert) and send.kind == "breaker" for send in sends)
    decided = {r.decision.issue_id for e in happened for r in e.records if isinstance(r, DecisionSaved)}
    assert core.breaker is not None
    assert alerts == 1
    assert 0 < acts <= 20
    assert len(core.issues) == 500
    assert decided == set(core.issues)
