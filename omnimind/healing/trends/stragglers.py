"""Stragglers: attempts that take far longer than others of their type, and nodes that are slow at all."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import median

import msgspec


class Running(msgspec.Struct, frozen=True):
    """An attempt that runs. seconds: so far."""

    task_id: str
    task_type: str
    node: str
    seconds: float


def stragglers(
    running: Sequence[Running], usual: Mapping[str, float], *, factor: float = 3.0, least: float = 10.0
) -> list[Running]:
    """Return the attempts that have run `factor` times the usual p95 of their type, and `least` seconds.

    A type whose usual time is not known has no stragglers.
    """
    return [
        one
        for one in running
        if one.task_type in usual
        and math.isfinite(one.seconds)
        and one.seconds >= max(least, factor * usual[one.task_type])
    ]


def slow_nodes(
    seconds: Mapping[str, Mapping[str, float]], *, factor: float = 2.0, nodes: int = 3
) -> dict[str, float]:
    """Return the nodes that are slow at what others do quickly, each with how many times slower it is.

    seconds: p95 by node and task type. A node is compared with the median of the others, type by type, and
    counts as slow when half of the types that it shares with at least `nodes` - 1 others say so.
    """
    found: dict[str, float] = {}
    for node, mine in seconds.items():
        ratios = []
        for task_type, own in mine.items():
            others = [
                theirs[task_type] for name, theirs in seconds.items() if name != node and task_type in theirs
            ]
            if len(others) >= nodes - 1 and median(others) > 0:
                ratios.append(own / median(others))
        if ratios and median(ratios) >= factor:
            found[node] = median(ratios)
    return found
