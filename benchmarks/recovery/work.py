"""The work that is on the part that dies, and the witness of its fate.

The witness is one file that all hosts see. Each line is written by one append: what, name, host, pid, and the
monotonic clock of the kernel that all hosts share. No system under test reads or writes it otherwise.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


def work(folder: str, name: str) -> str:
    """Block in the first attempt until released, be done at once in any later one.

    It travels to the hosts by value, so it imports inside.
    """
    import os  # noqa: PLC0415
    import time  # noqa: PLC0415

    host, witness = os.uname().nodename, os.path.join(folder, "witness")  # noqa: PTH118

    def note(what: str) -> None:
        line = f"{what} {name} {host} {os.getpid()} {time.monotonic()}\n"
        fd = os.open(witness, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        os.write(fd, line.encode())
        os.close(fd)

    note("START")
    with open(witness) as lines:  # noqa: PTH123
        first = sum(line.startswith(f"START {name} ") for line in lines) == 1
    give_up = time.monotonic() + 600.0
    while first and time.monotonic() < give_up and not os.path.exists(os.path.join(folder, f"go-{name}")):  # noqa: PTH110, PTH118
        time.sleep(0.02)
    note("END")
    return host


@dataclass(frozen=True, slots=True)
class Line:
    what: str
    name: str
    host: str
    pid: int
    at: float


class Witness:
    """The parent's side: it reads, and releases what blocks."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._path = folder / "witness"
        self._path.touch()

    def lines(self, name: str = "") -> list[Line]:
        return [line for line in self._read() if not name or line.name == name]

    def _read(self) -> Iterator[Line]:
        for text in self._path.read_text().splitlines():
            what, name, host, pid, at = text.split(" ")
            yield Line(what, name, host, int(pid), float(at))

    def release(self, name: str) -> None:
        (self.folder / f"go-{name}").touch()

    def wait(self, name: str, what: str, *, count: int = 1, seconds: float) -> Line | None:
        """Return the `count`-th line of this kind, or None when it did not come in time."""
        give_up = time.monotonic() + seconds
        while True:
            found = [line for line in self.lines(name) if line.what == what]
            if len(found) >= count:
                return found[count - 1]
            if time.monotonic() > give_up:
                return None
            time.sleep(0.005)
