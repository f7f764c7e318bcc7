"""A real Ray autoscaler: it grows from nothing for work that no node can take, and shrinks again."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import omnimind
from omnimind import Client, processes
from omnimind.testing import autoscaling

PATIENCE = 180.0
SMALL_STORE = 80 << 20


def until(true: Callable[[], Any], what: str) -> Any:
    give_up = time.monotonic() + PATIENCE
    while not (found := true()):
        assert time.monotonic() < give_up, f"waited {PATIENCE:g} s until {what}"
        time.sleep(0.1)
    return found


def machine() -> str:
    """Return the address of this machine that the raylets of Ray's fake provider take."""
    from ray._private import services

    ray: Any = services
    address: str = ray.get_node_ip_address()
    return address


@pytest.fixture
def om(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    for name, value in autoscaling.ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent / "autoscaler"), prepend=os.pathsep)
    host = machine()
    port = autoscaling.free_port(host)
    resources = {"CPU": 1, "object_store_memory": SMALL_STORE}
    file = autoscaling.configuration(
        tmp_path / "autoscaling.json",
        f"{host}:{port}",
        "one_machine.Provider",
        {
            "plain": {"resources": {**resources, "CPU": 2}, "max_workers": 2},
            "widgets": {"resources": {**resources, "Widget": 2}, "labels": {"zone": "a"}, "max_workers": 2},
        },
        idle_seconds=3,
    )
    settings = {
        "ray.node_ip": host,
        "ray.port": port,
        "ray.autoscaling_config": str(file),
        "ray.dashboard": False,
        "instance.start_timeout": "120s",
        "elastic.hold": "1s",
        "elastic.hold_down": "4s",
        "elastic.interval": "1s",
        "elastic.idle": "5s",
    }
    with omnimind.local(num_cpus=1, home=tmp_path / "home", settings=settings) as client:
        yield client


def leave_a_trace(folder: str, name: str) -> str:
    """Write down, as a file of its own, on which Ray node this ran. The witness of the test."""
    import ray

    node: str = ray.get_runtime_context().get_node_id()
    with Path(folder, name).open("x") as trace:
        trace.write(node)
    return node


def raylets(om_home: Path) -> int:
    """Return how many raylets run for a home, by the process table."""
    marker = omnimind.instance.Paths(om_home).marker
    return sum(
        Path((processes.command(found.pid) or [""])[0]).name == "raylet"
        for found in processes.marked(marker, set())
    )


def test_it_grows_from_nothing_and_shrinks_again(om: Client, tmp_path: Path) -> None:
    home, traces = tmp_path / "home", tmp_path / "traces"
    traces.mkdir()
    assert raylets(home) == 1
    handle = om.submit(leave_a_trace, folder=str(traces), name="one", needs={"widget", "zone=a"})
    asked = until(
        lambda: next((s for s in handle.explain()["story"] if "autoscaler" in s["what"]), None),
        "the autoscaler is asked",
    )
    assert "asked the autoscaler for 1 x {CPU: 1, Widget: 0.001, zone=a}" in asked["what"]
    node = handle.result(timeout=PATIENCE)
    assert (traces / "one").read_text() == node
    (found,) = [n for n in om.nodes.list() if n["node_id"] == node]
    assert found["resources"]["Widget"] == 2
    assert raylets(home) == 2
    until(lambda: raylets(home) == 1, "the idle node has gone")
    until(
        lambda: [n["status"] for n in om.nodes.list() if n["node_id"] == node] == ["offline"],
        "it counts as gone",
    )
    # And again, for more than one node of another kind: each task keeps its CPU for a while.
    handles = [om.submit(hold, folder=str(traces), name=f"b{n}", seconds=8.0) for n in range(4)]
    nodes = {handle.result(timeout=PATIENCE) for handle in handles}
    assert len(nodes) > 1, "more nodes than the head's one"
    assert len(list(traces.glob("b*"))) == 4
    until(lambda: raylets(home) == 1, "the idle nodes have gone again")


def hold(folder: str, name: str, seconds: float) -> str:
    time.sleep(seconds)
    return leave_a_trace(folder, name)


def test_what_no_kind_of_node_has_is_said(om: Client) -> None:
    handle = om.submit(os.getpid, needs={"moon"})
    said = until(
        lambda: next((s for s in handle.explain()["story"] if "autoscaler" in s["what"]), None), "it is said"
    )
    assert said["what"] == "no kind of node of the autoscaler has moon"
    handle.cancel()
