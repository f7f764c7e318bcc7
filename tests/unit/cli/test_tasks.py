from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import Result

from omnimind.cli import tasks
from omnimind.cli.task import how_far
from omnimind.cluster.states import TERMINAL, NodeStatus, TaskStatus

Run = Callable[..., Result]


def test_the_statuses_are_those_of_the_core() -> None:
    assert tuple(s.value for s in TaskStatus) == tasks.STATUSES
    assert {s.value for s in TaskStatus} - {s.value for s in TERMINAL} == tasks.LIVE


def test_unique_prefixes_are_enough(run: Run, ids: dict[str, str]) -> None:
    for text in (ids["failed"], ids["failed"][:16], ids["failed"][4:16]):
        assert json.loads(run("task", "show", text, "--json").stdout)["task_id"] == ids["failed"]
    several = run("task", "show", "tsk_019")
    assert several.exit_code == 2
    assert ids["pending"] in several.stderr
    assert run("task", "show", "tsk_777").exit_code == 3
    assert run("task", "show", "not an id").exit_code == 3
    assert run("node", "show", "alpha").exit_code == 0
    assert run("node", "show", "nod_").exit_code == 2


def test_a_machine_that_came_back_is_meant_by_its_name(run: Run, fake: Any) -> None:
    fake.nodes["nod_b"].hostname = "alpha"
    assert run("node", "show", "alpha").exit_code == 2
    fake.nodes["nod_b"].status = NodeStatus.OFFLINE
    assert json.loads(run("node", "show", "alpha", "--json").stdout)["node_id"] == "nod_a"


def test_show_has_payload_attempts_and_error(run: Run, ids: dict[str, str]) -> None:
    page = run("task", "show", ids["failed"]).stdout
    assert '"width": 200' in page
    assert "ValueError: no such width" in page
    assert "retries used up" in page
    document = json.loads(run("task", "show", ids["failed"], "--json").stdout)
    assert document["payload"] == {"path": "a.png", "width": 200}
    assert document["attempts"][0]["error"]["type"] == "ValueError"
    assert document["attempts"][0]["ended_at"].endswith("Z")


def test_a_pickle_is_described_and_not_opened(run: Run, fake: Any, ids: dict[str, str]) -> None:
    fake.tasks[ids["completed"]].payload = b"\x80\x05cos\nsystem\n(S'exit 1'\ntR."
    fake.tasks[ids["completed"]].encoding = "pickle"
    document = json.loads(run("task", "show", ids["completed"], "--json").stdout)
    assert document["payload"] == {"encoding": "pickle", "bytes": 27}
    assert "27 bytes as a pickle" in run("task", "show", ids["completed"]).stdout


def test_filters_travel(run: Run, fake: Any) -> None:
    run(
        "task",
        "list",
        "-s",
        "failed",
        "-s",
        "dead",
        "--queue",
        "q",
        "--type",
        "t",
        "--node",
        "n",
        "--since",
        "1h",
    )
    request = fake.asked("list")[0]
    assert request.status == ["failed", "dead"]
    assert (request.queue, request.task_type, request.node) == ("q", "t", "n")
    assert request.since is not None
    assert run("task", "list", "-s", "borken").exit_code == 2


def test_an_empty_list_says_so_on_stderr(run: Run) -> None:
    result = run("task", "list", "--queue", "nothing-here")
    assert result.exit_code == 0
    assert result.stdout == ""
    assert "no task matches" in result.stderr
    assert json.loads(run("task", "list", "--queue", "nothing-here", "--json").stdout)["items"] == []


def test_cancel_says_what_was_done(run: Run, ids: dict[str, str]) -> None:
    result = run("task", "cancel", ids["pending"], ids["running"], ids["failed"], "--json")
    done = {row["task_id"]: row["done"] for row in json.loads(result.stdout)["items"]}
    assert done == {ids["pending"]: "cancelled", ids["running"]: "cancelling", ids["failed"]: "failed"}


def test_retry_prints_the_new_id(run: Run, fake: Any, ids: dict[str, str]) -> None:
    result = run("task", "retry", ids["failed"], "-o", "name")
    assert result.stdout.strip() in fake.tasks
    assert run("task", "retry", ids["running"]).exit_code == 4
    assert run("task", "retry", ids["running"], "--plan").exit_code == 4


def test_logs(run: Run, fake: Any, ids: dict[str, str]) -> None:
    result = run("task", "logs", ids["running"], "--tail", "1")
    assert result.stdout.endswith("info    line 3\n")
    fake.logs = [[n, 0.0, "info", "x"] for n in range(1, 1201)]
    assert len(run("task", "logs", ids["running"], "-o", "jsonl").stdout.splitlines()) == 1200
    assert [r.after for r in fake.asked("logs")][-3:] == [0, 500, 1000]


def test_logs_are_followed_to_the_end(
    run: Run, fake: Any, ids: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def pause(_: float) -> None:
        fake.logs.append([4, 0.0, "error", "late"])
        fake.tasks[ids["running"]].status = TaskStatus.FAILED

    monkeypatch.setattr("omnimind.cli.task.time.sleep", pause)
    lines = run("task", "logs", ids["running"], "--follow").stdout.splitlines()
    assert [line.split()[-1] for line in lines] == ["1", "2", "3", "late"]
    assert run("task", "logs", ids["running"], "--follow", "--json").exit_code == 2


def test_only_dead_letters_are_dead_letters(run: Run, ids: dict[str, str]) -> None:
    assert run("deadletter", "show", ids["failed"]).exit_code == 4
    items = json.loads(run("deadletter", "list", "--json").stdout)["items"]
    assert [t["task_id"] for t in items] == [ids["dead"]]


def test_progress_in_words(run: Run, ids: dict[str, str]) -> None:
    assert run("task", "progress", ids["running"]).stdout.startswith("running: 3 of 9 (33 %), cutting  (")
    assert how_far({"done": 0.25}) == "25 %"
    assert how_far({"other": 1}) == "other=1"
    assert how_far({"done": 1, "total": 2, "message": "\x1b[2J"}) == "1 of 2 (50 %), \\x1b[2J"


def test_explain_takes_tasks_and_nodes(run: Run, ids: dict[str, str]) -> None:
    page = run("explain", ids["pending"]).stdout
    assert "no node is free" in page
    assert "it is cordoned" in page
    assert json.loads(run("explain", "alpha", "--json").stdout)["kind"] == "node"
    nothing = run("explain", "alhpa")
    assert nothing.exit_code == 3
    assert "did you mean alpha?" in nothing.stderr


def test_a_live_pager_of_waiting_asks_again_until_the_end(run: Run, fake: Any, ids: dict[str, str]) -> None:
    asked: list[int] = []
    real = fake.on_watch

    def watch(request: Any) -> Any:
        asked.append(len(request.ids))
        if len(asked) == 3:
            fake.tasks[ids["running"]].status = TaskStatus.COMPLETED
            fake.tasks[ids["running"]].result = b"1"
        return real(request)

    fake.on_watch = watch
    assert run("task", "wait", ids["completed"], ids["running"]).exit_code == 0
    assert asked == [2, 1, 1]
