"""What the checks share: the verdict, and where they look."""

from __future__ import annotations

from typing import TYPE_CHECKING

from omnimind.ledger.rows import QUEUE, STATUS

if TYPE_CHECKING:
    from omnimind.testing.cluster import SimCluster
    from omnimind.testing.ghost import TaskGhost

ROUNDING = 1e-6
"""Seconds by which times may differ that are the same."""


class Broken(AssertionError):
    """An invariant does not hold."""

    def __init__(self, invariant: str, story: str) -> None:
        super().__init__(f"{invariant}: {story}")
        self.invariant = invariant
        self.story = story


def must(holds: object, invariant: str, story: str) -> None:
    """Raise Broken unless something holds. For cold paths: the story is built in any case."""
    if not holds:
        raise Broken(invariant, story)


class Judge:
    """Looks at the ghost and at the disk, never into the core."""

    def __init__(self, sim: SimCluster) -> None:
        self.sim = sim
        self.ghost = sim.ghost
        self.disk = sim.disk
        self.coverage = sim.coverage

    def live(self, queue: str) -> int:
        """Return how many tasks of a queue the ledger holds that have not ended."""
        return sum(1 for row in self.disk.alive() if row[QUEUE] == queue)

    def dependencies(self, ghost: TaskGhost) -> list[str]:
        sub = ghost.sub
        if sub is None:
            return []
        if not sub.chain or not ghost.index:
            return sub.depends
        before, key = sub.ids[ghost.index - 1], sub.keys[ghost.index - 1]
        if self.disk.row(before) is None and key is not None and key in self.ghost.keys:
            before = self.ghost.keys[key][0]
        return [*sub.depends, before]

    def completed(self, task_id: str) -> bool:
        row = self.disk.row(task_id)
        return row is not None and row[STATUS] == "completed"
