"""Parts of a cluster on several hosts die; the witness is a file that no part of OmniMind reads or writes.

Real Ray, real processes and links (of namespaces). The work, the hosts and the witness are those with which
`benchmarks.recovery` measures how long it takes; here it is asserted what becomes of the work.
"""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from benchmarks.recovery.clusters import WORK_HOSTS, OmniMind
from benchmarks.recovery.work import Line, Witness

PATIENCE = 120.0
pytestmark = pytest.mark.timeout(600)  # a busy machine is slow to start Ray


class Bench:
    """A cluster with its witness."""

    def __init__(self, cluster: OmniMind) -> None:
        self.cluster = cluster
        self.witness = Witness(cluster.shared)
        self._number = 0

    def start(self, *, once: bool = False, on: str = "") -> Line:
        """Let a task start on a host (any, if none is named), where it blocks until it is released.

        More are started until one is there; these are released again.
        """
        others = []
        while True:
            self._number += 1
            name = f"n{self._number}"
            self.cluster.driver.ask(*(("once", name) if once else ("submit", name, 0.0)))
            line = self.line(name, "START")
            if not on or line.host == on:
                break
            others.append(name)
            assert len(others) < 6, f"nothing starts on {on}"
        for other in others:
            self.witness.release(other)
            self.line(other, "END")
        return line

    def line(self, name: str, what: str, count: int = 1) -> Line:
        found = self.witness.wait(name, what, count=count, seconds=PATIENCE)
        assert found is not None, f"{name} has no {what} number {count}: {self.witness.lines(name)}"
        return found

    def task(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.cluster.driver.ask("task", name, seconds=90.0))
        return found

    def completed(self, name: str) -> dict[str, Any]:
        give_up = time.monotonic() + PATIENCE
        while (task := self.task(name))["status"] in {"pending", "running"}:
            assert time.monotonic() < give_up, task
            time.sleep(0.1)
        assert task["status"] == "completed", task
        return task

    def whole(self) -> None:
        """Wait until all hosts take work."""
        self.cluster.wait_for(WORK_HOSTS)

    def starts(self, name: str) -> int:
        return sum(line.what == "START" for line in self.witness.lines(name))


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with OmniMind(tmp_path_factory.mktemp("failover")) as cluster:
        yield Bench(cluster)


@pytest.fixture(autouse=True)
def _whole(request: pytest.FixtureRequest) -> Iterator[None]:
    if "bench" in request.fixturenames:
        request.getfixturevalue("bench").whole()
    yield
    if "bench" in request.fixturenames:
        request.getfixturevalue("bench").cluster.hosts.heal()


def lost(bench: Bench, fault: Callable[[Any], None]) -> None:
    """Cut a host in some way under a running task, and follow the task and its late result to the end."""
    here = bench.start(on="w1")
    host = bench.cluster.hosts["w1"]
    fault(host)
    again = bench.line(here.name, "END")
    assert again.host != "w1"
    assert bench.completed(here.name)["result"] == again.host
    # The old attempt ends too, behind the cut: an effect that nobody can stop, and a result that comes late.
    bench.witness.release(here.name)
    late = bench.line(here.name, "END", count=2)
    assert (late.host, late.pid) == ("w1", here.pid)
    host.heal()
    bench.whole()
    time.sleep(3)
    assert bench.task(here.name)["result"] == again.host
    assert bench.starts(here.name) == 2


def test_a_silent_cut_moves_the_work_and_the_late_result_is_refused(bench: Bench) -> None:
    lost(bench, lambda host: host.cut())


def test_a_host_that_is_heard_by_nobody_but_hears_the_others_is_given_up_too(bench: Bench) -> None:
    lost(bench, lambda host: host.drop_outgoing())


def test_a_host_that_hears_nobody_but_is_heard_is_given_up_too(bench: Bench) -> None:
    lost(bench, lambda host: host.drop_incoming())


def test_what_is_not_to_be_repeated_ends_as_lost_when_its_host_is_cut(bench: Bench) -> None:
    here = bench.start(once=True, on="w2")
    bench.cluster.hosts["w2"].cut()
    give_up = time.monotonic() + PATIENCE
    while (task := bench.task(here.name))["status"] == "running":
        assert time.monotonic() < give_up
        time.sleep(0.1)
    assert task["status"] == "failed"
    assert "lost" in task["cause"] or "no heartbeat" in task["cause"]
    bench.witness.release(here.name)
    bench.line(here.name, "END")
    bench.cluster.hosts["w2"].heal()
    bench.whole()
    assert bench.task(here.name)["status"] == "failed"
    assert bench.starts(here.name) == 1


def survives_a_loss_of_the_head(bench: Bench, fault: Callable[[], None]) -> None:
    """Work on other hosts goes on over a loss of the head, work on the head runs again."""
    elsewhere = [bench.start(once=True, on=host) for host in ("w1", "w2")]
    on_head = bench.start(on="head")
    epoch = bench.cluster.coordinator()["epoch"]
    fault()
    again = bench.line(on_head.name, "END")
    assert bench.completed(on_head.name)["result"] == again.host
    for line in elsewhere:
        bench.witness.release(line.name)
        assert bench.completed(line.name)["result"] == line.host
        assert bench.starts(line.name) == 1
    assert bench.cluster.coordinator()["epoch"] > epoch
    bench.whole()


def test_all_of_the_heads_ray_is_killed_and_what_runs_elsewhere_is_adopted(bench: Bench) -> None:
    survives_a_loss_of_the_head(bench, bench.cluster.kill_head)


def test_the_gcs_alone_is_killed(bench: Bench) -> None:
    head = bench.cluster.hosts["head"]
    [pid] = [p for p, words in head.processes().items() if words[0].endswith("/gcs_server")]
    survives_a_loss_of_the_head(bench, lambda: head.kill(pid))


def test_the_heads_host_loses_its_power_and_boots(bench: Bench) -> None:
    head = bench.cluster.hosts["head"]

    def power() -> None:
        head.power_off()
        time.sleep(5)
        head.boot()
        bench.cluster.spawn_head()
        bench.cluster.await_head()
        bench.cluster.renew_driver()

    survives_a_loss_of_the_head(bench, power)


def test_after_a_loss_of_its_job_alone_workers_stay_warm(bench: Bench) -> None:
    head = bench.cluster.hosts["head"]
    running = bench.start(once=True, on="w1")
    epoch = bench.cluster.coordinator()["epoch"]
    [pid] = head.pids("actors.job")
    head.kill(pid, signal.SIGKILL)
    give_up = time.monotonic() + PATIENCE
    while bench.cluster.coordinator()["epoch"] == epoch:
        assert time.monotonic() < give_up
        time.sleep(0.2)
    bench.witness.release(running.name)
    assert bench.completed(running.name)["result"] == "w1"
    assert bench.starts(running.name) == 1
    time.sleep(8)  # each node is out of use for a moment, and gets a new actor then
    bench.whole()
    pids = []
    for _ in range(8):
        line = bench.start()
        bench.witness.release(line.name)
        bench.completed(line.name)
        pids.append((line.host, line.pid))
        time.sleep(1)
    # Ray ends the idle workers of a job that is over at once: each lone task would run in a new process.
    assert len(set(pids)) < len(pids), pids
