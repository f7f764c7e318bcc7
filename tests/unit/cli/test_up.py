"""`up`, `down` and `demo` on a fake `omnimind.launch`: nothing is started."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from omnimind import launch, processes
from omnimind.config import Settings
from omnimind.errors import AlreadyRunning, DiskFull
from omnimind.instance import Paths, Record

Run = Callable[..., Result]


class FakeLaunch:
    """Stands for starting and stopping: remembers what it was asked, and has at most one instance."""

    def __init__(self) -> None:
        self.started: list[tuple[Path, Settings, bool]] = []
        self.stopped: list[Path] = []
        self.running: FakeInstance | None = None
        self.refusal: Exception | None = None
        self.at_wait: Callable[[], None] = lambda: None

    def start(
        self,
        home: Path,
        settings: Settings,
        *,
        detach: bool = False,
        join: Any = None,
        on_progress: Any = print,
    ) -> Any:
        assert join is None, "`up` makes a head"
        self.started.append((home, settings, detach))
        if self.refusal is not None:
            raise self.refusal
        on_progress("starting Ray")
        self.running = FakeInstance(self, Path(home))
        return self.running

    def find(self, home: Path) -> Any:
        return self.running

    def stop(self, home: Path, *, timeout: float | None = None) -> launch.StopReport:
        was, self.running = self.running, None
        self.stopped.append(Path(home))
        return launch.StopReport(was_running=was is not None, leftovers=0, killed=False, seconds=0.5)


class FakeInstance:
    def __init__(self, owner: FakeLaunch, home: Path) -> None:
        self.owner = owner
        self.home = home
        self.paths = Paths(home)
        me = processes.identify(os.getpid())
        assert me is not None
        self.record = Record(
            home=str(home),
            versions={"omnimind": "1"},
            supervisor=me,
            started_at=1.0,
            state="ready",
            ray_address="127.0.0.1:6379",
            dashboard_url="http://127.0.0.1:8265",
        )

    def alive(self) -> bool:
        return self.owner.running is self

    def wait(self, on_progress: Any, timeout: float | None = None) -> bool:
        self.owner.at_wait()
        self.owner.running = None
        return True

    def stop(self, *, timeout: float | None = None) -> launch.StopReport:
        return self.owner.stop(self.home)


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> FakeLaunch:
    fake = FakeLaunch()
    for name in ("start", "find", "stop"):
        monkeypatch.setattr(launch, name, getattr(fake, name))
    return fake


def interrupt() -> None:
    raise KeyboardInterrupt


def test_detached_it_returns_with_the_instance(run: Run, launched: FakeLaunch, tmp_path: Path) -> None:
    result = run("up", "--detach", "--num-cpus", "2", "--set", "ray.dashboard=false", "--json")
    assert result.exit_code == 0, result.stderr
    assert result.stderr == ""
    document = json.loads(result.stdout)
    assert document["home"] == str(tmp_path / "home")
    assert document["pid"] == os.getpid()
    [(home, settings, detach)] = launched.started
    assert (home, detach) == (tmp_path / "home", True)
    assert settings.ray.num_cpus == 2
    assert settings.ray.dashboard is False
    assert launched.running is not None


def test_twice_up_is_once_up(run: Run, launched: FakeLaunch) -> None:
    assert run("up", "--detach").exit_code == 0
    again = run("up", "--detach")
    assert again.exit_code == 0
    assert "already" in again.stderr
    assert len(launched.started) == 1


def test_in_the_foreground_it_refuses_a_second_one(run: Run, launched: FakeLaunch) -> None:
    launched.refusal = AlreadyRunning("an instance runs already", pid=7)
    result = run("up", "--json")
    assert result.exit_code == 4
    assert json.loads(result.stderr)["pid"] == 7


def test_in_the_foreground_ctrl_c_stops_it(run: Run, launched: FakeLaunch) -> None:
    launched.at_wait = interrupt
    result = run("up")
    assert result.exit_code == 0, result.stderr
    assert "Ctrl-C stops it" in result.stderr
    assert "starting Ray" in result.stderr
    assert "starting Ray" not in result.stdout
    assert len(launched.stopped) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_closed_terminal_stops_it_in_order_too(
    number: signal.Signals, run: Run, launched: FakeLaunch
) -> None:
    before = signal.getsignal(number)
    launched.at_wait = lambda: os.kill(os.getpid(), number)
    assert run("up").exit_code == 0
    assert len(launched.stopped) == 1
    assert signal.getsignal(number) is before


def test_a_second_ctrl_c_hurries(run: Run, launched: FakeLaunch, monkeypatch: pytest.MonkeyPatch) -> None:
    launched.at_wait = interrupt
    real = launched.stop
    impatient = iter([KeyboardInterrupt, None])

    def stop(self: FakeInstance, **_: Any) -> launch.StopReport:
        error = next(impatient)
        if error is not None:
            raise error
        return real(self.home)

    monkeypatch.setattr(FakeInstance, "stop", stop)
    result = run("up")
    assert "hurrying" in result.stderr
    assert result.exit_code == 0
    assert launched.running is None


def test_somebody_else_may_stop_it(run: Run, launched: FakeLaunch) -> None:
    result = run("up")
    assert result.exit_code == 0
    assert "it was stopped" in result.stderr
    assert launched.stopped == []


def test_what_is_in_the_way_is_said(run: Run, launched: FakeLaunch) -> None:
    launched.refusal = DiskFull("3 MiB are free", field="instance.min_free_disk")
    result = run("up", "--detach")
    assert result.exit_code == 1
    assert "instance.min_free_disk: 3 MiB are free" in result.stderr
    assert "hint: free some space" in result.stderr


@pytest.mark.parametrize(
    "flags", [["--set", "ray.num_cpu=2"], ["--set", "ray.num_cpus=many"], ["--set", "nonsense"]]
)
def test_a_bad_setting_is_a_usage_error(flags: list[str], run: Run, launched: FakeLaunch) -> None:
    assert run("up", *flags).exit_code == 2
    assert not launched.started


def test_plans(run: Run, launched: FakeLaunch) -> None:
    assert run("up", "--plan").exit_code == 10
    assert run("down", "--plan").exit_code == 0
    launched.start(Path("/h"), Settings())
    assert run("up", "--plan").exit_code == 0
    down = run("down", "--plan", "--json")
    assert down.exit_code == 10
    assert "1 running tasks run again" in json.loads(down.stdout)["items"][0]["note"]
    assert launched.running is not None


def test_down_says_what_it_stopped(run: Run, launched: FakeLaunch) -> None:
    launched.start(Path("/h"), Settings())
    result = run("down", "--json")
    assert json.loads(result.stdout)["was_running"] is True
    again = run("down")
    assert again.exit_code == 0
    assert again.stdout == ""
    assert "nothing runs in" in again.stderr


class TestDemo:
    @pytest.fixture(autouse=True)
    def survey(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
        """Stand in for the survey itself: it has tests of its own."""
        (tmp_path / "src").mkdir()
        (tmp_path / "src" / "a.py").write_text("x = 1\n")
        self.source, self.out = tmp_path / "src", tmp_path / "out"
        self.ran: list[str] = []

        async def survey(_session: Any, tree: Any, _out: Path, _output: Any) -> dict[str, Any]:
            self.ran.append(str(len(tree.files)))
            if self.broken is not None:
                raise self.broken
            return {"files": len(tree.files)}

        monkeypatch.setattr("omnimind.cli.demo._survey", survey)
        return self.ran

    broken: BaseException | None = None

    def demo(self, run: Run, *more: str) -> Result:
        return run("demo", "--path", str(self.source), "--out", str(self.out), *more)

    def test_once_starts_surveys_and_stops(self, run: Run, launched: FakeLaunch) -> None:
        result = self.demo(run, "--once", "--json")
        assert result.exit_code == 0, result.stderr
        assert json.loads(result.stdout) == {"files": 1}
        assert result.stderr == ""
        assert len(launched.started) == len(launched.stopped) == 1
        assert launched.started[0][2] is False, "it is tied to this process, however that ends"

    def test_otherwise_it_stays_until_ctrl_c(self, run: Run, launched: FakeLaunch) -> None:
        launched.at_wait = interrupt
        result = self.demo(run)
        assert result.exit_code == 0
        assert "stays up" in result.stderr
        assert len(launched.stopped) == 1

    def test_what_ran_before_runs_on(self, run: Run, launched: FakeLaunch) -> None:
        launched.start(Path("/h"), Settings())
        result = self.demo(run)
        assert result.exit_code == 0
        assert "runs on" in result.stderr
        assert len(launched.started) == 1
        assert launched.running is not None
        assert launched.stopped == []

    def test_interrupted_it_stops_what_it_started(self, run: Run, launched: FakeLaunch) -> None:
        self.broken = KeyboardInterrupt()
        assert self.demo(run).exit_code == 130
        assert len(launched.stopped) == 1

    def test_broken_it_stops_what_it_started(self, run: Run, launched: FakeLaunch) -> None:
        self.broken = DiskFull("no space")
        assert self.demo(run).exit_code == 1
        assert len(launched.stopped) == 1

    def test_a_bad_path_is_found_before_anything_is_started(self, run: Run, launched: FakeLaunch) -> None:
        assert run("demo", "--path", str(self.source / "none"), "--out", str(self.out)).exit_code == 2
        assert not launched.started

    def test_the_plan_writes_and_starts_nothing(self, run: Run, launched: FakeLaunch) -> None:
        assert self.demo(run, "--plan").exit_code == 10
        assert not launched.started
        assert not self.out.exists()
        assert not self.ran
