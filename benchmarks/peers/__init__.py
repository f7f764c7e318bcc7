"""The systems that are measured: one file each, all with the same four methods.

Each runs in its real configuration, with `SLOTS` tasks at a time, on the same disk, alone on the machine
while it is measured, and is asked in the way its own documentation recommends. A choice that favours a peer
is kept.
"""

from __future__ import annotations

import importlib
import importlib.util
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

from benchmarks.workloads import Workload

SLOTS = 2
"""Tasks that run at the same time, in each system alike: one for each core of a two-core machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One timed run: `seconds` from the first submission until the caller had every result, and the results.

    `results` is None for a system that stores none; such a system has counted its completed tasks itself.
    """

    seconds: float
    results: Sequence[Any] | None


class Peer(Protocol):
    """One system. `folder` is an empty folder of its own; `start` returns when it takes work."""

    def __init__(self, folder: Path) -> None: ...

    def start(self) -> None: ...

    def run_throughput(self, workload: Workload, payloads: Sequence[Any]) -> Run:
        """Submit all, then wait for all. Only this is timed: the payloads are ready beforehand."""

    def run_latency(self, count: int) -> list[float]:
        """Seconds of each of `count` no-op tasks, one after the other, from submission to result."""

    def stop(self) -> None:
        """End everything that `start` started; also after a `start` that failed half-way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """How to find a peer, and what it needs: Python modules (extra `bench`), programs with their package."""

    name: str
    title: str
    place: str
    modules: tuple[str, ...] = ()
    programs: tuple[tuple[str, str], ...] = ()

    def missing(self) -> list[str]:
        """Return the commands that install what this peer still needs; none when all is there."""
        wanted = []
        if any(importlib.util.find_spec(module) is None for module in self.modules):
            wanted.append("pip install 'omnimind-runtime[bench]'")
        wanted += [
            f"apt-get install {package}" for program, package in self.programs if not find_program(program)
        ]
        return wanted

    def load(self) -> type[Peer]:
        module, _, attribute = self.place.partition(":")
        return cast("type[Peer]", getattr(importlib.import_module(module), attribute))


def find_program(name: str) -> str | None:
    """Where a server program is. Debian keeps PostgreSQL's out of PATH, so its folders are searched too."""
    if (found := shutil.which(name)) is not None:
        return found
    kept = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return str(kept[-1]) if kept else None


_REDIS = (("redis-server", "redis-server"),)
_POSTGRES = (("initdb", "postgresql"), ("postgres", "postgresql"))

PEERS: tuple[Entry, ...] = (
    Entry(name="omnimind", title="OmniMind (durable)", place="benchmarks.peers.omnimind:OmniMind"),
    Entry(name="raw_ray", title="raw Ray tasks", place="benchmarks.peers.raw_ray:RawRay"),
    Entry(
        name="raw_ray_batches",
        title="raw Ray, batched by hand",
        place="benchmarks.peers.raw_ray:RawRayBatches",
    ),
    Entry(
        name="dask", title="Dask distributed", place="benchmarks.peers.dask:Dask", modules=("distributed",)
    ),
    Entry(
        name="celery_everysec",
        title="Celery, AOF everysec",
        place="benchmarks.peers.celery:CeleryEverySecond",
        modules=("celery", "redis"),
        programs=_REDIS,
    ),
    Entry(
        name="celery_always",
        title="Celery, AOF always",
        place="benchmarks.peers.celery:CeleryAlways",
        modules=("celery", "redis"),
        programs=_REDIS,
    ),
    Entry(
        name="procrastinate",
        title="procrastinate (PostgreSQL)",
        place="benchmarks.peers.procrastinate:Procrastinate",
        modules=("procrastinate", "psycopg", "psycopg_pool"),
        programs=_POSTGRES,
    ),
)


def by_name(name: str) -> Entry:
    return next(entry for entry in PEERS if entry.name == name)
