"""Several shards on shared machines: every promise holds for each of them, and no slot is used twice."""

from __future__ import annotations

import pytest

from omnimind.cluster.core import CoordinatorCore
from omnimind.cluster.sharing import SlotShare
from omnimind.ids import fence
from omnimind.testing.sharded import ShardedSim

SEEDS = range(60)


def test_all_promises_hold_for_every_shard() -> None:
    results = [ShardedSim(seed, 2 + seed % 2).run() for seed in SEEDS]
    assert [(r.seed, r.failure) for r in results if r.failure] == []
    assert sum(r.lent for r in results) > 50, "no slot was ever lent"
    assert sum(r.crashes for r in results) > 50, "hardly a coordinator died"
    assert all(sum(r.starts[s] for r in results if s < len(r.starts)) > 50 for s in range(3))


def test_a_seed_is_a_story() -> None:
    first, again, other = (ShardedSim(seed).run() for seed in (11, 11, 12))
    assert first == again
    assert first.hashes != other.hashes


# ---------------------------------------------------------------------------------------- planted bugs


class Overcommits(SlotShare):
    """Takes a wide batch for a narrow one."""

    def offer(self, shard: int, fence: int, slots: int) -> list[int]:
        return super().offer(shard, fence, min(slots, 1))


class Blind(SlotShare):
    """Knows nothing of the other shards: each has all slots."""

    @property
    def taken(self) -> int:
        return 0


class Starves(SlotShare):
    """Always serves the first shard first."""

    def _next(self, wanting: list[int]) -> int:
        return wanting[0]


class Idles(SlotShare):
    """Keeps slots back that nobody uses."""

    @property
    def taken(self) -> int:
        return super().taken + 1 if self.busy[0] else super().taken


PLANTS = [(Overcommits, "overcommit"), (Blind, "overcommit"), (Starves, "starved"), (Idles, "idle")]


@pytest.mark.parametrize(("kind", "invariant"), PLANTS)
def test_planted_bugs_are_caught(kind: type[SlotShare], invariant: str) -> None:
    for seed in range(200):
        failure = ShardedSim(seed, 2, kind).run().failure
        if failure is not None:
            assert failure[0] == invariant, failure
            return
    pytest.fail(f"{kind.__name__} was not caught")


def test_fences_that_meet_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the shard in them, the node would take the batches of two shards for one."""

    def next_fence(core: CoordinatorCore, tasks: int) -> int:
        base = fence(core.epoch, core.counter)
        core.counter += tasks
        return base

    monkeypatch.setattr(CoordinatorCore, "next_fence", next_fence)
    assert any(ShardedSim(seed).run().failure is not None for seed in range(100))
