"""Real instances: started, broken and stopped. Nothing is faked.

The time limits are far beyond what is needed, so that a slow machine does not make these tests red.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from actors import line
from omnimind import instance, launch, ownership, processes
from omnimind.config import Settings
from omnimind.errors import (
    AlreadyRunning,
    BadInstallation,
    DiskFull,
    LedgerError,
    PortInUse,
    StartTimeout,
    Unavailable,
)
from omnimind.instance import Paths, Record
from omnimind.launch import Instance
from omnimind.processes import Process

SMALL = Settings().changed(
    {"ray.num_cpus": 1, "ray.dashboard": False, "ray.object_store_memory": 80 << 20}
    | {"instance.start_timeout": 120.0}
)
PATIENCE = 120.0


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """Give a home whose path is too long for a unix socket, and leave nothing of it running."""
    path = tmp_path / ("home-" * 12) / "one"
    path.mkdir(parents=True)
    yield path
    end(path)


def end(path: Path) -> None:
    launch.stop(path)
    paths = Paths(path)
    assert ownership.leftovers(paths) == []
    assert not paths.alias.is_symlink()
    left = {p.name for p in paths.run.glob("*")} if paths.run.exists() else set()
    # `ended` says that a person wanted the end, for a start that finds what an earlier Ray has left.
    assert left <= {"lock", "ended"}


def until(true: Callable[..., bool], what: str) -> None:
    give_up = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < give_up, f"waited {PATIENCE:g} s until {what}"
        time.sleep(0.05)


def answers(paths: Paths) -> bool:
    with contextlib.suppress(Unavailable):
        line.ask(paths, "ping", 2.0)
        return True
    return False


def record_of(paths: Paths) -> Record:
    record = instance.running(paths)
    assert record is not None
    return record


def everything(started: Instance) -> list[Process]:
    found = processes.tree(started.record.supervisor)
    assert len(found) > 4
    return found


def listening(found: list[Process]) -> set[str]:
    """Return the addresses, as in /proc/net, on which these processes listen."""
    inodes = set()
    for process in found:
        for fd in Path(f"/proc/{process.pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                inodes.add(str(fd.readlink()).removeprefix("socket:[").removesuffix("]"))
    addresses = set()
    for table in ("tcp", "tcp6"):
        for row in Path(f"/proc/net/{table}").read_text(encoding="ascii").splitlines()[1:]:
            fields = row.split()
            if fields[3] == "0A" and fields[9] in inodes:
                addresses.add(fields[1].partition(":")[0])
    return addresses


def test_instances_live_side_by_side_on_loopback_below_their_homes(home: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    ray_home = Path.home() / ".ray"
    before = ray_home.exists()
    said: list[str] = []
    try:
        one = launch.start(home, SMALL.changed({"ray.dashboard": True}), on_progress=said.append)
        two = launch.start(other, SMALL, detach=True)
        for started in (one, two):
            assert started.alive()
            assert started.record.state == "ready"
            assert answers(started.paths)
            assert set(started.record.children) == {"ray", "job", "gcs_server", "raylet"}
            found = everything(started)
            until(lambda it=started: marked(it) == owned(it), "each process can be told by what it inherited")
            assert listening(found) <= {"0100007F", "0000000000000000FFFF00000100007F"}
            session = Path(started.record.session_dir).resolve()
            assert session.is_relative_to(started.home / "ray")
        assert one.record.ray_address != two.record.ray_address
        assert one.record.dashboard_url.startswith("http://127.0.0.1:")
        assert two.record.dashboard_url == ""
        assert any(text.startswith("Ray is up") for text in said)
        assert said[-1].startswith("ready")
        assert ray_home.exists() == before
        assert driver(one) == "42"
        assert dashboard(one, "") == 401
        assert dashboard(one, one.paths.ray_token.read_text(encoding="ascii").strip()) == 200

        with pytest.raises(AlreadyRunning, match=str(one.record.supervisor.pid)) as caught:
            launch.start(home, SMALL)
        assert caught.value.details["pid"] == one.record.supervisor.pid

        reader = watch_a_log(one)
        gone = everything(one)
        report = one.stop()
        assert report.was_running
        assert not report.killed
        assert report.leftovers == 0
        assert not any(map(processes.lives, gone))
        assert launch.find(home) is None
        assert reader.poll() is None, "somebody who only reads a log is not ours to end"
        reader.kill()
        reader.wait()
        found_two = launch.find(other)
        assert found_two is not None
        assert found_two.record.children == two.record.children
        assert answers(two.paths)
    finally:
        end(other)


def marked(started: Instance) -> set[int]:
    return {
        p.pid for p in processes.marked(started.paths.marker, {started.paths.ray, started.paths.ray_temp})
    }


def owned(started: Instance) -> set[int]:
    supervisor = started.record.supervisor
    return {p.pid for p in [supervisor, *processes.tree(supervisor)]}


def driver(started: Instance) -> str:
    """Return what a driver prints that knows nothing but the environment for it."""
    code = "import ray; ray.init(logging_level=40); print(ray.get(ray.remote(lambda: 42).remote()))"
    foreign = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    env = foreign | instance.ray_environment(started.paths, started.record)
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def dashboard(started: Instance, token: str) -> int:
    """Return the status with which Ray's dashboard answers who shows this token."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    request = urllib.request.Request(started.record.dashboard_url + "/api/version", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def watch_a_log(started: Instance) -> subprocess.Popen[bytes]:
    logs = sorted((Path(started.record.session_dir) / "logs").glob("raylet.*"))
    return subprocess.Popen(["tail", "-f", str(logs[0])], stdout=subprocess.DEVNULL)


