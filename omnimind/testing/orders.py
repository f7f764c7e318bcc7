"""`Operator`: somebody who sets up queues and schedules, and cordons, drains and uncordons nodes."""

from __future__ import annotations

import msgspec

from omnimind.cluster import events as ev
from omnimind.testing.clock import START
from omnimind.testing.cluster import SimCluster
from omnimind.testing.workload import schedules

_VERBS = ("cordon", "drain", "drain", "uncordon", "uncordon")


class Operator:
    """The first client, in another role. A node that is not there cannot be ordered about, and is left so."""

    def __init__(self, sim: SimCluster) -> None:
        self.sim = sim
        self.client = sim.clients[0]
        self._uncordoned: dict[str, None] = {}
        self._resumed: dict[str, None] = {}

    def set_up(self) -> None:
        """Create the queues, and the schedules."""
        for policy in () if self.sim.options.controls else self.sim.policies.values():
            self.client.order(
                f"queue {policy.name}",
                lambda life, answer, p=policy: life.ask(answer, lambda n: ev.QueueSet(n, p)),  # type: ignore[misc]
                lambda: None,
            )
        for schedule in schedules(self.sim.options):
            self.client.order(
                f"schedule {schedule.name}",
                lambda life, answer, s=schedule: life.ask(answer, lambda n: ev.ScheduleSet(n, s)),  # type: ignore[misc]
                lambda: None,
            )

    def plan(self) -> None:
        """Put what will be ordered on the clock."""
        sim, draws = self.sim, self.sim.draws
        for n in range(int(sim.options.seconds / 5)):
            if draws.value("control", "operator", n) < sim.options.controls:
                node = sim.nodes[int(draws.value("node", "operator", n) * len(sim.nodes))]
                verb = draws.pick("verb", "operator", n, _VERBS)
                patience = draws.value("patience", "operator", n) * 8
                self.sim.clock.at(START + 5 * n + 2.5, self.control, node.name, verb, patience)

            if draws.value("pause queue", "operator", n) < sim.options.controls:
                queue = f"q{int(draws.value('queue', 'operator', n) * sim.options.queues)}"
                name = "default" if queue == "q0" else queue
                sim.clock.at(START + 5 * n + 4, self._pause, name, draws.value("pause", "operator", n) < 0.6)  # noqa: PLR2004

    def _pause(self, queue: str, paused: bool) -> None:
        self.pause(queue, paused=paused)

    def pause(self, queue: str, *, paused: bool) -> None:
        """Pause a queue, or let it go on."""
        ghost = self.sim.ghost
        if not paused:
            # It may undo any later pause, as long as it is on its way somewhere.
            self._resumed[queue] = None
            ghost.paused.pop(queue, None)
        policy = msgspec.structs.replace(self.sim.policies[queue], paused=paused)

        def done() -> None:
            if paused and queue not in self._resumed:
                self.sim.coverage.add("queue_paused")
                ghost.paused[queue] = None

        self.client.order(
            f"pause={paused} of {queue}",
            lambda life, answer: life.ask(answer, lambda n: ev.QueueSet(n, policy)),
            done,
        )

    def control(self, node: str, verb: str, patience: float | None) -> None:
        """Give an order about a node; a drain gets a deadline."""
        held_back = self.sim.ghost.held_back
        if verb == "uncordon":
            # An uncordon that is still on its way somewhere may undo any later order.
            self._uncordoned[node] = None
            held_back.pop(node, None)

        def make(number: int, now: float) -> ev.Event:
            deadline = now + patience if patience is not None and verb == "drain" else None
            return ev.NodeControl(number, node, verb, deadline)

        def done() -> None:
            if node not in self._uncordoned:
                held_back[node] = verb

        self.client.order(
            f"{verb} of {node}", lambda life, answer: life.ask(answer, lambda n: make(n, life.now)), done
        )

    def heal(self) -> None:
        """Take all orders back, once none is on its way any more."""
        if self.sim.options.controls or self.sim.options.schedules:
            self.sim.clock.after(self.sim.options.slow_seconds + 2, self._tidy)

    def _tidy(self) -> None:
        """Let nodes that are held back work, end schedules that still run; look again later."""
        core = self.sim.core
        if core is not None:
            for node in core.nodes.values():
                if node.ordered is not None:
                    self.control(node.node_id, "uncordon", None)
        for name, policy in list(self.sim.disk.store.queues.items()):
            if policy.paused:
                self.pause(name, paused=False)
        for name in list(self.sim.disk.store.schedules):
            self.client.order(
                f"end of schedule {name}",
                lambda life, answer, s=name: life.ask(answer, lambda n: ev.ScheduleRemove(n, s)),  # type: ignore[misc]
                lambda: None,
            )
        self.sim.clock.after(5.0, self._tidy)
