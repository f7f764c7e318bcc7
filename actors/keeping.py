"""`Keeper`: what every supervisor does, of a head and of another host alike.

It owns a home: it holds its lock, ends what an earlier run has left, starts the parts, starts them again
when they die (with growing pauses), and ends everything it started and nothing else. The first SIGINT,
SIGTERM or SIGHUP asks for an orderly end, the second for a quick one.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from subprocess import Popen
from typing import Any, Generic, Protocol, TypeVar

import msgspec

from actors import preflight, ray_instance
from actors.lifeline import adopt_orphans
from actors.wakeups import Wakeups, reap
from omnimind import config, instance, ownership, processes
from omnimind.config import Settings
from omnimind.errors import DiskFull, OmniMindError
from omnimind.instance import Paths, Record
from omnimind.processes import Process

_PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0)
"""Seconds before each attempt to start again; the last one for all further."""

_HEALTHY = 60.0
"""Seconds of health after which the pauses begin anew."""

_ALIAS_EVERY = 3600.0

Tell = Callable[[dict[str, Any]], None]
Say = Callable[[str], None]
K = TypeVar("K", bound="Kept")


class Kept(Protocol):
    """The processes that a keeper keeps."""

    @property
    def connected(self) -> dict[str, str]:
        """Return where Ray is: ``address``, ``session``, ``dashboard``; and the ``api`` if there is one."""

    def start(self) -> bool:
        """Start what does not run, return True when all is ready; False: a stop is wished."""

    def children(self) -> Sequence[Popen[bytes]]:
        """Return the processes that this one has started itself."""

    def identities(self) -> dict[str, Process]:
        """Return the identities of the parts, by name."""

    def dead(self) -> str | None:
        """Return what has died, in words, or None."""

    def clear_away(self, *, everything: bool = False) -> None:
        """End what is left after something has died."""

    def stop(self) -> None:
        """End all parts, in order."""

    def reap(self) -> None:
        """Wait for the processes that this one has started itself, which have all been ended."""


class Keeper(ABC, Generic[K]):
    """Runs the parts of one home, until it is asked to stop.

    tell: takes the messages ``progress``, ``ready`` (the record) and ``error`` (a problem document).
    parent: ends when this process ends; None runs on without it.
    """

    promise = "no acknowledged task is lost"
    """What a person may rely on while it starts again."""

    def __init__(self, paths: Paths, settings: Settings, tell: Tell, parent: Process | None = None) -> None:
        self._paths = paths
        self._settings = settings
        self._tell = tell
        self._parent = parent
        me = processes.identify(os.getpid())
        assert me is not None
        self._record = Record(
            home=str(paths.home), versions=preflight.versions(), supervisor=me, started_at=time.time()
        )

    @abstractmethod
    def parts(self, wakeups: Wakeups) -> K:
        """Return the parts, none of them started. Raises OmniMindError where they cannot be."""

    def bring_up_first(self, parts: K) -> None:
        """Start for the first time. Raises what keeps it from starting."""
        self.bring_up(parts)

    def in_vain(self, parts: K, times: int, error: OmniMindError) -> None:
        """Hear that starting again has failed so many times in a row."""

    def ended(self) -> None:
        """Hear that everything has ended."""

    def run(self) -> None:
        """Start, watch, stop. Raises InstanceError, ConfigError or LedgerError when it cannot start."""
        preflight.check()
        instance.prepare(self._paths)
        with ownership.Lock(self._paths), Wakeups() as wakeups:
            adopt_orphans()
            try:
                self._run(wakeups)
            finally:
                ownership.clear_alias(self._paths)

    def _run(self, wakeups: Wakeups) -> None:
        paths, settings = self._paths, self._settings
        if self._parent is not None:
            # Whoever wanted this instance is gone: as if it had asked for the end.
            wakeups.watch(self._parent, wakeups.stop)
            if not processes.lives(self._parent):
                wakeups.stop()
        found = ownership.sweep(paths, grace=2.0)
        if found:
            self.say(f"ended {found} processes that an earlier run had left behind")
        _check_disk(paths, settings)
        parts = self.parts(wakeups)
        ray_instance.remove_old_sessions(paths)
        instance.make_alias(paths)
        instance.write_atomically(paths.settings, config.dump(settings))
        self.note(state="starting")
        try:
            self.bring_up_first(parts)
            self._watch(parts, wakeups)
        finally:
            self.note(state="stopping")
            parts.stop()
            left = ownership.sweep(paths, grace=0.0 if wakeups.stops > 1 else 1.0)
            parts.reap()
            reap([])
            self.ended()
            self.say("stopped" + (f"; {left} processes had to be ended" if left else ""))

    def bring_up(self, parts: K) -> None:
        """Start what does not run, and say when it is ready."""
        if not parts.start():
            return
        self.note(
            state="ready",
            children=parts.identities(),
            ray_address=parts.connected["address"],
            session_dir=parts.connected["session"],
            api_url=parts.connected.get("api", ""),
            dashboard_url=parts.connected["dashboard"] and f"http://{parts.connected['dashboard']}",
        )
        self._tell({"ready": msgspec.to_builtins(self._record)})

    def _watch(self, parts: K, wakeups: Wakeups) -> None:
        failures, in_vain, healthy_since = 0, 0, time.monotonic()
        while not wakeups.stops:
            wakeups.wait(_ALIAS_EVERY)
            reap(list(parts.children()))
            with contextlib.suppress(OmniMindError):
                instance.make_alias(self._paths)
            if time.monotonic() - healthy_since > _HEALTHY:
                failures = 0
            while (what := parts.dead()) is not None and not wakeups.stops:
                pause = _PAUSES[min(failures, len(_PAUSES) - 1)]
                failures += 1
                self.note(state="restarting", restarts=self._record.restarts + 1)
                self.say(f"{what}; starting it again in {pause:g} s, {self.promise}")
                parts.clear_away()
                wakeups.pause(pause)
                if wakeups.stops:
                    break
                try:
                    self.bring_up(parts)
                    in_vain = 0
                except OmniMindError as error:
                    self.say(f"it did not start: {error}")
                    in_vain += 1
                    self.in_vain(parts, in_vain, error)
                    parts.clear_away(everything=True)
                healthy_since = time.monotonic()

    def note(self, **changes: Any) -> None:
        """Write into the home what is true now."""
        self._record = msgspec.structs.replace(self._record, **changes)
        with contextlib.suppress(OSError):  # a full disk must not end what runs
            instance.write_record(self._paths, self._record)

    def say(self, text: str) -> None:
        """Say something to a person."""
        print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}", file=sys.stderr, flush=True)  # noqa: T201
        self._tell({"progress": text})


def _check_disk(paths: Paths, settings: Settings) -> None:
    facts = os.statvfs(paths.home)
    free, least = facts.f_bavail * facts.f_frsize, settings.instance.min_free_disk
    if free < least:
        msg = f"{free >> 20} MiB are free on the disk of {paths.home}; it starts with {least >> 20} MiB"
        raise DiskFull(msg, field="instance.min_free_disk")
