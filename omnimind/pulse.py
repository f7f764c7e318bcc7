"""A batch's signs of life: what its worker tells the node while the batch runs, and hears back.

Four times a second, once a batch takes longer than a quarter of a second: outcomes so far, the item that
runs, progress and log lines; the answer names items that should end.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from omnimind.cluster.events import Outcome
from omnimind.cluster.sends import Batch
from omnimind.context import active

PULSE = 0.25
"""Seconds after which a result has left its worker, whatever its batch mates do."""


class Pulse(msgspec.Struct, array_like=True):
    """What a worker tells its node about a batch. ran: seconds for which `current` has been running.

    A duration, and no time of day: that may be set back while a handler runs.
    """

    fence: int
    current: int | None
    ran: float | None
    outcomes: list[Outcome]
    progress: dict[int, dict[str, Any]]
    logs: list[tuple[int, float, str, str]]


class Wire(Protocol):
    """How a worker reaches its node. Calls block until answered."""

    def pulse(self, data: bytes) -> bytes:
        """Send a `Pulse`; the answer is {index: cause} of items to end, null when nobody wants the batch."""

    def blob(self, digest: str) -> bytes:
        """Return stored bytes."""

    def checkpoint(self, task_id: str, fence: int, data: bytes) -> None:
        """Store a checkpoint durably."""


class BatchRun:
    """The state of one batch while it runs; the line that contexts speak through."""

    def __init__(self, batch: Batch, wire: Wire) -> None:
        self.batch = batch
        self.outcomes: list[Outcome] = []
        self.confirmed = 0
        self.began = time.monotonic()
        self.current: int | None = None
        self.since: float | None = None
        self.stops: dict[int, str] = {}
        self.unwanted = False
        self.on_stop: Callable[[int], None] | None = None
        self._progress: dict[int, dict[str, Any]] = {}
        self._logs: list[tuple[int, float, str, str]] = []
        self._wire = wire
        self._speaking = threading.Lock()

    def stop_cause(self, index: int) -> str | None:
        """Return why an item should end."""
        return "nobody wants it any more" if self.unwanted else self.stops.get(index)

    def progress(self, index: int, value: dict[str, Any]) -> None:
        """Note progress; the latest is sent with the next pulse."""
        self._progress[index] = value

    def log(self, index: int, at: float, level: str, text: str) -> None:
        """Note a line for the next pulse."""
        self._logs.append((index, at, level, text))

    def checkpoint(self, index: int, data: bytes) -> None:
        """Store a checkpoint now."""
        self._wire.checkpoint(self.batch.items[index].task_id, self.batch.fence + index, data)

    def speak(self) -> None:
        """Send a pulse and take in its answer."""
        with self._speaking:
            done = len(self.outcomes)
            progress, self._progress = self._progress, {}
            logs, self._logs = self._logs, []
            pulse = Pulse(
                self.batch.fence,
                self.current,
                None if self.since is None else time.monotonic() - self.since,
                self.outcomes[self.confirmed : done],
                progress,
                logs,
            )
            answer = msgspec.msgpack.decode(self._wire.pulse(msgspec.msgpack.encode(pulse)), strict=False)
            self.confirmed = done
            if answer is None:
                self.unwanted = True
                fresh = list(range(len(self.batch.items)))
            else:
                stops = {int(k): v for k, v in answer.items()}
                fresh = [i for i in stops if i not in self.stops]
                self.stops.update(stops)
            if self.on_stop is not None:
                for index in fresh:
                    self.on_stop(index)

    def finish(self) -> list[Outcome]:
        """Return the outcomes that no pulse has delivered, after the last lines have been sent."""
        if self._logs or self._progress:
            self.speak()
        with self._speaking:
            return self.outcomes[self.confirmed :]


class Pulses(threading.Thread):
    """Speaks for the batch that runs, when it takes long."""

    def __init__(self) -> None:
        super().__init__(name="omnimind-pulse", daemon=True)
        self._run: BatchRun | None = None
        self._wake = threading.Event()
        self._parked = True

    def watch(self, run: BatchRun) -> None:
        self._run = run
        if not self.is_alive():
            self.start()
        if self._parked:
            self._wake.set()

    def leave(self) -> None:
        self._run = None

    def run(self) -> None:
        while True:
            self._parked = True
            if self._run is None:
                self._wake.wait()
            self._wake.clear()
            self._parked = False
            idle = 0
            while idle < 20:  # noqa: PLR2004 (then sleep until the next batch)
                time.sleep(PULSE / 5)
                run = self._run
                if run is None:
                    idle += 1
                    continue
                idle = 0
                if time.monotonic() - run.began >= 0.75 * PULSE:
                    run.began = time.monotonic()
                    try:
                        run.speak()
                    except Exception:
                        logging.getLogger(__name__).debug("a pulse was not heard", exc_info=True)


class _Logs(logging.Handler):
    """Keeps what handlers log by the standard library with their task."""

    def emit(self, record: logging.LogRecord) -> None:
        context = active.get()
        if context is not None:
            try:
                context.log(self.format(record), record.levelname.lower())
            except Exception:  # noqa: BLE001 (as every logging handler: never into the caller)
                self.handleError(record)


_logs: _Logs | None = None


def keep_logs() -> None:
    global _logs  # noqa: PLW0603 (one handler for the process)
    if _logs is None:
        _logs = _Logs(logging.INFO)
        root = logging.getLogger()
        root.addHandler(_logs)
        if root.level > logging.INFO:
            root.setLevel(logging.INFO)
