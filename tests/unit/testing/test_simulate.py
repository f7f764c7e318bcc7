"""The command line of the simulator."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from omnimind.testing.simulate import main


def test_a_clean_seed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seed", "3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "python -m omnimind.testing.simulate --seed 3"
    assert "all invariants hold" in lines[-1]


def test_a_failing_seed_prints_how_to_replay_it_and_what_is_left_of_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["--seeds", "0:4", "--plant", "acknowledged_before_the_write"]) == 1
    out = capsys.readouterr().out
    command = r"^python -m omnimind.testing.simulate --seed \d --plant acknowledged_before_the_write$"
    assert re.search(command, out, re.MULTILINE)
    assert "P1a: " in out
    assert "mix=" in out
    assert "made small" in out
    assert "--only-faults" in out


def test_the_trace_is_json_lines(tmp_path: Path) -> None:
    trace = tmp_path / "trace.jsonl"
    assert main(["--seed", "3", "--trace", str(trace)]) == 0
    entries = [json.loads(line) for line in trace.read_text().splitlines()]
    assert {"event", "heal", "start"} <= {entry["what"] for entry in entries}
    assert entries[0]["kind"] == "Recovered"
    assert [e["t"] for e in entries] == sorted(e["t"] for e in entries)


def test_only_some_faults(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seed", "5", "--only-faults", "none", "--set", "nodes=1"]) == 0
    out = capsys.readouterr().out
    assert "--seed 5 --set nodes=1 --only-faults none" in out
    assert ", 0 faults," in out


def test_an_unknown_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seed", "1", "--set", "colour=red"]) == 2
    assert "'colour' is no option" in capsys.readouterr().err


def test_plants_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list-plants"]) == 0
    assert "fence_check_dropped" in capsys.readouterr().out
