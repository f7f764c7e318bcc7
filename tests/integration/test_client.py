"""Programs as users write them, on a real instance. Nothing is faked.

Each driver is a process of its own in a folder of its own, so that workers cannot import its files by luck.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import omnimind
from omnimind import Client, TaskContext, TaskStatus, Unavailable, task
from omnimind.errors import TaskCancelled, TaskFailed
from omnimind.instance import Paths, ray_environment, running

PATIENCE = 60.0
ROOT = str(Path(omnimind.__file__).parents[1])
SMALL = {"ray.object_store_memory": "80MiB", "instance.start_timeout": "120s"}


@pytest.fixture(scope="module")
def om(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    home = tmp_path_factory.mktemp("home")
    with omnimind.local(num_cpus=2, home=home, settings=SMALL) as client:
        yield client


@pytest.fixture
def home(om: Client, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.getbasetemp() / "home0"


def drive(folder: Path, script: str, environment: dict[str, str], **modules: str) -> str:
    """Run a driver to its end and return what it printed."""
    for name, text in {"driver": script, **modules}.items():
        file = folder / f"{name.replace('.', '/')}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "OMNIMIND_"))}
    done = subprocess.run(
        [sys.executable, "driver.py"],
        cwd=folder,
        env={**clean, "PYTHONPATH": ROOT, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def double(x: int) -> int:
    return 2 * x


def test_a_script_and_its_helpers(om: Client, home: Path, tmp_path: Path) -> None:
    script = """
import omnimind, helpers
FACTOR = 10

class Pair:
    def __init__(self, a): self.a = a

@omnimind.task(retries=0)
def work(pair):
    return Pair(helpers.plus(pair.a) * FACTOR)

with omnimind.connect() as om:
    back = om.submit(work, Pair(1)).result(60)
    print(type(back) is Pair, back.a, sorted(om.map(helpers.plus, range(3))))
"""
    printed = drive(
        tmp_path, script, {"OMNIMIND_HOME": str(home)}, helpers="def plus(x):\n    return x + 1\n"
    )
    assert printed == "True 20 [1, 2, 3]"


def test_code_outlives_its_driver(om: Client, home: Path, tmp_path: Path) -> None:
    script = """
import omnimind

def by_value(x):
    return x + 1

def from_folder(x):
    import helpers
    return helpers.plus(x)

with omnimind.connect() as om:
    print(om.submit(by_value, 1, delay=2).id)
with omnimind.connect(working_dir=".") as om:
    print(om.submit(from_folder, 1, delay=2).id)
"""
    environment = {"OMNIMIND_HOME": str(home)}
    printed = drive(tmp_path, script, environment, helpers="def plus(x):\n    return x + 2\n")
    for file in tmp_path.glob("*.py"):
        file.unlink()
    assert [om.result(name, PATIENCE) for name in printed.split()] == [2, 3]


def test_a_driver_inside_ray_with_packages_of_our_names(om: Client, home: Path, tmp_path: Path) -> None:
    """A user's `actors` and `serve` shadow OmniMind's own in the driver and in its workers."""
    script = """
import ray, omnimind
import actors, handlers

ray.init(runtime_env={"working_dir": "."}, log_to_driver=False)
with omnimind.connect() as om:
    print(actors.MINE, om.submit(handlers.work, 1).result(60), sorted(om.map(handlers.work, range(3))))
    try:
        om.queues.pause("nowhere")
    except omnimind.NotFound as error:
        print(type(error).__name__)
"""
    record = running(Paths(home))
    assert record is not None
    environment = {**ray_environment(Paths(home), record), "OMNIMIND_HOME": str(tmp_path / "empty")}
    printed = drive(
        tmp_path,
        script,
        environment,
        handlers="def work(x):\n    import serve\n    return serve.plus(x)\n",
        **{"actors.__init__": "MINE = True\n", "serve.__init__": "def plus(x):\n    return x + 3\n"},
    )
    assert printed.splitlines() == ["True 4 [3, 4, 5]", "NotFound"]


def test_a_plain_driver_goes_by_ray_when_told(om: Client, home: Path, tmp_path: Path) -> None:
    script = """
