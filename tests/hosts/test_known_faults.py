"""Faults that are known to be hard, one after the other on one cluster under load, and then its history.

All the time two of its hosts have clocks that are an hour wrong, one in each direction.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from omnimind.testing.fault_plan import Planned
from omnimind.testing.history import Answered, Fault, now
from omnimind.testing.history_check import explain
from tests.hosts.harness import Hosts, missing
from tests.hosts.site import FAKETIME, Site, fill

HOUR = 3600.0
LONG = 9.0
"""Seconds: longer than `coordinator.heartbeat_timeout`."""

pytestmark = [
    pytest.mark.skipif(bool(missing()), reason=missing()),
    pytest.mark.skipif(not FAKETIME.exists(), reason="install libfaketime"),
]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with Hosts(["head", "w1", "w2"], tmp_path, disk="500m", tmp_size="500m") as hosts:
        made = Site(hosts, "known", skews={"w1": HOUR, "w2": -HOUR}, cpus=2)
        try:
            yield made
        finally:
            made.close()


def nodes(site: Site) -> dict[str, str]:
    """Return the status of each node by its id, once the head answers."""
    give_up = now() + 60
    while True:
        with contextlib.suppress(AssertionError):
            return {node["node_id"]: node["status"] for node in site.ask_head("node", "list")["items"]}
        assert now() < give_up
        time.sleep(0.5)


def until(condition: Any, what: str, seconds: float = 60.0) -> None:
    give_up = now() + seconds
    while not condition():
        assert now() < give_up, f"waited {seconds:g} s in vain for: {what}"
        time.sleep(0.5)


def answers(site: Site, code: str) -> int:
    return sum(isinstance(r, Answered) and r.code == code for r in site.records())


@pytest.mark.timeout(600)
def test_what_is_known_to_be_hard(site: Site) -> None:
    [clocks] = [
        found for found in site.ask_head("doctor", check=False)["items"] if found["check"] == "clocks"
    ]
    assert clocks["state"] == "error"
    assert any(f"w{n} is {seconds}." in clocks["what"] for n in (1, 2) for seconds in (3599, 3600)), clocks

    site.start_clients([site.head, site.hosts["w1"]], 400.0, 2.0, 40_000)
    site.wait_for_work()
    began = now()

    def passed(what: str) -> None:
        print(f"{now() - site.began:6.1f} s  {what}", flush=True)

    passed("under load")
    # The coordinator stands still for longer than its nodes' time-out: it blames itself, not them.
    before = nodes(site)
    assert site.make(Planned(0, "pause coordinator", "head", LONG))
    time.sleep(4.0)
    assert set(nodes(site)) == set(before)
    assert "offline" not in nodes(site).values()

    passed("the coordinator stood still")

    # A host that hears nothing, and one that nobody hears: given up, fenced, and back as new.
    for what in ("drop incoming", "drop outgoing"):
        alive = {name for name, status in nodes(site).items() if status != "offline"}
        assert site.make(Planned(0, what, "w1", LONG))
        until(
            lambda alive=alive: len(set(nodes(site)) - alive) and _alive(site) == 3, f"w1 back after: {what}"
        )

        passed(what)

    # The disk of the ledger is full: new work is refused, and said to be for that.
    # It has some room of its own at first, which the clients must use up.
    begun, give_back = now(), fill(site.head.home)
    until(lambda: answers(site, "ledger_full"), "a submission to be refused for the full disk", 120)
    give_back()
    site.journal.write(Fault("full disk", "head", begun, now()))
    passed("full disk on the head")
    # The disk of another host is full.
    assert site.make(Planned(0, "full disk", "w2", 6.0))

    passed("full disk on w2")
    site.journal.write(Fault("clock skew", "w1, w2", began, now()))
    verdict = site.finish("the known faults", 90.0)
    passed("judged")
    print(explain(verdict))
    assert verdict.good, explain(verdict)


def _alive(site: Site) -> int:
    return sum(status in {"active", "busy"} for status in nodes(site).values())
