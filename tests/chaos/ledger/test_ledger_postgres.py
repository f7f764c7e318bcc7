"""Writers and servers that are killed and paused: acknowledged is committed, and never do two write.

The same writer and the same check as for SQLite; the plants show that the check sees what it must.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from omnimind import failpoints
from omnimind.ledger.opening import open_ledger
from omnimind.testing.ledger_history import faults, tasks_of, transaction
from omnimind.testing.postgres import PostgresServer
from omnimind.testing.rows import id_of

MANY = 100_000
Calls = Callable[..., Any]


class Running:
    """A writer that runs, and what it has told so far."""

    def __init__(self, command: list[str], **environment: str) -> None:
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env={**os.environ, **environment}
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip())

    @property
    def acknowledged(self) -> list[int]:
        return [int(line.split()[1]) for line in list(self.lines) if line.startswith("ack ")]

    def until(self, condition: Callable[[], Any], seconds: float = 60.0) -> None:
        give_up = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < give_up, self.lines[-20:]
            time.sleep(0.005)

    def acknowledges(self, more: int) -> None:
        """Wait until it has acknowledged so many steps more."""
        wanted = len(self.acknowledged) + more
        self.until(lambda: len(self.acknowledged) >= wanted)

    def end(self) -> None:
        self.process.kill()
        self.process.wait(30)
        self._reader.join(30)
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def start(writer_command: Calls) -> Iterator[Calls]:
    made: list[Running] = []

    def begin(url: str, first: int, *options: str, **environment: str) -> Running:
        made.append(Running(writer_command(url, first, MANY, *options), **environment))
        return made[-1]

    yield begin
    for writer in made:
        writer.end()


def found_in(url: str, acknowledged: list[int]) -> tuple[int, list[str]]:
    """Return how many steps the ledger holds, and what is wrong."""
    ledger = open_ledger(url, Path())
    ledger.open(10)
    try:
        return faults(ledger, acknowledged)
    finally:
        ledger.close()


@pytest.mark.parametrize("after", [3, 40])
def test_a_server_that_is_killed_loses_nothing_that_was_acknowledged(
    own_postgres: PostgresServer, start: Calls, after: int
) -> None:
    writer = start(own_postgres.url(), 0)
    writer.acknowledges(after)
    own_postgres.kill()
    writer.until(lambda: any(line.startswith("error ") for line in writer.lines))
    writer.end()
    own_postgres.start()
    found, wrong = found_in(own_postgres.url(), writer.acknowledged)
    assert wrong == []
    assert len(writer.acknowledged) <= found <= len(writer.acknowledged) + 1


def test_a_writer_goes_on_when_its_server_is_back(own_postgres: PostgresServer, start: Calls) -> None:
    url = own_postgres.url()
    writer = start(url, 0)
    writer.acknowledges(20)
    own_postgres.stop()
    writer.until(lambda: any(line.startswith("error ") for line in writer.lines))
    writer.end()
    own_postgres.start()
    held, wrong = found_in(url, writer.acknowledged)
    assert wrong == []
    second = start(url, held)
    second.acknowledges(20)
    second.end()
    assert found_in(url, writer.acknowledged + second.acknowledged)[1] == []


@pytest.mark.parametrize("plant", ["--plant-lazy-commit", "--plant-ack-first"])
def test_the_check_sees_what_was_acknowledged_before_it_was_durable(
    own_server: Calls, start: Calls, plant: str
) -> None:
    # The server's own flusher comes by seldom, so that what is not flushed at the commit is lost by the kill.
    with own_server(wal_writer_delay="10s", wal_writer_flush_after="1GB").running() as server:
        ready = start(server.url(), 0)
        ready.acknowledges(2)
        ready.end()
        held, _ = found_in(server.url(), ready.acknowledged)
        failpoint = "ledger.before_commit=kill@9" if plant == "--plant-ack-first" else ""
        writer = start(server.url(), held, plant, OMNIMIND_FAILPOINT=failpoint)
        writer.acknowledges(8)
        if not failpoint:
            server.kill()
        else:
            writer.until(lambda: writer.process.poll() is not None)
        writer.end()
        if not failpoint:
            server.start()
        wrong = found_in(server.url(), ready.acknowledged + writer.acknowledged)[1]
        assert [w for w in wrong if "acknowledged and is lost" in w]


@pytest.mark.parametrize(
    "name",
    [
        "ledger.before_takeover",
        "ledger.before_begin",
        "ledger.after_inserts",
        "ledger.after_updates",
        "ledger.before_commit",
        "ledger.after_commit",
    ],
)
def test_a_writer_that_is_killed_leaves_whole_steps(
    new_database: Callable[[], str], run: Calls, writer_command: Calls, name: str
) -> None:
    url = new_database()
    at_opening = name == "ledger.before_takeover"
    visit = 1 if at_opening else 3
    told = run(writer_command(url, 0, 4), **{failpoints.VARIABLE: f"{name}=kill@{visit}"})
    assert told.returncode == -9, told
    found, wrong = found_in(url, told.acknowledged)
    assert wrong == []
    # Step 0 has no updates.
    before = 0 if at_opening else visit - 1 + (name == "ledger.after_updates")
    assert told.acknowledged == list(range(before))
    assert found == before + (name == "ledger.after_commit")


def successor(url: str, start: Calls, *options: str) -> tuple[Running, list[str]]:
    """Pause a writer, let a successor write, wake the writer; return it, and what the database says is wrong.

    The successor continues the history, so that a step of the old writer's that is written later makes
    two of one, or one that nobody expects.
    """
    old = start(url, 0, *options)
    old.acknowledges(25)
    os.kill(old.process.pid, signal.SIGSTOP)
    new = open_ledger(url, Path())
    held = len(old.acknowledged)
    epoch = new.open(10).epoch
    assert epoch == 2
    while new.tasks([id_of(tasks_of(held)[0])]):
        held += 1
    before = [row[0] for row in new.tasks([id_of(n) for n in range(1, 3 * held + 300)])]
    os.kill(old.process.pid, signal.SIGCONT)
    old.until(lambda: old.process.poll() is not None or len(old.acknowledged) > held + 20)
    old.end()
    after = [row[0] for row in new.tasks([id_of(n) for n in range(1, 3 * held + 300)])]
    wrong = [f"task {n} was written by who was replaced" for n in sorted(set(after) - set(before))]
    if not wrong:
        for step in range(held, held + 3):
            new.write(transaction(step))
        wrong += faults(new, [*range(held + 3)])[1]
    new.close()
    return old, wrong


def test_a_writer_that_was_paused_and_replaced_writes_nothing_more(
    new_database: Callable[[], str], start: Calls
) -> None:
    for _ in range(3):
        old, wrong = successor(new_database(), start)
        assert wrong == []
        assert "LedgerFenced" in old.lines[-1] or "unknown" in old.lines[-1], old.lines[-3:]


def test_the_check_sees_a_writer_that_proves_nothing(new_database: Callable[[], str], start: Calls) -> None:
    _, wrong = successor(new_database(), start, "--plant-no-proof")
    assert [w for w in wrong if "replaced" in w]
