"""Exit codes, and errors as people and programs get them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from omnimind import errors
from omnimind.cli.errors import Exit, exit_code, outcome_code

Run = Callable[..., Result]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.OmniMindError("x"), 1),
        (errors.InstanceError("x"), 1),
        (errors.LedgerCorrupt("x"), 1),
        (errors.InvalidInput("x"), 2),
        (errors.PayloadTooLarge("x"), 2),
        (errors.ConfigError("x"), 2),
        (errors.NotFound("x"), 3),
        (errors.Pruned("x"), 3),
        (errors.UnknownTaskType("x"), 3),
        (errors.UnknownQueue("x"), 3),
        (errors.Conflict("x"), 4),
        (errors.KeyConflict("x"), 4),
        (errors.Forbidden("x"), 4),
        (errors.QueueFull("x"), 4),
        (errors.LedgerFull("x"), 4),
        (errors.TaskFailed("x"), 5),
        (errors.TaskExpired("x"), 5),
        (errors.TaskDead("x"), 5),
        (errors.TaskCancelled("x"), 6),
        (errors.WaitTimeout("x"), 7),
        (errors.PlanStale("x"), 8),
        (errors.Unavailable("x"), 9),
    ],
)
def test_each_error_has_its_exit_code(error: errors.OmniMindError, code: int) -> None:
    assert exit_code(error) == code


def test_every_error_class_is_mapped_on_purpose() -> None:
    """A new class under OmniMindError that is none of the known ones ends with 1: that must be meant."""
    plain = {
        cls.__name__ for cls in errors.OmniMindError.__subclasses__() if exit_code(cls("x")) is Exit.ERROR
    }
    assert plain <= {"LedgerError", "InstanceError", "InvalidTransition", "Cancelled"}


@pytest.mark.parametrize(
    ("statuses", "code"),
    [
        (["completed"], 0),
        (["completed", "cancelled"], 6),
        (["cancelled", "failed", "completed"], 5),
        (["expired"], 5),
        (["dead"], 5),
    ],
)
def test_the_worst_end_decides(statuses: list[str], code: int) -> None:
    assert outcome_code(statuses) == code


def test_waiting_tells_the_end_by_the_exit_code(run: Run, ids: dict[str, str]) -> None:
    assert run("task", "wait", ids["completed"]).exit_code == 0
    assert run("task", "wait", ids["failed"]).exit_code == 5
    assert run("task", "wait", ids["cancelled"]).exit_code == 6
    assert run("task", "wait", ids["dead"]).exit_code == 5
    assert run("task", "wait", ids["completed"], ids["cancelled"]).exit_code == 6
    result = run("task", "wait", ids["pending"], "--timeout", "10ms", "--json")
    assert result.exit_code == 7
    assert json.loads(result.stderr)["task_ids"] == [ids["pending"]]


def test_a_result_alone_is_on_stdout_and_a_failure_on_stderr(run: Run, ids: dict[str, str]) -> None:
    good = run("task", "wait", ids["completed"])
    assert json.loads(good.stdout) == {"ok": True}
    bad = run("task", "wait", ids["failed"])
    assert bad.stdout == ""
    assert "no such width" in bad.stderr
    assert "omnimind task show" in bad.stderr


def test_unreachable_is_nine(run: Run, fake: Any) -> None:
    fake.unreachable = True
    result = run("status")
    assert result.exit_code == 9
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert "hint: " in result.stderr
    problem = json.loads(run("status", "--json").stderr)
    assert problem["code"] == "unavailable"
    assert problem["status"] == 503
    assert problem["retryable"] is True


def test_next_steps_name_the_home_that_a_flag_named(run: Run, tmp_path: Path, ids: dict[str, str]) -> None:
    home = tmp_path / "with space"
    said = run("task", "show", ids["failed"], "--home", str(home)).stderr
    assert f"next: omnimind --home '{home}' task retry" in said


@pytest.mark.parametrize("flags", [["--json"], ["-o", "json"], ["-ojson"], ["--output=json"], ["-o", "yaml"]])
def test_errors_are_problem_documents_where_a_program_reads(flags: list[str], run: Run) -> None:
    result = run("task", "show", "tsk_ffff", *flags)
    assert result.exit_code == 3
    assert result.stdout == ""
    problem = json.loads(result.stderr)
    assert {"type", "title", "status", "detail", "code", "retryable"} <= set(problem)


def test_usage_errors_are_two_in_both_forms(run: Run) -> None:
    plain = run("task", "list", "--nonsense")
    assert plain.exit_code == 2
    assert "Usage: " in plain.stderr
    assert "error: " in plain.stderr
    as_json = run("task", "list", "--nonsense", "--json")
    assert as_json.exit_code == 2
    assert json.loads(as_json.stderr)["code"] == "usage"


@pytest.mark.parametrize(
    ("line", "meant"),
    [("tsak list", "task"), ("task lst", "list"), ("stats", "status"), ("task list --statsu x", "--status")],
)
def test_did_you_mean(line: str, meant: str, run: Run) -> None:
    result = run(*line.split())
    assert result.exit_code == 2
    assert meant in result.stderr


def test_an_unknown_thing_is_three_with_a_suggestion(run: Run) -> None:
    assert run("node", "show", "gamma").exit_code == 3
    assert "did you mean alpha?" in run("node", "show", "alfa").stderr
    assert "did you mean mail?" in run("queue", "show", "maill").stderr
    assert "did you mean nightly?" in run("schedule", "run", "nighly").stderr
    typo = run("submit", "shop.rezise", "{}")
    assert typo.exit_code == 3
    assert "did you mean shop.resize?" in typo.stderr


def test_a_bug_is_said_to_be_one(run: Run, fake: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: Any) -> Any:
        raise RuntimeError("oops")

    fake.on_status = broken
    result = run("status")
    assert result.exit_code == 1
    assert "RuntimeError: oops" in result.stderr
    assert "bug" in result.stderr
    monkeypatch.setenv("OMNIMIND_DEBUG", "1")
    with pytest.raises(RuntimeError, match="oops"):
        run("status")


def test_an_interrupt_is_one_hundred_and_thirty(run: Run, fake: Any) -> None:
    def interrupted(_: Any) -> Any:
        raise KeyboardInterrupt

    fake.on_status = interrupted
    assert run("status").exit_code == 130


def test_leaving_a_watch_is_no_error(run: Run, fake: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = []

    def sleep(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr("omnimind.cli.options.time.sleep", sleep)
    result = run("task", "list", "--watch", "0.5", "-o", "name")
    assert result.exit_code == 0
    assert looks == [0.5, 0.5, 0.5]
    assert len(result.stdout.splitlines()) == 18
