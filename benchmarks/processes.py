"""Servers of the peers: started on free ports, watched while they start, ended by their pid."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil

_START_SECONDS = 60.0
_STOP_SECONDS = 10.0
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def free_port() -> int:
    """Return a loopback port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def tail(log: Path, lines: int = 15) -> str:
    text = log.read_text(errors="replace") if log.exists() else ""
    return "\n".join(text.splitlines()[-lines:])


class Server:
    """A child process with its output in `log`; `user` is whom it runs as (None: who we are)."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        log: Path,
        environment: Mapping[str, str] | None = None,
        user: str | None = None,
    ) -> None:
        self._log = log
        self._name = Path(command[0]).name
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment,
                user=user,
                group=user,
                extra_groups=None if user is None else [],
            )

    def wait_until(self, ready: Callable[[], object], errors: tuple[type[Exception], ...] = ()) -> None:
        """Return when `ready` says true; an exception of `errors` means "not yet".

        Raises RuntimeError, with the end of the log, when the process ends or is not ready within 60 s.
        """
        limit = time.monotonic() + _START_SECONDS
        while time.monotonic() < limit:
            if self._process.poll() is not None:
                raise RuntimeError(f"{self._name} ended with {self._process.returncode}:\n{tail(self._log)}")
            try:
                if ready():
                    return
            except errors:
                pass
            time.sleep(0.05)
        raise RuntimeError(f"{self._name} was not ready after {_START_SECONDS:.0f} s:\n{tail(self._log)}")

    def stop(self, sign: signal.Signals = signal.SIGTERM) -> None:
        if self._process.poll() is None:
            self._process.send_signal(sign)
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent dies: `end_descendants` then finds them all."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def end_with_parent() -> None:
    """Be interrupted (SIGTERM) when the process that started this one dies, however it dies."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def interrupt_on_terminate() -> None:
    """Treat SIGTERM like Ctrl-C, so that whoever is told to end cleans up first."""

    def interrupt(number: int, frame: object) -> None:
        del number, frame
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option})")


def end_descendants() -> list[str]:
    """End what a measurement left running under this process, and return the names of what was ended."""
    ended: list[str] = []
    for sign in (signal.SIGTERM, signal.SIGKILL):
        alive = [child for child in psutil.Process().children(recursive=True) if _running(child)]
        for child in alive:
            try:
                ended.append(f"{child.name()} ({child.pid})")
                child.send_signal(sign)
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(alive, timeout=5)
        _bury()
    return sorted(set(ended))


def _running(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _bury() -> None:
    """Collect adopted children that have ended, which nobody else waits for."""
    try:
        while os.waitpid(-1, os.WNOHANG) != (0, 0):
            pass
    except ChildProcessError:
        return
