"""Limits of control groups (v1 and v2), read from the text of their files: a cgroup counts as the machine.

Pure: `reader` brings the texts. What a limit is made of differs between the versions:

==============  ==========================================  ==============================================
what            v2                                          v1
==============  ==========================================  ==============================================
memory limit    ``memory.max`` (``max``: none)              ``memory.limit_in_bytes`` (huge: none)
memory in use   ``memory.current``                          ``memory.usage_in_bytes``
cache in it     ``memory.stat``: ``inactive_file`` …        ``memory.stat``: ``total_inactive_file`` …
CPU limit       ``cpu.max``: quota and period (µs)          ``cpu.cfs_quota_us`` (-1: none), its period
CPU used        ``cpu.stat``: ``usage_usec``                ``cpuacct.usage`` (ns)
==============  ==========================================  ==============================================
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from omnimind.homeostasis.pressure import MemorySample

NO_LIMIT = 1 << 60
"""A memory limit beyond it is none: v1 writes the largest page-aligned number instead of a word."""


class Group(msgspec.Struct, frozen=True):
    """One control group as the text of its files, by file name; a missing file is left out."""

    version: int
    files: Mapping[str, str]


def hierarchies(proc_cgroup: str) -> dict[str, str]:
    """Return the own path by controller from ``/proc/self/cgroup``; v2 has the controller ``""``."""
    paths: dict[str, str] = {}
    for line in proc_cgroup.splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not path.startswith("/"):
            continue
        for controller in [""] if number == "0" and not controllers else controllers.split(","):
            paths[controller] = path
    return paths


def lineage(path: str) -> list[str]:
    """Return a group's path and those above it, the own first, ``/`` last."""
    parts = [part for part in path.split("/") if part]
    return ["/" + "/".join(parts[:n]) for n in range(len(parts), -1, -1)]


def memory(group: Group) -> MemorySample | None:
    """Return a group's memory, None when it has no limit of its own or does not say."""
    names = ("memory.max", "memory.current") if group.version > 1 else (
        "memory.limit_in_bytes", "memory.usage_in_bytes",
    )  # fmt: skip
    limit, used = (_number(group.files.get(name, "")) for name in names)
    if limit is None or used is None or not 0 < limit < NO_LIMIT:
        return None
    stat = table(group.files.get("memory.stat", ""))
    if group.version > 1:
        cache = stat.get("inactive_file", 0) + stat.get("active_file", 0) + stat.get("slab_reclaimable", 0)
        pinned = stat.get("file_dirty", 0) + stat.get("file_writeback", 0)
    else:
        cache = stat.get("total_inactive_file", 0) + stat.get("total_active_file", 0)
        pinned = stat.get("total_dirty", 0) + stat.get("total_writeback", 0)
    # What has to be written first does not give way at once.
    return MemorySample(limit, used, max(0, min(used, cache - pinned)))


def tightest_memory(groups: list[Group], machine: MemorySample) -> MemorySample:
    """Return the memory that counts: the fullest limited group of a lineage, else the machine's."""
    found = [m for g in groups if (m := memory(g)) is not None and m.limit < machine.limit]
    return max(found, key=lambda m: m.percent) if found else machine


def cores(group: Group) -> float | None:
    """Return the cores that a group may use, None when it has no limit of its own."""
    if group.version > 1:
        quota, _, period = group.files.get("cpu.max", "").strip().partition(" ")
    else:
        quota = group.files.get("cpu.cfs_quota_us", "").strip()
        period = group.files.get("cpu.cfs_period_us", "").strip()
    micros, each = _number(quota), _number(period)
    return micros / each if micros is not None and each and micros > 0 else None


def used_seconds(group: Group) -> float | None:
    """Return the CPU seconds that a group has used since it began, None when it does not say."""
    if group.version > 1:
        micros = table(group.files.get("cpu.stat", "")).get("usage_usec")
        return None if micros is None else micros / 1e6
    nanos = _number(group.files.get("cpuacct.usage", ""))
    return None if nanos is None else nanos / 1e9


def table(text: str) -> dict[str, int]:
    """Return the numbers of a file of ``name number`` lines."""
    pairs = (line.split() for line in text.splitlines())
    return {p[0]: n for p in pairs if len(p) == 2 and (n := _number(p[1])) is not None}  # noqa: PLR2004


def psi_total(text: str) -> float | None:
    """Return the seconds of stall (``some``) since the start from the text of ``/proc/pressure/*``."""
    for line in text.splitlines():
        words = line.split()
        if words and words[0] == "some":
            for word in words:
                if word.startswith("total="):
                    micros = _number(word.removeprefix("total="))
                    return None if micros is None else micros / 1e6
    return None


def _number(text: str) -> int | None:
    try:
        return int(text.strip())
    except ValueError:
        return None
