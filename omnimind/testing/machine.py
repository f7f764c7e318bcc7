"""`SimMachine`: a node's slots in a simulation of several shards, with the real `SlotShare` and a witness."""

from __future__ import annotations

from typing import TYPE_CHECKING

from omnimind.cluster.sends import Batch
from omnimind.cluster.sharing import SlotShare
from omnimind.testing.invariants import Broken

if TYPE_CHECKING:
    from omnimind.testing.node import SimNode


class SimMachine:
    """One machine, with a `SimNode` for each shard. It counts by itself what runs, and who waits."""

    def __init__(self, name: str, slots: int, shards: int, kind: type[SlotShare] = SlotShare) -> None:
        self.name, self.slots = name, slots
        self.share = kind(slots, shards)
        self.sides: list[SimNode] = []
        self.starts = [0] * shards
        self.lent = 0
        """Starts of shards that used more than their part then."""
        self._running: dict[int, tuple[int, int]] = {}
        self._waiting: dict[int, tuple[int, int]] = {}

    def _busy(self, shard: int) -> int:
        return sum(slots for who, slots in self._running.values() if who == shard)

    def offer(self, side: SimNode, batch: Batch) -> None:
        """Take in a batch of a shard."""
        shard = self.sides.index(side)
        self._waiting[batch.fence] = (shard, min(batch.options.slots, self.slots))
        self._begin(self.share.offer(shard, batch.fence, batch.options.slots))

    def leave(self, fence: int) -> None:
        """Let a batch go."""
        self._running.pop(fence, None)
        self._waiting.pop(fence, None)
        self._begin(self.share.leave(fence))

    def may_use(self, side: SimNode) -> int:
        """Return what a shard may count on."""
        return self.share.may_use(self.sides.index(side))

    def _begin(self, fences: list[int]) -> None:
        for fence in fences:
            shard, slots = self._waiting.pop(fence)
            for other in {who for who, _ in self._waiting.values() if who != shard}:
                if self._busy(other) < self._busy(shard):
                    story = f"{self.name}: shard {shard} is served before shard {other}, which uses less"
                    raise Broken("starved", story)
            self._running[fence] = (shard, slots)
            self.starts[shard] += 1
            self.lent += self._busy(shard) > self.share.floor
        taken = sum(slots for _, slots in self._running.values())
        if taken > self.slots:
            raise Broken("overcommit", f"{self.name}: {taken} slots are taken, it has {self.slots}")
        if self._waiting:
            heads: dict[int, int] = {}
            for shard, slots in self._waiting.values():
                heads.setdefault(shard, slots)
            if taken + max(heads.values()) <= self.slots:
                raise Broken(
                    "idle", f"{self.name}: {self.slots - taken} slots are free beside work that waits"
                )
        for fence in fences:
            self.sides[self._running[fence][0]].begin(fence)
        for side in self.sides:
            if side.agent is not None:
                side.obey(side.agent.may_use(self.may_use(side), side.now))
