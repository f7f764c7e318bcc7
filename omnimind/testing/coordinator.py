"""`SimCoordinator`: one life of the coordinator's shell, around the real core and the real gate.

It does what the actor does, in the same order: facts are read through the gate, an event goes into the
core, the effects into the gate, one transaction at a time to the ledger, and what the gate releases out
into the network. It may crash at any point of that, and a life that was given up may go on for a while
beside its successor (a zombie), until the ledger refuses its next write.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from omnimind.cluster import events as ev
from omnimind.cluster.core import CoordinatorCore
from omnimind.cluster.node import NodeInfo
from omnimind.cluster.records import Records, task_from_row
from omnimind.cluster.sends import (
    Accepted,
    Acknowledged,
    AskRegister,
    Dispatch,
    Ended,
    FenceNode,
    Fetch,
    Refusal,
    ReleaseNode,
    Reply,
    Send,
    StopAttempts,
)
from omnimind.errors import LedgerError, LedgerFenced, LedgerUnavailable, OmniMindError, Unavailable
from omnimind.testing.invariants import Broken
from omnimind.testing.ledger import SimLedger
from omnimind.testing.replay import EventLog
from omnimind.testing.workload import Submission, build_tasks

if TYPE_CHECKING:
    from omnimind.testing.cluster import SimCluster
    from omnimind.testing.node import SimNode

Answer = Callable[[Any], None]
"""Takes a reply's value or, as an exception, the refusal."""

_VALIDATE_EACH = 4
_LATE = 1e-5
"""Seconds that a timer rings late, so that no rounding lets it ring too early."""


