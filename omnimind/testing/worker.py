"""`SimWorker`: the process that runs one batch: handlers that take time, raise, hang on, or kill it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from omnimind.cluster.events import Outcome
from omnimind.cluster.sends import Batch

if TYPE_CHECKING:
    from omnimind.testing.node import SimNode

BEAT = 0.25


class SimWorker:
    """Runs the items of a batch one after the other (an async batch: together), as a worker does.

    It reports to its node's agent when the batch ends, and with a beat every 250 ms before. What it has
    not reported when it dies is lost.
    """

    def __init__(self, node: SimNode, batch: Batch) -> None:
        self.node = node
        self.sim = node.sim
        self.batch = batch
        self.slots = min(batch.options.slots, node.slots)
        self.running = False
        self.gone = False
        self.index: int | None = None
        self.since: float | None = None
        self.outcomes: list[Outcome] = []
        self.done: dict[int, None] = {}
        self.stops: dict[int, str] = {}
        self.obeys = True
        self.turn = 0
        """Counts what was begun, so that the end of what was cut short is not taken for the next one's."""

    def begin(self) -> None:
        """Start the process."""
        self.running = True
        options, draws = self.sim.options, self.sim.draws
        if draws.chance("kill_worker", self.node.name, options.kill_worker if self.sim.faulty else 0.0):
            self.sim.clock.after(
                draws.next("kill after", self.node.name) * 2, self.die, "killed from outside"
            )
        self.sim.clock.after(BEAT, self._beat)
        if self.batch.options.kind == "async":
            self._begin_all()
        else:
            self._begin_item(0)

    # --------------------------------------------------------------------------------------- items

    def _begin_item(self, index: int) -> None:
        while index < len(self.batch.items) and index in self.done:
            index += 1
        if index >= len(self.batch.items):
            self._end()
            return
        self.index, self.since = index, self.node.now
        self.turn += 1
        self._start(index)
        self.obeys = self.sim.draws.value("obeys", self.batch.items[index].task_id, 0) < 0.7  # noqa: PLR2004
        self.sim.clock.after(self._seconds(index), self._item_over, index, self.turn)

    def _begin_all(self) -> None:
        self.index, self.since = 0, self.node.now
        self.turn += 1
        seconds = 0.0
        for index in range(len(self.batch.items)):
            if index not in self.done:
                self._start(index)
                seconds = max(seconds, self._seconds(index))
        self.sim.clock.after(seconds, self._all_over, self.turn)

    def _start(self, index: int) -> None:
        item = self.batch.items[index]
        self.sim.started(self.node, self.batch, index)
        sim = self.sim
        if (
            sim.options.checkpoints
            and sim.draws.value("checkpoints", item.task_id, 0) < sim.options.checkpoints
        ):
            sim.clock.after(self._seconds(index) * 0.4, self._checkpoint, index)
        poison = self.sim.options.poison if self.sim.faulty else 0.0
        if poison and self.sim.draws.fires("poison", item.task_id, 0, poison):
            self.sim.coverage.add("worker_death_with_mates", len(self.batch.items) > 1)
            self.sim.clock.after(self._seconds(index) / 2, self._killed_by, index)

    def _checkpoint(self, index: int) -> None:
        """Store how far the handler is; it does not wait for the answer."""
        if self.gone or index in self.done or self.node.frozen(self._checkpoint, index):
            return
        item, fence = self.batch.items[index], self.batch.fence + index
        ghost = self.sim.ghost.of(item.task_id)
        ghost.checkpoints.append(b"%d:%d" % (fence, len(ghost.checkpoints)))
        number = len(ghost.checkpoints)
        data = ghost.checkpoints[-1]

        def answered(value: Any) -> None:
            self.sim.net.send("co", self.node.name, self.sim.invariants.checkpointed, ghost, number, value)

        self.sim.net.send(
            self.node.name,
            "co",
            self.sim.to_life,
            lambda life: life.checkpoint(answered, item.task_id, fence, data),
        )

    def _killed_by(self, index: int) -> None:
        if not self.gone and len(self.batch.items) == 1:
            self.sim.invariants.spoiled(self.batch.items[index].task_id, killed=True)
        self.die("segmentation fault")

    def _seconds(self, index: int) -> float:
        item = self.batch.items[index]
        base = self.sim.duration(item.task_id)
        return base * (0.5 + self.sim.draws.value("seconds", item.task_id, item.attempt)) * self.node.slowness

    def _item_over(self, index: int, turn: int) -> None:
        if self.gone or turn != self.turn or self.node.frozen(self._item_over, index, turn):
            return
        self._outcome(index)
        self._begin_item(index + 1)

    def _all_over(self, turn: int) -> None:
        if self.gone or turn != self.turn or self.node.frozen(self._all_over, turn):
            return
        for index in range(len(self.batch.items)):
            if index not in self.done:
                self._outcome(index)
        self._end()

    def _outcome(self, index: int) -> None:
        """Note how an item went, by the draw for this attempt."""
        item = self.batch.items[index]
        seconds = self._seconds(index)
        self.sim.ran(item.task_id, seconds)
        sim = self.sim
        if sim.faulty and sim.draws.fires("raises", item.task_id, item.attempt, sim.options.raises):
            fatal = sim.draws.value("fatal", item.task_id, item.attempt) < 0.2  # noqa: PLR2004
            error: dict[str, Any] = {"type": "Fatal" if fatal else "ValueError", "message": "drawn"}
            error["bases"] = [f"tests.{error['type']}"]
            if len(self.batch.items) == 1:
                # A mate may yet kill the worker before this is reported, and then it counts for nothing.
                self.sim.invariants.spoiled(item.task_id, killed=False)
            self._note(Outcome(index, "error", error=error, seconds=seconds))
            return
        fence = self.batch.fence + index
        value = sim.ghost.of(item.task_id).results[fence] = msgspec.json.encode([item.task_id, fence])
        self._note(Outcome(index, "ok", value, seconds=seconds))

    def _note(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)
        self.done[outcome.index] = None

    # -------------------------------------------------------------------------------- beats and ends

    def _beat(self) -> None:
        agent = self.node.agent
        if self.gone or agent is None or self.node.frozen(self._beat):
            return
        self.sim.clock.after(BEAT, self._beat)
        outcomes, self.outcomes = self.outcomes, []
        now = self.node.now
        ran = None if self.since is None else now - self.since
        commands, stops = agent.beat(self.batch.fence, self.index, ran, outcomes, now)
        self.node.obey(commands)
        if stops is None:
            self.die("nobody wants this batch")
            return
        for index, cause in stops.items():
            self._stop(index, cause)

    def _stop(self, index: int, cause: str) -> None:
        """End an item that has not begun; ask the one that runs, which may not listen."""
        if self.gone or index in self.done or index in self.stops:
            return
        self.stops[index] = cause
        together = self.batch.options.kind == "async"
        if together or index != self.index:
            self._note(Outcome(index, "cancelled", error={"type": "Cancelled", "message": cause}))
            if len(self.done) == len(self.batch.items):
                self._end()
        elif self.obeys:
            self._note(Outcome(index, "cancelled", error={"type": "Cancelled", "message": cause}))
            self._begin_item(index + 1)

    def _end(self) -> None:
        self._report(None)

    def die(self, why: str) -> None:
        """End without a word; what was not reported is lost."""
        if self.gone or self.node.frozen(self.die, why):
            return
        self.outcomes = []
        self._report(why)

    def _report(self, death: str | None) -> None:
        agent = self.node.agent
        self.gone = True
        self.node.finished(self)
        if agent is not None:
            self.node.obey(agent.ended(self.batch.fence, self.outcomes, death, self.node.now))

    def vanish(self) -> None:
        """End together with the machine."""
        self.gone = True
