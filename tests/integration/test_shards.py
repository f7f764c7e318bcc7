"""A real instance with two shards, and with three, and with one again. Nothing is faked."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import omnimind
from omnimind import Client, task
from omnimind.cluster.sharding import shard_of_queue
from omnimind.errors import Conflict, KeyConflict, NotFound, TaskFailed
from omnimind.ids import bucket_in

SETTINGS = {
    "ray.object_store_memory": "80MiB",
    "instance.start_timeout": "240s",
    "ray.dashboard": False,
    "coordinator.shards": 2,
}
PATIENCE = 120.0
ZERO, ONE = "images", "emails"
"""Queues of shard 0 and of shard 1."""


@task
def double(x: int) -> int:
    return 2 * x


@task
def mark(folder: str, name: str, seconds: float = 0.0) -> str:
    """Leave a line for each run, which is the witness of how often there was one."""
    with (Path(folder) / name).open("a") as file:
        file.write("ran\n")
    time.sleep(seconds)
    return name


@task
def boom() -> None:
    msg = "no"
    raise ValueError(msg)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def om(home: Path) -> Iterator[Client]:
    assert (shard_of_queue(ZERO, 2), shard_of_queue(ONE, 2)) == (0, 1)
    with omnimind.local(num_cpus=2, home=home, settings=SETTINGS) as client:
        for queue in (ZERO, ONE):
            client.queues.set(queue)
        yield client


def coordinators(om: Client) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = om.cluster_status()["shards"]
    return found


def test_work_of_both_shards_runs_and_is_found(om: Client) -> None:
    handles = {queue: [om.submit(double, n, queue=queue) for n in range(20)] for queue in (ZERO, ONE)}
    for mine in handles.values():
        assert [handle.result(PATIENCE) for handle in mine] == [2 * n for n in range(20)]
    everything = [handle.id for mine in handles.values() for handle in mine]
    listed = [t["task_id"] for t in om.list()]
    assert set(everything) <= set(listed)
    times = [t["created_at"] for t in om.list()]
    assert times == sorted(times, reverse=True)
    assert [t["task_id"] for t in om.list(queue=ONE)] == [h.id for h in reversed(handles[ONE])]
    pages = list(om._pages(limit=None))
    assert len({t["task_id"] for page in pages for t in page}) == sum(map(len, pages)) == len(listed)
    assert om.find(everything[0][:20]) != []
    for queue in (ZERO, ONE):
        first = handles[queue][0]
        assert om.task(first)["queue"] == queue
        assert om.explain(first)["status"] == "completed"
    assert sum(om.map(double, range(2000), queue=ONE)) == 2 * sum(range(2000))
    assert {q["name"] for q in om.queues.list()} == {"default", ZERO, ONE}
    done = om.wait(everything, timeout=PATIENCE)
    assert done.pending == []


def test_a_node_is_one_node_with_its_own_slots(om: Client) -> None:
    [node] = om.nodes.list()
    assert node["max_concurrent_tasks"] == 2
    status = om.cluster_status()
    assert status["total_capacity"] == 2
    om.nodes.cordon(node["node_id"])
    late = [om.submit(double, 1, queue=queue) for queue in (ZERO, ONE)]
    time.sleep(1.0)
    assert [str(handle.status()) for handle in late] == ["pending", "pending"], "both shards keep to it"
    om.nodes.uncordon(node["node_id"])
    assert [handle.result(PATIENCE) for handle in late] == [2, 2]


def test_slots_are_shared_without_overcommit(om: Client, tmp_path: Path) -> None:
    """Sixteen long tasks of two queues on two slots: two at a time, and both queues get on."""
    handles = [
        om.submit(mark, str(tmp_path), f"{queue}-{n}", 0.4, queue=queue)
        for n in range(8)
        for queue in (ZERO, ONE)
    ]
    most, seen = 0, set()
    give_up = time.monotonic() + PATIENCE
    while om.cluster_status()["pending_tasks"] + om.cluster_status()["running_tasks"]:
        assert time.monotonic() < give_up
        running = subprocess.run(
            ["ps", "-eo", "args"], capture_output=True, text=True, check=True
        ).stdout.count("ray::mark")
        most = max(most, running)
        seen |= {t["queue"] for t in om.list(status="running")}
        time.sleep(0.1)
    assert [handle.result(PATIENCE) for handle in handles]
    assert seen == {ZERO, ONE}
    spans = sorted((t["started_at"], t["completed_at"]) for h in handles if (t := om.task(h)))
    overlapping = max(sum(a <= start < b for a, b in spans) for start, _ in spans)
    assert overlapping <= 2, "a slot more than there is"


def test_a_key_stands_for_one_task_in_all_queues(om: Client) -> None:
    for n in range(6):
        first = om.submit(double, n, queue=(ZERO, ONE)[n % 2], key=f"order-{n}")
        again = om.submit(double, n, queue=(ONE, ZERO)[n % 2], key=f"order-{n}")
        assert again.id == first.id
        with pytest.raises(KeyConflict):
            om.submit(double, 99, queue=(ONE, ZERO)[n % 2], key=f"order-{n}")


def test_dependencies_across_shards(om: Client, tmp_path: Path) -> None:
    first = om.submit(mark, str(tmp_path), "first", 0.5, queue=ZERO)
    second = om.submit(mark, str(tmp_path), "second", queue=ONE, after=[first])
    third = om.submit(mark, str(tmp_path), "third", queue=ZERO, after=[second, first])
    assert str(second.status()) == "pending"
    assert third.result(PATIENCE) == "third"
    ended = [om.task(h)["completed_at"] for h in (first, second, third)]
    assert ended == sorted(ended)
    bad = om.submit(boom, queue=ZERO, retries=0)
    after = om.submit(double, 1, queue=ONE, after=[bad])
    with pytest.raises(TaskFailed, match="dependency"):
        after.result(PATIENCE)
    with pytest.raises(NotFound):
        om.submit(double, 1, queue=ONE, after=["tsk_" + "0" * 32])


def test_schedules_and_dead_letters_are_found_by_name(om: Client) -> None:
    om.schedules.set("hourly", double, 3, interval=3600, queue=ONE)
    om.schedules.set("daily", double, 4, interval=86_400, queue=ZERO)
    assert [s["name"] for s in om.schedules.list()] == ["daily", "hourly"]
    run = om.schedules.run("hourly")
    assert run.result(PATIENCE) == 6
    assert bucket_in(run.id) is not None
    with pytest.raises(Conflict, match="another shard"):
        om.schedules.set("hourly", double, 3, interval=3600, queue=ZERO)
    om.schedules.remove("daily")
    assert list(om.deadletters.list()) == []


def test_one_shard_dies_and_the_other_goes_on(om: Client, tmp_path: Path) -> None:
    """Frozen first, so that it is certainly away while the other one works; then killed."""
    victim = coordinators(om)[1]["pid"]
    waiting = [om.submit(mark, str(tmp_path), f"one-{n}", 0.2, queue=ONE) for n in range(10)]
    os.kill(victim, signal.SIGSTOP)
    try:
        meanwhile = [om.submit(mark, str(tmp_path), f"zero-{n}", queue=ZERO) for n in range(20)]
        assert sorted(h.result(PATIENCE) for h in meanwhile) == sorted(f"zero-{n}" for n in range(20))
    finally:
        os.kill(victim, signal.SIGKILL)
    assert sorted(h.result(PATIENCE) for h in waiting) == sorted(f"one-{n}" for n in range(10))
    after = coordinators(om)
    assert after[1]["pid"] != victim
    assert after[1]["epoch"] > 1
    for name in tmp_path.iterdir():
        assert name.read_text().count("ran") >= 1
    assert sum(name.read_text().count("ran") for name in tmp_path.iterdir()) <= 30 + 2, (
        "only what ran then, again"
    )


def test_the_number_of_shards_changes_and_nothing_is_lost(om: Client, home: Path) -> None:
    """Last: it ends the instance of this module, and starts others in its home."""
    before = {t["task_id"]: t["status"] for t in om.list()}
    queues = [(q["name"], q["weight"]) for q in om.queues.list()]
    keyed = om.submit(double, 5, queue=ONE, key="lasting")
    later = [om.submit(double, n, queue=queue, delay=3600) for n in range(5) for queue in (ZERO, ONE)]
    before |= {keyed.id: "completed"} | {h.id: "pending" for h in later}
    assert keyed.result(PATIENCE) == 10
    env = {**os.environ, "OMNIMIND_HOME": str(home)}
    for shards in (3, 1):
        run = [sys.executable, "-P", "-m", "omnimind"]
        with contextlib.suppress(subprocess.CalledProcessError):
            subprocess.run([*run, "down"], env=env, check=True, capture_output=True)
        up = [*run, "up", "--detach", "--set", f"coordinator.shards={shards}", "--set", "ray.num_cpus=2"]
        up += ["--set", "ray.dashboard=false", "--set", "instance.start_timeout=240"]
        done = subprocess.run(up, env=env, check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        try:
            with omnimind.connect(home) as again:
                assert {t["task_id"]: t["status"] for t in again.list()} == before
                assert [(q["name"], q["weight"]) for q in again.queues.list()] == queues
                assert [s["name"] for s in again.schedules.list()] == ["hourly"]
                same = again.submit(double, 5, queue=ZERO, key="lasting")
                assert same.id == keyed.id
                for handle in later[:2]:
                    assert again.cancel(handle.id) == "cancelled"
                    before[handle.id] = "cancelled"
                later = later[2:]
                fresh = again.submit(double, 7, queue=ONE)
                assert fresh.result(PATIENCE) == 14
                before[fresh.id] = "completed"
        finally:
            subprocess.run([*run, "down"], env=env, check=True, capture_output=True)
