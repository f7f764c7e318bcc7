"""A history of transactions that shows, by what a ledger holds, whether one was lost or half written.

Step n is one transaction: it inserts three tasks (with a small, a middling and a large payload) and ends
those of step n-1, with an attempt and a log line for the first of them.
"""

from __future__ import annotations

from omnimind.cluster.records import LogSaved, Records, TaskRow
from omnimind.ledger.interface import Ledger
from omnimind.ledger.rows import PAYLOAD, RESULT, SEQ, STATUS
from omnimind.testing.rows import a_task, ended, id_of, inserts, updates

_PAYLOADS = (b"[]", b"m" * 900, b"l" * 9000)


def tasks_of(step: int) -> list[int]:
    """Return the numbers of a step's tasks."""
    return [3 * step + n for n in range(1, 4)]


def transaction(step: int) -> Records:
    """Return what a step writes."""
    numbers = tasks_of(step)
    records = inserts(*(a_task(n, payload=data) for n, data in zip(numbers, _PAYLOADS, strict=True)))
    if step:
        before = tasks_of(step - 1)
        records.extend(updates(*(ended(a_task(n), result=b"%d" % n) for n in before)))
        records.attempts.append((id_of(before[0]), 0, 1, "n1", "error", "E", None, 1.0, None))
        records.others.append(LogSaved(id_of(before[0]), 1, ((1.0, "info", str(step)),)))
    return records


def faults(ledger: Ledger, acknowledged: list[int]) -> tuple[int, list[str]]:
    """Return how many steps the ledger holds, and what is wrong with them, in sentences."""
    wrong = ledger.check()
    most = max(acknowledged, default=-1) + 3
    steps: dict[int, list[TaskRow]] = {}
    for row in sorted(ledger.tasks([id_of(n) for step in range(most) for n in tasks_of(step)])):
        steps.setdefault((row[SEQ] - 1) // 3, []).append(row)
    wrong += [f"step {step} was acknowledged and is lost" for step in acknowledged if step not in steps]
    if list(steps) != list(range(len(steps))):
        wrong.append(f"steps {list(steps)} are no beginning of the history")
    for step, rows in steps.items():
        if not _is_whole(ledger, rows, last=step == len(steps) - 1):
            wrong.append(f"step {step} is half written: {[(row[SEQ], row[STATUS]) for row in rows]}")
    return len(steps), wrong


def _is_whole(ledger: Ledger, rows: list[TaskRow], *, last: bool) -> bool:
    marks = [(len(ledger.attempts(row[1])), len(ledger.logs(row[1], 0, 10))) for row in rows]
    return (
        [row[PAYLOAD] for row in rows] == [*_PAYLOADS]
        and {row[STATUS] for row in rows} == {"pending" if last else "completed"}
        and [row[RESULT] for row in rows] == [None if last else b"%d" % row[SEQ] for row in rows]
        and marks == [(0, 0) if last else (1, 1), (0, 0), (0, 0)]
    )
