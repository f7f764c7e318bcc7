"""Start, find and stop an instance of OmniMind on this machine: for the command line and `omnimind.local`.

An instance is one process, the supervisor (``python -m actors.supervisor``), and what it starts. Here is
the side of those who want one; nothing here imports `actors` or Ray.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from omnimind import config, instance, ownership, processes
from omnimind.config import Settings
from omnimind.errors import BadInstallation, InstanceError, StartFailed, from_problem
from omnimind.instance import Paths, Record
from omnimind.joining import Join
from omnimind.processes import MARKER

QUICK = 8.0
"""Seconds that a supervisor gets for the quicker stop, once it has not ended in time."""

_TAIL_LINES = 8
_LOG_MAX = 1 << 20
_mine: list[subprocess.Popen[bytes]] = []
"""Supervisors that this process has started: their ends are taken note of, so that none stays a zombie."""


class StopReport(msgspec.Struct, frozen=True):
    """What a stop did.

    was_running: whether there was a supervisor. leftovers: processes of an instance whose supervisor had
    died, or did not end by itself. killed: whether the supervisor had to be killed. seconds: how long it
    took.
    """

    was_running: bool
    leftovers: int
    killed: bool
    seconds: float


class Instance:
    """A running instance. Ends with `stop`, or, unless it was detached, with the process that started it."""

    def __init__(self, paths: Paths, record: Record, status: int | None = None) -> None:
        self.paths = paths
        self.record = record
        self._status = None if status is None else _Status(status)

    @property
    def home(self) -> Path:
        """Return its OMNIMIND_HOME."""
        return self.paths.home

    def alive(self) -> bool:
        """Return whether its supervisor still runs."""
        return processes.lives(self.record.supervisor)

    def wait(self, on_progress: Callable[[str], None], timeout: float | None = None) -> bool:
        """Wait until it has ended, passing on what its supervisor says; False when `timeout` came first."""
        give_up = None if timeout is None else time.monotonic() + timeout
        while self.alive():
            left = 1.0 if give_up is None else min(1.0, give_up - time.monotonic())
            if left <= 0:
                return False
            if self._status is None:
                processes.wait_gone([self.record.supervisor], left)
                continue
            for message in self._status.read(left):
                if "progress" in message:
                    on_progress(message["progress"])
        _reap()
        return True

    def stop(self, *, timeout: float | None = None) -> StopReport:
        """Stop it; see `stop`."""
        report = stop(self.home, timeout=timeout)
        if self._status is not None:
            self._status.close()
        return report


def start(
    home: Path,
    settings: Settings | None = None,
    *,
    detach: bool = False,
    join: Join | None = None,
    on_progress: Callable[[str], None] = lambda _: None,
) -> Instance:
    """Start an instance and return when it takes work.

    settings: None loads them (see `config.load`). detach: it outlives this process; otherwise it is
    stopped when this process ends, however that ends. join: it is a host of that head, not a head itself;
    the home holds the cluster's token (see `joining.take_token`). Raises the typed errors below
    `InstanceError`, after having stopped again whatever was started.
    """
    paths = Paths(instance.home_path(home))
    settings = config.load(paths.home) if settings is None else settings
    instance.prepare(paths)
    log = paths.logs / "supervisor.log"
    mark = log.stat().st_size if log.exists() else 0
    if mark > _LOG_MAX:
        log.replace(log.with_suffix(".log.1"))
        mark = 0
    child, status = _spawn(paths, settings, log, join, detach=detach)
    try:
        record = _await(status, on_progress)
        if record is None:
            raise _said_nothing(child, log, mark)  # noqa: TRY301 - the handler is for this too
    except BaseException:
        status.close()
        with contextlib.suppress(ProcessLookupError):
            child.terminate()
        child.wait()
        raise
    if detach:
        status.close()
        return Instance(paths, record)
    return Instance(paths, record, status.fd)


def find(home: Path) -> Instance | None:
    """Return the instance that runs in a home, or None. It may still be starting: see `record.state`."""
    paths = Paths(instance.home_path(home))
    record = instance.running(paths)
    return None if record is None else Instance(paths, record)


def stop(home: Path, *, timeout: float | None = None) -> StopReport:
    """Stop the instance of a home, and whatever is left of one whose supervisor has died.

    timeout: seconds for an orderly end, None takes the instance's own settings; then it is killed.
    Raises AlreadyRunning when somebody owns the home who cannot be reached from here (another container).
    """
    began = time.monotonic()
    paths = Paths(instance.home_path(home))
    if not paths.run.exists():
        return StopReport(was_running=False, leftovers=0, killed=False, seconds=0.0)
    record = instance.running(paths)
    killed = False
    with contextlib.suppress(OSError):  # a full disk must not keep an instance running
        paths.ended.touch(mode=0o600)
    if record is not None:
        grace = config.effective(paths.settings).instance.stop_timeout
        # The coordinator and then Ray get that time each; the supervisor hurries them itself.
        killed = _end_supervisor(record.supervisor, 2 * grace + QUICK if timeout is None else timeout)
        _reap()
    with ownership.Lock(paths, patience=2.0):
        count = ownership.sweep(paths, grace=1.0)
        ownership.clear_alias(paths)
    return StopReport(record is not None, count, killed, time.monotonic() - began)


def tail(path: Path, mark: int = 0) -> str:
    """Return the last lines of a log, from byte `mark` on, indented and without colours."""
    with contextlib.suppress(OSError):
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(mark, size - 8192))
            text = file.read().decode(errors="replace")
        plain = "".join(part.partition("m")[2] if i else part for i, part in enumerate(text.split("\x1b[")))
        return "\n".join(f"  {line}" for line in plain.splitlines()[-_TAIL_LINES:])
    return ""


class _Status:
    """The supervisor's messages: one JSON object a line, over a pipe."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._rest = b""
        self.ended = self.closed = False

    def read(self, timeout: float) -> Iterator[dict[str, Any]]:
        """Yield what came within `timeout` seconds; it returns as soon as something came."""
        poll = select.poll()
        if not self.ended:
            poll.register(self.fd, select.POLLIN)
        if not poll.poll(timeout * 1000):
            return
        data = os.read(self.fd, 65536)
        self.ended = not data
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            yield msgspec.json.decode(line)

    def close(self) -> None:
        """Hear no more."""
        if not self.closed:
            os.close(self.fd)
        self.closed = self.ended = True


