"""The same work as `benchmarks.work`, as OmniMind's handlers."""

from __future__ import annotations

from benchmarks import work
from omnimind import task


@task
def noop(value: int) -> int:
    return value


@task
def burn(value: int) -> list[float]:
    return work.burn(value)


@task
def nap(value: int) -> int:
    return work.nap(value)


@task
def take(value: str) -> int:
    return len(value)
