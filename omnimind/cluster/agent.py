"""`NodeAgent`: the pure side of a node. What it holds, what it still owes, whom it obeys.

A node starts each batch at most once, whatever arrives twice; keeps every outcome until the
coordinator has acknowledged it; tells a new coordinator what it holds; and ends everything when this
life of it was given up. What it keeps is bounded: past the bound it lets what runs end, starts nothing
more, and says that it has no slots, until the coordinator has taken some of it. Events in, commands out,
like the core: the shell (`actors.node`) carries the commands out, and the simulator drives the same class.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import msgspec

from omnimind.cluster.events import Outcome, RunningBatch
from omnimind.cluster.sends import Batch
from omnimind.ids import epoch_of

_REMEMBERED = 10_000
_OUTCOME_BYTES = 256
"""What an outcome counts for beside its value."""
_JOIN_AGAIN = 0.5
"""Seconds after which a report for work that was refused is made again."""
_HURRY = 0.02
"""Seconds between two heartbeats that tell of a change, at the least."""


class StartBatch(msgspec.Struct, frozen=True):
    """Run a batch in a worker."""

    batch: Batch


class KillBatch(msgspec.Struct, frozen=True):
    """End a batch's worker, whatever it does. Its end is then reported as any other."""

    fence: int


class SendReport(msgspec.Struct, frozen=True):
    """Tell the coordinator outcomes; answered by `acknowledged(number)` or `failed(number)`."""

    number: int
    incarnation: str
    fence: int
    outcomes: tuple[Outcome, ...]
    final: bool


class SendJoin(msgspec.Struct, frozen=True):
    """Report for work, with what this node holds; answered by `registered(epoch)`."""

    incarnation: str
    running: tuple[RunningBatch, ...]


class SendHeartbeat(msgspec.Struct, frozen=True):
    """Tell the coordinator that this node lives."""

    incarnation: str
    batches: tuple[tuple[int, int | None, float | None], ...]
    slots: int | None = None
    """How many slots of the node the coordinator's shard may use; None where there is one shard."""


Command = StartBatch | KillBatch | SendReport | SendJoin | SendHeartbeat


class Held(msgspec.Struct):
    """A batch on this node. `owed`: items whose outcome the coordinator has not acknowledged."""

    batch: Batch
    started_at: float
    owed: dict[int, None]
    running: dict[int, None]
    """Items whose outcome is not known here yet."""
    current: int | None = None
    since: float | None = None
    stops: dict[int, str] = msgspec.field(default_factory=dict)
    killed_for: dict[int, str] = msgspec.field(default_factory=dict)
    """Items for whose sake the worker is being killed, and why: ``timeout``, or the cause of the stop."""
    killing: bool = False
    ended: bool = False


class _Report(msgspec.Struct):
    fence: int
    outcomes: tuple[Outcome, ...]
    final: bool
    sent_at: float
    bytes: int


