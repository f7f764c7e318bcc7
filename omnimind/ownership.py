"""Who owns a home: the lock of its supervisor, and the removal of what a supervisor that died left behind."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from types import TracebackType
from typing import Self

from omnimind import instance, processes
from omnimind.errors import AlreadyRunning
from omnimind.instance import Paths
from omnimind.processes import Process

_RETRY = 0.05


class Lock:
    """The lock of a home. It ends with the process that holds it, however that ends.

    Raises AlreadyRunning, with the owner's pid where it is known, when it is still taken after `patience`
    seconds.
    """

    def __init__(self, paths: Paths, patience: float = 0.0) -> None:
        self._fd = os.open(paths.lock, os.O_RDWR | os.O_CREAT, 0o600)
        give_up = time.monotonic() + patience
        while True:
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= give_up:
                    os.close(self._fd)
                    raise _taken(paths) from None
                time.sleep(_RETRY)
            else:
                return

    def release(self) -> None:
        """Give the home up."""
        os.close(self._fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def leftovers(paths: Paths) -> list[Process]:
    """Return the processes of this home's instance that live. Whoever holds the lock may end them."""
    record = instance.read_record(paths)
    known = [] if record is None else [p for p in record.children.values() if processes.lives(p)]
    found = processes.marked(paths.marker, {paths.ray, paths.ray_temp})
    return list({p.pid: p for p in known + found}.values())


def sweep(paths: Paths, grace: float) -> int:
    """End what is left of this home's instance, and remove the files that are true only while it runs.

    The caller holds the lock. grace: seconds between SIGTERM and SIGKILL. Returns how many processes
    there were.
    """
    count = 0
    while left := leftovers(paths):
        # Again, because one that was being started may not have been seen.
        count += len(left)
        processes.end(left, grace)
    for path in (
        paths.record,
        paths.settings,
        paths.run / "coordinator.sock",
        paths.ray / "ray_current_cluster",
    ):
        path.unlink(missing_ok=True)
    return count


def _taken(paths: Paths) -> AlreadyRunning:
    record = instance.running(paths)
    if record is None:
        return AlreadyRunning(f"another process holds {paths.lock}", hint="wait until it has ended")
    pid = record.supervisor.pid
    return AlreadyRunning(f"an instance runs in {paths.home} already, process {pid}", pid=pid)


def clear_alias(paths: Paths) -> None:
    """Remove the home's alias, which nothing needs once the instance has ended."""
    with contextlib.suppress(OSError):
        instance.remove_alias(paths)
