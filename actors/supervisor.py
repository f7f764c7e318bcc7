"""The supervisor: the one process of an instance that owns all others. ``python -P -m actors.supervisor``.

On the head it keeps Ray and OmniMind's job, on another host (``--join``) the raylet that joins the head;
see `keeping` for what both do.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from pathlib import Path
from typing import Any

import msgspec

from actors import api_port, ray_instance
from actors.gcs_storage import GcsStorage
from actors.host import HostKeeper
from actors.keeping import Keeper, Tell
from actors.parts import Parts
from actors.wakeups import Wakeups
from omnimind import config, instance, processes
from omnimind.config import Settings
from omnimind.errors import OmniMindError, StartFailed, StartTimeout
from omnimind.instance import Paths
from omnimind.joining import Join
from omnimind.processes import Process

_IN_VAIN = 3
"""Starts in vain after which Ray begins with an empty GCS: its own state may be what keeps it down."""


class Supervisor(Keeper[Parts]):
    """Keeps the head: Ray's head and the job, which starts the coordinator."""

    def parts(self, wakeups: Wakeups) -> Parts:
        """Return Ray and the job, with what the last Ray of this head has left where it can go on from it."""
        ray_instance.check_ports(self._settings)
        self._settings = api_port.with_port(self._settings)
        self._storage = GcsStorage(self._paths, self._settings)
        if self._paths.ended.exists():
            self._storage.reset()
            self._paths.ended.unlink()
        self._storage.prepare()
        return Parts(self._paths, self._settings, self._storage, wakeups, self.say)

    def bring_up_first(self, parts: Parts) -> None:
        """Start, with what an earlier Ray has left where it can be read, else without it."""
        if not self._storage.kept:
            self.bring_up(parts)
            self._storage.taken()
            return
        self.say("the last Ray of this head has left its state: nodes on other hosts connect again")
        try:
            self.bring_up(parts)
        except (StartFailed, StartTimeout) as error:
            self._begin_anew(parts, error)
            self.bring_up(parts)
        self._storage.taken()

    def in_vain(self, parts: Parts, times: int, error: OmniMindError) -> None:
        """Begin without what the GCS has kept, after some times."""
        if times % _IN_VAIN == 0 and self._storage.kept:
            self._begin_anew(parts, error)

    def ended(self) -> None:
        """Forget the GCS's state where the end was a person's wish."""
        if self._paths.ended.exists():
            self._storage.reset()
            self._paths.ended.unlink(missing_ok=True)

    def _begin_anew(self, parts: Parts, error: OmniMindError) -> None:
        """Let the next start begin with an empty GCS: the ledger has all that must not be lost."""
        self.say(f"Ray does not come back with the state that it left, it begins with none: {error}")
        parts.clear_away(everything=True)
        self._storage.reset()
        self._storage.prepare()


def main() -> None:
    """Run a supervisor as a process; exit with 1 when it could not start."""
    parser = argparse.ArgumentParser(prog="actors.supervisor", description="Run one instance of OmniMind.")
    parser.add_argument("--home", type=Path, help="folder of the instance [OMNIMIND_HOME]")
    parser.add_argument("--settings", choices=["-"], help="read them from standard input, as JSON")
    parser.add_argument("--status-fd", type=int, help="tell there, by JSON lines, how far it is")
    parser.add_argument("--join", help="be a host of the head at HOST:PORT, not a head")
    parser.add_argument("--patience", type=float, help="seconds to wait for that head  [for ever]")
    parser.add_argument("--parent", help="PID:START of a process: stop when it ends")
    args = parser.parse_args()
    tell = _teller(args.status_fd)
    paths = Paths(instance.home_path(args.home))
    try:
        settings = _read_settings(paths) if args.settings else config.load(paths.home)
        parent = _parse_process(args.parent)
        if args.join:
            HostKeeper(Join.parse(args.join, args.patience), paths, settings, tell, parent).run()
        else:
            Supervisor(paths, settings, tell, parent).run()
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


if __name__ == "__main__":
    main()
