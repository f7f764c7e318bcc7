"""`Parts`: the processes of an instance, started, looked after and ended as one.

They are Ray, OmniMind's job, and where it is wanted the process that puts the HTTP API on Ray Serve.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import msgspec

from actors import api_port, line, ray_instance
from actors.child import Child
from actors.gcs_storage import GcsStorage
from actors.wakeups import Wakeups
from omnimind import ownership, processes
from omnimind.config import Settings
from omnimind.errors import OmniMindError, StartFailed, StartTimeout, Unavailable, from_problem
from omnimind.instance import Paths
from omnimind.launch import tail
from omnimind.processes import Process

_TICK = 0.1
_PING_TIMEOUT = 2.0
_JOB_PATIENCE = 0.4
"""Part of the start's time after which a job that hangs in connecting is started once more."""


class Parts:
    """Ray, the job and the API of one home.

    storage: what the GCS keeps. say: takes progress, for a person. connected: where Ray is.
    """

    def __init__(
        self,
        paths: Paths,
        settings: Settings,
        storage: GcsStorage,
        wakeups: Wakeups,
        say: Callable[[str], None],
    ) -> None:
        self._paths = paths
        self._storage = storage
        self._settings = settings
        self._wakeups = wakeups
        self._say = say
        self._env = ray_instance.environment(paths, settings)
        self._ray: Child | None = None
        self._job: Child | None = None
        self._api: Child | None = None
        self._daemons: dict[str, Process] = {}
        self._rest = b""
        self._near = True
        """Whether the coordinator was on this host when it was started last."""
        self.connected: dict[str, str] = {}

    def start(self) -> bool:
        """Start what does not run, and return True when the coordinator takes work; False: a stop is wished.

        Raises StartFailed, StartTimeout, or what the coordinator raised when it started.
        """
        began = time.monotonic()
        if self._ray is None:
            self._say("starting Ray")
            (self._paths.ray / "ray_current_cluster").unlink(missing_ok=True)
            words = ray_instance.command(self._paths, self._settings, self._storage.port)
            self._ray = self._child("ray", words, self._storage.environment())
        if self._job is None:
            self._start_job()
            if not self._await_coordinator(began):
                return False
        if self._settings.api.enabled and self._api is None:
            self._start_api()
        return True

    def children(self) -> list[subprocess.Popen[bytes]]:
        """Return the processes that this one has started itself."""
        return [child.popen for child in (self._ray, self._job, self._api) if child is not None]

    def identities(self) -> dict[str, Process]:
        """Return the identities of the parts, by name."""
        named = {"ray": self._ray, "job": self._job, "api": self._api}
        found = {name: child.process for name, child in named.items() if child is not None}
        return {name: process for name, process in found.items() if process is not None} | self._daemons

    def dead(self) -> str | None:
        """Return what has died, in words, or None."""
        if self._ray is None or self._ray.ended():
            return "Ray has ended"
        for name, process in self._daemons.items():
            if not processes.lives(process):
                return f"Ray's {name} (process {process.pid}) has died"
        if self._job is None or self._job.ended():
            return "the job that keeps workers warm has ended"
        if self._api is not None and self._api.ended():
            return f"the HTTP API has ended (see {self._api.log})"
        return None

    def clear_away(self, *, everything: bool = False) -> None:
        """End what is left after something has died: all, unless it was only the job or only the API."""
        if not everything and self._ray_lives():
            if self._api is not None and self._api.ended():
                self._drop(self._api)
                self._api = None
            if self._job is None or self._job.ended():
                self._drop(self._job)
                self._job = None
            return
        for child in (self._api, self._job):
            self._drop(child)
        self._api = self._job = None
        if self._ray is not None and self._ray.process is not None:
            processes.end([*processes.tree(self._ray.process), self._ray.process], grace=0)
        processes.end(ownership.leftovers(self._paths), grace=0)
        self._drop(self._ray)
        self._ray, self._daemons = None, {}

    def _ray_lives(self) -> bool:
        known = list(self._daemons.values())
        return (
            self._ray is not None
            and not self._ray.ended()
            and bool(known)
            and all(map(processes.lives, known))
        )

    def stop(self) -> None:
        """End all parts, in order: the coordinator, the job, Ray. A second wish to stop cuts the waits short.

        What does not end in time is left to `ownership.sweep`.
        """
        grace = self._settings.instance.stop_timeout

        def hurried() -> bool:
            return self._wakeups.stops > 1

        if self._daemons and self._near:
            self._say("stopping the coordinator")
            with contextlib.suppress(OmniMindError):
                line.ask(self._paths, "shutdown", grace, hurried, until_closed=True)
        if self._ray is None:
            return
        self._say("stopping Ray")
        for child in (self._api, self._job, self._ray):
            if child is not None and child.process is not None:
                processes.send(child.process, signal.SIGTERM)
        until = time.monotonic() + grace
        while any(child.poll() is None for child in self.children()):
            if time.monotonic() > until or hurried():
                break
            self._wakeups.wait(_TICK)

    def reap(self) -> None:
        """Wait for our own children, which have all been ended."""
        for child in (self._api, self._job, self._ray):
            self._drop(child)

    def _child(self, name: str, words: list[str], more: dict[str, str] | None = None, **pipes: Any) -> Child:
        child = Child(words, self._env | (more or {}), self._paths.logs / f"{name}.log", **pipes)
        if child.process is not None:
            self._wakeups.watch(child.process)
        return child

    def _start_job(self) -> None:
        words = [sys.executable, "-P", "-m", "actors.job", "--home", str(self._paths.home)]
        words += ["--parent", str(os.getpid())]
        self._job = self._child("job", words, stdout=subprocess.PIPE)
        self._rest, self.connected = b"", {}
        assert self._job.popen.stdout is not None
        os.set_blocking(self._job.popen.stdout.fileno(), False)
        self._wakeups.listen(self._job.popen.stdout)

    def _start_api(self) -> None:
        """Start the API beside the rest: nobody waits for it, and what it says stands in its log."""
        words = [sys.executable, "-P", "-m", "serve.run", "--home", str(self._paths.home)]
        words += ["--parent", str(os.getpid())]
        self._say(f"the HTTP API comes up at {api_port.url(self._settings)}")
        self._api = self._child("api", words, {"RAY_ADDRESS": self.connected["address"]})

    def _drop(self, child: Child | None) -> None:
        if child is None:
            return
        if child.process is not None:
            processes.end([child.process], grace=0)
            self._wakeups.unwatch(child.process)
        if child.popen.stdout is not None:
            self._wakeups.unlisten(child.popen.stdout)
        child.close()
        child.popen.wait()

    def _await_coordinator(self, began: float) -> bool:
        timeout = self._settings.instance.start_timeout
        again_at: float | None = None
        coordinator, tried_again = False, False
        while not self._wakeups.stops:
            for message in self._messages():
                if "error" in message:
                    raise from_problem(message["error"])
                if "connected" in message:
                    self.connected = message["connected"] | {"api": api_port.url(self._settings)}
                    self._say(f"Ray is up ({time.monotonic() - began:.1f} s), starting the coordinator")
                if "ready" in message:
                    coordinator, self._near = True, bool(message["here"])
            # One on another host has said that it is ready by Ray, which is the only way to it from here.
            if coordinator and (not self._near or self._answers()):
                self._find_daemons()
                self._say(f"ready after {time.monotonic() - began:.1f} s")
                return True
            now = time.monotonic()
            self._check_start(now - began, timeout)
            if again_at is None and ray_instance.address(self._paths):
                again_at = now + timeout * _JOB_PATIENCE
            if again_at is not None and now > again_at and not self.connected and not tried_again:
                tried_again = True
                self._say("the job hangs in connecting to Ray, starting it once more")
                self._drop(self._job)
                self._start_job()
            self._wakeups.wait(_TICK)
        return False

    def _answers(self) -> bool:
        try:
            line.ask(self._paths, "ping", _PING_TIMEOUT, lambda: self._wakeups.stops > 0)
        except Unavailable:
            return False
        return True

    def _find_daemons(self) -> None:
        if self._daemons or self._ray is None or self._ray.process is None:
            return
        self._daemons = ray_instance.daemons(self._ray.process)
        for process in self._daemons.values():
            self._wakeups.watch(process)

    def _check_start(self, elapsed: float, timeout: float) -> None:
        for name, child in (("Ray", self._ray), ("OmniMind's job", self._job)):
            if child is not None and child.ended():
                code = child.popen.returncode
                msg = f"{name} ended while it started (exit {code}); its last words:\n{tail(child.log)}"
                raise StartFailed(msg, log=str(child.log))
        if elapsed > timeout:
            slow = self._job if ray_instance.address(self._paths) else self._ray
            assert slow is not None
            msg = f"not ready within {timeout:g} s; the last lines of {slow.log}:\n{tail(slow.log)}"
            hint = "give it more time: --set instance.start_timeout=120"
            raise StartTimeout(msg, hint=hint, log=str(slow.log))

    def _messages(self) -> list[dict[str, Any]]:
        assert self._job is not None
        pipe = self._job.popen.stdout
        assert pipe is not None
        while True:
            try:
                data = os.read(pipe.fileno(), 65536)
            except BlockingIOError:
                break
            if not data:
                self._wakeups.unlisten(pipe)
                break
            self._rest += data
        *lines, self._rest = self._rest.split(b"\n")
        return [msgspec.json.decode(text) for text in lines]
