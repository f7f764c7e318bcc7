"""Every process may be killed: what was acknowledged ends once, with a result that an attempt returned."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import omnimind
from omnimind import TaskContext
from omnimind.testing import witness
from omnimind.testing.witness import History, Journal

COUNT = 20_000
SECONDS = 0.001
SUBMITTER = Path(__file__).with_name("submitter.py")


def lasting(ctx: TaskContext, runs: str) -> str:
    """Work for some seconds, in sight of the witness."""
    journal = Journal(runs)
    journal.write("START", ctx.task_id, time.time(), os.getpid())
    time.sleep(5)
    result = f"lasting-{os.getpid()}"
    journal.write("END", ctx.task_id, result)
    return result


def recent_worker(runs: Path) -> int:
    """Return the process that started a task last."""
    for line in reversed(runs.read_text().splitlines()[-200:]):
        words = line.split(" ")
        if words[0] == "START":
            return int(words[3])
    pytest.fail("nothing runs")


class Nemesis:
    """Kills parts of a cluster, and measures how long it takes until work goes on as before."""

    def __init__(self, cluster: Any, runs: Path) -> None:
        self.cluster = cluster
        self.runs = runs
        self.log: list[tuple[str, float, int]] = []

    def strike(self, what: str, kill: Callable[[], None], recovered: Callable[[], Any]) -> None:
        """Kill while work is under way, and wait for the recovery."""
        running = self.cluster.status()["running_tasks"]
        began = time.monotonic()
        kill()
        self.cluster.until(recovered, f"recovery from: {what}")
        self.log.append((what, time.monotonic() - began, running))

    def work_goes_on(self) -> Callable[[], bool]:
        """Return a condition: tasks have started that had not when this was called."""
        before = self.runs.stat().st_size
        return lambda: self.runs.stat().st_size > before + 10_000

    def worker(self) -> None:
        """Kill a worker process in the middle of its batch."""
        pid = recent_worker(self.runs)
        self.strike("worker", lambda: os.kill(pid, signal.SIGKILL), self.work_goes_on())

    def node_actor(self) -> None:
        """Kill a Node actor: its batches end with it, and it comes back as new."""
        node = self.cluster.active()[0]

        def back() -> bool:
            now = {n["node_id"]: n for n in self.cluster.active()}.get(node["node_id"])
            return now is not None and now["pids"]["node"] != node["pids"]["node"]

        self.strike("Node actor", lambda: os.kill(node["pids"]["node"], signal.SIGKILL), back)

    def coordinator(self) -> None:
        """Kill the coordinator."""
        epoch = self.cluster.status()["coordinator"]["epoch"]

        def back() -> bool:
            found = self.cluster.status()["coordinator"]
            return found["epoch"] > epoch and not found["recovering"]

        self.strike("coordinator", self.cluster.kill_coordinator, back)

    def raylet(self) -> None:
        """Kill a raylet, and with it a whole node."""
        node = self.cluster.raylets.pop()
        before = len(self.cluster.active())
        self.strike("raylet", node.kill, lambda: len(self.cluster.active()) < before)
        node.end()

    def the_worker_of(self, task: str) -> None:
        """Kill the worker of a task that has started and not ended."""

        def started() -> list[int]:
            lines = [line.split(" ") for line in self.runs.read_text().splitlines()]
            return [int(words[3]) for words in lines if words[:2] == ["START", task]]

        self.cluster.until(started, "the task to start")
        (pid,) = started()
        self.strike("its worker", lambda: os.kill(pid, signal.SIGKILL), lambda: len(started()) > 1)


def final_records(cluster: Any, seen: History) -> None:
    """Read every terminal record, twice: what is read first must be read again."""
    ids = sorted(seen.acknowledged | seen.unknown)
    for again in range(2):
        for start in range(0, len(ids), 500):
            for task in cluster.tasks(ids[start : start + 500]):
                if task["status"] in {"pending", "running"}:
                    continue
                record = (task["status"], task["result"])
                records = seen.final.setdefault(task["task_id"], [])
                if not (again and records == [record]):
                    records.append(record)


@pytest.mark.timeout(400)
def test_twenty_thousand_tasks_survive_the_death_of_everything(cluster: Any, tmp_path: Path) -> None:
    for _ in range(2):
        cluster.add_raylet()
    runs = tmp_path / "runs"
    Journal(runs)
    journals = [tmp_path / "sent-0", tmp_path / "sent-1"]

    def driver(journal: Path, count: int, once: int) -> subprocess.Popen[bytes]:
        words = [sys.executable, str(SUBMITTER), str(cluster.home), str(journal), str(runs)]
        return subprocess.Popen([*words, str(count), str(once), str(SECONDS)])

    # The first driver is killed in the middle of its submissions, and another one does the rest.
    first = driver(journals[0], COUNT, 200)
    cluster.until(lambda: journals[0].exists() and journals[0].stat().st_size > 400_000, "submissions")
    first.kill()
    first.wait(30)
    sent = sum(1 for line in journals[0].read_text().splitlines() if line.startswith("ACK"))
    assert 0 < sent < COUNT
    second = driver(journals[1], COUNT - sent // 50 * 50, 0)

    nemesis = Nemesis(cluster, runs)
    for strike in (
        nemesis.worker,
        nemesis.coordinator,
        nemesis.node_actor,
        nemesis.worker,
        nemesis.raylet,
        nemesis.coordinator,
        nemesis.worker,
        nemesis.coordinator,
    ):
        cluster.until(nemesis.work_goes_on(), "work under way before the next strike")
        strike()
    # By luck none of these may have stood in the middle of a task; this one does.
    journals.append(tmp_path / "sent-2")
    handle = cluster.client.submit(lasting, str(runs), priority="critical")
    for word in ("SENT", "ACK"):
        Journal(journals[-1]).write(word, handle.id)
    nemesis.the_worker_of(handle.id)
    assert second.wait(120) == 0
    cluster.until(
        lambda: not cluster.status()["pending_tasks"] and not cluster.status()["running_tasks"],
        "everything to end",
        180,
    )

    seen = witness.read(journals, runs)
    final_records(cluster, seen)
    print(f"\n{witness.summary(seen)}")
    for what, seconds, running in nemesis.log:
        print(f"killed {what:12} with {running:4} attempts running: recovered after {seconds:.2f} s")
    assert witness.check(seen) == []
    # Not vacuous: every strike hit live work, and something had to run again.
    assert len(seen.acknowledged) >= COUNT
    assert len(seen.acknowledged) == len(seen.acknowledged & set(seen.final))
    assert all(running > 0 for _, _, running in nemesis.log)
    assert seen.reruns() > 0
    assert cluster.status()["coordinator"]["epoch"] >= 4


def test_an_attempt_outlives_the_coordinator_and_is_adopted(cluster: Any, tmp_path: Path) -> None:
    runs = tmp_path / "runs"

    def long(ctx: TaskContext, path: str) -> str:
        journal = Journal(path)
        journal.write("START", ctx.task_id, time.time(), os.getpid())
        time.sleep(6)
        return "done"

    handle = cluster.client.submit(long, path=str(runs), at_most_once=True)
    cluster.until(lambda: runs.exists() and runs.read_text(), "the attempt to start")
    cluster.kill_coordinator()
    assert handle.result(timeout=60) == "done"
    assert len(runs.read_text().splitlines()) == 1
    assert cluster.status()["coordinator"]["epoch"] == 2


def test_what_kills_its_workers_is_parked_and_its_mates_go_on(cluster: Any) -> None:
    def touchy(n: int) -> int:
        if n == 7:
            os.kill(os.getpid(), signal.SIGKILL)
        return n

    results = list(
        cluster.client.map(touchy, [{"n": n} for n in range(60)], ordered=True, return_exceptions=True)
    )
    assert [r.status for r in results if r.index != 7] == ["completed"] * 59
    assert results[7].status == "dead"
    [parked] = cluster.client.deadletters.list()
    assert "killed its worker 3 times" in parked["cause"]
    assert parked["task_id"] == results[7].task_id
    replayed = cluster.client.deadletters.replay(parked["task_id"])
    with pytest.raises(omnimind.TaskDead):
        replayed.result(timeout=60)
    cluster.client.deadletters.discard(parked["task_id"])
    assert [t["task_id"] for t in cluster.client.deadletters.list()] == [replayed.id]


def test_at_most_once_is_not_repeated_when_its_worker_dies(cluster: Any, tmp_path: Path) -> None:
    runs = tmp_path / "runs"

    def dies(ctx: TaskContext, path: str) -> None:
        Journal(path).write("START", ctx.task_id, time.time(), os.getpid())
        os.kill(os.getpid(), signal.SIGKILL)

    handle = cluster.client.submit(dies, path=str(runs), at_most_once=True)
    with pytest.raises(omnimind.TaskFailed, match="lost"):
        handle.result(timeout=60)
    assert len(runs.read_text().splitlines()) == 1


def test_cancel_and_timeout_kill_what_does_not_listen(cluster: Any) -> None:
    def deaf() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
        time.sleep(120)

    late = cluster.client.submit(deaf, timeout=1.0, retries=0)
    with pytest.raises(omnimind.TaskFailed, match="timeout"):
        late.result(timeout=60)
