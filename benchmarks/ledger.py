"""The two durable ledgers beside each other, on the same disk: a whole instance, and the ledger alone.

PostgreSQL is as its package configures it, on the same two cores. The ledgers take turns, each round afresh.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import omnimind
from benchmarks import handlers
from benchmarks.child import Emit, MeasurementFailedError, Message, run
from benchmarks.figures import Figure, percentile
from benchmarks.peers import SLOTS
from benchmarks.settings import Settings, Step, Suite, SuiteFailedError
from omnimind.cluster.records import Records
from omnimind.ledger.interface import Ledger
from omnimind.ledger.opening import open_ledger
from omnimind.testing.postgres import PostgresServer
from omnimind.testing.rows import a_task, ended, inserts, updates

LEDGERS: Mapping[str, str] = {"sqlite": "SQLite", "postgres": "PostgreSQL"}
MUST_RATIO = ">= 0.7"
_ALONE = 20_000
_COMMIT = 250
"""Tasks of one commit, about as many as a busy coordinator gathers."""
_WARM_UP = 5_000
_MOST_TASKS = 200_000
_CALLS = 300


@contextmanager
def _url(name: str, folder: Path) -> Iterator[str]:
    """Give the url of an empty ledger; for PostgreSQL, with a server of its own."""
    if name == "sqlite":
        yield ""
        return
    folder.chmod(0o711)
    with PostgresServer(folder / "server").running() as server:
        yield server.create("ledger")


def measure(request: Message, emit: Emit) -> Message:
    """Return {"instance": tasks a second, "latency": [seconds, …], "insert" and "end": seconds a task}."""
    folder = Path(request["folder"])
    with _url(request["ledger"], folder) as url:
        emit({"step": "alone"})
        answer = alone(open_ledger(url, folder, shard=1))
        emit({"step": "instance"})
        with omnimind.local(num_cpus=SLOTS, settings={"ledger.url": url}) as om:
            answer |= _instance(om, request["seconds"])
    return answer


def alone(ledger: Ledger) -> Message:
    """Write tasks, then their ends, in commits of `_COMMIT`; return seconds a task."""
    tasks = [a_task(n, payload=b'{"value": %d}' % n) for n in range(1, _ALONE + 1)]
    slabs = [tasks[start : start + _COMMIT] for start in range(0, _ALONE, _COMMIT)]
    new = [inserts(*slab) for slab in slabs]
    over = [updates(*(ended(task, result=b"1") for task in slab)) for slab in slabs]
    ledger.open(1)
    try:
        return {"insert": _write(ledger, new), "end": _write(ledger, over)}
    finally:
        ledger.close()


def _write(ledger: Ledger, transactions: Sequence[Records]) -> float:
    begin = time.perf_counter()
    for records in transactions:
        ledger.write(records)
    return (time.perf_counter() - begin) / _ALONE


def _instance(om: Any, seconds: float) -> Message:
    spent = _map(om, _WARM_UP)
    count = min(_MOST_TASKS, max(_WARM_UP, round(_WARM_UP * seconds / spent)))
    spent = _map(om, count)
    count = min(_MOST_TASKS, max(_WARM_UP, round(count * seconds / spent)))
    rate = count / _map(om, count)
    spans = []
    for index in range(_CALLS):
        begin = time.perf_counter()
        om.submit(handlers.noop, value=index).result(timeout=60)
        spans.append(time.perf_counter() - begin)
    return {"instance": rate, "latency": spans}


def _map(om: Any, count: int) -> float:
    begin = time.perf_counter()
    done = sum(1 for _ in om.map(handlers.noop, [{"value": i} for i in range(count)]))
    spent = time.perf_counter() - begin
    if done != count:
        raise RuntimeError(f"{done} of {count} tasks came back")
    return spent


def evaluate(rounds: Mapping[str, Sequence[Message]]) -> list[Figure]:
    """Return the figures of all rounds: medians, and the ratios of these."""

    def middle(name: str, pick: Callable[[Message], float]) -> float:
        return median(pick(answer) for answer in rounds[name])

    whole = {name: middle(name, lambda a: a["instance"]) for name in LEDGERS}
    disk = {name: middle(name, lambda a: 1 / (a["insert"] + a["end"])) for name in LEDGERS}
    found = []
    for name, title in LEDGERS.items():
        note = f"map of no-ops, one node with {SLOTS} slots, ledger in {title}"
        found += [
            Figure(name=f"ledger.{name}.instance", value=whole[name], unit="tasks/s", note=note),
            Figure(
                name=f"ledger.{name}.alone",
                value=disk[name],
                unit="tasks/s",
                note=f"written and ended in commits of {_COMMIT}, nothing else running",
            ),
            Figure(
                name=f"ledger.{name}.p50",
                value=1000 * middle(name, lambda a: percentile(a["latency"], 0.5)),
                unit="ms",
                note="one no-op task alone, from submission to result",
            ),
        ]
    return [
        *found,
        Figure(
            name="ledger.postgres.ratio",
            value=whole["postgres"] / whole["sqlite"],
            unit="times",
            must=MUST_RATIO,
            note="durable throughput of a whole instance on PostgreSQL divided by that on SQLite, same disk",
        ),
        Figure(
            name="ledger.postgres.alone_ratio",
            value=disk["postgres"] / disk["sqlite"],
            unit="times",
            note="the same of the ledgers alone",
        ),
    ]


def _run(settings: Settings, step: Step) -> list[Figure]:
    rounds: dict[str, list[Message]] = {name: [] for name in LEDGERS}
    for number in range(settings.repetitions):
        # Who begins changes, so that a noisy minute does not always hit the same one.
        names = [*LEDGERS]
        for name in names if number % 2 else names[::-1]:
            step(f"{LEDGERS[name]}, round {number + 1} of {settings.repetitions}")
            folder = settings.folder / f"ledger-{name}-{number}"
            request = {"ledger": name, "seconds": settings.seconds, "folder": str(folder)}
            try:
                answer = run("benchmarks.ledger", request, folder=folder, watch=_ignore)
            except MeasurementFailedError as error:
                raise SuiteFailedError(str(error)) from error
            rounds[name].append(answer)
    return evaluate(rounds)


def _ignore(message: Message) -> None:
    del message


SUITE = Suite(name="ledger", title="The two ledgers", steps=lambda s: len(LEDGERS) * s.repetitions, run=_run)
