"""With its ledger in PostgreSQL a coordinator is on a host with certain labels, and moves when that dies."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.recovery.clusters import OmniMindOnPostgres
from benchmarks.recovery.work import Witness
from tests.hosts.harness import Hosts

PATIENCE = 120.0


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[OmniMindOnPostgres]:
    with OmniMindOnPostgres(tmp_path, {"coordinator.nodes": "worker=1"}) as made:
        yield made


def place(cluster: OmniMindOnPostgres) -> str:
    """Return the host on which the coordinator's process is."""
    for host in cluster.hosts:
        if host.pids("ray::Coordinator"):
            return str(host.name)
    return ""


def until(true: Any, what: str) -> None:
    give_up = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < give_up, f"waited {PATIENCE:g} s in vain for {what}"
        time.sleep(0.2)


def status(hosts: Hosts, home: Path) -> dict[str, Any]:
    """Return what the command says on the head, where no coordinator is."""
    said = hosts["head"].run(["omnimind", "status", "--json"], env={"OMNIMIND_HOME": str(home)}, check=False)
    try:
        found: dict[str, Any] = json.loads(said.stdout)
    except ValueError:
        return {}
    return found if said.returncode == 0 else {}


@pytest.mark.timeout(600)
def test_it_comes_up_on_another_host_with_all_that_was_accepted(cluster: OmniMindOnPostgres) -> None:
    witness = Witness(cluster.shared)
    first = place(cluster)
    assert first in {"w1", "w2"}
    assert status(cluster.hosts, cluster.home)["coordinator"]["epoch"] == 1
    # One runs on the other host and is adopted, one waits for its time in the ledger.
    for number in range(6):
        cluster.submit(f"run{number}")
    running = []
    for number in range(6):
        line = witness.wait(f"run{number}", "START", seconds=PATIENCE)
        assert line is not None
        running.append(line)
    cluster.submit("waits", 2.0)
    stays = [line for line in running if line.host != first]
    assert stays
    cluster.hosts[first].power_off()
    until(lambda: place(cluster) not in {"", first}, "a coordinator on the other host")
    for line in running:
        witness.release(line.name)
    witness.release("waits")
    for name in [line.name for line in running] + ["waits"]:
        assert witness.wait(name, "END", seconds=PATIENCE) is not None, name
    for line in stays:
        starts = [other for other in witness.lines(line.name) if other.what == "START"]
        assert len(starts) == 1, line
    until(
        lambda: status(cluster.hosts, cluster.home).get("coordinator", {}).get("epoch", 0) > 1, "the command"
    )
    found = status(cluster.hosts, cluster.home)
    assert found["running_tasks"] == 0


@pytest.mark.timeout(600)
def test_one_that_is_cut_off_can_write_no_more(cluster: OmniMindOnPostgres) -> None:
    """Both live for a while; the lease in the database is the newer one's."""
    witness = Witness(cluster.shared)
    first = place(cluster)
    [old] = cluster.hosts[first].pids("ray::Coordinator")
    # It keeps its way to the database: only the other hosts do not hear it, nor it them.
    others = [name for name in ("head", "w1", "w2", "drv") if name != first]
    cluster.hosts[first].drop_incoming(*others)
    cluster.hosts[first].drop_outgoing(*others)
    try:
        until(lambda: any(cluster.hosts[n].pids("ray::Coordinator") for n in others), "another coordinator")
        until(lambda: old not in cluster.hosts[first].pids("ray::Coordinator"), "the old one to end")
        cluster.submit("after")
        witness.release("after")
        assert witness.wait("after", "END", seconds=PATIENCE) is not None
    finally:
        cluster.hosts[first].heal()
        for name in others:
            cluster.hosts[name].heal()
