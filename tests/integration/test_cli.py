"""The command line on a real instance: started, used and stopped by the commands that people type.

Nothing is faked. One instance serves all tests of this file but those that start one of their own.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import omnimind
from omnimind import launch, ownership, processes
from omnimind.instance import Paths

PATIENCE = 120.0
SMALL = [
    "--num-cpus",
    "2",
    "--set",
    "ray.object_store_memory=80MiB",
    "--set",
    "instance.start_timeout=120s",
    "--set",
    "ray.dashboard=false",
]
HANDLER = """
import os, time
import omnimind
from omnimind import TaskContext

@omnimind.task(name="shop.work", retries=0)
def work(context: TaskContext, do: str = "ok", seconds: float = 0.0) -> dict[str, str]:
    '''Do as it is told.'''
    context.progress(3, 6, "half way")
    context.log("working")
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        context.check()
        time.sleep(0.02)
    if do == "fail":
        raise ValueError("no such width")
    if do == "crash":
        os._exit(9)
    return {"did": do}

with omnimind.connect() as om:
    print(om.submit(work).result(timeout=100))
"""

Done = subprocess.CompletedProcess[str]
Run = Callable[..., Done]


def environment(home: Path) -> dict[str, str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "OMNIMIND_"))}
    root = str(Path(omnimind.__file__).parents[1])
    return clean | {"OMNIMIND_HOME": str(home), "PYTHONPATH": root, "PYTHONSAFEPATH": "1"}


def command(home: Path, *words: str) -> Done:
    return subprocess.run(
        [sys.executable, "-m", "omnimind", *words],
        cwd=home.parent,
        env=environment(home),
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE * 2,
    )


def document(done: Done, code: int = 0) -> Any:
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout)


def until(true: Callable[[], object], what: str) -> None:
    give_up = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < give_up, what
        time.sleep(0.1)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("cli") / "home"
    try:
        started = document(command(path, "up", "--detach", *SMALL, "--json"))
        assert started["state"] == "ready"
        script = path.parent / "register.py"
        script.write_text(HANDLER)
        told = subprocess.run(
            [sys.executable, str(script)],
            cwd=path.parent,
            env=environment(path),
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )
        assert told.returncode == 0, told.stderr
        yield path
    finally:
        launch.stop(path)
        assert ownership.leftovers(Paths(path)) == []


@pytest.fixture
def run(home: Path) -> Run:
    return lambda *words: command(home, *words)


def test_status_names_the_processes(run: Run) -> None:
    found = document(run("status", "--json"))
    assert found["coordinator"]["epoch"] >= 1
    [node] = [n for n in found["nodes"] if n["status"] != "offline"]
    pids = [found["coordinator"]["pid"], *node["pids"].values()]
    assert all(processes.identify(pid) is not None for pid in pids)
    assert found["total_capacity"] == 2


def test_a_machine_in_order(run: Run) -> None:
    done = run("doctor", "--json")
    states = {f["check"]: (f["state"], f["what"]) for f in document(done, done.returncode)["items"]}
    machine = {"disk", "shared memory", "open files"}
    assert {k: v for k, v in states.items() if v[0] != "ok" and k not in machine} == {}


def test_up_again_says_that_it_runs(run: Run, home: Path) -> None:
    again = document(run("up", "--detach", "--json"))
    found = launch.find(home)
    assert found is not None
    assert again["pid"] == found.record.supervisor.pid
    assert run("up", "--json").returncode == 4


@pytest.mark.parametrize(("payload", "code"), [({"do": "ok"}, 0), ({"do": "fail"}, 5), ({"do": "crash"}, 5)])
def test_the_exit_code_tells_how_it_ended(payload: dict[str, Any], code: int, run: Run) -> None:
    done = run("submit", "shop.work", json.dumps(payload), "--wait", "--wait-timeout", f"{PATIENCE}s")
    assert done.returncode == code, done.stderr
    assert (json.loads(done.stdout) == {"did": "ok"}) if code == 0 else (done.stdout == "")


def test_a_running_task_is_followed_explained_and_cancelled(run: Run) -> None:
    task_id = run("submit", "shop.work", '{"seconds": 600}', "-o", "name").stdout.strip()
    until(
        lambda: "3 of 6 (50 %), half way" in run("task", "progress", task_id).stdout, "its progress is shown"
    )
    until(lambda: "working" in run("task", "logs", task_id).stdout, "its log is shown")
    assert "runs on" in run("explain", task_id).stdout
    top = document(run("top", "--json"))
    assert [t["task_id"] for t in top["running"]] == [task_id]
    assert run("task", "wait", task_id, "--timeout", "200ms").returncode == 7
    assert run("task", "cancel", task_id, "--reason", "enough").returncode == 0
    assert run("task", "wait", task_id, "--timeout", f"{PATIENCE}s").returncode == 6


def test_commands_wait_for_a_coordinator_that_is_being_restarted(run: Run) -> None:
    before = document(run("status", "--json"))["coordinator"]
    os.kill(before["pid"], signal.SIGKILL)
    task_id = document(run("submit", "shop.work", "{}", "--wait", "--json"))["task_id"]
    after = document(run("status", "--json"))["coordinator"]
    assert after["epoch"] > before["epoch"]
    assert document(run("task", "show", task_id, "--json"))["status"] == "completed"


def test_the_survey_runs_on_it_and_leaves_it_up(run: Run, home: Path) -> None:
    source = home.parent / "source"
    source.mkdir()
    (source / "good.py").write_text("def f():\n    return 1\n")
    (source / "bad.py").write_text("def f(:\n")
    out = home.parent / "out"
    done = run("demo", "--path", str(source), "--out", str(out), "--once", "--json")
    report = document(done)
    assert (report["files"], report["failed"]) == (2, 1)
    assert json.loads((out / "report.json").read_text())["files"] == 2
    assert (out / "report.html").exists()
    assert run("status").returncode == 0, "it was running before"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_in_the_foreground_a_signal_ends_it_with_all_it_started(
    number: signal.Signals, tmp_path: Path
) -> None:
    path = tmp_path / "home"
    words = [sys.executable, "-m", "omnimind", "up", *SMALL, "--json"]
    with subprocess.Popen(
        words, cwd=tmp_path, env=environment(path), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as foreground:
        try:
            assert foreground.stdout is not None
            line = ""
            while line.rstrip() != "}":
                line = foreground.stdout.readline()
                assert line, "it said that it is ready"
            assert command(path, "status").returncode == 0
            foreground.send_signal(number)
            assert foreground.wait(PATIENCE) == 0
            assert command(path, "status").returncode == 9
            assert ownership.leftovers(Paths(path)) == []
        finally:
            foreground.kill()
            launch.stop(path)


def test_down_stops_this_home_and_no_other(home: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    try:
        document(command(other, "up", "--detach", *SMALL, "--json"))
        assert document(command(other, "down", "--json"))["was_running"] is True
        assert ownership.leftovers(Paths(other)) == []
        assert command(home, "status").returncode == 0
    finally:
        launch.stop(other)
    assert document(command(other, "down", "--json"))["was_running"] is False
