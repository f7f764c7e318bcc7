from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from omnimind import processes
from omnimind.processes import MARKER, Process

WAIT = "import signal; print(1, flush=True); signal.pause()"


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[bytes]]]:
    found: list[subprocess.Popen[bytes]] = []
    yield found
    for child in found:
        if child.poll() is None:
            child.kill()
        child.communicate()


def start(
    started: list[subprocess.Popen[bytes]],
    code: str = WAIT,
    env: dict[str, str] | None = None,
    title: str = sys.executable,
) -> subprocess.Popen[bytes]:
    child = subprocess.Popen(
        [title, "-c", code],
        executable=sys.executable,
        env={**os.environ, **(env or {})},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    started.append(child)
    assert child.stdout is not None
    assert child.stdout.readline()
    return child


def identity(child: subprocess.Popen[bytes]) -> Process:
    found = processes.identify(child.pid)
    assert found is not None
    return found


def test_a_recycled_pid_gets_no_signal(started: list[subprocess.Popen[bytes]]) -> None:
    child = start(started)
    real = identity(child)
    for other in (
        Process(real.pid, real.started + 1, real.boot),
        Process(real.pid, real.started, "another boot"),
    ):
        assert not processes.lives(other)
        assert not processes.send(other, signal.SIGKILL)
        assert processes.end([other], grace=0) == []
    assert child.poll() is None
    assert processes.send(real, signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    assert not processes.send(real, signal.SIGKILL)


def test_a_zombie_does_not_live(started: list[subprocess.Popen[bytes]]) -> None:
    child = start(started)
    real = identity(child)
    child.kill()
    assert processes.wait_gone([real], timeout=10) == []
    assert not processes.lives(real)
    assert Path(f"/proc/{child.pid}").exists()


def test_waiting_ends_with_the_last_process_or_the_time(started: list[subprocess.Popen[bytes]]) -> None:
    one, two = start(started), start(started)
    both = [identity(one), identity(two)]
    one.kill()
    assert processes.wait_gone(both, timeout=0.2) == [both[1]]


def test_who_does_not_listen_is_killed(started: list[subprocess.Popen[bytes]]) -> None:
    deaf = start(started, f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {WAIT}")
    polite = start(started)
    stubborn = identity(deaf)
    assert processes.end([stubborn, identity(polite)], grace=0.3) == [stubborn]
    assert deaf.wait() == -signal.SIGKILL
    assert polite.wait() == -signal.SIGTERM


def test_the_tree_holds_grandchildren(started: list[subprocess.Popen[bytes]]) -> None:
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {WAIT!r}])"
    parent = start(started, code)
    root = identity(parent)
    (below,) = processes.tree(root)
    assert processes.parents()[below.pid] == parent.pid
    parent.kill()
    processes.wait_gone([root], 10)
    assert processes.tree(root) == []
    processes.end([below], grace=0)


def test_what_an_instance_started_is_found_by_its_marker_alone(
    started: list[subprocess.Popen[bytes]],
) -> None:
    # The parent ends at once: nothing but the inherited marker leads to the child.
    code = (
        "import subprocess, sys;"
        f"subprocess.Popen([sys.executable, '-c', {WAIT!r}]); import signal; signal.pause()"
    )
    mine, other = {MARKER: "mine0123"}, {MARKER: "mine01234"}
    start(started, code, mine)
    start(started, WAIT, other)
    start(started, WAIT, {"SOMETHING_ELSE": "mine0123"})
    found = processes.marked("mine0123")
    assert len(found) == 2
    started[0].kill()
    started[0].wait()
    (orphan,) = processes.marked("mine0123")
    assert orphan in found
    processes.end([orphan], grace=0)
    assert processes.marked("mine0123") == []


def test_a_ray_worker_that_lost_its_marker_is_found_by_its_log(
    started: list[subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    log = tmp_path / "session" / "worker.out"
    log.parent.mkdir()
    code = f"log = open({str(log)!r}, 'w'); {WAIT}"
    worker = start(started, code, title="ray::Node.beat")
    reader = start(started, code, title="tail")
    assert processes.marked("nobody", [tmp_path / "session"]) == [identity(worker)]
    assert processes.marked("nobody", [tmp_path / "sess"]) == []
    assert processes.command(reader.pid)[0] == "tail"


def test_this_process_and_its_ancestors_are_never_found(monkeypatch: pytest.MonkeyPatch) -> None:
    code = (
        "from omnimind import processes; import os;"
        "print([p.pid for p in processes.marked('self0123')] == [], flush=True)"
    )
    result = subprocess.run(
        [sys.executable, "-c", f"import subprocess, sys; subprocess.run([sys.executable, '-c', {code!r}])"],
        env={**os.environ, MARKER: "self0123", "PYTHONPATH": os.getcwd()},  # noqa: PTH109
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.strip() == "True"
