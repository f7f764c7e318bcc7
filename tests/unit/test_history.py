"""The checker of histories: what is valid passes, and each lie is caught by the rule that it breaks."""

from __future__ import annotations

import time
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omnimind.testing import check_history, history
from omnimind.testing.history_check import check, explain
from omnimind.testing.history_doctored import VACUOUS, WAYS
from omnimind.testing.history_draw import PLOTS, draw
from omnimind.testing.history_rules import RULES


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 200))
def test_what_a_runtime_that_keeps_its_promises_may_do_passes(seed: int, tasks: int) -> None:
    verdict = check(draw(seed, tasks))
    assert verdict.good, explain(verdict)


@pytest.mark.parametrize("way", WAYS)
def test_a_lie_is_caught_by_its_rule(way: str) -> None:
    rule, doctor = WAYS[way]
    for seed in range(20):
        true = draw(seed)
        verdict = check(doctor(true, Random(seed)))
        assert rule in {violation.rule for violation in verdict.violations}, (seed, explain(verdict))
        # One lie, told with few records: somebody has to understand it.
        found = next(violation for violation in verdict.violations if violation.rule == rule)
        assert 0 < len(found.because) <= 8
        assert rule in explain(verdict)


@pytest.mark.parametrize("way", VACUOUS)
def test_what_proves_nothing_is_said_to(way: str) -> None:
    for seed in range(10):
        verdict = check(VACUOUS[way](draw(seed), Random(seed)))
        assert verdict.vacuous, explain(verdict)
        assert not verdict.good
        assert "vacuous" in explain(verdict)


def test_every_rule_has_a_lie() -> None:
    assert {rule for rule, _ in WAYS.values()} == set(RULES)
    assert len(WAYS) >= 15
    assert len(PLOTS) == len(set(PLOTS))


def test_every_rule_stands_in_the_table() -> None:
    from omnimind.testing import history_rules

    lines = (history_rules.__doc__ or "").splitlines()
    table = {line.split()[0] for line in lines if line[:1].isalpha() and "  " in line} - {"rule"}
    assert table == set(RULES)


def test_the_command_judges_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    true = draw(1)
    one, two = tmp_path / "one", tmp_path / "two"
    history.write(one, true[::2])
    history.write(two, true[1::2])
    # A writer that was killed leaves half a line.
    with two.open("ab") as file:
        file.write(b'{"is":"start","task":"tsk_')
    assert list(history.read([one])) == true[::2]
    assert check_history.main([str(one), str(two)]) == 0
    assert "every rule holds" in capsys.readouterr().out
    rule, doctor = WAYS["drop_an_acknowledged_task"]
    history.write(one, doctor(true, Random(1)))
    assert check_history.main([str(one)]) == 1
    assert rule in capsys.readouterr().out
    task = next(record.task for record in true if isinstance(record, history.Started))
    check_history.main([str(one), "--task", task])
    assert "starts on" in capsys.readouterr().out
    one.write_bytes(b"{}\n" + one.read_bytes())
    assert check_history.main([str(one)]) == 2
    assert "one:1 is no record" in capsys.readouterr().err


def test_every_record_can_be_read_by_a_person() -> None:
    for record in draw(3):
        said = history.line(record)
        assert said.strip()
        assert "\n" not in said


def test_the_check_grows_as_the_history_does() -> None:
    def seconds(tasks: int) -> float:
        records = draw(5, tasks)
        began = time.process_time()
        assert check(records).good
        return time.process_time() - began

    seconds(500)
    few = min(seconds(2_000) for _ in range(3))
    assert seconds(20_000) < 40 * few
