"""The supervisor's decisions, with parts that die and fail to start as the test says."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from actors import keeping, supervisor
from actors.gcs_storage import GcsStorage
from actors.parts import Parts
from actors.supervisor import Supervisor
from actors.wakeups import Wakeups
from omnimind import instance
from omnimind.config import Settings
from omnimind.errors import StartTimeout
from omnimind.instance import Paths, Record


class FakeWakeups:
    """Time that passes at once. Asks for a stop after so many waits."""

    def __init__(self, waits: int) -> None:
        self.stops = 0
        self.pauses: list[float] = []
        self._left = waits

    def wait(self, _timeout: float) -> None:
        self._left -= 1
        if self._left <= 0:
            self.stops += 1

    def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)


class FakeParts:
    """deaths: what `dead` says, call by call, None from then on. failures: how many starts fail."""

    def __init__(self, deaths: list[str | None], failures: int = 0) -> None:
        self._deaths = deaths
        self._failures = failures
        self.done: list[str] = []
        self.connected = {"address": "127.0.0.1:1", "session": "/s", "dashboard": "127.0.0.1:2"}

    def dead(self) -> str | None:
        return self._deaths.pop(0) if self._deaths else None

    def start(self) -> bool:
        if self._failures:
            self._failures -= 1
            self.done.append("failed start")
            raise StartTimeout("too slow")
        self.done.append("start")
        return True

    def clear_away(self, *, everything: bool = False) -> None:
        self.done.append("clear all" if everything else "clear")

    def identities(self) -> dict[str, Any]:
        return {}

    def children(self) -> list[Any]:
        return []


@pytest.fixture
def paths(tmp_path: Path) -> Iterator[Paths]:
    paths = Paths(tmp_path)
    instance.prepare(paths)
    yield paths
    instance.remove_alias(paths)


def watch(
    paths: Paths, parts: FakeParts, waits: int, settings: Settings | None = None
) -> tuple[FakeWakeups, list[dict[str, Any]], Record]:
    told: list[dict[str, Any]] = []
    wakeups = FakeWakeups(waits)
    watching = Supervisor(paths, Settings(), told.append)
    storage = GcsStorage(paths, settings or Settings())
    storage.prepare()
    storage.taken()
    watching._storage = storage
    watching._watch(cast("Parts", parts), cast("Wakeups", wakeups))
    return wakeups, told, watching._record


def test_while_all_live_nothing_is_done(paths: Paths) -> None:
    parts = FakeParts([])
    wakeups, told, record = watch(paths, parts, waits=5)
    assert parts.done == []
    assert told == []
    assert wakeups.pauses == []
    assert record.restarts == 0


def test_what_died_is_cleared_away_and_started_again_and_said(paths: Paths) -> None:
    parts = FakeParts(["Ray's raylet has died", None])
    wakeups, told, record = watch(paths, parts, waits=2)
    assert parts.done == ["clear", "start"]
    assert wakeups.pauses == [keeping._PAUSES[0]]
    assert told[0]["progress"].startswith("Ray's raylet has died; starting it again in 0.5 s")
    assert told[1]["ready"]["restarts"] == 1
    assert record.state == "ready"
    assert instance.read_record(paths) == record
    assert record.dashboard_url == "http://127.0.0.1:2"


def test_a_start_that_fails_is_cleared_away_and_repeated_with_growing_pauses(paths: Paths) -> None:
    # A failed start leaves nothing, so that `dead` is true again without a new event.
    parts = FakeParts(["Ray has ended"] * 10, failures=9)
    wakeups, told, record = watch(paths, parts, waits=2)
    assert parts.done == ["clear", "failed start", "clear all"] * 9 + ["clear", "start"]
    assert wakeups.pauses == [0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 30.0, 30.0, 30.0]
    assert record.restarts == 10
    assert {"progress": "it did not start: too slow"} in told


def test_a_state_of_ray_that_keeps_it_from_starting_is_given_up(paths: Paths) -> None:
    settings = Settings().changed({"ray.gcs_storage": "rocksdb"})
    parts = FakeParts(["Ray has ended"] * 6, failures=5)
    left = paths.home / "gcs" / "db" / "broken"
    storage = GcsStorage(paths, settings)
    storage.prepare()
    left.touch()
    _, told, _ = watch(paths, parts, 2, settings)
    assert not left.exists()
    assert sum("begins with none" in message.get("progress", "") for message in told) == 1
    assert GcsStorage(paths, settings).kept


def test_pauses_begin_anew_after_a_time_of_health(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "_HEALTHY", -1.0)
    parts = FakeParts(["dead", None, "dead", None, "dead", None])
    wakeups, _, _ = watch(paths, parts, waits=4)
    assert wakeups.pauses == [0.5, 0.5, 0.5]


def test_without_health_between_them_pauses_grow(paths: Paths) -> None:
    parts = FakeParts(["dead", None, "dead", None, "dead", None])
    wakeups, _, _ = watch(paths, parts, waits=4)
    assert wakeups.pauses == [0.5, 1.0, 2.0]


def test_a_stop_during_the_pause_starts_nothing(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = FakeParts(["dead"] * 3)

    def pause(self: FakeWakeups, _seconds: float) -> None:
        self.stops += 1

    monkeypatch.setattr(FakeWakeups, "pause", pause)
    watch(paths, parts, waits=9)
    assert parts.done == ["clear"]


def test_messages_are_lines_and_a_reader_that_left_or_sleeps_holds_nothing_up() -> None:
    read, write = os.pipe()
    tell = supervisor._teller(write)
    tell({"progress": "one"})
    assert os.read(read, 100) == b'{"progress":"one"}\n'
    for _ in range(3000):
        tell({"progress": "x" * 100})
    os.close(read)
    tell({"progress": "nobody"})
    os.close(write)
    supervisor._teller(None)({"progress": "nowhere"})
