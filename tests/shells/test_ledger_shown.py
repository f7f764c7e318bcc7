"""Which ledger it is, in `status` and `doctor`; what is unwise about its server, and what is in its way."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from omnimind.cli import checks
from omnimind.cli.findings import ERROR, OK, SKIPPED, WARNING, Facts
from omnimind.cli.session import Session
from omnimind.cli.status import ledger_line
from omnimind.errors import Unavailable
from omnimind.ledger.opening import open_ledger

SERVER = {"kind": "postgresql", "where": "db:5432/omni, schema omnimind", "version": "15.18", "warnings": []}


class Answers:
    """A session whose coordinator says this."""

    def __init__(self, about: dict[str, Any] | None, wrong: list[str], trouble: Any = None) -> None:
        self.status = {"ledger": about, "trouble": trouble}
        self.wrong = wrong
        self.session = self

    def call(self, method: str, body: Any, timeout: float) -> list[str]:
        assert method == "check"
        return self.wrong


@pytest.mark.parametrize(
    ("about", "wrong", "state", "says"),
    [
        (SERVER, [], OK, "PostgreSQL 15.18, db:5432/omni"),
        ({**SERVER, "warnings": ["fsync is off on the server"]}, [], WARNING, "fsync is off"),
        (SERVER, ["these ended tasks stand in a line: x"], ERROR, "stand in a line"),
        (None, [], OK, "whole"),
    ],
)
def test_what_doctor_says_of_a_ledger(
    about: dict[str, Any] | None, wrong: list[str], state: str, says: str
) -> None:
    found = checks.ledger(Answers(about, wrong))  # type: ignore[arg-type]
    assert (found.state, says in found.what) == (state, True), found
    assert found.mend or state == OK
    assert "ledger.db" not in found.mend or about is None


def test_while_there_is_trouble_nothing_is_asked_of_the_ledger() -> None:
    found = checks.ledger(Answers(SERVER, [], {"detail": "away"}))  # type: ignore[arg-type]
    assert found.state == SKIPPED


def test_status_names_the_ledger() -> None:
    assert ledger_line(SERVER) == "PostgreSQL 15.18, db:5432/omni, schema omnimind"
    assert ledger_line({"kind": "sqlite", "where": "/h/ledger.db", "version": "3.40.1"}) == (
        "SQLite 3.40.1, /h/ledger.db"
    )
    assert ledger_line(None) is None


def at_rest(home: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> Facts:
    monkeypatch.setenv("OMNIMIND_HOME", str(home))
    monkeypatch.setenv("OMNIMIND_LEDGER_URL", url)

    def nobody(_: Any) -> Any:
        raise Unavailable

    return Facts(Session(connect=nobody))


def test_without_a_coordinator_the_database_itself_is_asked(
    new_database: Callable[[], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = new_database()
    made = open_ledger(url, tmp_path)
    made.open(1)
    made.close()
    found = checks.ledger(at_rest(tmp_path, url, monkeypatch))
    assert (found.state, "asked directly" in found.what) == (OK, True), found


def test_a_database_that_cannot_be_reached_is_an_error_with_its_mend(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = checks.ledger(at_rest(tmp_path, "postgresql://u@127.0.0.1:1/db", monkeypatch))
    assert found.state == ERROR
    assert "nothing listens" in found.what
    assert "start PostgreSQL" in found.mend