def test_what_a_killed_supervisor_left_is_ended_by_the_next_start(home: Path) -> None:
    first = launch.start(home, SMALL, detach=True)
    old = everything(first)
    frozen = first.record.children["raylet"]
    # A process that does not even hear SIGTERM, which is what the kernel sends them now.
    processes.send(frozen, signal.SIGSTOP)
    processes.send(first.record.supervisor, signal.SIGKILL)
    until(lambda: not first.alive(), "the supervisor is dead")
    assert launch.find(home) is None
    assert processes.lives(frozen)

    said: list[str] = []
    second = launch.start(home, SMALL, on_progress=said.append)
    assert "left behind" in said[0]
    assert not any(map(processes.lives, old))
    assert answers(second.paths)


def test_stop_ends_what_a_killed_supervisor_left(home: Path) -> None:
    first = launch.start(home, SMALL, detach=True)
    old = everything(first)
    stopped = [first.record.children["ray"], first.record.children["raylet"]]
    for process in stopped:
        processes.send(process, signal.SIGSTOP)
    processes.send(first.record.supervisor, signal.SIGKILL)
    until(lambda: not first.alive(), "the supervisor is dead")
    report = launch.stop(home)
    assert not report.was_running
    assert report.leftovers >= len(stopped)
    assert not any(map(processes.lives, old))


def test_what_dies_under_the_supervisor_comes_back(home: Path) -> None:
    started = launch.start(home, SMALL, detach=True)
    paths = started.paths
    for restarts, victim in enumerate(("raylet", "gcs_server", "job"), start=1):
        before = record_of(paths)
        assert processes.send(before.children[victim], signal.SIGKILL)

        def back(expected: int = restarts) -> bool:
            now = record_of(paths)
            return now.restarts == expected and now.state == "ready"

        until(back, f"the instance is back after the death of {victim}")
        after = record_of(paths)
        assert answers(paths)
        assert after.supervisor == before.supervisor
        assert all(map(processes.lives, after.children.values()))
        same = {name for name in before.children if before.children[name] == after.children[name]}
        assert same == ({"ray", "raylet", "gcs_server"} if victim == "job" else set())


def test_an_attached_instance_ends_with_whoever_started_it(home: Path) -> None:
    code = (
        "import sys, signal; from pathlib import Path; from omnimind import config, launch\n"
        "settings = config.Settings().changed({'ray.num_cpus': 1, 'ray.dashboard': False})\n"
        "launch.start(Path(sys.argv[1]), settings); print('up', flush=True); signal.pause()"
    )
    owner = subprocess.Popen([sys.executable, "-P", "-c", code, str(home)], stdout=subprocess.PIPE)
    assert owner.stdout is not None
    assert owner.stdout.readline() == b"up\n"
    found = launch.find(home)
    assert found is not None
    parts = everything(found)
    owner.kill()
    owner.communicate()
    assert found.wait(lambda _: None, PATIENCE)
    assert not any(map(processes.lives, parts))


