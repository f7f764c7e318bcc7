"""Raw Ray: a fresh instance of its own, one Ray task each, or tasks put together by hand.

Without the dashboard, which costs Ray some of the two cores: this favours raw Ray.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray

from benchmarks import work
from benchmarks.peers import SLOTS, Run
from benchmarks.workloads import Workload


class RawRay:
    """`f.remote(x)` for all, then one `ray.get` of all."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def start(self) -> None:
        ray.init(
            address="local",
            num_cpus=SLOTS,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.WARNING,
            _temp_dir=str(self._folder),
        )

    def run_throughput(self, workload: Workload, payloads: Sequence[Any]) -> Run:
        function = ray.remote(getattr(work, workload.function))
        begin = time.perf_counter()
        results = ray.get([function.remote(payload) for payload in payloads])
        return Run(seconds=time.perf_counter() - begin, results=results)

    def run_latency(self, count: int) -> list[float]:
        function = ray.remote(work.noop)
        spans = []
        for index in range(count):
            begin = time.perf_counter()
            ray.get(function.remote(index))
            spans.append(time.perf_counter() - begin)
        return spans

    def stop(self) -> None:
        ray.shutdown()


def _batch(function: str, payloads: Sequence[Any]) -> list[Any]:
    handler = getattr(work, function)
    return [handler(payload) for payload in payloads]


class RawRayBatches(RawRay):
    """What people write when single Ray tasks are too slow: lists of payloads, one Ray task for each list."""

    def run_throughput(self, workload: Workload, payloads: Sequence[Any]) -> Run:
        batch = ray.remote(_batch)
        size = workload.hand_batch
        begin = time.perf_counter()
        references = [
            batch.remote(workload.function, payloads[first : first + size])
            for first in range(0, len(payloads), size)
        ]
        results = [result for part in ray.get(references) for result in part]
        return Run(seconds=time.perf_counter() - begin, results=results)
