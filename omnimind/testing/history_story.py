"""`Story`: a history put in order, by call, task and key. The rules read it; it judges nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from omnimind.testing.history import (
    Answered,
    Called,
    Ended,
    Fault,
    Kept,
    Listed,
    Record,
    Run,
    Started,
    when,
)

TERMINAL = frozenset({"completed", "failed", "cancelled", "expired", "dead"})
OPEN = frozenset({"", "error", "ledger_error", "ledger_unavailable", "unavailable", "wait_timeout"})
"""Codes that leave open whether something was done: the answer may have been lost, or the commit's."""


class Call(msgspec.Struct):
    """A call with its answer, where there is one."""

    call: Called
    answer: Answered | None = None

    @property
    def outcome(self) -> str:
        """Return ``ok``, ``refused`` or ``unknown``: no answer, and an answer that leaves it open."""
        if self.answer is None or (self.answer.outcome == "refused" and self.answer.code in OPEN):
            return "unknown"
        return self.answer.outcome

    @property
    def records(self) -> list[Record]:
        """Return its records."""
        return [self.call] if self.answer is None else [self.call, self.answer]


class TaskStory(msgspec.Struct):
    """All that concerns one task, each list in the order of time."""

    task: str
    submissions: list[Call] = []
    """Submissions that carried its id."""
    named: list[Call] = []
    """Submissions that were answered with its id, its own ones among them."""
    reads: list[Call] = []
    cancels: list[Call] = []
    starts: list[Started] = []
    ends: list[Ended] = []
    kept: list[Kept] = []
    listed: list[Listed] = []

    @property
    def sent(self) -> Called | None:
        """Return how it was first submitted."""
        return self.submissions[0].call if self.submissions else None

    @property
    def acknowledged(self) -> list[Call]:
        """Return the calls by which somebody was told that it is kept."""
        return [call for call in self.named if call.outcome == "ok"]

    @property
    def final(self) -> Listed | None:
        """Return what the ledger lists of it."""
        return self.listed[0] if self.listed else None

    @property
    def raised(self) -> list[Ended]:
        """Return the attempts that raised."""
        return [end for end in self.ends if end.value is None and not end.stopped]

    @property
    def heard(self) -> list[Ended]:
        """Return the attempts that raised and are on record as such: each has used up a try."""
        known = self.final.raised if self.final is not None else ()
        return [end for end in self.raised if end.fence in known]

    def returned(self, value: str | None) -> Ended | None:
        """Return the attempt that returned `value`."""
        return next((end for end in self.ends if end.value is not None and end.value == value), None)


class Story:
    """A history, indexed. `strays`: answers without a call."""

    def __init__(self, records: Iterable[Record]) -> None:
        self.records = sorted(records, key=when)
        self.tasks: dict[str, TaskStory] = {}
        self.calls: list[Call] = []
        self.keys: dict[str, list[Call]] = {}
        self.faults: list[Fault] = []
        self.run: Run | None = None
        self.strays: list[Answered] = []
        self._open: dict[tuple[str, int], Call] = {}
        for record in self.records:
            self._take(record)
        for call in self.calls:
            self._file(call)

    @property
    def zero(self) -> float:
        """Return the time of the first record."""
        return when(self.records[0]) if self.records else 0.0

    def of(self, task: str) -> TaskStory:
        """Return a task's story, an empty one for a task that nobody mentions."""
        found = self.tasks.get(task)
        if found is None:
            found = self.tasks[task] = TaskStory(task)
        return found

    def _take(self, record: Record) -> None:
        match record:
            case Called():
                call = Call(record)
                self.calls.append(call)
                self._open[record.client, record.n] = call
            case Answered():
                asked = self._open.get((record.client, record.n))
                if asked is None or asked.answer is not None:
                    self.strays.append(record)
                else:
                    asked.answer = record
            case Started():
                self.of(record.task).starts.append(record)
            case Ended():
                self.of(record.task).ends.append(record)
            case Kept():
                self.of(record.task).kept.append(record)
            case Listed():
                self.of(record.task).listed.append(record)
            case Fault():
                self.faults.append(record)
            case Run():
                self.run = record

    def _file(self, call: Call) -> None:
        match call.call.verb:
            case "submit":
                for task in call.call.tasks:
                    self.of(task).submissions.append(call)
                answered = () if call.answer is None else call.answer.tasks
                for task in answered or call.call.tasks:
                    self.of(task).named.append(call)
                if call.call.key is not None:
                    self.keys.setdefault(call.call.key, []).append(call)
            case "cancel":
                self.of(call.call.tasks[0]).cancels.append(call)
            case _:
                self.of(call.call.tasks[0]).reads.append(call)

    def attempts(self) -> Iterator[tuple[Started, float]]:
        """Yield each attempt with the time of its end; one without an end lasts until the run's."""
        last = when(self.records[-1]) if self.records else 0.0
        for task in self.tasks.values():
            ends = {end.fence: end.at for end in task.ends}
            for start in task.starts:
                yield start, ends.get(start.fence, last)
