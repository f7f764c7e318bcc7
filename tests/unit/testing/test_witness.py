"""The checker of real runs must itself be able to say no: six doctored histories, each found."""

from __future__ import annotations

from pathlib import Path

import pytest

from omnimind.testing import witness
from omnimind.testing.witness import History


def sound() -> History:
    return History(
        acknowledged={"a", "b"},
        unknown={"c"},
        starts={"a": [(1.0, 1), (2.0, 2)], "b": [(1.0, 1)]},
        ends={"a": {"r1", "r2"}, "b": {"r3"}},
        once={"b"},
        final={"a": [("completed", "r2")], "b": [("completed", "r3")]},
    )


def test_a_sound_history_passes() -> None:
    assert witness.check(sound()) == []
    assert sound().reruns() == 1
    assert witness.summary(sound()) == "2 acknowledged, 1 unknown, 1 ran again, 2 completed"


@pytest.mark.parametrize(
    ("word", "doctor"),
    [
        ("lost", lambda h: h.final.pop("a")),
        ("doubled", lambda h: h.final["a"].append(("completed", "r1"))),
        ("invented", lambda h: h.final.update(a=[("completed", "r3")])),
        ("repeated", lambda h: h.starts["b"].append((2.0, 3))),
        ("unexpected", lambda h: h.final.update(z=[("failed", None)])),
        ("unexpected", lambda h: h.starts.update(z=[(1.0, 1)])),
    ],
)
def test_a_doctored_history_is_found(word: str, doctor: object) -> None:
    history = sound()
    doctor(history)  # type: ignore[operator]
    assert any(line.startswith(word) for line in witness.check(history))


def test_journals_are_read_as_they_were_written(tmp_path: Path) -> None:
    sent, runs = witness.Journal(tmp_path / "sent"), witness.Journal(tmp_path / "runs")
    for task in ("a", "b"):
        sent.write("SENT", task)
    sent.write("ONCE", "a")
    sent.write("ACK", "a", sync=True)
    runs.write("START", "a", 1.5, 7)
    runs.write("END", "a", "r")
    seen = witness.read([tmp_path / "sent"], tmp_path / "runs")
    assert (seen.acknowledged, seen.unknown, seen.once) == ({"a"}, {"b"}, {"a"})
    assert (seen.starts, seen.ends) == ({"a": [(1.5, 7)]}, {"a": {"r"}})
