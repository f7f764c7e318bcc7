"""Reads the machine: the only part of homeostasis that touches it."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Protocol

import msgspec
import psutil

from omnimind.homeostasis import limits
from omnimind.homeostasis.limits import Group
from omnimind.homeostasis.metrics import ResourceMetrics
from omnimind.homeostasis.pressure import MemorySample

GIB = 1 << 30

_V2 = ("memory.max", "memory.current", "memory.stat", "cpu.max", "cpu.stat")
_V1_MEMORY = ("memory.limit_in_bytes", "memory.usage_in_bytes", "memory.stat")
_V1_CPU = ("cpu.cfs_quota_us", "cpu.cfs_period_us", "cpuacct.usage")


class Reading(msgspec.Struct, frozen=True):
    """Raw facts at one moment: counters that only grow, and sizes.

    at: Unix seconds. moment: monotonic seconds. cpu_used: CPU seconds in use since the start, of the cgroup
    that limits the CPU, else of the machine. cores: that it may use.
    disk: (bytes used, bytes that this user may have in all).
    """

    at: float
    moment: float
    cpu_used: float
    cores: float
    memory: MemorySample
    disk: tuple[int, int]


class Reader(Protocol):
    """Whoever reads a machine. May raise OSError or psutil.Error; may be slow (a disk over the network)."""

    def read(self) -> Reading:
        """Return the facts of this moment."""


class MachineReader:
    """Reads this machine, or the cgroups that this process lives in, where they limit it.

    A group that limits the CPU and does not say what it has used (v1 with the controllers `cpu` and
    `cpuacct` in different groups) is passed over: then it is the machine. disk: any path on the disk that
    counts. proc, cgroups: where ``/proc`` and ``/sys/fs/cgroup`` are.
    """

    def __init__(
        self, disk: str | Path = "/", *, proc: str | Path = "/proc", cgroups: str | Path = "/sys/fs/cgroup"
    ) -> None:
        self.disk = str(disk)
        self.proc = Path(proc)
        self.cgroups = Path(cgroups)

    def read(self) -> Reading:
        """Return the facts of this moment."""
        paths = limits.hierarchies(_text(self.proc / "self" / "cgroup") or "")
        cores, used = self._cpu(paths)
        disk = shutil.disk_usage(self.disk)
        return Reading(
            time.time(),
            time.monotonic(),
            used,
            cores,
            self._memory(paths),
            (disk.used, disk.used + disk.free),
        )

    def _cpu(self, paths: dict[str, str]) -> tuple[float, float]:
        cores = float(len(os.sched_getaffinity(0)))
        groups = self._lineage(paths.get("", "/"), "", _V2, 2)
        if "cpu" in paths:
            # The two controllers are mostly mounted as one, and else mostly have the same groups.
            beside = "cpuacct" if paths.get("cpuacct") == paths["cpu"] else ""
            groups += self._lineage(paths["cpu"], "cpu", _V1_CPU, 1, beside)
        limited = [(n, g) for g in groups if (n := limits.cores(g)) is not None and n < cores]
        for allowed, group in sorted(limited, key=lambda pair: pair[0]):
            used = limits.used_seconds(group)
            if used is not None:
                return allowed, used
        times = psutil.cpu_times()
        idle = times.idle + getattr(times, "iowait", 0.0)
        # Guests are part of user and nice already.
        guests = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)
        machine = float(os.cpu_count() or 1)
        busy = sum(times) - idle - guests
        return cores, busy * cores / machine

    def _memory(self, paths: dict[str, str]) -> MemorySample:
        memory = psutil.virtual_memory()
        machine = MemorySample(memory.total, memory.total - memory.available)
        groups = self._lineage(paths.get("", "/"), "", _V2, 2)
        if "memory" in paths:
            groups += self._lineage(paths["memory"], "memory", _V1_MEMORY, 1)
        return limits.tightest_memory(groups, machine)

    def _lineage(
        self, path: str, controller: str, names: tuple[str, ...], version: int, beside: str = ""
    ) -> list[Group]:
        """Return the groups of a lineage that can be seen from here.

        beside: another controller, mounted apart, whose files of the same group belong to it. In a container
        a path may be named that is not there: what is mounted is then the own group.
        """
        root = self.cgroups / controller
        if version > 1 and (self.cgroups / "unified").is_dir():
            root = self.cgroups / "unified"
        groups = []
        for place in limits.lineage(path):
            files = {}
            for tree in (root, self.cgroups / beside) if beside else (root,):
                for name in names:
                    text = None if name in files else _text(tree / place.lstrip("/") / name)
                    if text is not None:
                        files[name] = text
            if files:
                groups.append(Group(version, files))
        return groups


def measure(before: Reading, after: Reading) -> ResourceMetrics:
    """Return what two readings say together; CPU is the mean between them. Pure."""
    seconds = after.moment - before.moment
    used = max(0.0, after.cpu_used - before.cpu_used)
    cpu = 100.0 * used / (seconds * after.cores) if seconds > 0 and after.cores > 0 else 0.0
    taken, whole = after.disk
    return ResourceMetrics(
        cpu_percent=min(100.0, cpu),
        memory_percent=min(100.0, after.memory.percent),
        memory_available_gb=after.memory.available / GIB,
        disk_percent=min(100.0, 100.0 * taken / whole) if whole > 0 else 0.0,
        timestamp=after.at,
    )


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return None
