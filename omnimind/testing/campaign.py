"""Many simulations: the seeds of a range, over several processes, with what they have covered together."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import msgspec

from omnimind.testing.coverage import Coverage
from omnimind.testing.options import FAULTS, FLOORS, WORK, SimOptions, describe, draw_options
from omnimind.testing.plants import planted
from omnimind.testing.shrink import ddmin, shrink_numbers
from omnimind.testing.simulation import Result, run

_CHUNK = 50


class Report(msgspec.Struct):
    """What a range of seeds has shown. `failures`: the results that failed, by seed. seconds: of one core."""

    runs: int
    events: int
    failures: list[Result]
    counts: dict[str, int]
    seconds: float

    def merge(self, other: Report) -> None:
        """Take in another range."""
        coverage = Coverage()
        coverage.merge(self.counts)
        coverage.merge(other.counts)
        self.runs += other.runs
        self.events += other.events
        self.failures += other.failures
        self.counts = coverage.counts
        self.seconds += other.seconds

    def missing(self) -> list[str]:
        """Return what should have happened at least once and did not."""
        coverage = Coverage()
        coverage.merge(self.counts)
        return coverage.missing()

    @property
    def rate(self) -> float:
        """Return clusters a minute on one core."""
        return 60.0 * self.runs / self.seconds if self.seconds else 0.0


def plant(name: str | None) -> AbstractContextManager[None]:
    """Return a context in which a bug is planted; None plants nothing."""
    return nullcontext() if name is None else planted(name)


def run_seeds(seeds: Sequence[int], fixed: Mapping[str, Any], name: str | None = None) -> Report:
    """Simulate some seeds, one after the other, perhaps with a planted bug."""
    begin = time.process_time()
    coverage = Coverage()
    failures: list[Result] = []
    events = 0
    with plant(name):
        for seed in seeds:
            result = run(draw_options(seed, fixed))
            events += result.events
            coverage.merge(result.counts)
            if result.failure is not None:
                failures.append(result)
    return Report(len(seeds), events, failures, coverage.counts, time.process_time() - begin)


def campaign(
    seeds: range, fixed: Mapping[str, Any] | None = None, name: str | None = None, processes: int = 1
) -> Iterator[Report]:
    """Simulate a range of seeds, and return a report for each 50 of them as they are done, in order."""
    fixed = dict(fixed or {})
    chunks = [seeds[i : i + _CHUNK] for i in range(0, len(seeds), _CHUNK)]
    if processes <= 1:
        for chunk in chunks:
            yield run_seeds(chunk, fixed, name)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        futures = [pool.submit(run_seeds, chunk, fixed, name) for chunk in chunks]
        for future in futures:
            yield future.result()


def first_failure(seeds: range, fixed: Mapping[str, Any], name: str | None) -> Result | None:
    """Return the first seed's result that fails, None when all hold."""
    with plant(name):
        for seed in seeds:
            result = run(draw_options(seed, fixed))
            if result.failure is not None:
                return result
    return None


class Shrunk(msgspec.Struct):
    """A failure made small: the options to fix, and the only faults that it needs."""

    result: Result
    fixed: dict[str, Any]
    only: list[str]
    runs: int


def shrink(result: Result, fixed: Mapping[str, Any], name: str | None = None, budget: int = 300) -> Shrunk:
    """Make a failing run small: first the options (fewer nodes, tasks, fault classes), then the faults.

    A smaller run counts when it breaks the same invariant. At most about `budget` runs.
    """
    seed, invariant = result.options.seed, result.invariant
    drawn = msgspec.structs.asdict(draw_options(seed, fixed))
    best = dict(fixed)
    runs = 0

    def attempt(options: Mapping[str, Any], only: Sequence[str] | None = None) -> Result | None:
        nonlocal runs
        runs += 1
        with plant(name):
            smaller = run(draw_options(seed, options), None if only is None else frozenset(only))
        return smaller if smaller.invariant == invariant else None

    for option in (*FAULTS, *WORK):
        if drawn[option] and runs < budget and attempt({**best, option: 0.0}) is not None:
            best[option] = 0.0
    numbers = {option: drawn[option] for option in FLOORS}

    def fails(options: dict[str, float]) -> bool:
        return runs < budget and attempt({**best, **options}) is not None

    smaller = shrink_numbers(numbers, FLOORS, fails)
    best.update({option: value for option, value in smaller.items() if value != drawn[option]})
    whole = attempt(best)
    fired = whole.fired if whole is not None else result.fired
    only = ddmin(fired, lambda part: attempt(best, part) is not None, budget)
    # Where faults are named, classes need not be switched off: a shorter command.
    shorter = {option: value for option, value in best.items() if option not in FAULTS or option in fixed}
    if (last := attempt(shorter, only)) is not None:
        return Shrunk(last, shorter, only, runs)
    return Shrunk(attempt(best, only) or whole or result, best, only, runs)


def replay_command(
    options: SimOptions, fixed: Mapping[str, Any], only: Sequence[str] | None = None, name: str | None = None
) -> str:
    """Return the command that repeats a run."""
    parts = ["python -m omnimind.testing.simulate", f"--seed {options.seed}"]
    parts += [f"--set {option}={value}" for option, value in fixed.items()]
    if only is not None:
        parts.append(f"--only-faults {','.join(only) or 'none'}")
    if name is not None:
        parts.append(f"--plant {name}")
    return " ".join(parts)


def story(result: Result, fixed: Mapping[str, Any], name: str | None = None) -> str:
    """Return what to print about a failure; its first line repeats it."""
    assert result.failure is not None
    lines = [
        replay_command(result.options, fixed, name=name),
        f"  {result.failure[0]}: {result.failure[1]}",
        f"  {describe(result.options)}",
        f"  {result.events} events, {len(result.fired)} faults, {result.seconds:.1f} s, trace {result.hash}",
    ]
    return "\n".join(lines + [f"  {line}" for line in result.trace.splitlines()])
