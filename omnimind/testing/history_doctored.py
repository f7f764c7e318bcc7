"""Histories made wrong on purpose, one way each: the checker must name the rule that each of them breaks.

A way takes a valid history and a source of chance and returns the history with one lie in it; every one
finds what it needs in any history of `history_draw.draw`.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import TypeVar

from msgspec.structs import replace

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
)

History = list[Record]
Way = Callable[[History, Random], History]
T = TypeVar("T")

WAYS: dict[str, tuple[str, Way]] = {}
"""Name -> (the rule that must catch it, the way)."""

VACUOUS: dict[str, Way] = {}
"""Histories that are true and prove nothing."""


def _breaks(rule: str) -> Callable[[Way], Way]:
    def note(way: Way) -> Way:
        WAYS[way.__name__.lstrip("_")] = (rule, way)
        return way

    return note


def _all(history: History, kind: type[T]) -> list[T]:
    return [record for record in history if isinstance(record, kind)]


def _swap(history: History, old: Record, *new: Record) -> History:
    at = next(i for i, record in enumerate(history) if record is old)
    return [*history[:at], *new, *history[at + 1 :]]


def _listed(history: History, random: Random, status: str) -> Listed:
    return random.choice([found for found in _all(history, Listed) if found.status == status])


def _answer_to(history: History, call: Called) -> Answered | None:
    mine = (call.client, call.n)
    return next((a for a in _all(history, Answered) if (a.client, a.n) == mine), None)


def _acknowledged(history: History) -> list[tuple[Called, Answered]]:
    pairs = [(call, _answer_to(history, call)) for call in _all(history, Called) if call.verb == "submit"]
    return [(call, answer) for call, answer in pairs if answer is not None and answer.outcome == "ok"]


def _read(history: History, task: str, status: str, value: str | None = None) -> History:
    """Add a read at the very end that saw this."""
    last = _all(history, Run)[0].healed
    return [
        *history,
        Called("liar", len(history), last + 2.0, "result", (task,)),
        Answered("liar", len(history), last + 3.0, "ok", status=status, value=value),
    ]


@_breaks("lost")
def _drop_an_acknowledged_task(history: History, random: Random) -> History:
    _, told = random.choice([pair for pair in _acknowledged(history) if len(pair[0].tasks) == 1])
    return [r for r in history if not (isinstance(r, Listed) and r.task in told.tasks)]


@_breaks("lost")
def _not_find_an_acknowledged_task(history: History, random: Random) -> History:
    _, told = random.choice(_acknowledged(history))
    history = _read(history, told.tasks[0], "")
    answer = history[-1]
    assert isinstance(answer, Answered)
    return _swap(history, answer, replace(answer, outcome="refused", code="not_found"))


@_breaks("torn")
def _drop_one_of_a_slab(history: History, random: Random) -> History:
    call = random.choice([call for call, _ in _acknowledged(history) if len(call.tasks) > 1])
    return [r for r in history if not (isinstance(r, Listed) and r.task == call.tasks[-1])]


@_breaks("unfinished")
def _leave_one_running(history: History, random: Random) -> History:
    found = _listed(history, random, "completed")
    return _swap(history, found, replace(found, status="running", value=None))


@_breaks("doubled")
def _end_twice(history: History, random: Random) -> History:
    found = _listed(history, random, "completed")
    return _swap(history, found, found, replace(found, status="failed", value=None))


@_breaks("unstable")
def _read_another_result(history: History, random: Random) -> History:
    found = _listed(history, random, "completed")
    return _read(_read(history, found.task, "completed", found.value), found.task, "completed", "another")


@_breaks("unstable")
def _read_an_ended_task_as_running(history: History, random: Random) -> History:
    found = _listed(history, random, "completed")
    again = _read(history, found.task, "completed", found.value)
    last = _all(history, Run)[0].healed
    return [
        *again,
        Called("liar", -1, last + 4.0, "status", (found.task,)),
        Answered("liar", -1, last + 5.0, "ok", status="running"),
    ]


@_breaks("unstable")
def _list_another_end_than_was_read(history: History, random: Random) -> History:
    found = _listed(history, random, "failed")
    return _read(history, found.task, "completed", "v")


@_breaks("invented")
def _swap_two_results(history: History, random: Random) -> History:
    done = [found for found in _all(history, Listed) if found.status == "completed"]
    one, two = random.sample(done, 2)
    history = _swap(history, one, replace(one, value=two.value))
    return _swap(history, two, replace(two, value=one.value))


@_breaks("stale")
def _publish_a_replaced_attempt(history: History, _random: Random) -> History:
    for found in _all(history, Listed):
        ends = [e for e in _all(history, Ended) if e.task == found.task and e.value is not None]
        if found.status == "completed" and len(ends) > 1:
            return _swap(history, found, replace(found, value=min(ends, key=lambda e: e.fence).value))
    raise AssertionError


@_breaks("repeated")
def _start_a_once_task_again(history: History, random: Random) -> History:
    once = {task for call in _all(history, Called) if call.once for task in call.tasks}
    start = random.choice([start for start in _all(history, Started) if start.task in once])
    return [*history, replace(start, fence=start.fence + 500, host="w9")]


@_breaks("fence_twice")
def _start_one_fence_on_two_hosts(history: History, random: Random) -> History:
    start = random.choice(_all(history, Started))
    return [*history, replace(start, host="w9", pid=1)]


@_breaks("afterlife")
def _start_after_all_is_over(history: History, random: Random) -> History:
    found = _listed(history, random, "completed")
    return [*history, Started(found.task, 1, found.at + 9.0, "w1", 7)]


@_breaks("unexpected")
def _run_what_nobody_submitted(history: History, random: Random) -> History:
    found = _listed(history, random, "completed")
    return [*history, replace(found, task="tsk_nobody")]


@_breaks("refused_effect")
def _keep_what_was_refused(history: History, random: Random) -> History:
    refused = [a for a in _all(history, Answered) if a.outcome == "refused" and a.code == "queue_full"]
    refused += [a for a in _all(history, Answered) if a.outcome == "refused" and a.code == "ledger_full"]
    told = random.choice(refused)
    call = next(c for c in _all(history, Called) if (c.client, c.n) == (told.client, told.n))
    return [*history, replace(_listed(history, random, "completed"), task=call.tasks[0])]


def _repeats(history: History) -> list[tuple[Called, Answered]]:
    return [(call, told) for call, told in _acknowledged(history) if call.key and call.tasks != told.tasks]


@_breaks("second_task")
def _give_a_key_a_second_id(history: History, random: Random) -> History:
    call, told = random.choice(_repeats(history))
    return _swap(history, told, replace(told, tasks=call.tasks))


@_breaks("second_task")
def _list_a_key_twice(history: History, random: Random) -> History:
    call, told = random.choice(_repeats(history))
    listed = next(found for found in _all(history, Listed) if found.task == told.tasks[0])
    return [*history, replace(listed, task=call.tasks[0])]


@_breaks("key_ignored")
def _accept_another_payload(history: History, random: Random) -> History:
    call, told = random.choice(_repeats(history))
    assert told.outcome == "ok"
    return _swap(history, call, replace(call, payload="p2"))


@_breaks("wrong_conflict")
def _refuse_the_same_payload(history: History, random: Random) -> History:
    _, told = random.choice(_repeats(history))
    return _swap(history, told, replace(told, outcome="refused", code="key_conflict", tasks=()))


@_breaks("silent")
def _end_without_a_cause(history: History, random: Random) -> History:
    found = _listed(history, random, "failed")
    return _swap(history, found, replace(found, cause=""))


@_breaks("unexplained")
def _forget_an_attempt(history: History, random: Random) -> History:
    found = random.choice([f for f in _all(history, Listed) if f.status == "failed" and f.attempts])
    return _swap(history, found, replace(found, attempts=found.attempts[:-1]))


@_breaks("failed_early")
def _give_up_before_the_retries(history: History, random: Random) -> History:
    failed = {found.task for found in _all(history, Listed) if found.status == "failed"}
    calls = [call for call in _all(history, Called) if call.raises > call.retries and call.tasks[0] in failed]
    call = random.choice(calls)
    return _swap(history, call, replace(call, retries=call.retries + 1))


@_breaks("over_retried")
def _retry_beyond_the_limit(history: History, random: Random) -> History:
    raised = {end.task for end in _all(history, Ended) if end.value is None}
    calls = [call for call in _all(history, Called) if call.retries and call.tasks[0] in raised]
    call = random.choice(calls)
    found = next(f for f in _all(history, Listed) if f.task == call.tasks[0])
    start = next(s for s in _all(history, Started) if s.task == found.task)
    more = [start.fence + 500 + n for n in range(call.retries + 2)]
    extra: History = []
    for fence in more:
        extra += [replace(start, fence=fence), Ended(found.task, fence, start.at + 0.001)]
    return [
        *_swap(history, found, replace(found, attempts=(*found.attempts, *more), raised=(*more,))),
        *extra,
    ]


@_breaks("cancel_broken")
def _complete_what_was_cancelled(history: History, _random: Random) -> History:
    answers = [a for a in _all(history, Answered) if a.outcome == "ok" and a.status == "cancelled"]
    calls = {(call.client, call.n): call for call in _all(history, Called) if call.verb == "cancel"}
    told = next(answer for answer in answers if (answer.client, answer.n) in calls)
    task = calls[told.client, told.n].tasks[0]
    found = next(listed for listed in _all(history, Listed) if listed.task == task)
    return _swap(history, found, replace(found, status="failed", cause="no reason"))


@_breaks("cancel_broken")
def _cancel_by_nobody(history: History, random: Random) -> History:
    cancelled = _listed(history, random, "cancelled").task
    gone = {(c.client, c.n) for c in _all(history, Called) if c.verb == "cancel" and cancelled in c.tasks}
    return [
        r for r in history if not (isinstance(r, (Called, Answered)) and (r.client, r.n) in gone)
    ]  # fmt: skip


@_breaks("expired_early")
def _expire_before_the_deadline(history: History, random: Random) -> History:
    found = _listed(history, random, "expired")
    call = next(c for c in _all(history, Called) if c.verb == "submit" and c.tasks == (found.task,))
    return _read(_swap(history, call, replace(call, life=9e9)), found.task, "expired")


@_breaks("expired_early")
def _expire_without_a_deadline(history: History, random: Random) -> History:
    found = _listed(history, random, "expired")
    call = next(c for c in _all(history, Called) if c.verb == "submit" and c.tasks == (found.task,))
    return _swap(history, call, replace(call, life=None))


@_breaks("too_early")
def _start_before_the_time(history: History, _random: Random) -> History:
    started = {start.task for start in _all(history, Started)}
    call = next(c for c in _all(history, Called) if c.wait and c.tasks[0] in started)
    return _swap(history, call, replace(call, wait=call.wait + 1e6))


@_breaks("order")
def _start_before_what_it_comes_after(history: History, _random: Random) -> History:
    started = {start.task for start in _all(history, Started)}
    call = next(c for c in _all(history, Called) if c.after and c.tasks[0] in started)
    mine = next(s for s in _all(history, Started) if s.task == call.tasks[0])
    other = next(e for e in _all(history, Ended) if e.task == call.after[0])
    return _swap(history, other, replace(other, at=mine.at + 0.0005))


@_breaks("checkpoint_lost")
def _forget_a_checkpoint(history: History, random: Random) -> History:
    start = random.choice([start for start in _all(history, Started) if start.resumed])
    return _swap(history, start, replace(start, resumed=start.resumed - 1))


@_breaks("unsettled")
def _never_settle(history: History, _random: Random) -> History:
    [run] = _all(history, Run)
    return _swap(history, run, replace(run, settled=None))


@_breaks("unsettled")
def _settle_too_late(history: History, _random: Random) -> History:
    [run] = _all(history, Run)
    return _swap(history, run, replace(run, settled=run.healed + run.bound + 1))


@_breaks("garbled")
def _answer_what_nobody_asked(history: History, random: Random) -> History:
    call, _ = random.choice(_acknowledged(history))
    return [record for record in history if record is not call]


@_breaks("garbled")
def _end_without_a_start(history: History, random: Random) -> History:
    end = random.choice(_all(history, Ended))
    return [r for r in history if not (isinstance(r, Started) and r.fence == end.fence)]


@_breaks("garbled")
def _confirm_a_checkpoint_of_nobody(history: History, random: Random) -> History:
    kept = random.choice(_all(history, Kept))
    return _swap(history, kept, replace(kept, fence=kept.fence + 500))


def _empty(way: Way) -> Way:
    VACUOUS[way.__name__.lstrip("_")] = way
    return way


@_empty
def _nothing_acknowledged(history: History, _random: Random) -> History:
    told = {(call.client, call.n) for call, _ in _acknowledged(history)}
    return [r for r in history if not (isinstance(r, Answered) and (r.client, r.n) in told)]


@_empty
def _nothing_broken(history: History, _random: Random) -> History:
    return [record for record in history if not isinstance(record, Fault)]


@_empty
def _a_fault_that_met_no_work(history: History, _random: Random) -> History:
    return [*history, Fault("cut", "w1", 1.0, 2.0)]


@_empty
def _no_read_answered(history: History, _random: Random) -> History:
    reads = {(c.client, c.n) for c in _all(history, Called) if c.verb == "result"}
    return [r for r in history if not (isinstance(r, Answered) and (r.client, r.n) in reads)]


@_empty
def _no_end_of_the_run(history: History, _random: Random) -> History:
    return [record for record in history if not isinstance(record, Run)]


@_empty
def _nothing_ran_again(history: History, _random: Random) -> History:
    starts = [s.task for s in _all(history, Started)]
    again = {task for task in starts if starts.count(task) > 1}
    calls = {(c.client, c.n) for c in _all(history, Called) if again & {*c.tasks, *c.after}}
    after = {t for c in _all(history, Called) if again & {*c.after} for t in c.tasks}
    gone = again | after
    return [
        r
        for r in history
        if not (isinstance(r, (Started, Ended, Kept, Listed)) and r.task in gone)
        and not (isinstance(r, (Called, Answered)) and (r.client, r.n) in calls)
        and not (isinstance(r, Called) and gone & {*r.tasks})
        and not (isinstance(r, Answered) and _of(history, r) & gone)
    ]


def _of(history: History, answer: Answered) -> set[str]:
    mine = (answer.client, answer.n)
    return {t for c in _all(history, Called) if (c.client, c.n) == mine for t in c.tasks}
