"""Where a figure came from: the machine, its disk, the commit, the versions of everything compared."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

import psutil

from benchmarks.peers import find_program

_ROOT = Path(__file__).resolve().parent.parent
_PACKAGES = ("ray", "omnimind-runtime", "distributed", "celery", "redis", "procrastinate", "psycopg")
_SERVERS = ("redis-server", "postgres")
IDENTITY = ("cpu", "cores", "memory_gib", "system", "python")


def describe(folder: Path) -> dict[str, Any]:
    """Return what a reader must know of this machine. `folder` is where the durable systems write."""
    kind = _filesystem(folder)
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count() or 0,
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "system": f"{_os_name()}, Linux {platform.release()}",
        "python": platform.python_version(),
        "disk": f"{kind}, fdatasync of 4 KiB {1e3 * _sync_seconds(folder):.2f} ms",
    }


def versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    for server in _SERVERS:
        if (program := find_program(server)) is not None:
            said = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout
            if (number := re.search(r"\d+(\.\d+)+", said)) is not None:
                found[server] = number.group()
    return found


def commit() -> str:
    """Return the commit that is measured, with `+changes` when files differ; "unknown" without git."""
    command = ["git", "-C", str(_ROOT)]
    head = subprocess.run([*command, "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    if head.returncode != 0:
        return "unknown"
    changed = subprocess.run(
        [*command, "status", "--porcelain", "--", ".", ":!benchmarks/results"],
        capture_output=True,
        text=True,
        check=False,
    )
    return head.stdout.strip() + ("+changes" if changed.stdout.strip() else "")


def _cpu() -> str:
    info = Path("/proc/cpuinfo").read_text()
    model = re.search(r"^model name\s*:\s*(.+)$", info, re.MULTILINE)
    return model.group(1) if model else platform.machine()


def _os_name() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")
    except OSError:
        return "Linux"


def _filesystem(folder: Path) -> str:
    """Return the type of the file system that holds `folder`."""
    place = folder.resolve()
    mounts = {Path(part.mountpoint): part.fstype for part in psutil.disk_partitions(all=True)}
    return next((mounts[parent] for parent in (place, *place.parents) if parent in mounts), "unknown")


def _sync_seconds(folder: Path) -> float:
    """Return the median time of making 4 KiB durable: the floor under every durable commit."""
    probe = folder / "sync-probe"
    spans = []
    with probe.open("wb", buffering=0) as file:
        for _ in range(50):
            file.write(b"\0" * 4096)
            begin = time.perf_counter()
            os.fdatasync(file.fileno())
            spans.append(time.perf_counter() - begin)
    probe.unlink()
    return median(spans)
