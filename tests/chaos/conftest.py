"""Real instances with several raylets on this machine, and the means to kill their parts.

Nothing is faked: real Ray, real processes, a real ledger. Only processes that a test started are killed,
by the ids that the instance reports of itself.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

import omnimind
from omnimind import config, launch
from omnimind.instance import Paths, running
from omnimind.testing.raylets import ExtraNode


def until(condition: Callable[[], Any], what: str, seconds: float = 60.0) -> Any:
    """Wait for a true value of `condition` and return it."""
    give_up = time.monotonic() + seconds
    while True:
        try:
            found = condition()
        except omnimind.Unavailable:
            found = None
        if found:
            return found
        if time.monotonic() > give_up:
            pytest.fail(f"waited {seconds:g} s in vain for: {what}")
        time.sleep(0.05)


class Cluster:
    """One instance, its further raylets, and a client."""

    def __init__(self, home: Path, **more: str) -> None:
        self.home = home
        self.paths = Paths(home)
        flags = {"ray.num_cpus": "1", "ray.dashboard": "false"}
        settings = config.load(home, flags | {name.replace("__", "."): v for name, v in more.items()})
        self.instance = launch.start(home, settings)
        self.client = omnimind.connect(home)
        self.raylets: list[ExtraNode] = []
        self._made = 0

    def add_raylet(self, cpus: int = 1) -> ExtraNode:
        """Let another node join, on this machine."""
        before = len(self.status()["nodes"])
        record = running(self.paths)
        assert record is not None
        self._made += 1
        raylet = ExtraNode(self.paths, record, f"extra-{self._made}", cpus)
        self.raylets.append(raylet)
        until(lambda: len(self.active()) > before, "a further node to join")
        return raylet

    def status(self) -> dict[str, Any]:
        """Return the cluster's status."""
        return self.client.cluster_status()

    def active(self) -> list[dict[str, Any]]:
        """Return the nodes that live."""
        return [n for n in self.status()["nodes"] if n["status"] in {"active", "busy"}]

    def tasks(self, ids: list[str]) -> list[dict[str, Any]]:
        """Return tasks by id; those that do not exist (never acknowledged) are left out."""
        found = []
        for id_ in ids:
            try:
                found.append(self.client.task(id_))
            except omnimind.NotFound:
                continue
        return found

    @staticmethod
    def children(pid: int) -> list[int]:
        """Return the processes that a process has started."""
        return [child.pid for child in psutil.Process(pid).children(recursive=True)]

    until = staticmethod(until)

    def kill_coordinator(self) -> int:
        """Kill the coordinator's process; return the epoch that ended."""
        coordinator = self.status()["coordinator"]
        os.kill(coordinator["pid"], signal.SIGKILL)
        return int(coordinator["epoch"])

    def stop(self) -> None:
        """Stop everything that was started."""
        self.client.close()
        for raylet in self.raylets:
            raylet.end()
        self.instance.stop()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(tmp_path / "home")
    try:
        yield made
    finally:
        made.stop()


@pytest.fixture
def on_postgres(tmp_path: Path, own_postgres: Any) -> Iterator[Cluster]:
    """Return a cluster whose ledger is in the PostgreSQL server of this test."""
    more = {"ray__num_cpus": "2", "instance__start_timeout": "180", "coordinator__heartbeat_timeout": "15"}
    made = Cluster(tmp_path / "home", ledger__url=own_postgres.url(), **more)
    try:
        yield made
    finally:
        made.stop()
