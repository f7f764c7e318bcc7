"""One trial: work starts, what carries it dies, and the witness says when the work was done all the same."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from benchmarks.recovery.clusters import WORK_HOSTS, Cluster, ClusterFailedError, OmniMind, OmniMindOnPostgres
from benchmarks.recovery.work import Line, Witness

BOUND = 120.0
"""Seconds after which a trial is given up; it then counts as this long, and as `beyond`."""

_STARTED = 60.0
_DELAY = 0.4
_SETTLE = 1.0
_HEALED = 3.0


@dataclass(slots=True)
class Times:
    """Recovery times of one fault on one system, in seconds. beyond: how many were given up at `BOUND`."""

    seconds: list[float] = field(default_factory=list)
    beyond: int = 0

    def add(self, seconds: float | None) -> None:
        self.seconds.append(BOUND if seconds is None else seconds)
        self.beyond += seconds is None


class Trials:
    """Runs trials on one cluster, one after the other."""

    def __init__(self, cluster: Cluster, bound: float = BOUND) -> None:
        self.cluster = cluster
        self.witness = Witness(cluster.shared)
        self._number = 0
        self._bound = bound
        self.faults: dict[str, Callable[[], float | None]] = {
            "worker": self.worker,
            "node_actor": self.node_actor,
            "raylet": self.raylet,
            "cut": self.cut,
            "coordinator": self.coordinator,
            "head": self.head,
            "postgres": self.postgres,
        }

    def run(self, fault: str) -> float | None:
        """Run a trial and return the recovery time, None when it took longer than the bound."""
        self.cluster.wait_for(WORK_HOSTS)
        return self.faults[fault]()

    def _names(self, count: int) -> list[str]:
        self._number += count
        return [f"t{self._number - i}" for i in range(count)]

    def _running_on(self, hosts: tuple[str, ...]) -> Line:
        """Return a task that blocks on one of these hosts, where it is the only one; all others are done."""
        names = self._names(len(WORK_HOSTS) * 2)
        for name in names:
            self.cluster.submit(name)
        started = {}
        for name in names:
            line = self.witness.wait(name, "START", seconds=_STARTED)
            if line is None:
                raise ClusterFailedError(f"{self.cluster.title}: {name} does not start")
            started[name] = line
        victim = next((line for line in started.values() if line.host in hosts), None)
        if victim is None:
            raise ClusterFailedError(f"{self.cluster.title}: nothing runs on {hosts}: {started}")
        for name in names:
            if name != victim.name:
                self.witness.release(name)
        for name in names:
            if name != victim.name and self.witness.wait(name, "END", seconds=_STARTED) is None:
                raise ClusterFailedError(f"{self.cluster.title}: {name} does not end")
        time.sleep(_SETTLE)
        return victim

    def _done(self, name: str, since: float) -> float | None:
        """Return how long after `since` a task was done, by the witness."""
        line = self.witness.wait(name, "END", seconds=max(0.0, since + self._bound - time.monotonic()))
        return None if line is None else line.at - since

    def worker(self) -> float | None:
        victim = self._running_on(("w1", "w2"))
        host = self.cluster.hosts[victim.host]
        began = time.monotonic()
        host.run(["kill", "-9", victim.pid])
        return self._done(victim.name, began)

    def node_actor(self) -> float | None:
        victim = self._running_on(("w1", "w2"))
        host = self.cluster.hosts[victim.host]
        [pid] = [p for p, words in host.processes().items() if words[0].startswith("ray::Node")]
        began = time.monotonic()
        host.kill(pid)
        return self._done(victim.name, began)

    def raylet(self) -> float | None:
        victim = self._running_on(("w1", "w2"))
        host = self.cluster.hosts[victim.host]
        [pid] = [p for p, words in host.processes().items() if words[0].endswith("/raylet")]
        began = time.monotonic()
        host.kill(pid)
        return self._done(victim.name, began)

    def cut(self) -> float | None:
        victim = self._running_on(("w1", "w2"))
        host = self.cluster.hosts[victim.host]
        began = time.monotonic()
        with self._cut(host.name):
            return self._done(victim.name, began)

    @contextlib.contextmanager
    def _cut(self, name: str) -> Iterator[None]:
        host = self.cluster.hosts[name]
        host.cut()
        try:
            yield
        finally:
            host.heal()
            # What was given up is told so now, and ends. It joins again before the next trial.
            time.sleep(_HEALED)

    def coordinator(self) -> float | None:
        assert isinstance(self.cluster, OmniMind)
        [name] = self._names(1)
        self.cluster.submit(name, _DELAY)
        began = time.monotonic()
        self.cluster.kill_coordinator()
        self.witness.release(name)
        return self._done(name, began)

    def head(self) -> float | None:
        victim = self._running_on(("head",))
        began = time.monotonic()
        self.cluster.kill_head()
        return self._done(victim.name, began)

    def postgres(self) -> float | None:
        """End the database, start it again at once, and submit meanwhile."""
        assert isinstance(self.cluster, OmniMindOnPostgres)
        [name] = self._names(1)
        self.witness.release(name)
        began = time.monotonic()
        self.cluster.kill_database()
        self.cluster.submit(name)
        return self._done(name, began)
