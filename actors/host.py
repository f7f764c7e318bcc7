"""A host that is not the head: the raylet that joins the head's Ray, looked after by this host's supervisor.

The raylet ends when its head has given it up (Ray never takes such a node back) and when the head has been
away for too long. Then it is started again and joins as a new node: what ran in the old one has been fenced
by the coordinator, and its late results are refused.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec

from actors import preflight, ray_instance
from actors.child import Child
from actors.keeping import Keeper, Say, Tell
from actors.wakeups import Wakeups
from omnimind import ownership, processes
from omnimind.config import Settings
from omnimind.errors import BadInstallation, HeadUnreachable, StartFailed, StartTimeout, from_problem
from omnimind.instance import Paths
from omnimind.joining import Join
from omnimind.launch import tail
from omnimind.processes import Process

_TICK = 0.1
_REACH_TIMEOUT = 3.0
_ASK_TIMEOUT = 30.0
_PAUSES = (0.5, 1.0, 2.0, 3.0)
"""Seconds between looks at a head that is away: the last one for all further, so that it is seen at once."""
_SAY_AGAIN = 60.0


class HostKeeper(Keeper["HostParts"]):
    """Keeps a host of the head that `join` names."""

    promise = "it joins as a new node"

    def __init__(
        self, join: Join, paths: Paths, settings: Settings, tell: Tell, parent: Process | None = None
    ) -> None:
        super().__init__(paths, settings, tell, parent)
        self._join = join

    def parts(self, wakeups: Wakeups) -> HostParts:
        """Return the raylet."""
        return HostParts(self._join, self._paths, self._settings, wakeups, self.say)


class HostParts:
    """The raylet of this host. say: takes progress, for a person."""

    def __init__(self, join: Join, paths: Paths, settings: Settings, wakeups: Wakeups, say: Say) -> None:
        self._join = join
        self._paths = paths
        self._settings = settings
        self._wakeups = wakeups
        self._say = say
        self._patience = join.patience
        self._known = False
        """Whether the last join succeeded: then the head need not be asked whether it may."""
        self._ray: Child | None = None
        self._daemons: dict[str, Process] = {}
        self.connected: dict[str, str] = {"address": join.address, "session": "", "dashboard": ""}

    def start(self) -> bool:
        """Wait for the head and join it; return True when Ray runs here; False: a stop is wished.

        Raises HeadUnreachable when the head does not come up in time at first, Forbidden for a wrong
        token, BadInstallation for other versions than the head's, StartFailed, StartTimeout.
        """
        own = self._await_head()
        if own is None:
            return False
        if not self._known:
            self._ask_head()
        began = time.monotonic()
        self._patience, self._known = None, False
        settings = self._settings
        if ray_instance.is_loopback(settings.ray.node_ip):
            ray = msgspec.structs.replace(settings.ray, node_ip=own)
            settings = msgspec.structs.replace(settings, ray=ray)
        words = ray_instance.join_command(self._paths, settings, self._join.address)
        self._say(f"joining {self._join.address} as {settings.ray.node_ip}")
        env = ray_instance.environment(self._paths, settings)
        self._ray = Child(words, env, self._paths.logs / "ray.log")
        if self._ray.process is not None:
            self._wakeups.watch(self._ray.process)
        return self._await_ray(began)

    def children(self) -> list[subprocess.Popen[bytes]]:
        """Return the processes that this one has started itself."""
        return [] if self._ray is None else [self._ray.popen]

    def identities(self) -> dict[str, Process]:
        """Return the identities of Ray and its raylet."""
        ray = None if self._ray is None else self._ray.process
        return ({} if ray is None else {"ray": ray}) | self._daemons

    def dead(self) -> str | None:
        """Return what has died, in words, or None."""
        if self._ray is None:
            return "no Ray runs here"
        if self._ray.ended():
            return "Ray has ended"
        for name, process in self._daemons.items():
            if not processes.lives(process):
                return f"Ray's {name} (process {process.pid}) has ended"
        return None

    def clear_away(self, *, everything: bool = True) -> None:  # noqa: ARG002 (there is one part)
        """End what is left of Ray."""
        if self._ray is None:
            return
        if self._ray.process is not None:
            processes.end([*processes.tree(self._ray.process), self._ray.process], grace=0)
        processes.end(ownership.leftovers(self._paths), grace=0)
        self.reap()
        self._ray, self._daemons = None, {}

    def stop(self) -> None:
        """End Ray in order: the head hears of it. What does not end in time is left to `ownership.sweep`."""
        if self._ray is None or self._ray.process is None:
            return
        self._say("leaving the cluster")
        processes.send(self._ray.process, signal.SIGTERM)
        until = time.monotonic() + self._settings.instance.stop_timeout
        while not self._ray.ended() and time.monotonic() < until and self._wakeups.stops <= 1:
            self._wakeups.wait(_TICK)

    def reap(self) -> None:
        """Wait for Ray, which has been ended."""
        if self._ray is None:
            return
        if self._ray.process is not None:
            processes.end([self._ray.process], grace=0)
            self._wakeups.unwatch(self._ray.process)
        self._ray.popen.wait()

    def _await_head(self) -> str | None:
        """Return this host's address as the head sees it, None when a stop is wished."""
        began, tries, said, said_at = time.monotonic(), 0, "", 0.0
        while not self._wakeups.stops:
            try:
                return self._join.reach(_REACH_TIMEOUT)
            except HeadUnreachable as error:
                now = time.monotonic()
                if self._patience is not None and now - began > self._patience:
                    raise
                if error.message != said or now - said_at > _SAY_AGAIN:
                    said, said_at = error.message, now
                    self._say(f"{said}; waiting for it")
            self._wakeups.pause(_PAUSES[min(tries, len(_PAUSES) - 1)])
            tries += 1
        return None

    def _ask_head(self) -> None:
        """Let a process of its own ask the head who it is, and compare. Raises Forbidden, BadInstallation."""
        words = [sys.executable, "-P", "-m", "actors.head_probe", self._join.address]
        env = ray_instance.environment(self._paths, self._settings)
        try:
            done = subprocess.run(  # noqa: S603 (the words are our own)
                words, env=env, capture_output=True, text=True, check=False, timeout=_ASK_TIMEOUT
            )
        except subprocess.TimeoutExpired as error:
            raise HeadUnreachable(f"the head at {self._join.address} does not say who it is") from error
        try:
            answer: dict[str, Any] = json.loads(done.stdout)
        except ValueError as error:
            msg = f"the head at {self._join.address} could not be asked who it is:\n{done.stderr[-2000:]}"
            raise StartFailed(msg) from error
        if "error" in answer:
            raise from_problem(answer["error"])
        mine = preflight.versions()
        skew = [f"{k} {mine[k]} here, {v} there" for k, v in answer.items() if mine.get(k) != v]
        if skew:
            msg = f"the head at {self._join.address} runs other versions: {'; '.join(skew)}"
            raise BadInstallation(msg, hint="install the same on all hosts, from the same lock file")

    def _await_ray(self, began: float) -> bool:
        assert self._ray is not None
        timeout = self._settings.instance.start_timeout
        while not self._wakeups.stops:
            if "Ray runtime started" in self._ray.log.read_text(encoding="utf-8", errors="replace"):
                assert self._ray.process is not None
                self._daemons = ray_instance.daemons(self._ray.process)
                if "raylet" in self._daemons:
                    self._wakeups.watch(self._daemons["raylet"])
                    self._known = True
                    self.connected["session"] = _session(self._paths.ray)
                    self._say(f"joined {self._join.address} after {time.monotonic() - began:.1f} s")
                    return True
            if self._ray.ended():
                msg = f"Ray ended while it joined (exit {self._ray.popen.returncode}); its last words:\n"
                raise StartFailed(msg + tail(self._ray.log), log=str(self._ray.log))
            if time.monotonic() - began > timeout:
                msg = f"not joined within {timeout:g} s; the last lines of {self._ray.log}:\n"
                hint = "give it more time: --set instance.start_timeout=120"
                raise StartTimeout(msg + tail(self._ray.log), hint=hint, log=str(self._ray.log))
            self._wakeups.wait(_TICK)
        return False


def _session(folder: Path) -> str:
    try:
        return str(Path(os.path.realpath(folder / "session_latest")))
    except OSError:
        return ""
