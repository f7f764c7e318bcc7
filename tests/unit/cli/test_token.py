"""Tokens on the command line: the secret is shown once, and no hash ever."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from click.testing import Result

Run = Callable[..., Result]


def test_a_new_token_is_shown_once_and_alone_on_stdout(run: Run, fake: Any) -> None:
    result = run("token", "create", "deploy", "--role", "operator", "--expires", "90d")
    assert result.stdout == "omt_fresh\n"
    assert "only a hash" in result.stderr
    [(_, request)] = [call for call in fake.calls if call[0] == "token_create"]
    assert (request.role, request.expires_in) == ("operator", 90 * 86_400)
    assert "omt_fresh" not in run("token", "list").stdout


def test_the_list_has_states_and_no_hash(run: Run) -> None:
    rows = json.loads(run("token", "list", "--json").stdout)["items"]
    assert [row["name"] for row in rows] == ["ci", "old"]
    assert all("digest" not in row for row in rows)
    assert "revoked" in run("token", "list").stdout
    assert run("token", "list", "-o", "name").stdout.split() == ["tok_1", "tok_2"]


def test_an_unknown_role_and_an_unknown_token_are_errors(run: Run) -> None:
    assert run("token", "create", "x", "--role", "king").exit_code == 2
    missing = run("token", "revoke", "nobody", "--yes")
    assert missing.exit_code == 3
    assert "omnimind token list" in missing.stderr
