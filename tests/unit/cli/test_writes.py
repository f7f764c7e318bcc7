"""Writes: `--plan` changes nothing and says if it would, `--plan-id` holds, destruction is asked about."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import Result

Run = Callable[..., Result]

WRITES: dict[str, tuple[str, str | None]] = {
    "submit": ("submit shop.resize {{}}", None),
    "task cancel": ("task cancel {running}", "task cancel {failed}"),
    "task retry": ("task retry {failed}", None),
    "node cordon": ("node cordon nod_a", "node cordon nod_b"),
    "node drain": ("node drain nod_a", None),
    "node uncordon": ("node uncordon nod_b", "node uncordon nod_a"),
    "queue set": ("queue set new --weight 2", "queue set mail --concurrency 2"),
    "queue pause": ("queue pause mail", None),
    "queue resume": ("queue set mail --weight 3", "queue resume mail"),
    "queue remove": ("queue remove mail", None),
    "schedule set": ("schedule set hourly shop.resize --every 1h", None),
    "schedule pause": ("schedule pause nightly", None),
    "schedule resume": ("schedule set hourly shop.resize --every 1h", "schedule resume nightly"),
    "schedule run": ("schedule run nightly", None),
    "schedule remove": ("schedule remove nightly", None),
    "token create": ("token create deploy --role operator --expires 90d", None),
    "token revoke": ("token revoke ci", "token revoke old"),
    "deadletter replay": ("deadletter replay {dead}", None),
    "deadletter discard": ("deadletter discard {dead}", None),
}
"""Each write of the coordinator's things: a line that would change something, and one that would not."""

READING = {
    "tasks",
    "nodes",
    "node",
    "queues",
    "schedules",
    "handlers",
    "status",
    "usage",
    "find",
    "list",
    "tokens",
}

DESTRUCTIVE = ["queue remove", "schedule remove", "token revoke", "deadletter discard"]


def words(line: str, ids: dict[str, str]) -> list[str]:
    return line.format(**ids).split()


def test_every_write_on_the_coordinator_is_tried() -> None:
    from omnimind.cli.main import cli
    from omnimind.cli.options import kind_of

    local = {"up", "down", "demo", "cluster up", "cluster down", "node add", "node remove", "node run"}
    local |= {f"ledger {verb}" for verb in ("backup", "restore", "export", "import", "migrate", "prune")}
    ctx_walk = {path for path, command in _walk(cli) if kind_of(command) == "write"}
    assert set(WRITES) == ctx_walk - local


def _walk(command: Any, path: tuple[str, ...] = ()) -> Any:
    import click

    if isinstance(command, click.Group):
        ctx = click.Context(command)
        for name in command.list_commands(ctx):
            yield from _walk(command.get_command(ctx, name), (*path, name))
    else:
        yield " ".join(path), command


@pytest.mark.parametrize("path", sorted(WRITES))
def test_a_plan_changes_nothing_and_exits_ten(path: str, run: Run, fake: Any, ids: dict[str, str]) -> None:
    before = fake.state()
    result = run(*words(WRITES[path][0], ids), "--plan")
    assert result.exit_code == 10, result.stderr
    assert fake.state() == before
    assert "--plan-id pln_" in result.stderr


@pytest.mark.parametrize("path", sorted(p for p, (_, idle) in WRITES.items() if idle))
def test_a_plan_that_would_change_nothing_exits_zero_and_asks_only(
    path: str, run: Run, fake: Any, ids: dict[str, str]
) -> None:
    idle = WRITES[path][1]
    assert idle is not None
    result = run(*words(idle, ids), "--plan")
    for method, request in fake.calls:
        assert method in READING or request.plan, f"{method} was called without `plan`"
    assert result.exit_code == 0, result.stdout + result.stderr
    assert "nothing would change" in result.stderr


@pytest.mark.parametrize("path", sorted(WRITES))
def test_a_plan_is_data(path: str, run: Run, ids: dict[str, str]) -> None:
    result = run(*words(WRITES[path][0], ids), "--plan", "--json")
    document = json.loads(result.stdout)
    assert document["changes"] is True
    assert document["plan_id"].startswith("pln_")
    assert document["items"][0]["subject"]
    assert result.stderr == ""


