"""The HTTP API on a real Ray Serve, before a real coordinator: used, broken and stopped."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

import omnimind
from actors import api_port
from omnimind import launch, ownership, task
from omnimind.config import Settings
from omnimind.errors import Forbidden
from omnimind.instance import Paths
from omnimind.processes import command

SETTINGS = Settings().changed(
    {"ray.num_cpus": 2, "ray.dashboard": False, "ray.object_store_memory": 80 << 20, "api.enabled": True}
    | {"instance.start_timeout": 120.0}
)
PATIENCE = 120.0


@task
def add(a: int, b: int) -> int:
    return a + b


def until(true: Callable[[], Any], what: str) -> Any:
    give_up = time.monotonic() + PATIENCE
    while not (found := true()):
        assert time.monotonic() < give_up, f"waited {PATIENCE:g} s until {what}"
        time.sleep(0.1)
    return found


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("api")
    settings = api_port.with_port(SETTINGS)
    launch.start(path, settings)
    yield path
    launch.stop(path)
    assert ownership.leftovers(Paths(path)) == []
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{api_port.url(settings)}/healthz")


@pytest.fixture(scope="module")
def url(home: Path) -> str:
    with omnimind.connect(home) as om:
        found: str = om.cluster_status()["api"]["url"]

    def ready() -> bool:
        try:
            return httpx.get(f"{found}/readyz").status_code == 200
        except httpx.TransportError:
            return False

    until(ready, "the API is ready")
    return found


@pytest.fixture
def web(url: str, home: Path) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {Paths(home).token.read_text().strip()}"}
    with httpx.Client(base_url=url, headers=headers, timeout=PATIENCE) as client:
        yield client


@pytest.fixture(scope="module")
def task_type(home: Path) -> str:
    with omnimind.connect(home) as om:
        handle = om.submit(add, 1, 2)
        assert handle.result(PATIENCE) == 3
        return str(om.task(handle)["task_type"])


def test_a_task_goes_in_and_its_result_comes_out(web: httpx.Client, task_type: str, home: Path) -> None:
    made = web.post("/api/v1/tasks", json={"type": task_type, "payload": {"a": 40, "b": 2}, "key": "k"})
    assert made.status_code == 201, made.text
    path = made.headers["location"]
    assert web.get(f"{path}/wait?timeout=60").json()["result"] == 42
    assert (
        web.post("/api/v1/tasks", json={"type": task_type, "payload": {"a": 40, "b": 2}, "key": "k"}).json()[
            "task_id"
        ]
        == path.rpartition("/")[2]
    )
    with omnimind.connect(home) as om:
        assert om.result(path.rpartition("/")[2], 10) == 42


def test_many_tasks_in_one_request(web: httpx.Client, task_type: str, home: Path) -> None:
    lines = [json.dumps({"type": task_type, "payload": {"a": i, "b": 1}}) for i in range(5000)]
    content = ("\n".join(lines)).encode()
    headers = {"Content-Type": "application/x-ndjson"}
    with web.stream("POST", "/api/v1/tasks/batch", content=content, headers=headers) as answer:
        answers = [json.loads(line) for line in answer.iter_lines()]
    assert [a["index"] for a in answers] == list(range(5000))
    assert len({a["task_id"] for a in answers}) == 5000
    with omnimind.connect(home) as om:
        for i in (0, 999, 4999):
            assert om.result(answers[i]["task_id"], PATIENCE) == i + 1


def test_a_python_client_from_outside_has_the_same_verbs(url: str, home: Path, task_type: str) -> None:
    token = Paths(home).token.read_text().strip()
    with omnimind.connect(url, token=token) as far:
        assert list(far.map(task_type, [{"a": i, "b": i} for i in range(300)], ordered=True)) == [
            2 * i for i in range(300)
        ]
    with pytest.raises(Forbidden):
        omnimind.connect(url, token="wrong").__enter__()


def test_the_process_behind_it_may_die(web: httpx.Client, url: str, home: Path) -> None:
    """Its death takes nothing along, and another one comes; so does a replica's."""
    before = web.get("/api/v1/cluster/status").json()["coordinator"]["pid"]

    def process(part: str) -> list[psutil.Process]:
        supervisor = psutil.Process(omnimind.instance.running(Paths(home)).supervisor.pid)  # type: ignore[union-attr]
        return [p for p in supervisor.children(recursive=True) if part in " ".join(command(p.pid) or [])]

    [runner] = process("serve.run")
    os.kill(runner.pid, signal.SIGKILL)
    until(lambda: [p for p in process("serve.run") if p.pid != runner.pid], "there is another one")
    [replica] = process("ServeReplica:omnimind:Api")
    os.kill(replica.pid, signal.SIGKILL)

    def ready() -> bool:
        try:
            return web.get("/readyz", timeout=5).status_code == 200
        except httpx.TransportError:
            return False

    until(lambda: [p for p in process("ServeReplica:omnimind:Api") if p.pid != replica.pid], "a new replica")
    until(ready, "the API is ready again")
    assert web.get("/api/v1/cluster/status").json()["coordinator"]["pid"] == before


def test_while_the_coordinator_restarts_requests_wait_or_hear_503(
    web: httpx.Client, task_type: str, home: Path
) -> None:
    status = web.get("/api/v1/cluster/status").json()["coordinator"]
    os.kill(status["pid"], signal.SIGKILL)
    body = {"type": task_type, "payload": {"a": 1, "b": 1}}
    give_up = time.monotonic() + PATIENCE
    while (made := web.post("/api/v1/tasks", json=body)).status_code == 503:
        assert "retry-after" in made.headers
        assert time.monotonic() < give_up
        time.sleep(0.2)
    assert made.status_code == 201, made.text
    assert web.get(f"{made.headers['location']}/wait?timeout=60").json()["result"] == 2
    assert web.get("/api/v1/cluster/status").json()["coordinator"]["epoch"] > status["epoch"]
