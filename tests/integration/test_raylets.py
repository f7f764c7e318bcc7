"""More Ray nodes on this machine, for the tests that kill them."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from actors import line
from omnimind import launch, processes
from omnimind.config import Settings
from omnimind.testing.raylets import ExtraNode

PATIENCE = 120.0


def until(true: Callable[[], bool], what: str) -> None:
    give_up = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < give_up, f"waited {PATIENCE:g} s until {what}"
        time.sleep(0.05)


def test_nodes_join_and_are_missed_when_they_die(tmp_path: Path) -> None:
    settings = Settings().changed({"ray.num_cpus": 1, "ray.dashboard": False, "instance.start_timeout": 120})
    started = launch.start(tmp_path / "home", settings)
    try:

        def nodes() -> list[dict[str, Any]]:
            return list(line.ask(started.paths, "nodes", 10.0))

        def count(status: str) -> int:
            return sum(node["status"] == status for node in nodes())

        with ExtraNode(started.paths, started.record, "one", cpus=3, zone="a") as one:
            with ExtraNode(started.paths, started.record, "two"):
                until(lambda: count("active") == 3, "both nodes take work")
                (found,) = (node for node in nodes() if node["cpu_cores"] == 3)
                assert "zone=a" in found["capabilities"]
                raylet = one.raylet()
                assert raylet is not None
                one.kill()
                assert not processes.lives(raylet)
                until(lambda: count("offline") == 1, "the loss of one is seen")
            until(lambda: count("offline") == 2, "the loss of the other is seen")
        assert count("active") == 1
    finally:
        report = started.stop()
    assert not report.killed
    assert not processes.marked(started.paths.marker, {started.paths.ray})
