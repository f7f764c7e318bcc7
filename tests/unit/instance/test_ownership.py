from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from omnimind import instance, ownership, processes
from omnimind.errors import AlreadyRunning
from omnimind.instance import Paths, Record
from omnimind.processes import MARKER

HOLD = """
import sys, signal
from omnimind import ownership
from omnimind.instance import Paths
lock = ownership.Lock(Paths(sys.argv[1]))
print(1, flush=True)
signal.pause()
"""
DEAF = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); signal.pause()"


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    paths = Paths(tmp_path)
    instance.prepare(paths)
    return paths


@pytest.fixture
def children() -> Iterator[list[subprocess.Popen[bytes]]]:
    found: list[subprocess.Popen[bytes]] = []
    yield found
    for child in found:
        child.kill()
        child.communicate()


def start(found: list[subprocess.Popen[bytes]], code: str, *args: str, **env: str) -> processes.Process:
    child = subprocess.Popen(
        [sys.executable, "-c", code, *args], stdout=subprocess.PIPE, env={**os.environ, **env}
    )
    found.append(child)
    assert child.stdout is not None
    assert child.stdout.readline()
    process = processes.identify(child.pid)
    assert process is not None
    return process


def test_a_home_has_one_owner_who_is_named(paths: Paths, children: list[subprocess.Popen[bytes]]) -> None:
    owner = start(children, HOLD, str(paths.home))
    with pytest.raises(AlreadyRunning, match="another process"):
        ownership.Lock(paths)
    instance.write_record(paths, Record(home=str(paths.home), versions={}, supervisor=owner, started_at=0.0))
    with pytest.raises(AlreadyRunning, match=f"process {owner.pid}") as caught:
        ownership.Lock(paths)
    assert caught.value.details["pid"] == owner.pid
    assert caught.value.status == 409


def test_the_lock_ends_with_its_owner_however_that_ends(
    paths: Paths, children: list[subprocess.Popen[bytes]]
) -> None:
    owner = start(children, HOLD, str(paths.home))
    processes.end([owner], grace=0)
    with ownership.Lock(paths, patience=10.0):
        pass
    with ownership.Lock(paths):
        pass


def test_a_sweep_ends_what_carries_the_marker_or_stands_in_the_record_and_nothing_else(
    paths: Paths, children: list[subprocess.Popen[bytes]]
) -> None:
    other = Paths(paths.home / "other")
    marked = start(children, DEAF, **{MARKER: paths.marker})
    recorded = start(children, DEAF)
    stranger = start(children, DEAF, **{MARKER: other.marker})
    bystander = start(children, DEAF)
    recycled = processes.Process(bystander.pid, bystander.started + 1, bystander.boot)
    supervisor = processes.Process(1, 0, "another boot")
    record = Record(
        home=str(paths.home),
        versions={},
        supervisor=supervisor,
        started_at=0.0,
        children={"ray": recorded, "job": recycled},
    )
    instance.write_record(paths, record)
    paths.settings.touch()
    assert {p.pid for p in ownership.leftovers(paths)} == {marked.pid, recorded.pid}
    assert ownership.sweep(paths, grace=0.1) == 2
    assert not processes.lives(marked)
    assert not processes.lives(recorded)
    assert processes.lives(stranger)
    assert processes.lives(bystander)
    assert not paths.record.exists()
    assert not paths.settings.exists()
    assert ownership.sweep(paths, grace=0.1) == 0
