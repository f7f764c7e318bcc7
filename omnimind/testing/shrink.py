"""Make a failing run small: the options first, then the faults, by delta debugging (Zeller's ddmin)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


def ddmin(items: Sequence[T], fails: Callable[[list[T]], bool], budget: int = 200) -> list[T]:
    """Return a small part of `items` for which `fails` still holds.

    `fails` is asked at most `budget` times; the answer is 1-minimal when the budget suffices. The whole
    must fail (it is not asked again).
    """
    current = list(items)
    if not current:
        return current
    asked = 1
    if fails([]):
        return []
    parts = 2
    while len(current) > 1 and asked < budget:
        size = -(-len(current) // parts)
        chunks = [current[i : i + size] for i in range(0, len(current), size)]
        smaller: list[T] | None = None
        candidates = chunks if len(chunks) > 2 else []  # noqa: PLR2004 (of two, each is the other's rest)
        rests = [[x for j, c in enumerate(chunks) if j != i for x in c] for i in range(len(chunks))]
        for candidate in [*candidates, *rests]:
            if asked >= budget:
                break
            asked += 1
            if fails(candidate):
                smaller = candidate
                parts = 2 if len(candidate) <= size else max(parts - 1, 2)
                break
        if smaller is not None:
            current = smaller
        elif parts >= len(current):
            break
        else:
            parts = min(parts * 2, len(current))
    return current


def shrink_numbers(
    options: dict[str, float], floors: dict[str, float], fails: Callable[[dict[str, float]], bool]
) -> dict[str, float]:
    """Return the options made small one by one, as long as the run still fails.

    floors: the options that may shrink, and the least value of each. Whole numbers stay whole.
    """
    best = dict(options)
    for name, floor in floors.items():
        while best[name] > floor:
            value = best[name]
            for candidate in _smaller(value, floor):
                if fails({**best, name: candidate}):
                    best[name] = candidate
                    break
            else:
                break
    return best


def _smaller(value: float, floor: float) -> list[float]:
    """Return values to try between the floor and a value: the floor, the middle, one less."""
    if isinstance(value, int):
        tries: list[float] = [floor, (value + int(floor)) // 2, value - 1]
    else:
        tries = [floor, (value + floor) / 2] if value - floor > 1e-3 else [floor]  # noqa: PLR2004
    return [v for v in dict.fromkeys(tries) if floor <= v < value]