@pytest.mark.parametrize("path", sorted(WRITES))
def test_the_planned_change_is_made_with_its_id(path: str, run: Run, fake: Any, ids: dict[str, str]) -> None:
    before = fake.state()
    line = words(WRITES[path][0], ids)
    plan = json.loads(run(*line, "--plan", "--json").stdout)
    result = run(*line, "--plan-id", plan["plan_id"], "--json")
    assert result.exit_code == 0, result.stderr
    assert fake.state() != before
    json.loads(result.stdout)
    assert result.stderr == ""


def test_a_stale_plan_is_refused_with_the_new_one(run: Run, fake: Any, ids: dict[str, str]) -> None:
    line = ["task", "cancel", ids["running"]]
    plan = json.loads(run(*line, "--plan", "--json").stdout)
    fake.on_cancel(fake_request(ids["running"]))
    before = fake.state()
    result = run(*line, "--plan-id", plan["plan_id"], "--json")
    assert result.exit_code == 8
    problem = json.loads(result.stderr)
    assert problem["code"] == "plan_stale"
    assert problem["effects"][0]["now"] == "cancelled"
    assert problem["plan_id"] != plan["plan_id"]
    assert fake.state() == before


def fake_request(task_id: str) -> Any:
    from omnimind.client.protocol import IdsRequest

    return IdsRequest(ids=[task_id])


@pytest.mark.parametrize("path", DESTRUCTIVE)
def test_destruction_is_refused_where_nobody_can_be_asked(
    path: str, run: Run, fake: Any, ids: dict[str, str]
) -> None:
    before = fake.state()
    result = run(*words(WRITES[path][0], ids))
    assert result.exit_code == 4
    assert "--yes" in result.stderr
    assert fake.state() == before
    assert run(*words(WRITES[path][0], ids), "--yes").exit_code == 0
    assert fake.state() != before


@pytest.mark.parametrize(
    ("typed", "code", "done"), [("y\n", 0, True), ("n\n", 4, False), ("\n", 4, False), ("", 130, False)]
)
def test_destruction_is_asked_about_on_a_terminal(
    typed: str,
    code: int,
    done: bool,
    run: Run,
    fake: Any,
    ids: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("omnimind.cli.changes.asks", lambda: True)
    before = fake.state()
    result = run("deadletter", "discard", ids["dead"], stdin=typed)
    assert result.exit_code == code
    assert "cannot be undone" in result.stderr
    assert (fake.state() != before) is done


def test_who_and_why_go_to_the_audit(run: Run, fake: Any, ids: dict[str, str]) -> None:
    run("task", "cancel", ids["running"], "--reason", "it is stuck")
    request = fake.asked("cancel")[-1]
    assert request.reason == "it is stuck"
    assert request.actor.startswith("cli:")


def test_many_tasks_are_cancelled_by_a_filter_only_when_said_twice(
    run: Run, fake: Any, ids: dict[str, str]
) -> None:
    assert run("task", "cancel").exit_code == 2
    assert run("task", "cancel", "--all").exit_code == 2
    assert run("task", "cancel", ids["running"], "--all", "--queue", "mail").exit_code == 2
    assert run("task", "cancel", "--all", "--queue", "mail").exit_code == 4
    result = run("task", "cancel", "--all", "--queue", "mail", "--yes", "--json")
    assert json.loads(result.stdout)["items"] == [{"task_id": ids["pending"], "done": "cancelled"}]


def test_what_is_not_named_stays_in_a_queue(run: Run, fake: Any) -> None:
    run("queue", "set", "mail", "--rate", "5")
    assert fake.queues["mail"].concurrency == 2
    assert fake.queues["mail"].rate == 5.0
    run("queue", "pause", "mail")
    assert fake.queues["mail"].paused
    assert fake.queues["mail"].rate == 5.0
    run("queue", "set", "mail", "--rate", "none")
    assert fake.queues["mail"].rate is None
    assert run("queue", "set", "mail", "--concurrency", "0").exit_code == 2


def test_a_drain_waits_until_the_node_is_empty(run: Run, fake: Any) -> None:
    result = run("node", "drain", "alpha", "--deadline", "5m", "--wait")
    assert result.exit_code == 0, result.stderr
    assert fake.asked("node_control")[-1].deadline == 300
    plan = run("node", "drain", "alpha", "--plan")
    assert "nod_a" in plan.stdout


def test_a_schedule_needs_one_kind_of_time(run: Run) -> None:
    assert run("schedule", "set", "x", "shop.resize").exit_code == 2
    assert run("schedule", "set", "x", "shop.resize", "--every", "1h", "--cron", "* * * * *").exit_code == 2
