from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from omnimind.cli.submit import call_payload

Run = Callable[..., Result]


def test_the_id_alone_is_on_stdout_and_the_next_step_on_stderr(run: Run, fake: Any) -> None:
    result = run("submit", "shop.resize", '{"width": 1}')
    assert result.exit_code == 0
    assert result.stdout.strip() in fake.tasks
    assert f"next: omnimind task wait {result.stdout.strip()}" in result.stderr


@pytest.mark.parametrize(
    ("text", "payload"),
    [
        ('{"a": 1}', {"a": 1}),
        ("[1, 2]", [[1, 2], {}]),
        ('[[1], {"b": 2}]', [[1], {"b": 2}]),
        ("7", [[7], {}]),
        ('"ä"', [["ä"], {}]),
    ],
)
def test_payloads(text: str, payload: Any) -> None:
    assert json.loads(call_payload(text)) == payload


def test_payloads_from_file_and_standard_input(run: Run, fake: Any, tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text('{"from": "file"}')
    run("submit", "shop.resize", f"@{tmp_path / 'p.json'}")
    run("submit", "shop.resize", "-", stdin='{"from": "stdin"}')
    run("submit", "shop.resize")
    assert [r.payloads for r in fake.asked("submit")] == [
        [b'{"from":"file"}'],
        [b'{"from":"stdin"}'],
        [b"{}"],
    ]


def test_each_line_is_a_task_of_one_submission(run: Run, fake: Any) -> None:
    result = run("submit", "shop.resize", "-", "--each", "--json", stdin='{"n": 1}\n\n{"n": 2}\n')
    items = json.loads(result.stdout)["items"]
    assert len(items) == 2
    assert [r.payloads for r in fake.asked("submit")] == [[b'{"n":1}', b'{"n":2}']]
    assert run("submit", "shop.resize", "-", "--each", stdin="").exit_code == 2


@pytest.mark.parametrize(
    ("words", "field"),
    [
        (["{oops"], "payload"),
        (["@/nowhere"], "payload"),
        (["[NaN]"], "payload"),
        (["{}", "--priority", "urgent"], "priority"),
        (["{}", "--priority", "11"], "priority"),
        (["{}", "--deadline", "2001-01-01T00:00:00Z"], "deadline"),
        (["{}", "--delay", "10m", "--deadline", "5m"], "deadline"),
        (['"' + "x" * (256 << 10) + '"'], "payload"),
    ],
)
def test_bad_input_names_the_field(words: list[str], field: str, run: Run, fake: Any) -> None:
    result = run("submit", "shop.resize", *words, "--json")
    assert result.exit_code == 2
    assert json.loads(result.stderr)["errors"][0]["field"].startswith(field)
    assert not fake.asked("submit")


def test_options_travel(run: Run, fake: Any, ids: dict[str, str]) -> None:
    result = run(
        "submit",
        "shop.resize",
        "{}",
        "--queue",
        "mail",
        "--priority",
        "high",
        "--key",
        "k",
        "--needs",
        "gpu,ssd",
        "--needs",
        "big",
        "--timeout",
        "30s",
        "--retries",
        "5",
        "--after",
        ids["running"][:20],
        "--at-most-once",
        "--delay",
        "1m",
        "--deadline",
        "1h",
    )
    assert result.exit_code == 0, result.stderr
    request = fake.asked("submit")[0]
    assert (request.queue, request.priority, request.keys) == ("mail", 3, ["k"])
    assert request.needs == ["big", "gpu", "ssd"]
    assert (request.timeout, request.max_retries, request.at_most_once) == (30, 5, True)
    assert request.after == [ids["running"]]
    assert (request.delay, request.ttl) == (60, 3600)
    assert result.stdout.strip() == ids["completed"], "the task that stood under the key"
    assert "stood there already" in result.stderr


def test_points_in_time_travel_as_such(run: Run, fake: Any) -> None:
    later = time.time() + 7200
    text = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(later))
    run("submit", "shop.resize", "{}", "--deadline", text)
    request = fake.asked("submit")[0]
    assert request.deadline == pytest.approx(later, abs=1)
    assert request.ttl is None


def test_wait_prints_the_result(run: Run) -> None:
    result = run("submit", "shop.resize", "{}", "--wait")
    assert result.exit_code == 0, result.stderr
    assert result.stdout == "7\n"
    document = json.loads(run("submit", "shop.resize", "{}", "--wait", "--json").stdout)
    assert document["status"] == "completed"
    assert document["result"] == 7
    assert document["payload"] == {}
    assert run("submit", "shop.resize", "{}", "--wait-timeout", "1s").exit_code == 2


def test_an_unknown_queue_is_named_with_what_may_have_been_meant(run: Run) -> None:
    result = run("submit", "shop.resize", "{}", "--queue", "mial", "--json")
    assert result.exit_code == 3
    assert json.loads(result.stderr)["hint"] == "did you mean mail?"
