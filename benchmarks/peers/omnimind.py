"""OmniMind, durable: an embedded instance, `map` for many tasks, `submit(…).result()` for one."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import omnimind
from benchmarks import handlers
from benchmarks.peers import SLOTS, Run
from benchmarks.workloads import Workload

_TIMEOUT = 60.0


class OmniMind:
    """Every task is on disk before it is acknowledged, and every result before it is told."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stack = ExitStack()
        self._client: Any = None

    def start(self) -> None:
        self._client = self._stack.enter_context(omnimind.local(num_cpus=SLOTS))

    def run_throughput(self, workload: Workload, payloads: Sequence[Any]) -> Run:
        handler = getattr(handlers, workload.function)
        begin = time.perf_counter()
        results = list(self._client.map(handler, [{"value": payload} for payload in payloads], ordered=True))
        return Run(seconds=time.perf_counter() - begin, results=results)

    def run_latency(self, count: int) -> list[float]:
        spans = []
        for index in range(count):
            begin = time.perf_counter()
            self._client.submit(handlers.noop, value=index).result(timeout=_TIMEOUT)
            spans.append(time.perf_counter() - begin)
        return spans

    def stop(self) -> None:
        self._stack.close()
