"""Dask distributed: a local cluster of single-threaded worker processes, `client.map` and `client.gather`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distributed import Client, LocalCluster

from benchmarks import work
from benchmarks.peers import SLOTS, Run
from benchmarks.workloads import Workload


class Dask:
    """`pure=False`, since Dask would otherwise run equal calls once. Without the dashboard."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._cluster: Any = None
        self._client: Any = None

    def start(self) -> None:
        self._cluster = LocalCluster(
            n_workers=SLOTS,
            threads_per_worker=1,
            processes=True,
            dashboard_address=None,
            local_directory=str(self._folder),
        )
        self._client = Client(self._cluster)
        self._client.wait_for_workers(SLOTS)

    def run_throughput(self, workload: Workload, payloads: Sequence[Any]) -> Run:
        function = getattr(work, workload.function)
        begin = time.perf_counter()
        results = self._client.gather(self._client.map(function, payloads, pure=False))
        return Run(seconds=time.perf_counter() - begin, results=results)

    def run_latency(self, count: int) -> list[float]:
        spans = []
        for index in range(count):
            begin = time.perf_counter()
            self._client.submit(work.noop, index, pure=False).result()
            spans.append(time.perf_counter() - begin)
        return spans

    def stop(self) -> None:
        if self._client is not None:
            self._client.close()
        if self._cluster is not None:
            self._cluster.close()
