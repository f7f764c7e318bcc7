"""The supervisor: the one process of an instance that owns all others. ``python -P -m actors.supervisor``.

It starts Ray and OmniMind's job, says when the coordinator takes work, starts them again when they die
(with growing pauses; the ledger has everything), and ends everything it started and nothing else. The
first SIGINT, SIGTERM or SIGHUP asks for an orderly end, the second for a quick one.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from actors import preflight, ray_instance
from actors.gcs_storage import GcsStorage
from actors.lifeline import adopt_orphans
from actors.parts import Parts
from actors.wakeups import Wakeups, reap
from omnimind import config, instance, ownership, processes
from omnimind.config import Settings
from omnimind.errors import DiskFull, OmniMindError, StartFailed, StartTimeout
from omnimind.instance import Paths, Record
from omnimind.processes import Process

_PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0)
"""Seconds before each attempt to start again; the last one for all further."""

_HEALTHY = 60.0
"""Seconds of health after which the pauses begin anew."""

_IN_VAIN = 3
"""Starts in vain after which Ray begins with an empty GCS: its own state may be what keeps it down."""

_ALIAS_EVERY = 3600.0

Tell = Callable[[dict[str, Any]], None]


class Supervisor:
    """Runs one instance, until it is asked to stop.

    tell: takes the messages ``progress``, ``ready`` (the record) and ``error`` (a problem document).
    parent: ends when this process ends; None runs on without it.
    """

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
            self._say(f"ended {found} processes that an earlier run had left behind")
        _check_disk(paths, settings)
        ray_instance.check_ports(settings)
        ray_instance.remove_old_sessions(paths)
        instance.make_alias(paths)
        instance.write_atomically(paths.settings, config.dump(settings))
        self._note(state="starting")
        storage = GcsStorage(paths, settings)
        if paths.ended.exists():
            storage.reset()
            paths.ended.unlink()
        storage.prepare()
        parts = Parts(paths, settings, storage, wakeups, self._say)
        try:
            self._bring_up_first(parts, storage)
            self._watch(parts, storage, wakeups)
        finally:
            self._note(state="stopping")
            parts.stop()
            left = ownership.sweep(paths, grace=0.0 if wakeups.stops > 1 else 1.0)
            parts.reap()
            reap([])
            if paths.ended.exists():
                storage.reset()
            self._say("stopped" + (f"; {left} processes had to be ended" if left else ""))

    def _bring_up_first(self, parts: Parts, storage: GcsStorage) -> None:
        """Start, with what an earlier Ray has left where it can be read, else without it."""
        if not storage.kept:
            self._bring_up(parts)
            storage.taken()
            return
        self._say("the last Ray of this head has left its state: nodes on other hosts connect again")
        try:
            self._bring_up(parts)
        except (StartFailed, StartTimeout) as error:
            self._begin_anew(parts, storage, error)
            self._bring_up(parts)
        storage.taken()

    def _begin_anew(self, parts: Parts, storage: GcsStorage, error: OmniMindError) -> None:
        """Let the next start begin with an empty GCS: the ledger has all that must not be lost."""
        self._say(f"Ray does not come back with the state that it left, it begins with none: {error}")
        parts.clear_away(everything=True)
        storage.reset()
        storage.prepare()

    def _bring_up(self, parts: Parts) -> None:
        if not parts.start():
            return
        self._note(
            state="ready",
            children=parts.identities(),
            ray_address=parts.connected["address"],
            session_dir=parts.connected["session"],
            dashboard_url=parts.connected["dashboard"] and f"http://{parts.connected['dashboard']}",
        )
        self._tell({"ready": msgspec.to_builtins(self._record)})

    def _watch(self, parts: Parts, storage: GcsStorage, wakeups: Wakeups) -> None:
        failures, in_vain, healthy_since = 0, 0, time.monotonic()
        while not wakeups.stops:
            wakeups.wait(_ALIAS_EVERY)
            reap(parts.children())
            with contextlib.suppress(OmniMindError):
                instance.make_alias(self._paths)
            if time.monotonic() - healthy_since > _HEALTHY:
                failures = 0
            while (what := parts.dead()) is not None and not wakeups.stops:
                pause = _PAUSES[min(failures, len(_PAUSES) - 1)]
                failures += 1
                self._note(state="restarting", restarts=self._record.restarts + 1)
                self._say(f"{what}; starting it again in {pause:g} s, no acknowledged task is lost")
                parts.clear_away()
                wakeups.pause(pause)
                if wakeups.stops:
                    break
                try:
                    self._bring_up(parts)
                    in_vain = 0
                except OmniMindError as error:
                    self._say(f"it did not start: {error}")
                    in_vain += 1
                    if in_vain % _IN_VAIN == 0 and storage.kept:
                        self._begin_anew(parts, storage, error)
                    parts.clear_away(everything=True)
                healthy_since = time.monotonic()

    def _note(self, **changes: Any) -> None:
        self._record = msgspec.structs.replace(self._record, **changes)
        with contextlib.suppress(OSError):  # a full disk must not end what runs
            instance.write_record(self._paths, self._record)

    def _say(self, text: str) -> None:
        print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}", file=sys.stderr, flush=True)  # noqa: T201
        self._tell({"progress": text})


def main() -> None:
    """Run a supervisor as a process; exit with 1 when it could not start."""
    parser = argparse.ArgumentParser(prog="actors.supervisor", description="Run one instance of OmniMind.")
    parser.add_argument("--home", type=Path, help="folder of the instance [OMNIMIND_HOME]")
    parser.add_argument("--settings", choices=["-"], help="read them from standard input, as JSON")
    parser.add_argument("--status-fd", type=int, help="tell there, by JSON lines, how far it is")
    parser.add_argument("--parent", help="PID:START of a process: stop when it ends")
    args = parser.parse_args()
    tell = _teller(args.status_fd)
    paths = Paths(instance.home_path(args.home))
    try:
        settings = _read_settings(paths) if args.settings else config.load(paths.home)
        Supervisor(paths, settings, tell, _parse_process(args.parent)).run()
    except OmniMindError as error:
        tell({"error": error.to_problem()})
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(1)


def _read_settings(paths: Paths) -> Settings:
    data = sys.stdin.buffer.read()
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    try:
        return msgspec.json.decode(data, type=Settings)
    except msgspec.MsgspecError as error:
        msg = f"whoever started the supervisor of {paths.home} sent no settings: {error}"
        raise StartFailed(msg) from error


def _teller(fd: int | None) -> Tell:
    if fd is None:
        return lambda _: None
    os.set_blocking(fd, False)
    os.set_inheritable(fd, False)

    def tell(message: dict[str, Any]) -> None:
        # Nobody listens any more, or not fast enough: what it says stands in the log too.
        with contextlib.suppress(BrokenPipeError, BlockingIOError):
            os.write(fd, msgspec.json.encode(message) + b"\n")

    return tell


def _parse_process(text: str | None) -> Process | None:
    if text is None:
        return None
    pid, _, started = text.partition(":")
    return Process(int(pid), int(started), processes.boot_id())


def _check_disk(paths: Paths, settings: Settings) -> None:
    facts = os.statvfs(paths.home)
    free, least = facts.f_bavail * facts.f_frsize, settings.instance.min_free_disk
    if free < least:
        msg = f"{free >> 20} MiB are free on the disk of {paths.home}; it starts with {least >> 20} MiB"
        raise DiskFull(msg, field="instance.min_free_disk")


if __name__ == "__main__":
    main()
