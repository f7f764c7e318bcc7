"""An independent witness of real runs: what was acknowledged, what ran, how it ended. And the check of it.

The model is a set with write-once registers: an acknowledged id is in the set; its terminal state and
result are written once; a task's committed result is one that an attempt of it has written. A request
that got no answer is *unknown*, never failed. The check is linear in the length of the history.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path


class Journal:
    """A file of lines that survives its writer: appended whole, in one write each."""

    def __init__(self, path: Path | str) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def write(self, *words: object, sync: bool = False) -> None:
        """Append a line of words; `sync` puts it on disk before returning."""
        os.write(self._fd, (" ".join(map(str, words)) + "\n").encode())
        if sync:
            os.fsync(self._fd)


@dataclass
class History:
    """What the witness saw. Times in Unix seconds."""

    acknowledged: set[str] = field(default_factory=set)
    unknown: set[str] = field(default_factory=set)
    """Sent, never answered."""
    starts: dict[str, list[tuple[float, int]]] = field(default_factory=dict)
    """By task: (time, pid) of each start."""
    ends: dict[str, set[str]] = field(default_factory=dict)
    """By task: what its attempts returned."""
    once: set[str] = field(default_factory=set)
    """Tasks that may never start twice."""
    refused: int = 0
    """How often submissions were refused, and sent again."""
    final: dict[str, list[tuple[str, str | None]]] = field(default_factory=dict)
    """By task: (status, result) of each terminal record that was read at the end."""

    def reruns(self) -> int:
        """Return how many tasks started more than once."""
        return sum(1 for starts in self.starts.values() if len(starts) > 1)


def read(submissions: list[Path], runs: Path) -> History:
    """Read the journals.

    Of submitters: ``SENT id``, ``ONCE id``, ``REFUSED id``, ``ACK id``. Of handlers: ``START id time pid``,
    ``END id result``.
    """
    seen = History()
    for path in submissions:
        for line in path.read_text().splitlines():
            word, _, task = line.partition(" ")
            match word:
                case "SENT":
                    seen.unknown.add(task)
                case "ONCE":
                    seen.once.add(task)
                case "REFUSED":
                    seen.refused += 1
                case "ACK":
                    seen.acknowledged.add(task)
                case _:
                    msg = f"{path}: {line!r}"
                    raise ValueError(msg)
    seen.unknown -= seen.acknowledged
    for line in runs.read_text().splitlines():
        match line.split(" "):
            case ["START", task, at, pid]:
                seen.starts.setdefault(task, []).append((float(at), int(pid)))
            case ["END", task, result]:
                seen.ends.setdefault(task, set()).add(result)
            case _:
                msg = f"{runs}: {line!r}"
                raise ValueError(msg)
    return seen


def check(seen: History) -> list[str]:
    """Return what is wrong with a history, in sentences; empty when nothing is."""
    wrong: list[str] = []
    for task in sorted(seen.acknowledged):
        records = seen.final.get(task, [])
        if not records:
            wrong.append(f"lost: {task} was acknowledged and has not ended")
        elif len(records) > 1:
            wrong.append(f"doubled: {task} ended {len(records)} times")
    for task in sorted(seen.final):
        if task not in seen.acknowledged and task not in seen.unknown:
            wrong.append(f"unexpected: {task} was never sent")
        for status, result in seen.final[task]:
            if status == "completed" and result not in seen.ends.get(task, ()):
                wrong.append(f"invented: {task} has the result {result}, which no attempt returned")
    wrong += [
        f"repeated: {task} started {len(seen.starts[task])} times, at most once was asked"
        for task in sorted(seen.once)
        if len(seen.starts.get(task, ())) > 1
    ]
    wrong += [
        f"unexpected: {task} ran and was never sent"
        for task in sorted(seen.starts)
        if task not in seen.acknowledged and task not in seen.unknown
    ]
    return wrong


def summary(seen: History) -> str:
    """Return the history in a line, for people."""
    ended = Counter(status for records in seen.final.values() for status, _ in records)
    return (
        f"{len(seen.acknowledged)} acknowledged, {len(seen.unknown)} unknown, {seen.reruns()} ran again, "
        + ", ".join(f"{n} {status}" for status, n in sorted(ended.items()))
    )
