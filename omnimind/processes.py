"""Processes of this machine, by an identity that a recycled pid cannot fake. Linux: /proc and pidfds.

A pid alone names nothing: the kernel gives it to somebody else as soon as it is free. Everything here
goes by `Process`: pid, time of start, and boot. Signals go through a pidfd that was opened before the
identity was checked, so that between check and signal the pid cannot change hands.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Collection, Iterable
from functools import cache
from pathlib import Path

import msgspec

MARKER = "OMNIMIND_INSTANCE"
"""Environment variable that every process of an instance inherits; its value is `Paths.marker`."""

_PROC = Path("/proc")
_STATE, _PPID, _START = 0, 1, 19  # fields of /proc/PID/stat, counted from behind the name
_ENDED = {"Z", "X", "x"}
_TITLES = (b"ray::", b"ray-dashboard-")


class Process(msgspec.Struct, frozen=True):
    """One process, for as long as it lives: pid, start in clock ticks since boot, and the boot's id."""

    pid: int
    started: int
    boot: str = ""


@cache
def boot_id() -> str:
    """Return the id of this boot of the machine: the start times of two boots look alike."""
    with contextlib.suppress(OSError):
        return (_PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return ""


def identify(pid: int) -> Process | None:
    """Return the identity of a pid, or None when no living process has it (a zombie does not live)."""
    stat = _stat(pid)
    if stat is None or stat[_STATE] in _ENDED:
        return None
    return Process(pid, int(stat[_START]), boot_id())


def lives(process: Process) -> bool:
    """Return whether this very process still runs."""
    return identify(process.pid) == process


def parents() -> dict[int, int]:
    """Return the parent of each process that can be seen, by pid."""
    found = {}
    for pid in _pids():
        stat = _stat(pid)
        if stat is not None:
            found[pid] = int(stat[_PPID])
    return found


def children(pid: int) -> list[int]:
    """Return the pids of a process' children, zombies too."""
    return [child for child, parent in parents().items() if parent == pid]


def tree(root: Process) -> list[Process]:
    """Return the living descendants of `root`, parents first; empty when it is gone."""
    if not lives(root):
        return []
    below: dict[int, list[int]] = {}
    for pid, parent in parents().items():
        below.setdefault(parent, []).append(pid)
    found: list[Process] = []
    line = [root.pid]
    while line:
        for pid in below.get(line.pop(0), []):
            process = identify(pid)
            if process is not None:
                found.append(process)
                line.append(pid)
    return found


def marked(marker: str, folders: Iterable[Path] = ()) -> list[Process]:
    """Return the processes of an instance, by what they inherited: also those whose parents are gone.

    A process counts when its environment carries the instance's marker. Some of Ray's write their title
    over their environment; one that lost the marker so counts by its open log files in one of `folders`.
    Only processes of this user are looked at, never this process or its ancestors.
    """
    wanted = f"{MARKER}={marker}".encode()
    spared = _ancestors()
    found = []
    for pid in _pids():
        if pid in spared or not _is_ours(pid):
            continue
        process = identify(pid)
        if process is None:
            continue
        with contextlib.suppress(OSError):
            if wanted in (_PROC / str(pid) / "environ").read_bytes().split(b"\0") or (
                _cmdline(pid).startswith(_TITLES) and _writes_below(pid, folders)
            ):
                found.append(process)
    return found


def command(pid: int) -> list[str]:
    """Return the command line of a process; empty when it is gone."""
    with contextlib.suppress(OSError):
        return [part.decode(errors="replace") for part in _cmdline(pid).split(b"\0") if part]
    return []


def send(process: Process, number: signal.Signals) -> bool:
    """Send a signal to this very process. Return False when it is gone, or belongs to somebody else."""
    try:
        fd = os.pidfd_open(process.pid)
    except OSError:
        return False
    try:
        if not lives(process):
            return False
        signal.pidfd_send_signal(fd, number)
    except OSError:
        return False
    finally:
        os.close(fd)
    return True


def wait_gone(processes: Collection[Process], timeout: float) -> list[Process]:
    """Wait until all have ended, at most `timeout` seconds. Return those that still live."""
    give_up = time.monotonic() + timeout
    poll = select.poll()
    fds: dict[int, Process] = {}
    try:
        for process in processes:
            with contextlib.suppress(OSError):
                fd = os.pidfd_open(process.pid)
                if lives(process):
                    fds[fd] = process
                    poll.register(fd, select.POLLIN)
                else:
                    os.close(fd)
        while fds:
            left = give_up - time.monotonic()
            ready = poll.poll(max(0.0, left) * 1000)
            for fd, _ in ready:
                poll.unregister(fd)
                os.close(fd)
                del fds[fd]
            if not ready and left <= 0:
                break
        return list(fds.values())
    finally:
        for fd in fds:
            os.close(fd)


def end(processes: Collection[Process], grace: float) -> list[Process]:
    """End processes: SIGTERM, then SIGKILL for those that live on after `grace` seconds (0: at once).

    Returns those that had to be killed.
    """
    alive = [p for p in processes if lives(p)]
    if grace > 0:
        for process in alive:
            send(process, signal.SIGTERM)
        alive = wait_gone(alive, grace)
    for process in alive:
        send(process, signal.SIGKILL)
    wait_gone(alive, 5.0)
    return alive


def _pids() -> list[int]:
    return [int(entry.name) for entry in _PROC.iterdir() if entry.name.isdigit()]


def _stat(pid: int) -> list[str] | None:
    try:
        text = (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # The name stands in parentheses and may hold any character, so count from its end.
    return text.rpartition(")")[2].split()


def _cmdline(pid: int) -> bytes:
    return (_PROC / str(pid) / "cmdline").read_bytes()


def _is_ours(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return (_PROC / str(pid)).stat().st_uid == os.geteuid()
    return False


def _ancestors() -> set[int]:
    above = parents()
    found = set()
    pid = os.getpid()
    while pid and pid not in found:
        found.add(pid)
        pid = above.get(pid, 0)
    return found


def _writes_below(pid: int, folders: Iterable[Path]) -> bool:
    roots = tuple(f"{folder}/" for folder in folders)
    if not roots:
        return False
    for fd in (_PROC / str(pid) / "fd").iterdir():
        with contextlib.suppress(OSError):
            if str(fd.readlink()).startswith(roots):
                return True
    return False
