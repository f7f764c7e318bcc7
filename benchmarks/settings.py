"""What one run of the benchmarks is: how long, how often, of whom. And what a suite is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.figures import Figure
from benchmarks.peers import PEERS, Entry


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """`folder` is for temporary files: its disk is what the durable systems write to.

    seconds: about how long one throughput measurement runs. repetitions: of every peer, taking turns.
    calls: sequential round trips per repetition. backlog: tasks of the long queue.
    scale: tasks of the simulated one.
    """

    folder: Path
    seed: int = 1
    seconds: float = 4.0
    repetitions: int = 3
    calls: int = 1_000
    backlog: int = 1_000_000
    scale: int = 10_000_000
    peers: tuple[Entry, ...] = field(default=PEERS)

    def to_dict(self) -> dict[str, object]:
        return {
            "seed": self.seed,
            "seconds": self.seconds,
            "repetitions": self.repetitions,
            "calls": self.calls,
            "backlog": self.backlog,
            "scale": self.scale,
            "peers": [entry.name for entry in self.peers],
        }


Step = Callable[[str], None]
"""Told the name of each step when it begins."""


class SuiteFailedError(RuntimeError):
    """A suite, or a part of it, could not be measured; `figures` is what was measured all the same."""

    def __init__(self, message: str, figures: tuple[Figure, ...] = ()) -> None:
        super().__init__(message)
        self.figures = figures


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """Figures that are measured together; their names begin with the suite's."""

    name: str
    title: str
    steps: Callable[[Settings], int]
    run: Callable[[Settings, Step], list[Figure]]
