"""The four workloads: which function, which payloads, which answer is right."""

from __future__ import annotations

import random
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks import work

Check = Callable[[Any, Any], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """One kind of task.

    `function` is the name in `benchmarks.work`, and of the handler of the same name that each peer registers.
    `hand_batch` is how many such tasks a person would put into one Ray task by hand (about 50 ms of them).
    `make` gives the payload of the task with this number; `right` says whether a result answers a payload.
    """

    name: str
    title: str
    function: str
    hand_batch: int
    make: Callable[[int, random.Random], Any]
    right: Check

    def payloads(self, count: int, seed: int) -> list[Any]:
        rng = random.Random(f"{self.name}:{seed}")
        return [self.make(index, rng) for index in range(count)]

    def check(self, payloads: Sequence[Any], results: Sequence[Any]) -> None:
        """Raise AssertionError unless each payload has its own right result, in order."""
        if len(results) != len(payloads):
            raise AssertionError(f"{self.name}: {len(payloads)} tasks, {len(results)} results")
        for index, (payload, result) in enumerate(zip(payloads, results, strict=True)):
            if not self.right(payload, result):
                raise AssertionError(f"{self.name}: task {index} answered {result!r:.100}")


def _number(index: int, rng: random.Random) -> int:
    del rng
    return index


_LETTERS = string.ascii_letters + string.digits


def _text(index: int, rng: random.Random) -> str:
    """4 KiB that differ from task to task, and that no compression makes small."""
    del index
    return "".join(rng.choices(_LETTERS, k=work.PAYLOAD_BYTES))


WORKLOADS: tuple[Workload, ...] = (
    Workload(
        name="noop",
        title="no-op",
        function="noop",
        hand_batch=256,
        make=_number,
        right=lambda payload, result: bool(payload == result),
    ),
    Workload(
        name="burn_1ms",
        title="1 ms busy",
        function="burn",
        hand_batch=50,
        make=_number,
        right=lambda payload, result: bool(payload == result[0] and result[1] >= work.BURN_SECONDS),
    ),
    Workload(
        name="sleep_100ms",
        title="100 ms asleep",
        function="nap",
        hand_batch=1,
        make=_number,
        right=lambda payload, result: bool(payload == result),
    ),
    Workload(
        name="payload_4k",
        title="4 KiB payload",
        function="take",
        hand_batch=256,
        make=_text,
        right=lambda payload, result: bool(len(payload) == result),
    ),
)


def by_name(name: str) -> Workload:
    return next(workload for workload in WORKLOADS if workload.name == name)
