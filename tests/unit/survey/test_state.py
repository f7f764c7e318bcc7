from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from omnimind.survey.files import SourceFile
from omnimind.survey.state import SurveyState

FILE = SourceFile(path="/r/a.py", root="/r", size=10, mtime_ns=1)


def test_an_unfinished_survey_is_taken_up_a_finished_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "home" / "survey.json"
    first = SurveyState(path).begin(["/r"])
    again = SurveyState(path).begin(["/r"])
    assert (first.is_resumed, again.is_resumed) == (False, True)
    assert first.key_of(FILE) == again.key_of(FILE)
    SurveyState(path).finish(["/r"])
    fresh = SurveyState(path).begin(["/r"])
    assert not fresh.is_resumed
    assert fresh.key_of(FILE) != first.key_of(FILE)


def test_surveys_of_other_roots_do_not_meet(tmp_path: Path) -> None:
    state = SurveyState(tmp_path / "survey.json")
    one, other = state.begin(["/a"]), state.begin(["/b"])
    assert one.run_id != other.run_id
    state.finish(["/b"])
    assert state.begin(["/a"]).is_resumed


@pytest.mark.parametrize("change", [{"size": 11}, {"mtime_ns": 2}, {"path": "/r/b.py"}, {"root": "/"}])
def test_a_file_that_changed_has_another_key(tmp_path: Path, change: dict[str, object]) -> None:
    run = SurveyState(tmp_path / "survey.json").begin(["/r"])
    changed = dataclasses.replace(FILE, **change)  # type: ignore[arg-type]
    assert run.key_of(changed) != run.key_of(FILE)
    assert len(run.key_of(FILE)) < 100


@pytest.mark.parametrize("content", ["", "{", "[]", '{"unfinished": 3}', '{"unfinished": {"x": 1}}', "\0"])
def test_a_damaged_memory_counts_as_empty(tmp_path: Path, content: str) -> None:
    path = tmp_path / "survey.json"
    path.write_text(content, encoding="utf-8")
    assert not SurveyState(path).begin(["/r"]).is_resumed
    assert SurveyState(path).begin(["/r"]).is_resumed
    assert [entry.name for entry in tmp_path.iterdir()] == ["survey.json"]


def test_a_memory_of_another_type_is_not_a_run(tmp_path: Path) -> None:
    state = SurveyState(tmp_path / "survey.json")
    run = state.begin(["/r"])
    text = state.path.read_text(encoding="utf-8")
    state.path.write_text(text.replace(f'"{run.run_id}"', "7"), encoding="utf-8")
    assert not state.begin(["/r"]).is_resumed
