from __future__ import annotations

import asyncio
import io
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from omnimind.errors import InvalidInput, OmniMindError, TaskDead, Unavailable
from omnimind.survey.baseline import run_plain
from omnimind.survey.demo import STATE, plan_demo, run_demo, summarise
from omnimind.survey.files import find_files
from omnimind.survey.reduce import totals
from omnimind.survey.run import survey
from omnimind.survey.state import SurveyState


class Place:
    """The folders of one survey."""

    def __init__(self, root: Path, base: Path) -> None:
        self.tree_root = root
        self.out = base / "out"
        self.state = SurveyState(base / "home" / "survey.json")

    async def run(self, client: Any, live: Any, **more: Any) -> dict[str, Any]:
        tree = find_files(self.tree_root)
        return await survey(client, tree, out=self.out, state=self.state, live=live, **more)


@pytest.fixture
def place(tree_of_files: Path, tmp_path: Path) -> Place:
    return Place(tree_of_files, tmp_path)


async def test_totals_are_those_of_the_plain_run(place: Place, client: Any, live: Any) -> None:
    plain = totals(run_plain(find_files(place.tree_root)))
    for seed in range(5):
        client.seed = seed
        assert totals(await place.run(client, live)) == plain
    written = json.loads((place.out / "report.json").read_text(encoding="utf-8"))
    assert totals(written) == plain
    assert (place.out / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")


async def test_the_display_hears_of_everything(place: Place, client: Any, live: Any) -> None:
    report = await place.run(client, live)
    assert (live.total, live.is_open) == (9, False)
    assert (live.updates[-1].done, live.updates[-1].failed, live.updates[-1].total) == (9, 2, 9)
    failures = [(str(place.tree_root / path), reason) for path, reason in live.failures]
    assert sorted(failures) == [(f["path"], f["reason"]) for f in report["failures"]]
    assert live.said == []


async def test_an_interrupted_survey_goes_on_from_the_ledger(place: Place, client: Any, live: Any) -> None:
    client.breaks_after = 4
    client.error = asyncio.CancelledError()
    with pytest.raises(asyncio.CancelledError):
        await place.run(client, live)
    assert not (place.out / "report.json").exists()
    assert not live.is_open
    ran = len(client.ran)
    await asyncio.sleep(0.005)  # ids have milliseconds
    client.breaks_after = None
    report = await place.run(client, live)
    assert len(client.ran) == ran == 9
    assert report["resumed"] == 9
    assert "going on" in live.said[0]
    assert totals(report) == totals(run_plain(find_files(place.tree_root)))


async def test_only_what_changed_since_the_interruption_is_analysed_anew(
    place: Place, client: Any, live: Any
) -> None:
    client.breaks_after = 0
    with pytest.raises(RuntimeError):
        await place.run(client, live)
    await asyncio.sleep(0.005)
    client.breaks_after = None
    (place.tree_root / "single.py").write_text("x = 1\ny = 2\n", encoding="utf-8")
    (place.tree_root / "new.py").write_text("z = 3\n", encoding="utf-8")
    (place.tree_root / "latin.py").unlink()
    os.utime(place.tree_root / "empty.py", ns=(1, 1))
    report = await place.run(client, live)
    again = [Path(path).name for path in client.ran[9:]]
    assert sorted(again) == ["empty.py", "new.py", "single.py"]
    assert (report["files"], report["resumed"]) == (9, 6)
    assert totals(report) == totals(run_plain(find_files(place.tree_root)))


async def test_a_finished_survey_starts_afresh(place: Place, client: Any, live: Any) -> None:
    await place.run(client, live)
    report = await place.run(client, live)
    assert len(client.ran) == 18
    assert report["resumed"] == 0


async def test_a_survey_whose_report_could_not_be_written_is_not_finished(
    place: Place, client: Any, live: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    place.state.begin(find_files(place.tree_root).roots)
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(OmniMindError, match="no room"):
            await place.run(client, live)
    await place.run(client, live)
    assert len(client.ran) == 9


async def test_out_is_tried_before_anything_is_submitted(place: Place, client: Any, live: Any) -> None:
    place.out.touch()
    with pytest.raises(InvalidInput):
        await place.run(client, live)
    assert (client.ran, live.total) == ([], -1)


async def test_a_file_that_vanishes_fails_alone(place: Place, client: Any, live: Any) -> None:
    tree = find_files(place.tree_root)
    (place.tree_root / "single.py").unlink()
    report = await survey(client, tree, out=place.out, state=place.state, live=live)
    assert (report["files"], report["failed"]) == (9, 3)
    (reason,) = (f["reason"] for f in report["failures"] if f["path"].endswith("single.py"))
    assert reason.startswith("FileNotFoundError: ")


async def test_other_ends_of_a_task_have_their_reason(place: Place, client: Any, live: Any) -> None:
    def kill(outcomes: list[Any]) -> list[Any]:
        *_, first, second = sorted(outcomes, key=lambda outcome: outcome.index)
        first.status, first.error = (
            "dead",
            TaskDead("it", error_type="", error_message="", cause="3 worker deaths"),
        )
        second.status, second.error = "cancelled", TaskDead("by a person", error_type="", error_message="")
        return outcomes

    client.twist = kill
    report = await place.run(client, live)
    reasons = [failure["reason"] for failure in report["failures"]]
    assert "dead: 3 worker deaths" in reasons
    assert "cancelled: by a person" in reasons
    assert report["failed"] == 2 + 2


async def test_a_result_that_is_missing_is_an_error(place: Place, client: Any, live: Any) -> None:
    client.twist = lambda outcomes: outcomes[:-2]
    with pytest.raises(OmniMindError, match="no result for 2 of 9 files"):
        await place.run(client, live)
    assert not (place.out / "report.json").exists()


async def test_a_result_that_comes_twice_is_an_error(place: Place, client: Any, live: Any) -> None:
    client.twist = lambda outcomes: [*outcomes, outcomes[0]]
    with pytest.raises(OmniMindError, match="two results"):
        await place.run(client, live)


async def test_nodes_are_asked_and_their_silence_is_shown(
    place: Place, client: Any, live: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def node(name: str, status: str) -> dict[str, Any]:
        slots = {"max_concurrent_tasks": 2, "current_tasks": 1}
        return {"node_id": name, "hostname": name, "status": status, **slots}

    answers: list[Any] = [
        [node("gone", "offline"), node("old", "active"), node("here", "active")],
        [node("gone", "offline"), node("old", "offline"), node("here", "busy")],
        Unavailable("restarting"),
    ]
    asked = asyncio.Event()

    async def nodes() -> Sequence[Mapping[str, Any]]:
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, Exception):
            asked.set()
            raise answer
        return list(answer)

    original = client.map

    async def slow(*args: Any, **options: Any) -> Any:
        await asyncio.wait_for(asked.wait(), 10)
        async for outcome in original(*args, **options):
            yield outcome

    client.map = slow
    monkeypatch.setattr("omnimind.survey.run._TICK", 0.01)
    report = await place.run(client, live, nodes=nodes)
    shown = [update.nodes and [(n.name, n.status) for n in update.nodes] for update in live.updates]
    assert [("old", "active"), ("here", "active")] in shown
    assert [("old", "offline"), ("here", "busy")] in shown
    assert shown[-1] is None
    assert report["nodes"] == 2


async def test_the_demo_prints_a_result_and_returns(place: Place, client: Any, tmp_path: Path) -> None:
    out, err = io.StringIO(), io.StringIO()
    tree = plan_demo(str(place.tree_root), place.out)
    report = await run_demo(
        client,
        tree,
        once=True,
        out=place.out,
        home=tmp_path,
        stdout=out,
        stderr=err,
    )
    assert out.getvalue() == summarise(report, place.out) + "\n"
    for words in ("9 in ", "2 (listed", "report.html", "at most 3 in run (pkg/deep/more.py:1)", "pkg 20"):
        assert words in out.getvalue()
    assert "failed: " in err.getvalue()
    assert (tmp_path / STATE).exists()


async def test_the_demo_stays_until_it_is_cancelled(place: Place, client: Any, tmp_path: Path) -> None:
    out, err = io.StringIO(), io.StringIO()
    tree = plan_demo(str(place.tree_root), place.out)
    running = asyncio.create_task(
        run_demo(
            client,
            tree,
            once=False,
            out=place.out,
            home=tmp_path,
            stdout=out,
            stderr=err,
        )
    )
    while "stays up" not in err.getvalue():  # noqa: ASYNC110 - it ends in a write, which sets no event
        await asyncio.sleep(0)
    assert "report.html" in out.getvalue()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert "interrupted" not in err.getvalue()


async def test_the_demo_says_how_to_go_on(place: Place, client: Any, tmp_path: Path) -> None:
    out, err = io.StringIO(), io.StringIO()
    client.breaks_after, client.error = 3, asyncio.CancelledError()
    tree = plan_demo(str(place.tree_root), place.out)
    with pytest.raises(asyncio.CancelledError):
        await run_demo(
            client,
            tree,
            once=True,
            out=place.out,
            home=tmp_path,
            stdout=out,
            stderr=err,
        )
    assert out.getvalue() == ""
    assert "the same command goes on" in err.getvalue()


def test_the_demo_refuses_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="there is no folder"):
        plan_demo(str(tmp_path / "gone"), tmp_path / "out")
    (tmp_path / "a.py").touch()
    (tmp_path / "file").touch()
    with pytest.raises(InvalidInput, match="cannot write"):
        plan_demo(str(tmp_path), tmp_path / "file")