def _spawn(
    paths: Paths, settings: Settings, log: Path, join: Join | None, *, detach: bool
) -> tuple[subprocess.Popen[bytes], _Status]:
    read, write = os.pipe()
    # -P keeps the current folder, which may hold packages of the same names, out of the import path.
    command = [sys.executable, "-P", "-m", "actors.supervisor", "--home", str(paths.home)]
    command += ["--settings", "-", "--status-fd", str(write)]
    if join is not None:
        command += ["--join", join.address]
        if join.patience is not None:
            command += ["--patience", str(join.patience)]
    me = processes.identify(os.getpid())
    if not detach and me is not None:
        command += ["--parent", f"{me.pid}:{me.started}"]
    with log.open("ab") as output:
        child = subprocess.Popen(  # noqa: S603 - the words are our own
            command,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            cwd=paths.home,
            env={**os.environ, MARKER: paths.marker},
            pass_fds=[write],
            start_new_session=True,
        )
    os.close(write)
    _mine.append(child)
    assert child.stdin is not None
    with contextlib.suppress(BrokenPipeError), child.stdin as pipe:
        pipe.write(config.dump(settings))
    return child, _Status(read)


def _await(status: _Status, on_progress: Callable[[str], None]) -> Record | None:
    """Return the record of the instance once it is ready, None when the supervisor ended without a word."""
    while not status.ended:
        for message in status.read(3600.0):
            if "error" in message:
                raise from_problem(message["error"])
            if "ready" in message:
                return msgspec.convert(message["ready"], Record)
            if "progress" in message:
                on_progress(message["progress"])
    return None


def _said_nothing(child: subprocess.Popen[bytes], log: Path, mark: int) -> InstanceError:
    child.wait()
    found, ours = _where_actors_is(), Path(__file__).resolve().parent.parent / "actors"
    if found != ours:
        msg = f"`import actors` finds {found}, not OmniMind's own in {ours}"
        hint = f"take {found.parent} off PYTHONPATH, or rename that package"
        return BadInstallation(msg, hint=hint)
    told = tail(log, mark) or "  nothing"
    msg = f"the supervisor ended at once (exit {child.returncode}); its last words:\n{told}"
    return StartFailed(msg, log=str(log))


def _where_actors_is() -> Path:
    """Return the folder of the package that a process started like the supervisor takes for `actors`."""
    code = "import importlib.util as u; s = u.find_spec('actors'); print(s.origin if s else '')"
    result = subprocess.run(  # noqa: S603 - the words are our own
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, check=False
    )
    return Path(result.stdout.strip() or "nothing").resolve().parent


def _end_supervisor(supervisor: processes.Process, patience: float) -> bool:
    """Ask the supervisor to stop, then to hurry, then kill it. Return whether it had to be killed."""
    for seconds in (patience, QUICK):
        processes.send(supervisor, signal.SIGTERM)
        if not processes.wait_gone([supervisor], seconds):
            return False
    processes.end([supervisor], grace=0)
    return True


def _reap() -> None:
    _mine[:] = [child for child in _mine if child.poll() is None]
