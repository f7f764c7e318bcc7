"""Several Ray nodes on one machine: more raylets that join a running instance, for tests of what dies.

Nothing here imports Ray. Each node is one process, with the raylet and its workers as descendants, and
ends with the process that started it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from omnimind import instance, processes
from omnimind.errors import StartFailed
from omnimind.instance import Paths, Record
from omnimind.processes import Process

_PATIENCE = 60.0
_LOOK_EVERY = 0.05


class ExtraNode:
    """One more Ray node of an instance. Used as a context, it ends with the block.

    cpus: its cores. labels: as in the setting ``ray.labels``. name: tells its log from others'.
    It has joined when it has been made, which takes some seconds; raises StartFailed when it cannot. Make
    one after the other: two at one time may choose the same name for their sockets.
    """

    def __init__(self, paths: Paths, record: Record, name: str, cpus: int = 1, **labels: str) -> None:
        words = [sys.executable, "-P", "-m", "actors.ray_main", str(os.getpid()), "start", "--block"]
        words += [f"--address={record.ray_address}", "--node-ip-address=127.0.0.1", "--log-color=false"]
        words += [f"--num-cpus={cpus}", f"--object-store-memory={80 << 20}", f"--node-name={name}"]
        words += ["--dashboard-agent-listen-port=0", "--min-worker-port=0", "--max-worker-port=0"]
        words += ["--include-log-monitor=false", f"--temp-dir={paths.ray_temp}"]
        if labels:
            words.append("--labels=" + ",".join(f"{k}={v}" for k, v in labels.items()))
        self.log = paths.logs / f"node-{name}.log"
        with self.log.open("wb") as output:
            self._popen = subprocess.Popen(  # noqa: S603 - the words are our own
                words,
                env=_environment(paths, record),
                cwd=paths.home,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self.process = processes.identify(self._popen.pid)
        self._await_start()

    def _await_start(self) -> None:
        give_up = time.monotonic() + _PATIENCE
        while "Ray runtime started" not in (said := self.log.read_text(errors="replace")):
            if self._popen.poll() is not None or time.monotonic() > give_up:
                self.end()
                msg = f"the node did not join:\n{said[-2000:]}"
                raise StartFailed(msg, log=str(self.log))
            time.sleep(_LOOK_EVERY)

    def raylet(self) -> Process | None:
        """Return its raylet, or None while there is none."""
        return self._named("raylet")

    def kill(self) -> None:
        """End its raylet as a crash of the machine would, without a word; its workers notice and end."""
        victim = self.raylet()
        if victim is not None:
            processes.end([victim], grace=0)

    def end(self) -> None:
        """End it and everything below it."""
        if self.process is not None:
            below = processes.tree(self.process)
            processes.end([self.process], grace=5.0)
            processes.end(below, grace=0)
        self._popen.wait()

    def _named(self, name: str) -> Process | None:
        if self.process is None:
            return None
        for child in processes.tree(self.process):
            if Path((processes.command(child.pid) or [""])[0]).name == name:
                return child
        return None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()


def _environment(paths: Paths, record: Record) -> dict[str, str]:
    """Return the environment of the head's processes as a base: the nodes must be set up alike."""
    head = record.children["ray"]
    raw = Path(f"/proc/{head.pid}/environ").read_bytes().split(b"\0")
    pairs = (entry.decode(errors="surrogateescape").partition("=") for entry in raw if entry)
    return {name: value for name, _, value in pairs} | instance.ray_environment(paths)
