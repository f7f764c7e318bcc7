"""What the tasks do: plain functions of one argument, the same for every peer."""

from __future__ import annotations

import time

BURN_SECONDS = 0.001
NAP_SECONDS = 0.1
PAYLOAD_BYTES = 4096


def noop(value: int) -> int:
    return value


def burn(value: int) -> list[float]:
    """Use 1 ms of CPU, busy, and return [the number given, CPU seconds used, wall seconds taken].

    This thread's CPU time tells the end, not the wall clock: a handler that was preempted has not worked.
    """
    wall, cpu = time.perf_counter(), time.thread_time()
    while (used := time.thread_time() - cpu) < BURN_SECONDS:
        pass
    return [value, used, time.perf_counter() - wall]


def nap(value: int) -> int:
    time.sleep(NAP_SECONDS)
    return value


def take(value: str) -> int:
    return len(value)