import os, signal, omnimind

def work(x):
    return x + 1

with omnimind.connect(os.environ["HOME_OF_IT"], address="ray") as om:
    print(om.submit(work, 1).result(60))
    numbers = []
    for number in om.map(work, range(4000), ordered=True, window=500):
        numbers.append(number)
        if len(numbers) == 1000:
            os.kill(om.cluster_status()["coordinator"]["pid"], signal.SIGKILL)
    print(numbers == list(range(1, 4001)))
"""
    environment = {"HOME_OF_IT": str(home)}
    assert drive(tmp_path, script, environment).splitlines() == ["2", "True"]


def test_a_map_goes_on_when_the_coordinator_is_killed(om: Client) -> None:
    numbers = []
    for number in om.map(double, range(6000), ordered=True, window=1000):
        numbers.append(number)
        if len(numbers) in (1000, 3000):
            os.kill(om.cluster_status()["coordinator"]["pid"], signal.SIGKILL)
    assert numbers == [2 * x for x in range(6000)]


def test_waiting_goes_on_when_the_coordinator_is_killed(om: Client) -> None:
    def slow(x: int) -> int:
        time.sleep(3)
        return x

    handle = om.submit(slow, 7)
    handle_of_later = om.submit(double, 1, delay=4)
    os.kill(om.cluster_status()["coordinator"]["pid"], signal.SIGKILL)
    assert om.wait([handle, handle_of_later], timeout=PATIENCE).pending == []
    assert [handle.result(), handle_of_later.result()] == [7, 2]


def test_a_handler_that_fails_is_told_with_its_traceback(om: Client) -> None:
    @task(retries=1, retry_base=0.01)
    def fails(x: int) -> None:
        raise LookupError(f"no {x}")

    handle = om.submit(fails, 3)
    with pytest.raises(TaskFailed, match="LookupError: no 3") as caught:
        handle.result(PATIENCE)
    assert "raise LookupError" in "".join(caught.value.__notes__)
    assert len(om.attempts(handle)) == 2


def test_progress_logs_and_cancel_of_a_running_task(om: Client) -> None:
    def patient(context: TaskContext) -> None:
        context.log("begun")
        context.progress(1, 10, "one of ten")
        while True:
            context.check()
            time.sleep(0.05)

    handle = om.submit(patient)
    lines = handle.logs(follow=True)
    assert next(lines).text == "begun"
    deadline = time.monotonic() + PATIENCE
    while handle.progress()["progress"] is None and time.monotonic() < deadline:
        time.sleep(0.1)
    assert handle.progress()["progress"]["message"] == "one of ten"
    assert handle.cancel() == "cancelling"
    with pytest.raises(TaskCancelled):
        handle.result(PATIENCE)
    assert list(lines) == []


def test_dependencies_keys_and_lists(om: Client) -> None:
    first = om.submit(double, 1)
    second = om.submit(double, 2, after=[first], key="the-second")
    assert om.submit(double, 2, after=[first], key="the-second") == second
    assert second.result(PATIENCE) == 4
    assert first.status() is TaskStatus.COMPLETED
    assert {first.id, second.id} <= {found["task_id"] for found in om.list(status="completed", limit=500)}


def test_a_local_instance_keeps_what_its_home_holds(tmp_path: Path) -> None:
    with omnimind.local(num_cpus=1, home=tmp_path, settings=SMALL) as om:
        handle = om.submit(double, 21, delay=1)
    with pytest.raises(Unavailable):
        omnimind.connect(tmp_path)
    with omnimind.local(num_cpus=1, home=tmp_path, settings=SMALL) as om:
        assert om.result(handle.id, PATIENCE) == 42


def test_local_for_asyncio_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def program() -> list[int]:
        async with omnimind.alocal(num_cpus=1, settings=SMALL) as om:
            return [await (await om.submit(double, x)) for x in range(3)]

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert asyncio.run(program()) == [0, 2, 4]
    assert list(tmp_path.glob("omnimind-*")) == []
