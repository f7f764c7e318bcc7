"""Delta debugging finds what is needed, and nothing else."""

from __future__ import annotations

from itertools import pairwise

import pytest

from omnimind.testing.campaign import replay_command, shrink
from omnimind.testing.options import draw_options, parse_fixed
from omnimind.testing.plants import planted
from omnimind.testing.shrink import ddmin, shrink_numbers
from omnimind.testing.simulation import run


@pytest.mark.parametrize("needed", [{3}, {3, 77}, {0, 50, 99}, set(range(10)), {98, 99}])
def test_ddmin_keeps_exactly_what_is_needed(needed: set[int]) -> None:
    asked = 0

    def fails(part: list[int]) -> bool:
        nonlocal asked
        asked += 1
        return needed <= set(part)

    assert ddmin(range(100), fails, budget=10_000) == sorted(needed)
    assert asked < 600


def test_ddmin_of_a_failure_that_needs_nothing() -> None:
    assert ddmin(["a", "b", "c"], lambda _part: True) == []


def test_ddmin_of_nothing() -> None:
    assert ddmin([], lambda _part: True) == []


def test_ddmin_stops_at_its_budget_with_something_that_fails() -> None:
    asked = 0

    def fails(part: list[int]) -> bool:
        nonlocal asked
        asked += 1
        return {1, 500, 900} <= set(part)

    assert {1, 500, 900} <= set(ddmin(range(1000), fails, budget=20))
    assert asked <= 20


def test_ddmin_keeps_the_order() -> None:
    assert ddmin([5, 1, 4, 2], lambda part: 4 in part and 5 in part) == [5, 4]


def test_numbers_shrink_to_the_least_that_fails() -> None:
    def fails(options: dict[str, float]) -> bool:
        return options["tasks"] >= 7 and options["nodes"] >= 1

    floors: dict[str, float] = {"tasks": 1, "nodes": 1}
    assert shrink_numbers({"tasks": 40, "nodes": 8, "rest": 5}, floors, fails) == {
        "tasks": 7, "nodes": 1, "rest": 5,
    }  # fmt: skip


def test_a_failing_simulation_gets_small_and_its_command_repeats_it() -> None:
    name = "no_requeue_on_node_loss"
    with planted(name):
        whole = next(r for r in (run(draw_options(seed)) for seed in range(60)) if r.invariant == "S")
    shrunk = shrink(whole, {}, name)
    assert shrunk.result.invariant == "S"
    assert len(shrunk.only) <= 3 < len(whole.fired)
    assert shrunk.result.options.tasks < whole.options.tasks or whole.options.tasks <= 2

    command = replay_command(whole.options, shrunk.fixed, shrunk.only, name).split()
    fixed = parse_fixed([word for flag, word in pairwise(command) if flag == "--set"])
    only = command[command.index("--only-faults") + 1].split(",")
    with planted(name):
        again = run(draw_options(whole.options.seed, fixed), frozenset(only))
    assert again == shrunk.result
