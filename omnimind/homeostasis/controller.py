"""`HomeostaticController`: watches this machine and says what it may take on.

Usable alone::

    controller = HomeostaticController()
    await controller.start()
    if controller.should_execute_task("low"):
        run(controller.get_recommended_batch_size(100))

It samples in a thread and decides by the `Ladder`; nothing here blocks the loop that it runs in.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import math
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import psutil

from omnimind.clock import Clock, SystemClock
from omnimind.cluster.states import TaskPriority
from omnimind.errors import InvalidInput
from omnimind.homeostasis import ladder
from omnimind.homeostasis.ladder import STATES, Ladder, ResourceState
from omnimind.homeostasis.metrics import ResourceMetrics
from omnimind.homeostasis.reader import MachineReader, Reader, Reading, measure

log = logging.getLogger("omnimind")

StateCallback = Callable[[ResourceState, ResourceMetrics], Any]

HISTORY = 1000
"""Samples that are kept."""

THROTTLE_MAX = 3600.0
"""Longest time in seconds that one `throttle` lasts: a forgotten brake lets go by itself."""

_FIRST = 0.1
"""Seconds between the first two readings: CPU is measured between two."""


class HomeostaticController:
    """The state of this machine, and what follows from it.

    check_interval: seconds between samples. The thresholds are per cent; see `ladder.thresholds` for the
    rungs between them, and `Ladder` for hysteresis and hold times. Disk uses 80 and 90 per cent.
    reader: of another machine, or a fake. clock: of Unix seconds.

    Raises InvalidInput for thresholds or an interval that make no sense.
    """

    def __init__(
        self,
        check_interval: float = 5.0,
        cpu_threshold_warning: float = 80,
        cpu_threshold_critical: float = 90,
        memory_threshold_warning: float = 80,
        memory_threshold_critical: float = 90,
        *,
        reader: Reader | None = None,
        clock: Clock | None = None,
    ) -> None:
        if isinstance(check_interval, bool) or not 0 < check_interval < math.inf:
            msg = f"check_interval is a positive number of seconds, not {check_interval!r}"
            raise InvalidInput(msg, field="check_interval")
        self.check_interval = check_interval
        cpu = ladder.thresholds(cpu_threshold_warning, cpu_threshold_critical, "cpu_threshold")
        memory = ladder.thresholds(memory_threshold_warning, memory_threshold_critical, "memory_threshold")
        self.ladder = Ladder({"cpu": cpu, "memory": memory, "disk": ladder.DEFAULT})
        self.reader: Reader = reader or MachineReader()
        self.running = False
        self._clock = clock or SystemClock()
        self._history: deque[ResourceMetrics] = deque(maxlen=HISTORY)
        self._callbacks: list[StateCallback] = []
        self._last: Reading | None = None
        self._loop: asyncio.Task[None] | None = None
        self._brake: tuple[float, str] = (-math.inf, "")
        self._samples = self._switches = self._failures = 0
        self._since = self._clock.now()
        self._seconds = dict.fromkeys(STATES, 0.0)
        self._last_error = ""

    # --- what it says -------------------------------------------------------------------------------

    @property
    def state(self) -> ResourceState:
        """Return the state in force: the ladder's, and at least `critical` while `throttle` holds."""
        held = self._clock.now() < self._brake[0]
        least = ResourceState.CRITICAL if held else ResourceState.OPTIMAL
        return max(self.ladder.state, least, key=lambda state: state.rank)

    def get_current_metrics(self) -> ResourceMetrics:
        """Return the latest sample; before the first one it is taken now, which takes 0.1 seconds.

        Raises OSError when the machine cannot be read.
        """
        if not self._history:
            before = self.reader.read()
            time.sleep(_FIRST)
            self._last = self.reader.read()
            self._history.append(measure(before, self._last))
        return self._history[-1]

    def get_metrics_history(self, limit: int = 100) -> list[ResourceMetrics]:
        """Return the last `limit` samples, oldest first; 1,000 are kept. Raises InvalidInput below 0."""
        if isinstance(limit, bool) or not isinstance(limit, int) or limit < 0:
            msg = f"limit is a whole number from 0, not {limit!r}"
            raise InvalidInput(msg, field="limit")
        return list(self._history)[-limit:] if limit else []

    def is_throttled(self) -> bool:
        """Return whether running background and low work should give way: `emergency`, or a brake holds."""
        return self.state is ResourceState.EMERGENCY or self._clock.now() < self._brake[0]

    def should_execute_task(self, priority: int | str | TaskPriority) -> bool:
        """Return whether a task of a priority may start now; raises InvalidInput for what is no priority."""
        return ladder.admits(self.state, priority)

    def get_recommended_batch_size(self, base: int) -> int:
        """Return how many of `base` tasks should go together now, at least one."""
        return ladder.batch_size(self.state, base)

    def get_stats(self) -> dict[str, Any]:
        """Return what it has seen since its start, JSON values only."""
        now = self._clock.now()
        brake, reason = self._brake
        seconds = {state.value: spent for state, spent in self._seconds.items()}
        seconds[self.ladder.state.value] += max(0.0, now - self._since)
        return {
            "state": self.state.value,
            "throttled": self.is_throttled(),
            "throttle_reason": reason if now < brake else None,
            "running": self.running,
            "samples": self._samples,
            "switches": self._switches,
            "failures": self._failures,
            "last_error": self._last_error or None,
            "seconds_in_state": seconds,
            "history": len(self._history),
            "check_interval": self.check_interval,
            "metrics": self._history[-1].to_dict() if self._history else None,
        }

    # --- what it is told ----------------------------------------------------------------------------

    def register_state_callback(self, callback: StateCallback) -> None:
        """Call ``callback(state, metrics)`` after each switch; it may be a coroutine function.

        What it raises is logged, and the others are called.
        """
        if not callable(callback):
            raise InvalidInput("a callback must be callable", field="callback")
        self._callbacks.append(callback)

    def throttle(self, seconds: float = 60.0, reason: str = "") -> None:
        """Brake for some seconds, whatever the ladder says: the state in force is at least `critical`.

        Raises InvalidInput for a time that is not above 0 and at most 3,600. The longer of two brakes holds.
        """
        if isinstance(seconds, bool) or not 0 < seconds <= THROTTLE_MAX:
            msg = f"a brake holds above 0 and at most {THROTTLE_MAX:g} seconds, not {seconds!r}"
            raise InvalidInput(msg, field="seconds")
        until = self._clock.now() + seconds
        if until > self._brake[0]:
            self._brake = (until, reason)

    def release(self) -> None:
        """End a brake of `throttle` now."""
        self._brake = (-math.inf, "")

    # --- time ---------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begin to sample; a second call does nothing."""
        if self._loop is None:
            self.running = True
            self._loop = asyncio.create_task(self._watch())

    async def stop(self) -> None:
        """Stop sampling; the state stays as it is. A second call does nothing."""
        self.running = False
        loop, self._loop = self._loop, None
        if loop is not None:
            loop.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await loop

    async def sample(self) -> ResourceMetrics | None:
        """Take one sample now; `start` does so every `check_interval` seconds.

        Returns None, and keeps the state, when the machine could not be read.
        """
        try:
            if self._last is None:
                self._last = await asyncio.to_thread(self.reader.read)
                await asyncio.sleep(_FIRST)
            reading = await asyncio.to_thread(self.reader.read)
        except (OSError, psutil.Error, ValueError) as error:
            self._failures += 1
            if str(error) != self._last_error:
                log.warning("the machine could not be read: %s", error)
            self._last_error = str(error)
            return None
        metrics = measure(self._last, reading)
        self._last = reading
        await self.take(metrics)
        return metrics

    async def take(self, metrics: ResourceMetrics) -> None:
        """Take in a sample that somebody else has taken, and tell the callbacks of a switch."""
        now = self._clock.now()
        self._samples += 1
        self._history.append(metrics)
        change = self.ladder.update(metrics.percents(), now)
        if change is None:
            return
        self._switches += 1
        self._seconds[change.before] += max(0.0, now - self._since)
        self._since = now
        log.info(
            "resources: %s -> %s (%s %.0f %%)", change.before, change.after, change.resource, change.percent
        )
        for callback in self._callbacks:
            try:
                told = callback(change.after, metrics)
                if inspect.isawaitable(told):
                    await told
            except Exception:
                log.exception("a state callback failed")

    async def _watch(self) -> None:
        # A disk that hangs keeps one thread waiting, never two: the next sample waits for the last.
        while True:
            await self.sample()
            await asyncio.sleep(self.check_interval)
