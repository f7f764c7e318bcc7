"""The network between a coordinator's host and its PostgreSQL is cut silently: noticed, told, gone on."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from omnimind.ledger.opening import open_ledger
from omnimind.testing.ledger_history import faults
from omnimind.testing.postgres import PostgresServer, find
from tests.hosts.harness import Hosts

WRITER = Path(__file__).parents[1] / "chaos" / "ledger" / "writer.py"


def until(condition: Callable[[], Any], what: str, seconds: float = 60.0) -> None:
    give_up = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up, what
        time.sleep(0.02)


def test_a_database_that_is_cut_off_silently_is_given_up_and_found_again(tmp_path: Path) -> None:
    if find("postgres") is None:
        pytest.skip("PostgreSQL is not there (Debian package: postgresql)")
    with (
        PostgresServer.made(listen_addresses="*") as server,
        server.running(),
        Hosts(["w1"], tmp_path) as hosts,
    ):
        url = server.url(host=hosts.gateway)
        told: list[str] = []

        def count(word: str) -> int:
            return sum(1 for line in list(told) if line.startswith(word))

        writer = hosts["w1"].popen(
            [sys.executable, str(WRITER), url, "0", "1000000", "--open-again"],
            env={"PYTHONPATH": str(Path(__file__).parents[2])},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert writer.stdout is not None
        reader = threading.Thread(target=lambda: told.extend(line.rstrip() for line in writer.stdout or ()))
        reader.start()
        until(lambda: count("ack ") > 20, "a writer at work")
        hosts["w1"].cut()
        before = time.monotonic()
        # Nothing answers, not even with a refusal: only the client's own clocks can tell.
        until(lambda: count("error ") == 1, "the cut to be noticed", 25)
        print(
            f"\nnoticed after {time.monotonic() - before:.1f} s: {[t for t in told if t.startswith('error')]}"
        )
        until(lambda: count("closed "), "the opening to be given up", 40)
        reader.join(30)
        writer.wait(30)
        hosts["w1"].heal()
        acknowledged = [int(line.split()[1]) for line in told if line.startswith("ack ")]
        ledger = open_ledger(url, tmp_path)
        ledger.open(10)
        found, wrong = faults(ledger, acknowledged)
        ledger.close()
        assert wrong == []
        assert len(acknowledged) <= found <= len(acknowledged) + 1
        writer.stdout.close()
