from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from omnimind.config import specs

Run = Callable[..., Result]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


def rows(result: Result) -> dict[str, dict[str, object]]:
    assert result.exit_code == 0, result.stderr
    return {row["key"]: row for row in json.loads(result.stdout)["items"]}


def test_every_setting_has_its_value_source_and_meaning(run: Run) -> None:
    found = rows(run("config", "--json"))
    assert set(found) == {spec.key for spec in specs()} | {"home"}
    assert all(row["what"] for row in found.values())
    assert found["home"]["origin"] == "OMNIMIND_HOME"


def test_the_source_is_named(run: Run, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "omnimind.toml").write_text('[retention]\nage = "3d"\n')
    monkeypatch.setenv("OMNIMIND_RAY_NUM_CPUS", "3")
    found = rows(run("config", "list", "--changed", "--json"))
    assert found["retention.age"]["value"] == 3 * 86400
    assert found["retention.age"]["origin"] == f"{home / 'omnimind.toml'}:2"
    assert found["ray.num_cpus"]["origin"] == "OMNIMIND_RAY_NUM_CPUS"
    assert set(found) == {"retention.age", "ray.num_cpus", "home"}
    page = run("config", "show", "retention.age").stdout
    assert "3d" in page
    assert "OMNIMIND_RETENTION_AGE" in page


def test_values_can_be_copied_back(run: Run) -> None:
    page = run("config").stdout
    for spec in specs():
        line = next(line for line in page.splitlines() if line.startswith(spec.key + " "))
        text = line.removeprefix(spec.key).strip().split("  ")[0]
        if text != "-":
            assert spec.read(text, "test") == spec.default


def test_an_unknown_setting_is_three_with_a_suggestion(run: Run) -> None:
    result = run("config", "show", "ray.nun_cpus")
    assert result.exit_code == 3
    assert "did you mean ray.num_cpus?" in result.stderr


def test_a_bad_file_is_a_usage_error_that_names_the_line(run: Run, home: Path) -> None:
    (home / "omnimind.toml").write_text("[ray]\nnum_cpus = 0\n")
    result = run("config", "--json")
    assert result.exit_code == 2
    assert "omnimind.toml:2" in json.loads(result.stderr)["detail"]
