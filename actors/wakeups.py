"""`Wakeups`: one place where the supervisor waits: for signals, ends of processes, and lines from a pipe."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from typing import Any, Self

from omnimind import processes
from omnimind.processes import Process

_STOP = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Wakeups:
    """Waits for what may happen. `stops` counts the wishes that this process should end.

    Only one may exist at a time: signals belong to the process. Used as a context, it puts the signal
    handlers back at the end.
    """

    def __init__(self) -> None:
        self.stops = 0
        self._selector = selectors.DefaultSelector()
        self._watched: dict[Process, int] = {}
        self._read, self._write = socket.socketpair()
        for end in (self._read, self._write):
            end.setblocking(False)
        self._selector.register(self._read, selectors.EVENT_READ)

    def __enter__(self) -> Self:
        self._old_fd = signal.set_wakeup_fd(self._write.fileno(), warn_on_full_buffer=False)
        self._old = {number: signal.signal(number, self.stop) for number in _STOP}
        self._old[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, lambda *_: None)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._old_fd)
        self._selector.close()
        for fd in self._watched.values():
            os.close(fd)
        self._read.close()
        self._write.close()

    def watch(self, process: Process, on_end: Callable[[], None] | None = None) -> None:
        """Wake up when a process ends, and call `on_end` then."""
        with contextlib.suppress(OSError):
            fd = os.pidfd_open(process.pid)
            self._watched[process] = fd
            self._selector.register(fd, selectors.EVENT_READ, (process, on_end))

    def unwatch(self, process: Process) -> None:
        """Do not wake up for it any more."""
        fd = self._watched.pop(process, None)
        if fd is not None:
            self._selector.unregister(fd)
            os.close(fd)

    def listen(self, file: Any) -> None:
        """Wake up when there is something to read."""
        self._selector.register(file, selectors.EVENT_READ)

    def unlisten(self, file: Any) -> None:
        """Do not wake up for it any more."""
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(file)

    def wait(self, timeout: float) -> None:
        """Return when something has happened, at the latest after `timeout` seconds."""
        for key, _ in self._selector.select(max(0.0, timeout)):
            if key.fileobj is self._read:
                with contextlib.suppress(BlockingIOError):
                    while self._read.recv(4096):
                        pass
            elif isinstance(key.data, tuple):
                process, on_end = key.data
                self.unwatch(process)
                if on_end is not None:
                    on_end()

    def pause(self, seconds: float) -> None:
        """Wait out a time, unless a stop is wished for."""
        until = time.monotonic() + seconds
        while not self.stops and (left := until - time.monotonic()) > 0:
            self.wait(left)

    def stop(self, *_: object) -> None:
        """Wish that this process should end."""
        self.stops += 1


def reap(children: list[subprocess.Popen[bytes]]) -> None:
    """Take note of the ends of adopted processes, lest they stay zombies; `children` are not ours to reap."""
    ours = {child.pid for child in children if child.poll() is None}
    for child in processes.children(os.getpid()):
        if child not in ours:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(child, os.WNOHANG)
