"""Celery with Redis as broker and result store: acks late, prefork workers, JSON, append-only file on disk.

`appendfsync everysec` may lose a second of acknowledged tasks; `always` is the promise that OmniMind makes,
and the equal comparison. What favours Celery: its worker leaves out gossip, mingling and heartbeats; tasks
are sent one by one and their results read one by one, which was faster here than a `group`.
"""

from __future__ import annotations

import os
import secrets
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import celery
import redis

from benchmarks import work
from benchmarks.peers import SLOTS, Run, find_program
from benchmarks.processes import Server, free_port
from benchmarks.workloads import Workload

_URL = "OMNIMIND_BENCH_REDIS"

app = celery.Celery("benchmarks", broker=os.environ.get(_URL), backend=os.environ.get(_URL))
app.conf.update(
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    task_serializer="json",
    result_serializer="json",
    accept_content=["json"],
    broker_connection_retry_on_startup=True,
    worker_hijack_root_logger=False,
)
TASKS = {name: app.task(name=name)(getattr(work, name)) for name in ("noop", "burn", "nap", "take")}


class _Celery:
    """A Redis server and a Celery worker, both ended by their pid."""

    fsync: str

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._servers: list[Server] = []

    def start(self) -> None:
        port, password = free_port(), secrets.token_hex(16)
        config = self._folder / "redis.conf"
        config.touch(mode=0o600)
        config.write_text(
            f"bind 127.0.0.1\nport {port}\nrequirepass {password}\ndir {self._folder}\ndaemonize no\n"
            f'save ""\nappendonly yes\nappendfsync {self.fsync}\n'
        )
        program = find_program("redis-server")
        assert program is not None
        url = f"redis://:{password}@127.0.0.1:{port}/0"
        server = redis.Redis.from_url(url)
        self._servers.append(Server([program, str(config)], log=self._folder / "redis.log"))
        self._servers[-1].wait_until(server.ping, errors=(redis.ConnectionError, redis.BusyLoadingError))
        app.conf.update(broker_url=url, result_backend=url)
        command = [
            sys.executable,
            "-m",
            "celery",
            "-A",
            "benchmarks.peers.celery",
            "worker",
            "--pool",
            "prefork",
        ]
        command += ["--concurrency", str(SLOTS), "--loglevel", "warning"]
        command += ["--without-gossip", "--without-mingle", "--without-heartbeat"]
        environment = {**os.environ, _URL: url}
        self._servers.append(Server(command, log=self._folder / "worker.log", environment=environment))
        self._servers[-1].wait_until(lambda: bool(app.control.ping(timeout=0.5)))

    def run_throughput(self, workload: Workload, payloads: Sequence[Any]) -> Run:
        task = TASKS[workload.function]
        begin = time.perf_counter()
        pending = [task.delay(payload) for payload in payloads]
        results = [result.get() for result in pending]
        return Run(seconds=time.perf_counter() - begin, results=results)

    def run_latency(self, count: int) -> list[float]:
        spans = []
        for index in range(count):
            begin = time.perf_counter()
            TASKS["noop"].delay(index).get()
            spans.append(time.perf_counter() - begin)
        return spans

    def stop(self) -> None:
        for server in reversed(self._servers):
            server.stop()


class CeleryEverySecond(_Celery):
    fsync = "everysec"


class CeleryAlways(_Celery):
    fsync = "always"
