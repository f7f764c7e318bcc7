"""Drains on real Ray nodes: work moves, Ray keeps its own away, and what is for good is said to be."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import omnimind
from omnimind import Client, TaskContext, instance
from omnimind.instance import Paths, Record
from omnimind.testing.raylets import ExtraNode

PATIENCE = 120.0
SOON = 45.0
"""What takes less than 5 s on a quiet machine, where many others run too."""
SETTINGS = {
    "ray.object_store_memory": "80MiB",
    "ray.dashboard": False,
    "instance.start_timeout": "120s",
    "coordinator.cancel_grace": "2s",
}
_RAY_SAYS = """
import ray, ray._private.state
ray.init(log_to_driver=False, logging_level="ERROR")
print("draining:" + ",".join(ray._private.state.state.get_draining_nodes()))
"""


def until(true: Callable[[], Any], what: str) -> Any:
    give_up = time.monotonic() + PATIENCE
    while not (found := true()):
        assert time.monotonic() < give_up, f"waited {PATIENCE:g} s until {what}"
        time.sleep(0.1)
    return found


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def om(home: Path) -> Iterator[Client]:
    with omnimind.local(num_cpus=1, home=home, settings=SETTINGS) as client:
        yield client


@pytest.fixture
def site(home: Path, om: Client) -> tuple[Paths, Record]:
    paths = Paths(home)
    record = instance.read_record(paths)
    assert record is not None
    return paths, record


def ray_environment(site: tuple[Paths, Record]) -> dict[str, str]:
    return {**os.environ, **instance.ray_environment(*site)}


def drained_by_ray(site: tuple[Paths, Record]) -> set[str]:
    """Return the nodes that Ray drains, as another program sees it."""
    words = [sys.executable, "-c", _RAY_SAYS]
    done = subprocess.run(
        words, env=ray_environment(site), capture_output=True, text=True, check=True, timeout=PATIENCE
    )
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("draining:")]
    return set(filter(None, line.removeprefix("draining:").split(",")))


def of_zone(om: Client, zone: str) -> dict[str, Any]:
    return next((n for n in om.nodes.list() if f"zone={zone}" in n["capabilities"]), {})


def trace(folder: str, name: str) -> None:
    with Path(folder, name).open("a") as file:
        file.write(f"{time.time()}\n")


def stay(ctx: TaskContext, folder: str, name: str, until_there: str) -> str:
    """Write down each start, and wait until a file is there, or until it is asked to stop."""
    import ray

    node: str = ray.get_runtime_context().get_node_id()
    with Path(folder, name).open("a") as file:
        file.write(f"{node}\n")
    while not Path(folder, until_there).exists():
        ctx.check()
        time.sleep(0.05)
    return node


def test_a_new_node_takes_work_soon(om: Client, site: tuple[Paths, Record], tmp_path: Path) -> None:
    handle = om.submit(trace, folder=str(tmp_path), name="ran", needs={"zone=new"})
    until(lambda: "no node can take it" in handle.explain()["verdict"], "the head's node has joined")
    assert "no autoscaler here: add a node with zone=new" in handle.explain()["verdict"]
    with ExtraNode(*site, "new", zone="new"):
        joined = time.time()
        handle.result(timeout=PATIENCE)
        waited = float((tmp_path / "ran").read_text()) - joined
        print(f"the new node took work after {waited:.1f} s")
        assert waited < SOON


def test_a_drain_moves_work_and_ray_drains_too(
    om: Client, site: tuple[Paths, Record], tmp_path: Path
) -> None:
    with ExtraNode(*site, "one", zone="one", both="yes") as one:
        moved = om.submit(stay, folder=str(tmp_path), name="moved", until_there="go", needs={"both"})
        until((tmp_path / "moved").exists, "it runs")
        first = of_zone(om, "one")["node_id"]
        plan = om.nodes.drain(first, deadline=5, plan=True)
        assert [a["task_id"] for a in plan["drain"]["attempts"]] == [moved.id]
        assert plan["drain"]["waits"] == [{"needs": ["both"], "slots": 1, "running": 1, "pending": 0}]
        with ExtraNode(*site, "two", zone="two", both="yes") as two:
            until(lambda: of_zone(om, "two").get("status") == "active", "the second one joins")
            assert om.nodes.drain(first, deadline=5, plan=True)["drain"]["waits"] == []
            om.nodes.drain(first, deadline=900, reason="a new disk")
            progress = om.nodes.get(first)["drain"]
            assert (progress["attempts"], progress["left"], progress["reason"]) == (1, 1, "a new disk")
            assert first not in drained_by_ray(site), "Ray drains last, since it cannot be undone"
            second = of_zone(om, "two")["node_id"]
            om.nodes.drain(first, deadline=3, reason="a new disk, soon")
            until(
                lambda: (tmp_path / "moved").read_text().splitlines() == [first, second], "it runs elsewhere"
            )
            (tmp_path / "go").touch()
            assert moved.result(timeout=PATIENCE) == second
            until(lambda: om.nodes.get(first)["drain"]["drained_at"], "the drain is over")
            until(lambda: om.nodes.get(first)["ray_draining"], "Ray drains it")
            assert first in drained_by_ray(site)
            assert om.nodes.get(first)["status"] == "cordoned"
            assert one.raylet() is not None, "it stays until somebody ends it"
            # There is no way back from Ray's drain: the raylet ends, for its supervisor to join it anew.
            assert om.nodes.uncordon(first, plan=True)["leaves"]
            om.nodes.uncordon(first)
            until(lambda: one.raylet() is None, "its raylet ends")
            until(lambda: om.nodes.get(first)["status"] == "offline", "it counts as gone")
            assert two.raylet() is not None


def test_rays_own_drain_is_followed(om: Client, site: tuple[Paths, Record], tmp_path: Path) -> None:
    with ExtraNode(*site, "three", zone="three") as three:
        handle = om.submit(stay, folder=str(tmp_path), name="x", until_there="go", needs={"zone=three"})
        until((tmp_path / "x").exists, "it runs")
        node = of_zone(om, "three")["node_id"]
        words = [Path(sys.executable).parent / "ray", "drain-node", "--address", site[1].ray_address]
        words += ["--node-id", node, "--reason", "DRAIN_NODE_REASON_PREEMPTION"]
        words += ["--reason-message", "test", "--deadline-remaining-seconds", "600"]
        subprocess.run([str(word) for word in words], env=ray_environment(site), check=True, timeout=PATIENCE)
        until(lambda: om.nodes.get(node)["status"] == "draining", "the node drains here too")
        assert om.nodes.get(node)["ordered_by"] == "ray"
        assert three.raylet() is not None
        (tmp_path / "go").touch()
        assert handle.result(timeout=PATIENCE) == node, "what runs may finish"
        until(lambda: three.raylet() is None, "then the node goes")
        until(lambda: om.nodes.get(node)["status"] == "offline", "and counts as gone")


def test_the_heads_raylet_is_never_drained(om: Client, site: tuple[Paths, Record]) -> None:
    head = next(n for n in om.nodes.list() if n["status"] in {"active", "busy"})["node_id"]
    om.nodes.drain(head, deadline=0)
    until(lambda: om.nodes.get(head)["drain"]["drained_at"], "the drain is over")
    time.sleep(3.0)
    assert head not in drained_by_ray(site)
    om.nodes.uncordon(head)
    until(lambda: om.nodes.get(head)["status"] == "active", "it works again")