class NodeAgent:
    """One node's promises.

    heartbeat: seconds between heartbeats. resend: seconds after which an unacknowledged report is sent
    again. kill_grace: seconds that a handler gets beyond its timeout before its worker is killed. bound:
    bytes of outcomes that nobody has acknowledged, beyond which no further batch is started. all_slots: of
    the node, to be named again when it is not full any more.
    """

    def __init__(
        self,
        incarnation: str,
        *,
        heartbeat: float = 1.0,
        resend: float = 5.0,
        kill_grace: float = 2.0,
        bound: int = 64 << 20,
        all_slots: int | None = None,
    ) -> None:
        self.incarnation = incarnation
        self.epoch = 0
        self.joined = False
        self.held: dict[int, Held] = {}
        self._seen: dict[int, None] = {}
        self._order: deque[int] = deque()
        self._outbox: dict[int, _Report] = {}
        self._number = 0
        self._heartbeat = heartbeat
        self._resend = resend
        self._kill_grace = kill_grace
        self._next_heartbeat = 0.0
        self._sent_heartbeat = 0.0
        self.slots: int | None = None
        """How many slots of the node this agent's shard may use; None: all, there is one shard."""
        self._next_join = 0.0
        self._bound = bound
        self.owed_bytes = 0
        """Bytes of outcomes that the coordinator has not acknowledged."""
        self.full = False
        """Whether these are too many for further work; below half of the bound it goes on."""
        self._parked: dict[int, None] = {}
        """Batches that came while it was full, and are not started yet."""
        self._all_slots = all_slots
        self._told_none = False

    @property
    def owes(self) -> int:
        """Return how many reports are not acknowledged."""
        return len(self._outbox)

    def run(self, batch: Batch, incarnation: str, now: float) -> list[Command]:
        """Start a batch, if it is for this life of the node and was not started before.

        One from a coordinator that has been replaced is not started either.
        """
        epoch = epoch_of(batch.fence)
        if batch.fence in self._seen or epoch < self.epoch or incarnation != self.incarnation:
            return []
        self.epoch = epoch
        self._seen[batch.fence] = None
        self._order.append(batch.fence)
        if len(self._order) > _REMEMBERED:
            del self._seen[self._order.popleft()]
        items = dict.fromkeys(range(len(batch.items)))
        self.held[batch.fence] = Held(batch, now, dict(items), dict(items))
        if self.full:
            self._parked[batch.fence] = None
            return []
        return [StartBatch(batch)]

    def stop(self, fence: int, indexes: tuple[int, ...], *, hard: bool, cause: str) -> list[Command]:
        """End items of a batch (all, when there are no indexes); `hard` kills the worker.

        A soft stop is passed to the worker with the answer to its next beat.
        """
        held = self.held.get(fence)
        if held is None or held.ended:
            return []
        for index in indexes or tuple(held.running):
            if index in held.running:
                held.stops[index] = cause
                if hard:
                    held.killed_for[index] = cause
        # One that was never started has no worker to tell or to kill: it ends at the next tick.
        if hard and held.killed_for and fence not in self._parked:
            return self._kill(held)
        return []

    def _kill(self, held: Held) -> list[Command]:
        held.killing = True
        return [KillBatch(held.batch.fence)]

    def beat(
        self,
        fence: int,
        current: int | None,
        ran: float | None,
        outcomes: list[Outcome],
        now: float,
    ) -> tuple[list[Command], dict[int, str] | None]:
        """Take in a sign of life from a batch's worker, with outcomes so far.

        ran: seconds for which item `current` has been running.
        Returns the commands and the items that the worker should end, with the cause; None means that
        nobody wants the batch any more.
        """
        held = self.held.get(fence)
        if held is None or held.ended:
            return [], None
        held.current, held.since = current, None if ran is None else now - ran
        return self._report(held, outcomes, now, final=False), dict(held.stops)

    def ended(self, fence: int, outcomes: list[Outcome], death: str | None, now: float) -> list[Command]:
        """Take in the end of a batch: its last outcomes, or the reason of its worker's death."""
        held = self.held.get(fence)
        if held is None or held.ended:
            return []
        held.ended = True
        known = {o.index for o in outcomes}
        rest = [i for i in held.running if i not in known]
        outcomes = outcomes + [self._fate(held, index, death) for index in rest]
        return self._report(held, outcomes, now, final=True)

    def _fate(self, held: Held, index: int, death: str | None) -> Outcome:
        """Return what became of an item whose worker ended without a word about it."""
        why = held.killed_for.get(index)
        if why == "timeout":
            message = (
                f"the handler ran over its timeout of {held.batch.items[index].timeout} s and was killed"
            )
            return Outcome(index, "timeout", error={"type": "Timeout", "message": message})
        if why is not None:
            return Outcome(index, "cancelled", error={"type": "Cancelled", "message": why})
        if held.killed_for or held.killing:
            message = "its batch mate's worker was killed"
            return Outcome(index, "lost", error={"type": "Lost", "message": message})
        if death is None:
            return Outcome(index, "lost", error={"type": "Lost", "message": "the worker did not report it"})
        return Outcome(index, "crashed", error={"type": "WorkerDied", "message": death})

    def _report(self, held: Held, outcomes: list[Outcome], now: float, *, final: bool) -> list[Command]:
        fresh = tuple(o for o in outcomes if o.index in held.running)
        for outcome in fresh:
            del held.running[outcome.index]
            held.stops.pop(outcome.index, None)
        if not fresh and not final:
            return []
        self._number += 1
        size = sum(len(o.value or b"") + _OUTCOME_BYTES for o in fresh)
        report = self._outbox[self._number] = _Report(held.batch.fence, fresh, final, now, size)
        self._count(size)
        return [self._send(self._number, report)] if self.joined else []

    def _send(self, number: int, report: _Report) -> SendReport:
        return SendReport(number, self.incarnation, report.fence, report.outcomes, report.final)

    def acknowledged(self, number: int) -> None:
        """Forget a report: the coordinator has it, durably."""
        report = self._outbox.pop(number, None)
        if report is None:
            return
        self._count(-report.bytes)
        held = self.held.get(report.fence)
        if held is None:
            return
        for outcome in report.outcomes:
            held.owed.pop(outcome.index, None)
        if held.ended and not held.owed and not any(r.fence == report.fence for r in self._outbox.values()):
            del self.held[report.fence]

    def _count(self, size: int) -> None:
        self.owed_bytes += size
        if self.owed_bytes > self._bound:
            self.full = True
        elif self.owed_bytes <= self._bound // 2:
            self.full = False

    def failed(self, number: int, now: float, again: float = 0.0) -> None:
        """Note that a report did not arrive; it is sent again after `again` seconds (0: at the next tick)."""
        report = self._outbox.get(number)
        if report is not None:
            report.sent_at = now - self._resend + min(again, self._resend)

    def registered(self, epoch: int, now: float) -> list[Command]:
        """Go on under a coordinator that knows what this node holds: send again what it has not heard."""
        self.joined = True
        self.epoch = max(self.epoch, epoch)
        self._next_heartbeat = now
        commands: list[Command] = []
        for number, report in self._outbox.items():
            report.sent_at = now
            commands.append(self._send(number, report))
        return commands

    def heard(self, epoch: int, now: float) -> list[Command]:
        """Take in the answer to a heartbeat: under another epoch this node has to report first.

        The coordinator asks for that too, but its own way to this node may be the one that is cut.
        """
        return self.asked_to_register(now) if self.joined and epoch > self.epoch else []

    def asked_to_register(self, now: float) -> list[Command]:
        """Report for work, since the coordinator is new or has forgotten this node."""
        self.joined = False
        self._next_join = now + self._resend
        return [self._join(now)]

    def join_failed(self, now: float) -> None:
        """Note that the report did not arrive: soon again, since a new coordinator waits only a while."""
        if not self.joined:
            self._next_join = min(self._next_join, now + _JOIN_AGAIN)

    def _join(self, now: float) -> SendJoin:
        return SendJoin(
            self.incarnation,
            tuple(
                RunningBatch(
                    h.batch.fence,
                    tuple(item.task_id for item in h.batch.items),
                    tuple(h.owed),
                    h.current,
                    _ran(h, now),
                )
                for h in self.held.values()
                if h.owed
            ),
        )

    def fenced(self, incarnation: str, now: float) -> list[Command]:
        """End everything: this life was given up. Join again as `incarnation`, holding nothing."""
        started = (h for fence, h in self.held.items() if not h.ended and fence not in self._parked)
        commands: list[Command] = [KillBatch(h.batch.fence) for h in started]
        self.held.clear()
        self._outbox.clear()
        self._parked.clear()
        self.owed_bytes, self.full = 0, False
        self.incarnation = incarnation
        return commands + self.asked_to_register(now)

    def tick(self, now: float) -> list[Command]:
        """Do what time asks for: heartbeats, joins and reports again, kills of overlong handlers."""
        commands = self._unpark(now)
        for held in self.held.values():
            commands += self._over_time(held, now)
        if not self.joined:
            if now >= self._next_join:
                commands += self.asked_to_register(now)
            return commands
        for number, report in self._outbox.items():
            if now - report.sent_at >= self._resend:
                report.sent_at = now
                commands.append(self._send(number, report))
        if now >= self._next_heartbeat:
            commands.append(self._beat(now))
        return commands

    def _unpark(self, now: float) -> list[Command]:
        """Start what waited for room, and end what was stopped before it could start."""
        commands: list[Command] = []
        for fence in [*self._parked]:
            held = self.held[fence]
            if held.stops:
                del self._parked[fence]
                held.killed_for |= held.stops
                commands += self.ended(fence, [], None, now)
            elif not self.full:
                del self._parked[fence]
                commands.append(StartBatch(held.batch))
        return commands

    def _beat(self, now: float) -> SendHeartbeat:
        self._next_heartbeat = now + self._heartbeat
        self._sent_heartbeat = now
        batches = tuple((f, h.current, _ran(h, now)) for f, h in self.held.items())
        slots = self.slots
        if self.full:
            slots, self._told_none = 0, True
        elif self._told_none and slots is None:
            # None would mean "as before": any beat may be lost, so it is named from now on.
            slots = self._all_slots
        return SendHeartbeat(self.incarnation, batches, slots)

    def may_use(self, slots: int, now: float) -> list[Command]:
        """Note how many slots the shard may use from now on, and tell its coordinator soon."""
        if slots == self.slots:
            return []
        self.slots = slots
        if not self.joined:
            return []
        if now - self._sent_heartbeat >= _HURRY:
            return [self._beat(now)]
        self._next_heartbeat = min(self._next_heartbeat, self._sent_heartbeat + _HURRY)
        return []

    def _over_time(self, held: Held, now: float) -> list[Command]:
        if held.ended or held.killing or held.current is None or held.since is None:
            return []
        if not 0 <= held.current < len(held.batch.items):
            return []
        timeout = held.batch.items[held.current].timeout
        if timeout is None or now - held.since <= timeout + self._kill_grace:
            return []
        held.killed_for[held.current] = "timeout"
        return self._kill(held)

    def describe(self) -> list[dict[str, Any]]:
        """Return what this node holds, for people."""
        return [
            {
                "fence": h.batch.fence,
                "task_type": h.batch.task_type,
                "tasks": len(h.batch.items),
                "open": len(h.running),
                "current": h.batch.items[h.current].task_id if h.current is not None else None,
                "since": h.since,
            }
            for h in self.held.values()
            if not h.ended
        ]


def _ran(held: Held, now: float) -> float | None:
    """Return for how many seconds the current item has been running, where known.

    It travels as a duration: clocks of different machines may be hours apart.
    """
    return None if held.since is None else max(0.0, now - held.since)
