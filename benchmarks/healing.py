"""The healer's core alone: observations a second, and that memory stays where it is.

No Ray, no ledger, one thread; everything goes through the one door, `HealingCore.handle`. Times are CPU
times of this thread, as in `core.py`. 1,000 nodes with ten conditions each are looked at in turn. Three
kinds of weather:

calm       nothing is wrong, which is what a fleet sends nearly all the time
mixed      one condition in a hundred is bad at a time, gets an issue, a repair and a verification
flood      every condition turns bad and good again and again: each observation changes something
"""

from __future__ import annotations

import random
import time
import tracemalloc
from statistics import median

from benchmarks.child import Emit, MeasurementFailedError, Message, run
from benchmarks.figures import Figure
from benchmarks.settings import Settings, Step, Suite, SuiteFailedError
from omnimind.healing import events as ev
from omnimind.healing.actions import Risk, Rung
from omnimind.healing.core import HealingCore
from omnimind.healing.issues import IssueSeverity, IssueType
from omnimind.healing.records import Act, AskWork, Effects

NODES, ENTITIES = 1_000, 10
ASKED = 10_000
_OBSERVATIONS = 100_000
_REPETITIONS = 3
_START = 1_800_000_000.0
WEATHER = ("calm", "mixed", "flood")


def measure(request: Message, emit: Emit) -> Message:
    """Return observations a second of CPU by weather, and MiB of growth in the second half of a flood."""
    rates: dict[str, list[float]] = {weather: [] for weather in WEATHER}
    for number in range(_REPETITIONS):
        for weather in WEATHER:
            emit({"step": f"{weather}, repetition {number + 1} of {_REPETITIONS}"})
            rng = random.Random(f"{request['seed']}:{number}:{weather}")
            rates[weather].append(_rate(weather, _OBSERVATIONS, rng))
    emit({"step": "memory in a flood"})
    return {"rates": rates, "growth": _growth(random.Random(request["seed"]))}


class _Fleet:
    """A core, and a world in which repairs end at once."""

    def __init__(self) -> None:
        self.core = HealingCore()
        self.now = _START
        self.core.handle(ev.Recovered(1), self.now)
        for kind in IssueType:
            for name, risk in (("clear", Risk.SAFE), ("restart", Risk.DISRUPTIVE)):
                self.core.handle(
                    ev.RungKnown(Rung(name=f"{name}_{kind}", issue_type=kind, risk=risk)), self.now
                )
        for node in range(NODES):
            self.core.handle(ev.NodeState(f"n{node}", "up"), self.now)
        self.kinds = list(IssueType)
        self.acts = 0

    def observation(self, number: int, bad: bool) -> ev.Observation:
        place = number % (NODES * ENTITIES)
        return ev.Observation(
            monitor="probe",
            issue_type=self.kinds[place % len(self.kinds)],
            node=f"n{place // ENTITIES}",
            entity=f"e{place % ENTITIES}",
            bad=bad,
            severity=IssueSeverity.WARNING,
            description="it is bad" if bad else "",
            at=self.now,
        )

    def take(self, event: ev.Event) -> None:
        effects: Effects = self.core.handle(event, self.now)
        for send in effects.sends:
            match send:
                case Act(action):
                    self.acts += 1
                    self.core.handle(ev.ActionEnded(action.action_id, action.fence, True), self.now)
                case AskWork(node):
                    self.core.handle(ev.Work(node), self.now)
                case _:
                    pass


def _bad(weather: str, number: int, rng: random.Random) -> bool:
    if weather == "calm":
        return False
    if weather == "mixed":
        return rng.random() < 0.01
    return (number // (NODES * ENTITIES)) % 2 == 0


def _rate(weather: str, count: int, rng: random.Random) -> float:
    """Return observations a second of CPU; they come at the asked rate in the fleet's own time."""
    fleet = _Fleet()
    events = [fleet.observation(number, _bad(weather, number, rng)) for number in range(count)]
    begin = time.thread_time()
    for event in events:
        fleet.now += 1.0 / ASKED
        fleet.take(event)
    seconds = time.thread_time() - begin
    fleet.core.validate()
    if weather == "flood":
        assert len(fleet.core.conditions) == NODES * ENTITIES, f"{len(fleet.core.conditions)} conditions"
    return count / seconds


def _growth(rng: random.Random) -> float:
    """Return MiB that the core grows by between the fourth and the eighth minute of a flood."""
    fleet = _Fleet()
    number, sizes = 0, []
    tracemalloc.start()
    try:
        for _ in range(2):
            for _ in range(12 * NODES):
                fleet.now += 240.0 / (12 * NODES)
                number += 1
                fleet.take(fleet.observation(rng.randrange(NODES), number % 3 != 0))
            sizes.append(tracemalloc.get_traced_memory()[0] / (1 << 20))
    finally:
        tracemalloc.stop()
    return sizes[1] - sizes[0]


def evaluate(answer: Message) -> list[Figure]:
    rates = {weather: float(median(values)) for weather, values in answer["rates"].items()}
    fleet = (
        f"{NODES:,} nodes with {ENTITIES} conditions each, core alone, by CPU time; median of {_REPETITIONS}"
    )
    return [
        *(
            Figure(name=f"healing.observations.{weather}", value=rate, unit="1/s", note=fleet)
            for weather, rate in rates.items()
        ),
        Figure(
            name="healing.core",
            value=ASKED / min(rates.values()),
            unit="share",
            must="<= 1",
            note=f"of one core, for {ASKED:,} observations a second in the worst weather",
        ),
        Figure(
            name="healing.memory",
            value=float(answer["growth"]),
            unit="MiB",
            must="<= 4",
            note="growth of the core between the fourth and the eighth minute of changing conditions",
        ),
    ]


def _run(settings: Settings, step: Step) -> list[Figure]:
    try:
        answer = run(
            "benchmarks.healing",
            {"seed": settings.seed},
            folder=settings.folder / "healing",
            watch=lambda message: step(message["step"]),
        )
    except MeasurementFailedError as error:
        raise SuiteFailedError(str(error)) from error
    return evaluate(answer)


def _steps(settings: Settings) -> int:
    del settings
    return _REPETITIONS * len(WEATHER) + 1


SUITE = Suite(name="healing", title="The healer's core alone", steps=_steps, run=_run)
