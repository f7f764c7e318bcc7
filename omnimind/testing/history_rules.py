"""What must hold of a history: one function a rule, each finds the records that break it.

=================  ==  =====================================================================================
rule                   what broke it says
=================  ==  =====================================================================================
lost               P1  acknowledged, and the ledger does not list it, or it was not found on the way
torn               P1  a submission of several tasks is there in part
unfinished         P2  it is kept, and had not ended when everything should have
doubled            P2  two records of its end
unstable           P2  two reads of its end differ, or an ended task was seen unended
invented           P2  its result is none that an attempt returned
stale              P2  its result is of an attempt that a newer one had replaced
repeated           P2  `at_most_once`, and it started twice
fence_twice        P2  one fence began two attempts
afterlife          P2  an attempt began when all had ended
unexpected         P2  it ran, or is listed, and nobody submitted it
refused_effect     P2  refused, and there all the same
second_task        P3  one key and payload, two tasks
key_ignored        P3  one key, two payloads, both accepted
wrong_conflict     P3  refused for another payload under its key, and there was none
silent             P4  it ended without a cause
unexplained        P4  an attempt that did not count, and nothing on record says why
failed_early       P4  it failed, and neither its retries nor anything else was used up
over_retried       P4  it was tried more often than it may raise
cancel_broken      P4  a cancel's answer and its end differ, or nobody had cancelled it
expired_early      P4  it expired before its deadline, or had none
too_early          P4  it started before its time
order              P4  it started before what it comes after had completed
checkpoint_lost    P4  an attempt was not given the newest confirmed checkpoint
unsettled          P5  work was left when the bound after the last fault had passed
garbled                the history contradicts itself: an answer without a call, an end without a start
=================  ==  =====================================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec

from omnimind.testing.history import Answered, Ended, Kept, Record, Started
from omnimind.testing.history_story import TERMINAL, Call, Story, TaskStory

_DEATHS = 3
_EPOCH = 40


class Violation(msgspec.Struct):
    """A broken rule. because: the records that show it, and no others."""

    rule: str
    what: str
    because: list[Record]


Rule = Callable[[Story], Iterator[Violation]]
RULES: dict[str, Rule] = {}


def _rule(check: Callable[[Story], Iterator[tuple[str, list[Record]]]]) -> Rule:
    name = check.__name__.lstrip("_")

    def run(story: Story) -> Iterator[Violation]:
        for what, because in check(story):
            yield Violation(name, what, because)

    RULES[name] = run
    return run


Found = Iterator[tuple[str, list[Record]]]


# --- P1: acknowledged is kept -----------------------------------------------------------------------


@_rule
def _lost(story: Story) -> Found:
    for task in story.tasks.values():
        if task.acknowledged and not task.listed:
            yield f"{task.task} was acknowledged and is gone", task.acknowledged[0].records
        for read in task.reads if task.acknowledged else ():
            known = task.acknowledged[0].answer
            unheard = read.answer is not None and read.answer.code == "not_found"
            if unheard and known is not None and known.at < read.call.at:
                yield f"{task.task} was acknowledged and not found", [known, *read.records]


@_rule
def _torn(story: Story) -> Found:
    for call in story.calls:
        if call.call.verb == "submit" and call.call.key is None and len(call.call.tasks) > 1:
            there = [listed for task in call.call.tasks for listed in story.of(task).listed[:1]]
            if there and len(there) < len(call.call.tasks):
                yield (
                    f"{len(there)} of {len(call.call.tasks)} tasks of one submission exist",
                    [
                        *call.records,
                        there[0],
                    ],
                )


# --- P2: one end, one result ------------------------------------------------------------------------


@_rule
def _unfinished(story: Story) -> Found:
    for task in story.tasks.values():
        final = task.final
        if final is not None and final.status not in TERMINAL:
            told = [record for call in task.acknowledged[:1] for record in call.records]
            yield f"{task.task} never ended", [*told, final]


@_rule
def _doubled(story: Story) -> Found:
    for task in story.tasks.values():
        if len(task.listed) > 1:
            yield f"{task.task} is listed {len(task.listed)} times", [*task.listed]


@_rule
def _unstable(story: Story) -> Found:
    for task in story.tasks.values():
        ended: tuple[Call, Answered] | None = None
        valued: tuple[Call, Answered] | None = None
        for read, told in _heard(task):
            if told.status not in TERMINAL:
                if ended is not None and read.call.at > ended[1].at:
                    yield f"{task.task} had ended and was seen unended", [*ended[0].records, *read.records]
                continue
            ended = ended or (read, told)
            if told.value is not None:
                valued = valued or (read, told)
            if told.status != ended[1].status:
                yield f"{task.task} has two ends", [*ended[0].records, *read.records]
            elif valued is not None and told.value not in (None, valued[1].value):
                yield f"{task.task} has two results", [*valued[0].records, *read.records]
        final = task.final
        if final is not None and ended is not None and ended[1].status != final.status:
            yield f"{task.task} is kept with another end than was told", [*ended[0].records, final]
        elif final is not None and valued is not None and valued[1].value != final.value:
            yield f"{task.task} is kept with another result than was told", [*valued[0].records, final]


def _heard(task: TaskStory) -> list[tuple[Call, Answered]]:
    """Return the reads of a task that were answered, in the order of the answers."""
    pairs = [(read, read.answer) for read in task.reads if read.answer is not None and read.outcome == "ok"]
    return sorted(pairs, key=lambda pair: pair[1].at)


@_rule
def _invented(story: Story) -> Found:
    for task in story.tasks.values():
        final = task.final
        if final is not None and final.status == "completed" and task.returned(final.value) is None:
            yield f"{task.task} has a result that no attempt returned", [final, *task.ends]


@_rule
def _stale(story: Story) -> Found:
    for task in story.tasks.values():
        done = task.returned(task.final.value) if task.final is not None else None
        newest = max(task.starts, key=lambda start: start.fence, default=None)
        if task.final is not None and done is not None and newest is not None and newest.fence > done.fence:
            yield f"{task.task} was given the result of a replaced attempt", [newest, done, task.final]


@_rule
def _repeated(story: Story) -> Found:
    for task in story.tasks.values():
        if task.sent is not None and task.sent.once and len(task.starts) > 1:
            yield (
                f"{task.task} may start once and started {len(task.starts)} times",
                [
                    task.sent,
                    *task.starts,
                ],
            )


@_rule
def _fence_twice(story: Story) -> Found:
    owners: dict[int, Started] = {}
    for task in story.tasks.values():
        for start in task.starts:
            other = owners.setdefault(start.fence, start)
            if other is not start:
                yield f"fence {start.fence} began two attempts", [other, start]


@_rule
def _afterlife(story: Story) -> Found:
    for task in story.tasks.values():
        final = task.final
        if final is not None and final.status in TERMINAL:
            for start in task.starts:
                if start.at > final.at:
                    yield f"{task.task} started after its end was listed", [final, start]


@_rule
def _unexpected(story: Story) -> Found:
    for task in story.tasks.values():
        if not task.submissions and (task.starts or task.listed):
            yield f"{task.task} was submitted by nobody", [*task.starts[:1], *task.listed[:1]]


@_rule
def _refused_effect(story: Story) -> Found:
    for task in story.tasks.values():
        if task.submissions and all(call.outcome == "refused" for call in task.submissions):
            effects: list[Record] = [*task.starts[:1], *task.listed[:1]]
            if effects:
                yield f"{task.task} was refused and is there", [*task.submissions[0].records, *effects]


# --- P3: a key is one task --------------------------------------------------------------------------


@_rule
def _second_task(story: Story) -> Found:
    for key, calls in story.keys.items():
        first: dict[str, Call] = {}
        for call in calls:
            if call.outcome != "ok" or call.answer is None:
                continue
            other = first.setdefault(call.call.payload, call)
            mine, yours = _named(call), _named(other)
            if mine != yours:
                yield f"key {key} stands for two tasks", [*other.records, *call.records]
        ids = dict.fromkeys(task for call in calls for task in call.call.tasks)
        there = [listed for task in ids for listed in story.of(task).listed[:1]]
        if len(there) > 1:
            yield f"{len(there)} tasks are listed under key {key}", [*there]


def _named(call: Call) -> tuple[str, ...]:
    told = call.answer.tasks if call.answer is not None else ()
    return told or call.call.tasks


@_rule
def _key_ignored(story: Story) -> Found:
    for key, calls in story.keys.items():
        good = [call for call in calls if call.outcome == "ok"]
        other = next((call for call in good if call.call.payload != good[0].call.payload), None)
        if other is not None:
            yield f"key {key} was accepted with two payloads", [*good[0].records, *other.records]


@_rule
def _wrong_conflict(story: Story) -> Found:
    for key, calls in story.keys.items():
        for call in calls:
            if call.answer is None or call.answer.code != "key_conflict":
                continue
            told = call.answer.at
            if all(o.call.payload == call.call.payload or o.call.at > told for o in calls):
                yield f"key {key} was refused for another payload, and there was none", call.records


# --- P4: each end has its cause ---------------------------------------------------------------------


@_rule
def _silent(story: Story) -> Found:
    for task in story.tasks.values():
        if task.final is not None and task.final.status in TERMINAL and not task.final.cause:
            yield f"{task.task} ended without a cause", [task.final]


@_rule
def _unexplained(story: Story) -> Found:
    for task in story.tasks.values():
        final = task.final
        if final is None or final.status not in TERMINAL or not task.starts:
            continue
        if final.status in {"cancelled", "expired"}:
            # It ended while its coordinator was new and had not heard yet of an attempt that ran.
            continue
        done = task.returned(final.value) if final.status == "completed" else None
        counted = {*final.attempts} | ({done.fence} if done is not None else set())
        newest = max([start.fence for start in task.starts] + [*counted])
        for start in task.starts:
            # A coordinator that died may have granted what its successor never heard of.
            if start.fence not in counted and start.fence >> _EPOCH == newest >> _EPOCH:
                yield f"an attempt of {task.task} is on no record", [start, final]


@_rule
def _failed_early(story: Story) -> Found:
    for task in story.tasks.values():
        final, sent = task.final, task.sent
        if final is None or sent is None:
            continue
        if final.status == "dead" and len(final.attempts) < _DEATHS:
            yield f"{task.task} was parked after {len(final.attempts)} attempts", [sent, final]
        if final.status != "failed" or sent.once or len(task.heard) > sent.retries:
            continue
        if any(_ended_otherwise(story, other) for other in sent.after):
            continue
        said = f"{task.task} failed with {len(task.heard)} of {sent.retries + 1} tries"
        yield said, [sent, *task.raised, final]


def _ended_otherwise(story: Story, task: str) -> bool:
    final = story.of(task).final
    return final is None or final.status != "completed"


@_rule
def _over_retried(story: Story) -> Found:
    for task in story.tasks.values():
        if task.final is None or task.sent is None:
            continue
        if len(task.heard) > task.sent.retries + 1:
            said = f"{task.task} raised {len(task.heard)} times, with {task.sent.retries} retries"
            yield said, [task.sent, *task.heard]


@_rule
def _cancel_broken(story: Story) -> Found:
    for task in story.tasks.values():
        final = task.final
        if final is None:
            continue
        if final.status == "cancelled" and not task.cancels:
            yield f"{task.task} was cancelled by nobody", [final]
        for call in task.cancels:
            done = call.answer.status if call.answer is not None and call.outcome == "ok" else ""
            if done in TERMINAL and done != final.status:
                yield f"{task.task} was said to be {done}", [*call.records, final]


@_rule
def _expired_early(story: Story) -> Found:
    for task in story.tasks.values():
        sent = task.sent
        if sent is None:
            continue
        if task.final is not None and task.final.status == "expired" and sent.life is None:
            yield f"{task.task} expired and has no deadline", [sent, task.final]
        for read in task.reads:
            told = read.answer
            early = told is not None and told.status == "expired" and sent.life is not None
            if early and told is not None and sent.life is not None and told.at < sent.at + sent.life:
                yield f"{task.task} expired before its deadline", [sent, *read.records]


@_rule
def _too_early(story: Story) -> Found:
    for task in story.tasks.values():
        for start in task.starts:
            if task.sent is not None and start.at < task.sent.at + task.sent.wait:
                yield f"{task.task} started before its time", [task.sent, start]


@_rule
def _order(story: Story) -> Found:
    for task in story.tasks.values():
        sent = task.sent
        for other in sent.after if sent is not None else ():
            assert sent is not None
            before = story.of(other)
            done = min((end.at for end in before.ends if end.value is not None), default=None)
            first = task.starts[0] if task.starts else None
            if first is not None and (done is None or first.at < done):
                yield f"{task.task} started before {other} had completed", [sent, first, *before.ends[:1]]
            elif (
                task.final is not None and task.final.status == "completed" and _ended_otherwise(story, other)
            ):
                yield f"{task.task} completed and {other} did not", [sent, task.final, *before.listed]


@_rule
def _checkpoint_lost(story: Story) -> Found:
    for task in story.tasks.values():
        for start in task.starts:
            given = [kept for kept in task.kept if kept.fence < start.fence and kept.at < start.at]
            newest = max(given, key=lambda kept: kept.number, default=None)
            if newest is not None and start.resumed < newest.number:
                yield f"{task.task} lost checkpoint {newest.number}", [newest, start]


# --- P5, and the history itself ---------------------------------------------------------------------


@_rule
def _unsettled(story: Story) -> Found:
    run = story.run
    if run is not None and (run.settled is None or run.settled - run.healed > run.bound):
        yield f"not everything had ended {run.bound:g} s after the last fault", [run]


@_rule
def _garbled(story: Story) -> Found:
    for answer in story.strays:
        yield f"{answer.client}#{answer.n} was answered and not asked", [answer]
    for task in story.tasks.values():
        yield from _endless(task)
    for call in story.calls:
        if call.answer is not None and call.answer.at < call.call.at:
            yield f"{call.call.client}#{call.call.n} was answered before it was asked", call.records


def _endless(task: TaskStory) -> Found:
    begun = {start.fence: start.at for start in task.starts}
    marks: list[Ended | Kept] = [*task.ends, *task.kept]
    for mark in marks:
        if mark.fence not in begun or mark.at < begun[mark.fence]:
            yield f"{task.task} ended an attempt that had not begun", [mark]
