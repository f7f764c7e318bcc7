"""Random faults on several hosts under load; the whole history is then judged, in the manner of Jepsen.

The faults are drawn from a seed, which is printed with the command that draws them again; the history is
kept in a file for `python -m omnimind.testing.check_history`. `make chaos` runs it for ten minutes.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from random import Random

import pytest

from omnimind.testing import fault_plan, history
from omnimind.testing.history_check import explain
from omnimind.testing.postgres import PostgresServer, find
from tests.hosts.harness import Hosts, missing
from tests.hosts.site import FAKETIME, Site

SECONDS = float(os.environ.get("OMNIMIND_CHAOS_SECONDS", "120"))
"""Of faults, in both tests together."""
SEED = int(os.environ.get("OMNIMIND_CHAOS_SEED") or time.time_ns() // 1_000_000_000)
KINDS = tuple(filter(None, os.environ.get("OMNIMIND_CHAOS_KINDS", "").split(","))) or (
    *fault_plan.KILLS,
    *fault_plan.LASTING,
)
RATE = 2.0
BULK = 8_000
BOUND = 120.0

pytestmark = [
    pytest.mark.skipif(bool(missing()), reason=missing()),
    pytest.mark.skipif(not FAKETIME.exists(), reason="install libfaketime"),
]


@pytest.mark.timeout(SECONDS + 900)
def test_whatever_dies_the_history_is_valid(tmp_path: Path) -> None:
    run(tmp_path, "sqlite", KINDS, None)


@pytest.mark.skipif(find("postgres") is None, reason="install postgresql")
@pytest.mark.timeout(SECONDS + 900)
def test_whatever_dies_and_the_database_too_the_history_is_valid(tmp_path: Path) -> None:
    with PostgresServer.made(listen_addresses="*") as server, server.running():
        # Its own fault comes three times as often as any other.
        run(tmp_path, "postgres", (*KINDS, *["database"] * 3), server)


def run(tmp_path: Path, ledger: str, kinds: tuple[str, ...], database: PostgresServer | None) -> None:
    names, seconds = ["head", "w1", "w2", "w3"], SECONDS / 2
    plan = fault_plan.draw_plan(SEED, seconds, names, kinds)
    skew = Random(f"skew {SEED} {ledger}").choice((3600.0, -3600.0))
    again = (
        f"OMNIMIND_CHAOS_SEED={SEED} OMNIMIND_CHAOS_SECONDS={SECONDS:g} make chaos ARGS='-k {TESTS[ledger]}'"
    )
    print(f"\n{again}\nw3's clocks are off by {skew:+g} s\n{fault_plan.describe(plan)}", flush=True)
    with Hosts(names, tmp_path, disk="500m", tmp_size="500m") as hosts:
        site = Site(hosts, f"{SEED}", skews={"w3": skew}, database=database)
        try:
            # Until `finish` ends them: how long the start takes depends on the machine.
            site.start_clients([*hosts][:3], seconds + 600.0, RATE, BULK)
            site.wait_for_work()
            site.carry_out(plan)
            site.journal.write(history.Fault("clock skew", "w3", site.began, history.now()))
            verdict = site.finish(again, BOUND)
        finally:
            site.close()
            folder = Path(os.environ.get("OMNIMIND_CHAOS_HISTORY") or tmp_path).absolute()
            folder.mkdir(parents=True, exist_ok=True)
            kept = folder / f"history-{ledger}-{SEED}.jsonl"
            history.write(kept, site.records())
            print(f"history: {kept}", flush=True)
    print(explain(verdict), flush=True)
    assert verdict.good, f"{explain(verdict)}\nagain: {again}\nhistory: {kept}"


TESTS = {"sqlite": "test_whatever_dies_the", "postgres": "test_whatever_dies_and"}