class SimCoordinator:
    """One life. `offset` is how far its clock is from the true time."""

    def __init__(self, sim: SimCluster, offset: float) -> None:
        self.sim = sim
        self.offset = offset
        self.dead = False
        self.core: CoordinatorCore | None = None
        self.ledger = SimLedger(sim.disk)
        self.gate = sim.new_gate()
        self.reason: OmniMindError = Unavailable("the coordinator is starting")
        """Why requests are refused while there is no core."""
        self.waiting: dict[int, Answer] = {}
        self.requests = 0
        self.asking: Submission | None = None
        """The submission that the core decides on just now."""
        self.log: EventLog | None = None
        self.stalled_until = 0.0
        self.writing = False
        self.tick_at = float("inf")
        self.events = 0
        self.generation = 0
        """Counts the cores of this life, so that what was begun for one is not told to the next."""

    def frozen(self, call: Callable[..., None], *args: Any) -> bool:
        """Return whether the process stands still; then the call is made when it goes on."""
        if self.stalled_until > self.sim.clock.now:
            self.sim.clock.at(self.stalled_until, call, *args)
            return True
        return False

    @property
    def now(self) -> float:
        """Return the time by the coordinator's clock."""
        return self.sim.clock.now + self.offset

    # ----------------------------------------------------------------------------- the core's life

    def open(self) -> None:
        """Open the ledger and give what it holds to a new core; try again later when it cannot be opened."""
        if self.dead or self.frozen(self.open):
            return
        try:
            recovered = self.ledger.open(self.sim.limits.window)
        except OmniMindError as error:
            self.reason = error
            self.sim.clock.after(0.5, self.open)
            return
        self.generation += 1
        self.core = self.sim.new_core(recovered.epoch)
        if self.sim.keep_log:
            self.log = EventLog()
            self.sim.logs.append((recovered.epoch, self.log))
        self.gate = self.sim.new_gate()
        self.writing = False
        self.sim.invariants.recovered()
        self.sim.order.restart()
        self.sim.rate.restart()
        self.feed(recovered)
        self._look_at_space()

    def _look_at_space(self) -> None:
        """Tell the core when there is no room for new tasks any more, or again."""
        core = self.core
        if core is not None and core.full != self.ledger.full:
            self.feed(ev.Space(self.ledger.full))

    def lose_core(self, error: OmniMindError) -> None:
        """Throw the core away after a failed write: the ledger does not know what it knows."""
        self.core = None
        self.reason = error
        self.tick_at = float("inf")
        for send in self.gate.failed(error):
            self._send(send)
        waiting, self.waiting = self.waiting, {}
        for answer in waiting.values():
            answer(error)
        self.sim.clock.after(0.05, self.open)

    def die(self) -> None:
        """End at once, with everything that was not durable."""
        self.dead = True
        self.core = None

    # ------------------------------------------------------------------------ events in, effects out

    def feed(self, event: ev.Event) -> None:
        """Hand an event to the core and its effects to the gate."""
        core = self.core
        if core is None:
            return
        now = self.now
        self.events += 1
        log = self.log
        if log is not None:
            log.before(event, now)
        try:
            effects = core.handle(event, now)
        except Exception:
            if not self.superseded:
                raise
            # It reads what its successor has written: whatever it makes of that cannot be written.
            self.die()
            return
        if log is not None:
            log.after(effects)
        sends = effects.sends
        self.sim.traced(self, event, effects)
        if not self.superseded:
            records = effects.records
            grants = [s for s in sends if type(s) is Dispatch]
            if grants or records:
                self.sim.decided(records, grants, now)
            if self.asking is not None and sends and type(sends[0]) is Refusal:
                self.sim.invariants.full(self.asking, sends[0].error)
        if (self.events % _VALIDATE_EACH == 0 or self.sim.tracer is not None) and not self.superseded:
            self._validate(core)
        self.gate.add(effects)
        self._pump()
        self._set_tick()

    @property
    def superseded(self) -> bool:
        """Return whether a later life has opened the ledger."""
        return self.ledger.epoch != self.sim.disk.epoch

    def _validate(self, core: CoordinatorCore) -> None:
        try:
            core.validate()
        except Broken:
            raise
        except AssertionError as error:
            raise Broken("S", str(error)) from error

    def _set_tick(self) -> None:
        if self.core is not None:
            when = self.core.next_wakeup() - self.offset + _LATE
            if when < self.tick_at:
                self.tick_at = when
                self.sim.clock.at(when, self._tick, when)

    def _tick(self, when: float) -> None:
        if self.dead or when != self.tick_at or self.frozen(self._tick, when):
            return
        self.tick_at = float("inf")
        self._look_at_space()
        self.feed(ev.Tick())

    # ------------------------------------------------------------------------------------- writing

    def _pump(self) -> None:
        """Begin the next transaction, unless one is on its way; an empty one is committed at once."""
        while not self.writing and self.core is not None:
            records = self.gate.take()
            if records is None:
                return
            if records:
                self.writing = True
                self._write(records)
                return
            self._release()

    def _write(self, records: Records) -> None:
        sim = self.sim
        seconds = sim.options.io * (0.5 + sim.draws.next("io", "ledger"))
        crash = "before" if sim.crash_chance("coordinator_before") else None
        if crash is None and sim.crash_chance("coordinator_after"):
            crash = "after"
        if crash == "before":
            sim.clock.after(seconds / 2, sim.crash_coordinator, self)
        sim.clock.after(seconds, self._written, records, crash, self.generation)

    def _written(self, records: Records, crash: str | None, generation: int) -> None:
        if self.dead or generation != self.generation:
            return
        if self.frozen(self._written, records, crash, generation):
            return
        self.writing = False
        try:
            self.sim.commit(self, records)
        except LedgerFenced:
            # A process that finds itself replaced ends; whoever starts coordinators starts it again.
            self.sim.coverage.add("refused_writer")
            self.sim.crash_coordinator(self)
            self.die()
            return
        except LedgerError as error:
            # The ledger refuses what contradicts it: a key, an id or a number that is taken.
            raise Broken("P3" if "UNIQUE: key" in error.message else "S", error.message) from error
        except OmniMindError as error:
            self.lose_core(error)
            return
        except OSError:
            # Nobody knows whether it was written: the answer is "unknown", and the ledger is read again.
            self.lose_core(Unavailable("the outcome of a write is unknown", retry_after=0.5))
            return
        if crash == "after":
            self.sim.crash_coordinator(self)
            if self.dead:
                return
        self._release()
        self._pump()

    def _release(self) -> None:
        for send in self.gate.committed():
            self._send(send)

    def _send(self, send: Send) -> None:
        sim = self.sim
        match send:
            case Dispatch():
                sim.grant(self, send)
                sim.to_node(send.node_id, send)
            case StopAttempts() | AskRegister() | FenceNode():
                sim.to_node(send.node_id, send)
            case ReleaseNode():
                sim.release_node(self, send)
            case Reply(request=request, value=value):
                answer = self.waiting.pop(request, None)
                if answer is not None:
                    answer(value)
            case Refusal(request=request, error=error):
                answer = self.waiting.pop(request, None)
                if answer is not None:
                    answer(error)
            case Ended(tasks=tasks):
                for task in tasks:
                    sim.invariants.published(task.task_id, task.status.value)
            case Fetch():
                sim.clock.after(0.001, self._read, send, self.generation)

    # ------------------------------------------------------------------------------------- reading

    def _read(self, fetch: Fetch, generation: int) -> None:
        """Read rows for the core, which gets them a moment later: they may be out of date by then."""
        if self.dead or generation != self.generation or self.frozen(self._read, fetch, generation):
            return
        ledger = self.ledger
        try:
            match fetch.line:
                case "ready":
                    rows = ledger.ready(fetch.queue, fetch.after, fetch.limit + 1)
                case "delayed":
                    rows = ledger.delayed(fetch.after, fetch.limit + 1)
                case _:
                    rows = ledger.overdue(fetch.before, fetch.limit + 1)
        except OmniMindError:
            self.sim.clock.after(0.5, self._read, fetch, generation)
            return
        more = len(rows) > fetch.limit
        tasks = [task_from_row(row) for row in rows[: fetch.limit]]
        loaded = ev.Loaded(fetch.line, fetch.queue, tasks, more)
        self.sim.coverage.add(
            "overdue_on_disk" if fetch.line == "overdue" else f"loaded_{fetch.line}", len(tasks)
        )
        seconds = self.sim.options.io * self.sim.draws.next("read", "ledger")
        self.sim.clock.after(seconds, self._loaded, loaded, generation)

    def _loaded(self, loaded: ev.Loaded, generation: int) -> None:
        if self.dead or generation != self.generation or self.frozen(self._loaded, loaded, generation):
            return
        self.feed(loaded)

    # ------------------------------------------------------------------------------------ requests

    def ask(self, answer: Answer, make: Callable[[int], ev.Event]) -> None:
        """Take a request: `make` builds its event from a number; the answer may be an exception."""
        if self.core is None:
            answer(self.reason)
            return
        self.requests += 1
        number = self.requests
        try:
            event = make(number)
        except LedgerUnavailable as error:
            answer(error)
            return
        self.waiting[number] = answer
        self.feed(event)

    def submit(self, answer: Answer, sub: Submission) -> None:
        """Take a submission."""

        def make(number: int) -> ev.Event:
            assert self.core is not None
            event = ev.Submit(number, build_tasks(sub, self.now))
            self.gate.look_up(event, self.core.tasks, self.ledger)
            if event.resent:
                self.sim.coverage.add("submission_resent_after_commit")
            self.asking = sub
            return event

        self.ask(answer, make)
        self.asking = None

    def cancel(self, answer: Answer, ids: list[str]) -> None:
        """Take a request to cancel."""

        def make(number: int) -> ev.Event:
            assert self.core is not None
            return ev.Cancel(number, ids, self.gate.load(ids, self.core.tasks, self.ledger))

        self.ask(answer, make)

    def checkpoint(self, answer: Answer, task_id: str, fence: int, data: bytes) -> None:
        """Take what a running attempt wants to have kept."""
        self.ask(answer, lambda number: ev.Checkpoint(number, task_id, fence, data))

    def join(self, answer: Answer, node: NodeInfo, running: tuple[ev.RunningBatch, ...]) -> None:
        """Take a node's report for work."""

        def make(number: int) -> ev.Event:
            assert self.core is not None
            ids = [batch.task_ids[i] for batch in running for i in batch.open]
            return ev.NodeJoined(node, running, self.gate.load(ids, self.core.tasks, self.ledger), number)

        self.ask(answer, make)

    def from_node(self, what: str, node: SimNode, *args: Any) -> None:
        """Take a node's message."""
        net, sim, life = self.sim.net, self.sim, self
        match what:
            case "heartbeat":
                incarnation, batches, slots = args
                self.feed(ev.Heartbeat(node.name, incarnation, batches, slots=slots))
            case "join":
                lives, info, running = args

                def joined(value: Any) -> None:
                    if isinstance(value, Acknowledged):
                        net.send("co", node.name, node.registered, lives, info.incarnation, life.ledger.epoch)

                self.join(joined, sim.copy(info), running)
            case _:
                lives, report = args

                def taken(value: Any) -> None:
                    good = isinstance(value, Acknowledged)
                    net.send("co", node.name, lambda: node.answered(lives, report.number, good=good))

                outcomes = list(report.outcomes)
                self.ask(
                    taken,
                    lambda number: ev.Outcomes(
                        number, node.name, report.incarnation, report.fence, outcomes, report.final
                    ),
                )


def told(value: Any) -> str:
    """Return in a word what an answer says, for the trace."""
    match value:
        case Accepted(count=count, existing=existing):
            return f"accepted {count} existing {sorted(existing)}"
        case OmniMindError():
            return f"refused {value.code}"
        case _:
            return type(value).__name__
