"""procrastinate on PostgreSQL: jobs deferred in batches, one worker, PostgreSQL as its package configures it.

PostgreSQL listens on a unix socket in its own folder only. procrastinate keeps no results: a run ends when no
job is left to do, and its completed jobs are counted in the table.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import procrastinate
import psycopg

from benchmarks import work
from benchmarks.peers import SLOTS, Run, find_program
from benchmarks.processes import Server
from benchmarks.workloads import Workload

_DATABASE = "OMNIMIND_BENCH_POSTGRES"
_SLAB = 1_000
_POLL_SECONDS = 0.001

app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=os.environ.get(_DATABASE, "")))
TASKS = {name: app.task(name=name)(getattr(work, name)) for name in ("noop", "burn", "nap", "take")}


def _server_user() -> str | None:
    """Whom PostgreSQL runs as: it refuses to be root, and then its package's own user has it."""
    return "postgres" if os.geteuid() == 0 else None


def _answers(database: str) -> bool:
    with psycopg.connect(database) as connection:
        return connection.execute("SELECT 1").fetchone() is not None


class Procrastinate:
    """A PostgreSQL server of its own and a procrastinate worker, both ended by their pid."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._servers: list[Server] = []
        self._connection: psycopg.Connection[Any] | None = None

    def start(self) -> None:
        database = self._start_server()
        environment = {**os.environ, _DATABASE: database}
        app.connector = procrastinate.SyncPsycopgConnector(conninfo=database)
        app.job_manager.connector = app.connector
        app.open()
        app.schema_manager.apply_schema()
        self._connection = psycopg.connect(database, autocommit=True)
        command = [
            sys.executable,
            "-m",
            "procrastinate",
            "--app",
            "benchmarks.peers.procrastinate.app",
            "worker",
        ]
        command += ["--concurrency", str(SLOTS)]
        self._servers.append(Server(command, log=self._folder / "worker.log", environment=environment))
        TASKS["noop"].defer(value=0)
        self._servers[-1].wait_until(lambda: self._done(1))

    def _start_server(self) -> str:
        """Make and start a database cluster; its connection string."""
        user, data, run = _server_user(), self._folder / "data", self._folder / "run"
        for folder in (data, run):
            folder.mkdir(mode=0o700)
            if user is not None:
                shutil.chown(folder, user)
        initdb, server = find_program("initdb"), find_program("postgres")
        assert initdb is not None
        assert server is not None
        made = subprocess.run(
            [initdb, "--pgdata", str(data), "--username", "bench", "--auth", "trust", "--encoding", "UTF8"],
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            user=user,
            group=user,
            cwd="/",
        )
        if made.returncode != 0:
            raise RuntimeError(
                f"initdb ended with {made.returncode}:\n{made.stdout.decode(errors='replace')}"
            )
        command = [server, "-D", str(data), "-k", str(run), "-c", "listen_addresses="]
        self._servers.append(Server(command, log=self._folder / "postgres.log", user=user))
        database = f"host={run} user=bench dbname=postgres"
        self._servers[-1].wait_until(lambda: _answers(database), errors=(psycopg.OperationalError,))
        return database

    def _count(self, status: str) -> int:
        assert self._connection is not None
        query = "SELECT count(*) FROM procrastinate_jobs WHERE status = %s::procrastinate_job_status"
        row = self._connection.execute(query, (status,)).fetchone()
        assert row is not None
        return int(row[0])

    def _done(self, expected: int) -> bool:
        """Whether nothing is left to do. Raises RuntimeError unless `expected` jobs have then succeeded."""
        assert self._connection is not None
        query = "SELECT 1 FROM procrastinate_jobs WHERE status IN ('todo', 'doing') LIMIT 1"
        if self._connection.execute(query).fetchone() is not None:
            return False
        if (succeeded := self._count("succeeded")) != expected:
            raise RuntimeError(
                f"{succeeded} jobs succeeded instead of {expected}, {self._count('failed')} failed"
            )
        return True

    def run_throughput(self, workload: Workload, payloads: Sequence[Any]) -> Run:
        expected = self._count("succeeded") + len(payloads)
        task = TASKS[workload.function]
        begin = time.perf_counter()
        for first in range(0, len(payloads), _SLAB):
            task.batch_defer(*({"value": payload} for payload in payloads[first : first + _SLAB]))
        while not self._done(expected):
            time.sleep(10 * _POLL_SECONDS)
        return Run(seconds=time.perf_counter() - begin, results=None)

    def run_latency(self, count: int) -> list[float]:
        spans = []
        for index in range(count):
            begin = time.perf_counter()
            job = TASKS["noop"].defer(value=index)
            while app.job_manager.get_job_status(job) != procrastinate.jobs.Status.SUCCEEDED:
                time.sleep(_POLL_SECONDS)
            spans.append(time.perf_counter() - begin)
        return spans

    def stop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            app.close()
        for server in reversed(self._servers):
            server.stop(signal.SIGINT)
