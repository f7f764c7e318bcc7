"""Completion: live ids, within its time, silent when it cannot."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from click.shell_completion import BashComplete, CompletionItem

from omnimind.cli import complete
from omnimind.cli.main import cli
from omnimind.cli.session import Session
from omnimind.errors import Unavailable


@pytest.fixture
def tab(fake: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("OMNIMIND_HOME", str(tmp_path))

    def press(*words: str, link: Any = fake) -> list[CompletionItem[str]]:
        session = Session(connect=lambda _: link)
        shell = BashComplete(cli, {"obj": session}, "omnimind", "_OMNIMIND_COMPLETE")
        return shell.get_completions(list(words[:-1]), words[-1])

    return press


def values(items: list[CompletionItem[str]]) -> list[str]:
    return [item.value for item in items]


def test_commands_and_sub_commands(tab: Any) -> None:
    assert values(tab("s")) == ["submit", "status", "schedule"]
    assert values(tab("task", "")) == ["cancel", "list", "logs", "progress", "retry", "show", "wait"]
    assert "--plan" in values(tab("task", "cancel", "--p"))


def test_live_ids(tab: Any, ids: dict[str, str]) -> None:
    assert values(tab("task", "show", "tsk_")) == list(ids.values())
    assert values(tab("task", "cancel", "")) == [ids["pending"], ids["running"]]
    assert values(tab("deadletter", "replay", "")) == [ids["dead"]]
    assert values(tab("task", "wait", ids["pending"], "")) == [ids["running"]], (
        "what stands there already is not offered"
    )


def test_live_names(tab: Any) -> None:
    assert values(tab("node", "drain", "nod_")) == ["nod_a", "nod_b"]
    assert values(tab("queue", "pause", "m")) == ["mail"]
    assert values(tab("schedule", "run", "")) == ["nightly"]
    assert values(tab("submit", "shop")) == ["shop.resize"]
    assert values(tab("task", "list", "--queue", "")) == ["default", "mail"]


def test_help_beside_the_values(tab: Any) -> None:
    [item] = tab("submit", "shop")
    assert item.help == "Resize a picture."


class Slow:
    def call(self, *_: Any) -> Any:
        time.sleep(30)

    def close(self) -> None: ...


class Gone:
    def call(self, *_: Any) -> Any:
        raise Unavailable

    def close(self) -> None: ...


def test_it_gives_up_in_silence(
    tab: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(complete, "CAP", 0.05)
    assert tab("task", "show", "", link=Slow()) == []
    assert tab("task", "show", "", link=Gone()) == []
    assert capfd.readouterr() == ("", "")


def test_the_cap_is_a_third_of_a_second() -> None:
    assert complete.CAP == 0.3


def test_the_home_of_the_line_is_asked(tmp_path: Path, fake: Any) -> None:
    asked = []

    def connect(session: Session) -> Any:
        asked.append(session.home)
        return fake

    shell = BashComplete(cli, {"obj": Session(connect=connect)}, "omnimind", "_OMNIMIND_COMPLETE")
    shell.get_completions(["--home", str(tmp_path / "one"), "task", "show"], "")
    shell.get_completions(["task", "show", "--home", str(tmp_path / "two")], "")
    assert asked == [tmp_path / "one", tmp_path / "two"]
