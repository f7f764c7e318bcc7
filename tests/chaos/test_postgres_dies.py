"""The ledger's database dies under load, again and again: refused is not lost, and acknowledged is there."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from omnimind import TaskContext
from omnimind.errors import LedgerUnavailable
from omnimind.testing import witness
from omnimind.testing.postgres import PostgresServer
from omnimind.testing.witness import History, Journal

COUNT = 5_000
SECONDS = 0.002
PAUSE = 0.1
"""Seconds between two submissions of 50 tasks, which take 0.1 s: each strike hits both."""
SUBMITTER = Path(__file__).with_name("submitter.py")


def rows(server: PostgresServer, what: str) -> list[Any]:
    """Ask the database itself, not OmniMind."""
    return server.execute(f"SELECT {what}")


def read_back(server: PostgresServer, seen: History) -> None:
    """Fill in the terminal records, as they stand in the database."""
    found = rows(
        server,
        "id, status, convert_from(result, 'UTF8') FROM omnimind.tasks"
        " WHERE status NOT IN ('pending', 'running') AND type = 'chaos.witnessed' AND origin IS NULL",
    )
    for task, status, result in found:
        seen.final.setdefault(task, []).append((status, result and result.strip('"')))


@pytest.mark.timeout(400)
def test_five_thousand_tasks_survive_the_death_of_their_database(
    on_postgres: Any, own_postgres: PostgresServer, tmp_path: Path
) -> None:
    cluster, server = on_postgres, own_postgres
    runs, sent = tmp_path / "runs", tmp_path / "sent"
    Journal(runs)
    words = [sys.executable, str(SUBMITTER), str(cluster.home), str(sent), str(runs)]
    driver = subprocess.Popen([*words, str(COUNT), "200", str(SECONDS), str(PAUSE)])

    def further(count: int) -> Callable[[], bool]:
        before = runs.read_text().count("END")
        return lambda: runs.read_text().count("END") >= before + count

    running_then = []
    for down in (0.2, 3.0, 8.0):
        cluster.until(further(300), "work under way")
        running_then.append(cluster.status()["running_tasks"])
        server.kill()
        time.sleep(down)
        server.start()
        cluster.until(
            lambda: cluster.status()["trouble"] is None and not cluster.status()["coordinator"]["recovering"],
            "the coordinator to have its ledger again",
        )
    assert driver.wait(200) == 0

    def idle() -> bool:
        status = cluster.status()
        return not status["trouble"] and not status["pending_tasks"] and not status["running_tasks"]

    cluster.until(idle, "everything to end", 200)
    seen = witness.read([sent], runs)
    first = min(seen.starts, key=lambda task: seen.starts[task][0])
    read_back(server, seen)
    warm_up = set(seen.final) - seen.acknowledged
    assert len(warm_up) == 1, f"only the driver's own first task is not in its journal: {first}"
    for task in warm_up:
        del seen.final[task]
    print(f"\n{witness.summary(seen)}, {seen.refused} submissions refused and sent again")
    assert witness.check(seen) == []
    # Not vacuous: all was acknowledged, each strike hit running work, and something was refused.
    assert len(seen.acknowledged) == COUNT
    assert rows(server, "count(*) FROM omnimind.tasks WHERE status = 'completed'") == [(COUNT + 1,)]
    assert all(running_then)
    assert seen.refused > 0
    assert cluster.status()["coordinator"]["epoch"] >= 4


@pytest.mark.timeout(300)
def test_what_runs_goes_on_without_the_database_and_its_outcome_waits_on_the_node(
    on_postgres: Any, own_postgres: PostgresServer, tmp_path: Path
) -> None:
    cluster, server = on_postgres, own_postgres
    runs = tmp_path / "runs"
    Journal(runs)

    def long(ctx: TaskContext, path: str) -> str:
        journal = Journal(path)
        journal.write("START", ctx.task_id, time.time(), 1)
        time.sleep(4)
        ctx.checkpoint("half")  # waits for the database, and fails nothing
        journal.write("END", ctx.task_id, "done")
        return "done"

    def short(ctx: TaskContext, path: str) -> str:
        Journal(path).write("START", ctx.task_id, time.time(), 1)
        time.sleep(2)
        Journal(path).write("END", ctx.task_id, "done")
        return "done"

    handles = [cluster.client.submit(f, path=str(runs), at_most_once=True) for f in (long, short)]
    cluster.until(lambda: runs.read_text().count("START") == 2, "both to start")
    server.kill()
    for _ in range(3):
        started = time.monotonic()
        with pytest.raises(LedgerUnavailable) as refused:
            cluster.client.submit(short, path=str(runs))
        assert refused.value.status == 503
        assert refused.value.retry_after
        assert time.monotonic() - started < 10
    cluster.until(lambda: f"END {handles[1].id}" in runs.read_text(), "the short one to end")
    time.sleep(6)
    assert f"END {handles[0].id}" not in runs.read_text(), "its checkpoint cannot be durable yet"
    server.start()
    assert [handle.result(timeout=60) for handle in handles] == ["done", "done"]
    assert runs.read_text().count("START") == 2
    found = rows(server, "status, retry_count FROM omnimind.tasks ORDER BY seq")
    assert found == [("completed", 0), ("completed", 0)]
