"""One grammar: what holds for every command, found by walking them all."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import click
import pytest
import yaml
from click.testing import Result

from omnimind.cli.lazy import LazyGroup
from omnimind.cli.main import COMMANDS, cli
from omnimind.cli.options import kind_of
from omnimind.cli.output import FORMATS

Run = Callable[..., Result]


def walk(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    if isinstance(command, click.Group):
        ctx = click.Context(command)
        for name in command.list_commands(ctx):
            child = command.get_command(ctx, name)
            assert child is not None, f"{name} is listed, but cannot be loaded"
            yield from walk(child, (*path, name))
    else:
        yield " ".join(path), command


ALL = dict(walk(cli))
READS = {path for path, command in ALL.items() if kind_of(command) == "read"}
WRITES = {path for path, command in ALL.items() if kind_of(command) == "write"}

READ_LINES = {
    "status": "",
    "explain": "{pending}",
    "top": "--once",
    "task list": "",
    "task show": "{failed}",
    "task wait": "{completed}",
    "task logs": "{running}",
    "task progress": "{running}",
    "node list": "",
    "node show": "nod_a",
    "queue list": "",
    "queue show": "mail",
    "schedule list": "",
    "schedule show": "nightly",
    "token list": "",
    "deadletter list": "",
    "deadletter show": "{dead}",
    "handler list": "",
    "cluster wait": "--nodes 1",
    "config list": "",
    "config show": "ray.port",
}
"""Each read with arguments that suit the fake; `test_every_read_is_tried` notices one that is not here."""

NEEDS_PROCESSES = {"doctor", "cluster check", "ledger backups", "ledger check"}
"""Reads that look at the machine or its files: tried by tests of their own."""


def options(command: click.Command) -> set[str]:
    return {
        name for p in command.params if isinstance(p, click.Option) for name in (*p.opts, *p.secondary_opts)
    }


def test_every_command_is_a_read_a_write_or_the_completion_script() -> None:
    assert set(ALL) - READS - WRITES == {"completion"}


@pytest.mark.parametrize("path", sorted(READS))
def test_reads_share_their_options(path: str) -> None:
    assert {"-o", "--output", "--json", "--fields", "--home"} <= options(ALL[path])


@pytest.mark.parametrize("path", sorted(WRITES))
def test_writes_share_their_options(path: str) -> None:
    assert {"-o", "--output", "--json", "--plan", "--plan-id", "--yes", "--home"} <= options(ALL[path])


@pytest.mark.parametrize("path", sorted(ALL))
def test_every_command_and_option_is_documented(path: str) -> None:
    command = ALL[path]
    assert command.get_short_help_str(200).endswith("."), "the first sentence ends with a full stop"
    for option in command.params:
        if isinstance(option, click.Option):
            assert option.help, f"{path} {option.opts[0]} has no help"


def test_the_list_of_commands_says_what_their_own_help_says() -> None:
    assert isinstance(cli, LazyGroup)
    for name, entry in COMMANDS.items():
        assert entry.load().name == name
        assert len(entry.help) <= 60, f"{name}: too long for one line"


def test_every_read_is_tried() -> None:
    assert set(READ_LINES) | NEEDS_PROCESSES == READS


def invoke(run: Run, path: str, ids: dict[str, str], *more: str) -> Result:
    return run(*path.split(), *READ_LINES[path].format(**ids).split(), *more)


@pytest.mark.parametrize("path", sorted(READ_LINES))
def test_json_of_every_read_is_one_document_on_stdout_and_nothing_on_stderr(
    path: str, run: Run, ids: dict[str, str]
) -> None:
    result = invoke(run, path, ids, "-o", "json")
    assert result.exit_code == 0, result.stderr
    assert result.stderr == ""
    document = json.loads(result.stdout)
    assert isinstance(document, dict)
    if path.endswith(" list") or path == "task logs":
        assert isinstance(document["items"], list)
    assert invoke(run, path, ids, "--json").exit_code == 0


@pytest.mark.parametrize("path", sorted(READ_LINES))
def test_jsonl_of_every_read_is_one_document_a_line(path: str, run: Run, ids: dict[str, str]) -> None:
    result = invoke(run, path, ids, "-o", "jsonl")
    assert result.exit_code == 0, result.stderr
    for line in result.stdout.splitlines():
        assert isinstance(json.loads(line), dict)


@pytest.mark.parametrize("path", sorted(READ_LINES))
def test_yaml_of_every_read_says_what_json_says(path: str, run: Run, ids: dict[str, str]) -> None:
    as_json: Any = json.loads(invoke(run, path, ids, "-o", "json").stdout)
    as_yaml: Any = yaml.safe_load(invoke(run, path, ids, "-o", "yaml").stdout)
    assert set(as_yaml) == set(as_json)


@pytest.mark.parametrize("path", sorted(READ_LINES))
def test_names_of_every_read_are_plain_lines(path: str, run: Run, ids: dict[str, str]) -> None:
    result = invoke(run, path, ids, "-o", "name")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.strip()
    assert "{" not in result.stdout or path == "task progress"


@pytest.mark.parametrize("path", sorted(READ_LINES))
def test_tables_of_every_read_are_plain_without_a_terminal(path: str, run: Run, ids: dict[str, str]) -> None:
    result = invoke(run, path, ids)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.strip()
    assert "\x1b" not in result.stdout + result.stderr


@pytest.mark.parametrize("form", FORMATS)
def test_moments_are_rfc_3339_in_utc_for_programs_and_relative_for_people(
    form: str, run: Run, ids: dict[str, str]
) -> None:
    result = run("task", "list", "-o", form)
    if form in {"json", "jsonl", "yaml"}:
        assert "Z" in result.stdout
        document = json.loads(run("task", "list", "-o", "json").stdout)
        assert document["items"][0]["created_at"].endswith("Z")
    elif form == "table":
        assert " ago" in result.stdout


def test_fields_choose_columns_and_keys(run: Run, ids: dict[str, str]) -> None:
    document = json.loads(run("task", "list", "--json", "--fields", "task_id,status").stdout)
    assert set(document["items"][0]) == {"task_id", "status"}
    assert run("task", "list", "--fields", "task_id,status").stdout.splitlines()[0].split() == [
        "TASK_ID",
        "STATUS",
    ]
    nested = json.loads(run("status", "--json", "--fields", "coordinator.epoch").stdout)
    assert nested == {"coordinator.epoch": 3}


def test_contradicting_formats_are_a_usage_error(run: Run) -> None:
    result = run("task", "list", "--json", "-o", "yaml")
    assert result.exit_code == 2
    assert json.loads(result.stderr)["code"] == "usage"


def test_a_list_says_what_it_does_not_show(run: Run, fake: Any) -> None:
    fake.truncated_before = 1_700_000_000.0
    result = run("task", "list", "-n", "2")
    assert "2 of 6 tasks shown" in result.stderr
    assert "removed" in result.stderr
    assert "shown" not in result.stdout
    document = json.loads(run("task", "list", "-n", "2", "--json").stdout)
    assert document["total"] == 6
    assert document["next_cursor"] == 2
    assert document["truncated_before"].startswith("2023-11-14T")
    assert "2 of 6" in run("task", "list", "-n", "2", "-o", "jsonl").stderr


def test_pages_join_without_a_gap(run: Run) -> None:
    first = json.loads(run("task", "list", "-n", "4", "--json").stdout)
    rest = json.loads(run("task", "list", "-n", "4", "--cursor", str(first["next_cursor"]), "--json").stdout)
    assert len({t["task_id"] for t in first["items"] + rest["items"]}) == 6
    assert rest["next_cursor"] is None