def test_a_second_signal_ends_the_wait_for_a_coordinator_that_hangs(home: Path) -> None:
    started = launch.start(home, SMALL.changed({"instance.stop_timeout": 600.0}), detach=True)
    pid = line.ask(started.paths, "hello", 5.0)["pid"]
    coordinator = processes.identify(pid)
    assert coordinator is not None
    processes.send(coordinator, signal.SIGSTOP)
    parts = everything(started)
    log = started.paths.logs / "supervisor.log"
    processes.send(started.record.supervisor, signal.SIGTERM)
    until(lambda: "stopping the coordinator" in log.read_text(encoding="utf-8"), "it began to stop")
    assert started.alive()
    processes.send(started.record.supervisor, signal.SIGTERM)
    assert started.wait(lambda _: None, PATIENCE)
    assert not any(map(processes.lives, parts))


def test_a_start_that_takes_too_long_ends_with_the_last_lines_of_the_log(home: Path) -> None:
    with pytest.raises(StartTimeout, match=r"not ready within 1 s.*logs/ray\.log") as caught:
        launch.start(home, SMALL.changed({"instance.start_timeout": 1.0}))
    assert caught.value.details["log"].startswith(str(home))
    assert ownership.leftovers(Paths(home)) == []


def test_a_damaged_ledger_is_what_the_start_fails_with(home: Path) -> None:
    (home / "ledger.db").write_bytes(b"no database " * 1000)
    with pytest.raises(LedgerError):
        launch.start(home, SMALL)
    assert ownership.leftovers(Paths(home)) == []


def test_a_taken_port_is_named(home: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(PortInUse, match=str(port)) as caught:
            launch.start(home, SMALL.changed({"ray.port": port}))
    assert caught.value.field == "ray.port"


def test_too_little_disk_is_said_before_anything_is_started(home: Path) -> None:
    with pytest.raises(DiskFull, match="MiB are free"):
        launch.start(home, SMALL.changed({"instance.min_free_disk": 1 << 44}))


def test_a_foreign_package_of_the_same_name_is_found_before_ray_is(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    foreign = tmp_path / "theirs" / "actors"
    foreign.mkdir(parents=True)
    (foreign / "__init__.py").touch()
    monkeypatch.setenv("PYTHONPATH", str(foreign.parent))
    with pytest.raises(BadInstallation, match=str(foreign)) as caught:
        launch.start(home, SMALL)
    assert "PYTHONPATH" in caught.value.hint


def test_a_working_folder_with_packages_of_the_same_names_does_no_harm(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("actors", "omnimind", "ray"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise ImportError('theirs')", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DiskFull):  # that far it came
        launch.start(home, SMALL.changed({"instance.min_free_disk": 1 << 44}))


def test_an_interrupted_start_leaves_nothing(home: Path) -> None:
    def interrupt(text: str) -> None:
        if text == "starting Ray":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        launch.start(home, SMALL, on_progress=interrupt)
    assert ownership.leftovers(Paths(home)) == []
    assert launch.find(home) is None


def test_stopping_what_never_ran_is_no_error(home: Path, tmp_path: Path) -> None:
    assert launch.stop(home) == launch.StopReport(was_running=False, leftovers=0, killed=False, seconds=0.0)
    assert not launch.stop(tmp_path / "nowhere").was_running
    assert not (tmp_path / "nowhere").exists()


def test_a_home_that_somebody_else_holds_is_not_touched(home: Path) -> None:
    paths = Paths(home)
    instance.prepare(paths)
    with ownership.Lock(paths):
        pid = os.fork()
        if pid == 0:  # another process, since a lock is no obstacle for its holder
            with contextlib.suppress(AlreadyRunning):
                launch.stop(home)
                os._exit(1)
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
