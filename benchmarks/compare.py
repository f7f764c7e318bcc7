"""OmniMind beside its peers: every peer in turn, several rounds of it, medians of the rounds.

A round starts each peer afresh in a process of its own, runs all workloads, and ends it before the next:
nobody shares the cores with a peer that idles. The order changes from round to round, so that a noisy minute
does not always hit the same one.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from statistics import median

from benchmarks.child import MeasurementFailedError, Message, run
from benchmarks.figures import Figure, percentile
from benchmarks.peers import SLOTS, Entry
from benchmarks.settings import Settings, Step, Suite, SuiteFailedError
from benchmarks.workloads import WORKLOADS

OURS = "omnimind"
MUST_RATIO: Mapping[str, str] = {
    "raw_ray": ">= 8",
    "dask": ">= 25",
    "celery_everysec": ">= 20",
    "celery_always": ">= 35",
    "procrastinate": ">= 20",
}
MUST_LATENCY: Mapping[str, str] = {"p50": "<= 2.5", "p99": "<= 3"}
MUST_HANDLERS = ">= 0.8"
_SHARES: Mapping[str, float] = {"p50": 0.50, "p99": 0.99}

Rounds = Mapping[str, Sequence[Message]]
"""Of each peer, the answers of `benchmarks.session`, one a round."""


def _sessions(settings: Settings) -> Iterator[tuple[int, Entry]]:
    order = random.Random(settings.seed)
    for number in range(settings.repetitions):
        entries = list(settings.peers)
        order.shuffle(entries)
        for entry in entries:
            yield number, entry


def _run(settings: Settings, step: Step) -> list[Figure]:
    rounds: dict[str, list[Message]] = {entry.name: [] for entry in settings.peers}
    failures: list[str] = []
    for place, (number, entry) in enumerate(_sessions(settings)):
        step(f"{entry.title}, round {number + 1} of {settings.repetitions}")
        request = {
            "peer": entry.name,
            "workloads": [workload.name for workload in WORKLOADS],
            "seconds": settings.seconds,
            "calls": settings.calls,
            "seed": settings.seed + number,
        }
        try:
            answer = run("benchmarks.session", request, folder=settings.folder / str(place), watch=_ignore)
        except MeasurementFailedError as error:
            failures.append(str(error))
        else:
            rounds[entry.name].append(answer)
    figures = evaluate({name: answers for name, answers in rounds.items() if answers})
    if failures:
        raise SuiteFailedError("\n\n".join(failures), tuple(figures))
    return figures


def _ignore(message: Message) -> None:
    del message


def evaluate(rounds: Rounds) -> list[Figure]:
    """Turn the answers of all rounds into figures: medians, and OmniMind's ratios to each peer."""
    figures: list[Figure] = []
    for workload in WORKLOADS:
        figures += _compared(
            rounds,
            kind=("throughput", "ratio", workload.name),
            unit="tasks/s",
            read=partial(_rate, workload.name),
            must=MUST_RATIO if workload.name == "noop" else {},
            extra=partial(_tasks, workload.name),
        )
    for label, share in _SHARES.items():
        figures += _compared(
            rounds,
            kind=("latency", "latency_ratio", label),
            unit="ms",
            read=partial(_milliseconds, share),
            must={"raw_ray": MUST_LATENCY[label]},
            extra=_calls,
        )
    for name, answers in rounds.items():
        figures += _handlers(name, answers)
    return figures


def _rate(workload: str, answer: Message) -> float:
    part = answer["throughput"][workload]
    return float(part["count"] / part["seconds"])


def _tasks(workload: str, answer: Message) -> str:
    return f"{answer['throughput'][workload]['count']:,} tasks a round"


def _milliseconds(share: float, answer: Message) -> float:
    return 1e3 * percentile(answer["latency"], share)


def _calls(answer: Message) -> str:
    return f"{len(answer['latency']):,} calls a round, one after the other"


def _compared(
    rounds: Rounds,
    *,
    kind: tuple[str, str, str],
    unit: str,
    read: Callable[[Message], float],
    must: Mapping[str, str],
    extra: Callable[[Message], str],
) -> list[Figure]:
    """One figure for each peer, and one ratio (ours divided by theirs) for each of the others."""
    absolute, relative, label = kind
    middle: dict[str, float] = {}
    figures: list[Figure] = []
    for name, answers in rounds.items():
        values = sorted(read(answer) for answer in answers)
        middle[name] = median(values)
        note = f"median of {len(values)} rounds ({values[0]:,.4g} to {values[-1]:,.4g}); {extra(answers[-1])}"
        figures.append(
            Figure(name=f"peers.{absolute}.{label}.{name}", value=middle[name], unit=unit, note=note)
        )
    ours = middle.pop(OURS, None)
    if ours is not None:
        figures += [
            Figure(
                name=f"peers.{relative}.{label}.{name}",
                value=ours / theirs,
                unit="x",
                must=must.get(name),
                note="OmniMind's median divided by the peer's",
            )
            for name, theirs in middle.items()
        ]
    return figures


def _handlers(name: str, answers: Sequence[Message]) -> list[Figure]:
    """How much of the cores' time went into handlers, by CPU time and by wall time."""
    parts = [answer["throughput"]["burn_1ms"] for answer in answers]
    if any(part["cpu"] is None for part in parts):
        return []

    def middle(kind: str) -> float:
        return float(median(part[kind] / (SLOTS * part["seconds"]) for part in parts))

    return [
        Figure(
            name=f"peers.handlers_cpu.{name}",
            value=middle("cpu"),
            unit="share",
            must=MUST_HANDLERS if name == OURS else None,
            note=f"1 ms busy tasks: CPU seconds used inside handlers, by the CPU clock of their thread, "
            f"divided by {SLOTS} cores times the wall time from the first submission to the last result; "
            "stricter than wall time in handlers, which also counts when another process had the core",
        ),
        Figure(
            name=f"peers.handlers_wall.{name}",
            value=middle("wall"),
            unit="share",
            note=f"the same with the wall time inside handlers, preemption included, of {SLOTS} slots",
        ),
    ]


SUITE = Suite(
    name="peers",
    title="OmniMind and its peers",
    steps=lambda settings: settings.repetitions * len(settings.peers),
    run=_run,
)
