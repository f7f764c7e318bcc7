"""Whatever happened before, the index chooses what a look at every node would choose."""

from __future__ import annotations

from random import Random

import pytest

from omnimind.cluster.node import NodeInfo
from omnimind.cluster.placement import OPEN, NodeIndex, Seat
from omnimind.cluster.states import NodeStatus

NEEDS = (frozenset[str](), frozenset({"gpu"}), frozenset({"gpu", "ssd"}))


def expected(index: NodeIndex, needs: frozenset[str], slots: int, *, quick: bool) -> Seat | None:
    seats = [s for s in index.seats.values() if s.node.status in OPEN and needs <= s.node.capabilities]
    able = [s for s in seats if s.free(quick=quick) >= slots]
    if not able and slots > 1:
        able = [s for s in seats if s.whole(slots)]
    return min(able, key=lambda s: (s.load, s.no), default=None)


def node(rng: Random, name: str) -> NodeInfo:
    slots = rng.choice([1, 2, 4, 6])
    chosen = rng.choice(NEEDS)
    return NodeInfo(
        name, max_concurrent_tasks=slots, cpu_cores=slots + rng.choice([0, 0, 4]), capabilities=set(chosen)
    )


@pytest.mark.parametrize("seed", range(30))
def test_the_index_chooses_as_a_look_at_every_node_would(seed: int) -> None:
    rng = Random(seed)
    index = NodeIndex("least_loaded", 0)
    held: list[tuple[Seat, int, bool]] = []
    for step in range(600):
        match rng.choice(["join", "take", "take", "take", "give", "give", "status", "drop"]):
            case "join" if len(index.seats) < 12:
                index.refresh(node(rng, f"n{step}"))
            case "give" if held:
                seat, slots, quick = held.pop(rng.randrange(len(held)))
                if index.seats.get(seat.node.node_id) is seat:
                    index.give(seat, slots, quick=quick)
            case "status" if index.seats:
                seat = rng.choice(list(index.seats.values()))
                seat.node.status = rng.choice([NodeStatus.ACTIVE, NodeStatus.CORDONED])
                index.refresh(seat.node)
            case "drop" if index.seats and rng.random() < 0.3:
                index.drop(rng.choice(list(index.seats)))
            case _:
                needs, slots, quick = rng.choice(NEEDS), rng.randint(1, 8), rng.random() < 0.5
                picked = index.pick(needs, slots, "any", quick=quick)
                wanted = expected(index, needs, slots, quick=quick)
                assert picked is wanted, f"step {step}: {needs} x {slots}"
                if picked is not None:
                    index.take(picked, slots, quick=quick)
                    held.append((picked, slots, quick))


def test_what_is_out_of_date_does_not_pile_up() -> None:
    index = NodeIndex("least_loaded", 0)
    for name in ("a", "b"):
        index.refresh(NodeInfo(name, max_concurrent_tasks=4, cpu_cores=8))
    busy = index.seats["b"]
    index.pick(NEEDS[0], 2, "any", quick=True)
    for _ in range(10_000):
        # Never the least loaded, so that its entries never come to the front.
        index.take(busy, 2, quick=True)
        index.give(busy, 1, quick=True)
        index.give(busy, 1, quick=True)
        index.take(busy, 1, quick=True)
        index.give(busy, 1, quick=True)
    (group,) = index._groups.values()
    kept = [
        group.heap,
        *group.idle.values(),
        *(h for by_free in group.wide.values() for h in by_free.values()),
    ]
    assert max(len(heap) for heap in kept) < 200
