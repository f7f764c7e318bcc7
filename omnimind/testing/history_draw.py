"""Valid histories, drawn from a seed: what a runtime that keeps its promises may do under faults.

They are the other half of the checker's own test: whatever is drawn here must pass, and each of the
changes in `history_doctored` must be caught.
"""

from __future__ import annotations

from random import Random

from msgspec.structs import replace

from omnimind.ids import fence as make_fence
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

PLOTS = (
    "plain", "retried", "failed", "raised_unheard", "lost", "stale", "once", "once_lost", "key", "key_again",
    "conflict", "refused", "unknown_kept", "unknown_gone", "cancelled", "cancelled_running", "cancelled_late",
    "delayed", "expired", "after", "after_failed", "checkpoint", "slab", "restart", "dead",
)  # fmt: skip
"""The stories that a task may have; each is told at least once."""


class _Draw:
    """Tells stories. `epoch` and `_counter` make fences as a coordinator does."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.records: list[Record] = []
        self.listed: list[Listed] = []
        self.epoch = 1
        self._counter = self._n = self._id = 0

    def task(self) -> str:
        self._id += 1
        return f"tsk_{self._id:032x}"

    def fence(self) -> int:
        self._counter += 1
        return make_fence(self.epoch, self._counter)

    def later(self, at: float, most: float = 1.0) -> float:
        return at + 0.001 + self.random.random() * most

    def call(self, at: float, verb: str, *tasks: str, **more: object) -> Called:
        self._n += 1
        client = f"c{self.random.randrange(3)}"
        made = Called(client, self._n, at, verb, tasks, **more)  # type: ignore[arg-type]
        self.records.append(made)
        return made

    def answer(self, call: Called, at: float, outcome: str = "ok", **more: object) -> float:
        self.records.append(Answered(call.client, call.n, at, outcome, **more))  # type: ignore[arg-type]
        return at

    def submit(self, at: float, **more: object) -> tuple[str, float]:
        """Submit a task and hear that it is kept; return its id and when."""
        task = self.task()
        call = self.call(at, "submit", task, **more)
        return task, self.answer(call, self.later(at), tasks=(task,))

    def run(self, task: str, at: float, how: str = "returns", *, resumed: int = 0) -> tuple[int, float]:
        """Tell of an attempt that returns, raises, stops or is lost (``""``); return fence and end."""
        fence, begun = self.fence(), self.later(at)
        host = f"w{self.random.randrange(3)}"
        self.records.append(Started(task, fence, begun, host, self.random.randrange(2, 9999), resumed))
        over = self.later(begun, 2.0)
        if how:
            value = f"v{fence}" if how == "returns" else None
            self.records.append(Ended(task, fence, over, value, how == "stops"))
        return fence, over

    def end(
        self, task: str, at: float, status: str, *, cause: str = "", value: str | None = None,
        key: str | None = None, attempts: tuple[int, ...] = (), raised: tuple[int, ...] = (),
    ) -> None:  # fmt: skip
        """Note how a task is listed, and let clients read that."""
        self.listed.append(Listed(task, status, 0.0, value, cause or status, key, attempts, raised))
        for _ in range(self.random.randrange(3)):
            at = self.later(at)
            verb = self.random.choice(("result", "status"))
            call = self.call(at, verb, task)
            at = self.later(at)
            told = value if verb == "result" else None
            if self.random.random() < 0.9:  # noqa: PLR2004
                self.answer(call, at, status=status, value=told)

    def completed(self, task: str, at: float, *lost: int, resumed: int = 0, key: str | None = None) -> float:
        fence, over = self.run(task, at, resumed=resumed)
        over = self.later(over)
        self.end(task, over, "completed", value=f"v{fence}", attempts=lost, key=key)
        return over


def draw(seed: int, tasks: int = 60) -> list[Record]:
    """Return a valid history of about `tasks` tasks, in the order of time."""
    drawn = _Draw(seed)
    plots = [*PLOTS, *(drawn.random.choice(PLOTS) for _ in range(max(0, tasks - len(PLOTS))))]
    drawn.random.shuffle(plots)
    at = 100.0
    for plot in plots:
        at += drawn.random.random()
        _tell(drawn, plot, at)
    # Every plot has read its task by now, at the end as well as on the way.
    last = max(when(record) for record in drawn.records)
    for name in ("worker", "coordinator"):
        drawn.records.append(Fault(name, "w1", 100.0, last))
    drawn.records.append(Fault("raylet", "w2", 105.0, 105.0, skipped="there was none"))
    drawn.records.append(Run(f"draw {seed}", 100.0, last, last + 5.0, 60.0))
    drawn.records += [replace(listed, at=last + 6.0) for listed in drawn.listed]
    return sorted(drawn.records, key=when)


def _tell(d: _Draw, plot: str, at: float) -> None:  # noqa: C901, PLR0912, PLR0915 (one case a story)
    match plot:
        case "plain":
            task, at = d.submit(at)
            call = d.call(at, "status", task)
            d.answer(call, d.later(at, 0.1), status="pending")
            d.completed(task, at)
        case "retried":
            task, at = d.submit(at, retries=2, raises=1)
            fence, at = d.run(task, at, "raises")
            d.completed(task, at, fence)
        case "failed":
            task, at = d.submit(at, retries=1, raises=9)
            one, at = d.run(task, at, "raises")
            two, at = d.run(task, at, "raises")
            d.end(task, at, "failed", cause="retries used up", attempts=(one, two), raised=(one, two))
        case "raised_unheard":
            # It raised on a node that was given up: on record it is lost, and no retry was used up.
            task, at = d.submit(at, retries=0, raises=9)
            lost, at = d.run(task, at, "raises")
            told, at = d.run(task, at, "raises")
            d.end(task, at, "failed", cause="retries used up", attempts=(lost, told), raised=(told,))
        case "lost":
            task, at = d.submit(at)
            fence, _ = d.run(task, at, "")
            d.completed(task, at + 3.0, fence)
        case "stale":
            # The old attempt was given up, and returned all the same, later than the new one.
            task, at = d.submit(at)
            fence, late = d.run(task, at)
            d.completed(task, late, fence)
        case "once":
            task, at = d.submit(at, once=True)
            d.completed(task, at)
        case "once_lost":
            task, at = d.submit(at, once=True)
            fence, at = d.run(task, at, d.random.choice(("", "returns")))
            d.end(task, at, "failed", cause="lost", attempts=(fence,))
        case "key" | "key_again" | "conflict":
            _tell_key(d, plot, at)
        case "refused":
            task = d.task()
            call = d.call(at, "submit", task)
            d.answer(call, d.later(at), "refused", code=d.random.choice(("queue_full", "ledger_full")))
        case "unknown_kept" | "unknown_gone":
            task = d.task()
            call = d.call(at, "submit", task)
            if d.random.random() < 0.5:  # noqa: PLR2004
                d.answer(call, d.later(at), "unknown", code="unavailable")
            if plot == "unknown_kept":
                d.completed(task, at)
        case "cancelled":
            task, at = d.submit(at, wait=50.0)
            call = d.call(at, "cancel", task)
            d.end(task, d.answer(call, d.later(at), status="cancelled"), "cancelled")
        case "cancelled_running":
            task, at = d.submit(at)
            fence, over = d.run(task, at, "stops")
            call = d.call(d.later(at), "cancel", task)
            d.answer(call, d.later(call.at), status="cancelling")
            d.end(task, max(over, call.at + 1), "cancelled", attempts=(fence,))
        case "cancelled_late":
            task, at = d.submit(at)
            at = d.completed(task, at)
            call = d.call(at, "cancel", task)
            d.answer(call, d.later(at), status="completed")
        case "delayed":
            task, at = d.submit(at, wait=3.0)
            d.completed(task, at + 3.0)
        case "expired":
            task, at = d.submit(at, life=2.0)
            d.end(task, at + 2.0, "expired", cause="deadline")
        case "after" | "after_failed":
            first, at = d.submit(at, raises=9 if plot == "after_failed" else 0)
            second, heard = d.submit(at, after=(first,))
            if plot == "after":
                d.completed(second, max(heard, d.completed(first, at)))
            else:
                fence, at = d.run(first, at, "raises")
                d.end(first, at, "failed", cause="retries used up", attempts=(fence,), raised=(fence,))
                d.end(second, max(heard, at), "failed", cause="a task that it comes after failed")
        case "checkpoint":
            task, at = d.submit(at)
            fence, over = d.run(task, at, "")
            d.records.append(Kept(task, fence, over, 1))
            d.records.append(Kept(task, fence, over + 0.1, 2))
            d.completed(task, over + 1.0, fence, resumed=2)
        case "slab":
            tasks = tuple(d.task() for _ in range(3))
            call = d.call(at, "submit", *tasks)
            at = d.answer(call, d.later(at), tasks=tasks)
            for task in tasks:
                d.completed(task, at)
        case "restart":
            # The coordinator died before it had written the start; its successor granted another.
            task, at = d.submit(at)
            d.run(task, at, "")
            d.epoch += 1
            d.completed(task, at + 3.0)
        case "dead":
            task, at = d.submit(at)
            fences = []
            for _ in range(3):
                fence, at = d.run(task, at, "")
                fences.append(fence)
            d.end(task, at, "dead", cause="killed its worker 3 times", attempts=tuple(fences))
        case _:
            raise AssertionError(plot)


def _tell_key(d: _Draw, plot: str, at: float) -> None:
    key = f"key-{at:.6f}"
    task, at = d.submit(at, key=key, payload="p1")
    if plot == "key_again":
        for _ in range(2):
            other = d.task()
            call = d.call(at, "submit", other, key=key, payload="p1")
            at = d.answer(call, d.later(at), tasks=(task,))
    elif plot == "conflict":
        other = d.task()
        call = d.call(at, "submit", other, key=key, payload="p2")
        at = d.answer(call, d.later(at), "refused", code="key_conflict")
    d.completed(task, at, key=key)
