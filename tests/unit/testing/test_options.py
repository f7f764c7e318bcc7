"""A seed's options: drawn by name, fixed by name, printed."""

from __future__ import annotations

import pytest

from omnimind.testing.options import FAULTS, describe, draw_options, parse_fixed


def test_a_fixed_option_does_not_shift_the_others() -> None:
    drawn, fixed = draw_options(11), draw_options(11, {"nodes": 7})
    assert fixed.nodes == 7
    assert describe(fixed).replace("nodes=7", "") == describe(drawn).replace(f"nodes={drawn.nodes}", "")


def test_each_fault_class_is_off_in_a_part_of_the_seeds_and_on_in_another() -> None:
    options = [draw_options(seed) for seed in range(400)]
    for name in FAULTS:
        on = sum(getattr(o, name) > 0 for o in options)
        assert 100 < on < 380, name


def test_profiles_are_quiet() -> None:
    fair = draw_options(3, {"profile": "fair"})
    assert not any(getattr(fair, name) for name in FAULTS)
    assert fair.queues == 2


def test_options_are_read_from_the_command_line() -> None:
    assert parse_fixed(["nodes=3", "loss=0.5", "limited=true", "profile=fair"]) == {
        "nodes": 3, "loss": 0.5, "limited": True, "profile": "fair",
    }  # fmt: skip


@pytest.mark.parametrize("pair", ["seed=3", "nonsense=1"])
def test_an_unknown_option_is_refused(pair: str) -> None:
    with pytest.raises(ValueError, match="is no option of a simulation"):
        parse_fixed([pair])


def test_what_is_off_is_not_printed() -> None:
    text = describe(draw_options(1, dict.fromkeys(FAULTS, 0.0)))
    assert "loss" not in text
    assert text.startswith("seed=1 ")
