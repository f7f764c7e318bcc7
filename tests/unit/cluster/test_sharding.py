"""Which shard keeps what: the same everywhere, few moves, ids that lead to their queue's shard."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omnimind.cluster.core import CoordinatorCore
from omnimind.cluster.events import Heartbeat, KnownTask, NodeJoined, Recovered, Settled, Submit
from omnimind.cluster.node import NodeInfo
from omnimind.cluster.sharding import (
    bucket_of,
    home_of_key,
    moves,
    shard_of_bucket,
    shard_of_queue,
    shards_of_id,
)
from omnimind.cluster.states import Line, TaskStatus
from omnimind.cluster.task import DistributedTask
from omnimind.ids import (
    BUCKETS,
    SHARDS_MAX,
    bucket_in,
    derived_task_id,
    epoch_of,
    fence,
    new_slab,
    shard_of_fence,
    submitted_at,
    task_id,
)


def test_the_hash_is_the_same_in_every_version() -> None:
    """Tasks are kept where these numbers say: they may never change."""
    names = ("default", "emails", "images", "reports", "bills", "Überstunden")
    assert [bucket_of(name) for name in names] == [930, 3819, 3543, 1328, 1696, 3587]
    assert [shard_of_queue(name, 2) for name in names] == [0, 1, 0, 1, 0, 1]
    assert [shard_of_queue(name, 5) for name in names] == [0, 3, 0, 1, 3, 2]
    assert [home_of_key(f"k{n}", 3) for n in range(8)] == [2, 1, 2, 0, 1, 2, 1, 2]


@pytest.mark.parametrize("shards", range(1, SHARDS_MAX))
def test_with_one_shard_more_only_its_part_moves_and_only_there(shards: int) -> None:
    moved = [bucket for bucket in range(BUCKETS) if moves(bucket, shards, shards + 1)]
    assert {shard_of_bucket(bucket, shards + 1) for bucket in moved} == {shards}
    assert len(moved) == pytest.approx(BUCKETS / (shards + 1), rel=0.25)


@pytest.mark.parametrize("shards", range(2, SHARDS_MAX + 1))
def test_every_shard_has_its_part(shards: int) -> None:
    counts = Counter(shard_of_bucket(bucket, shards) for bucket in range(BUCKETS))
    assert sorted(counts) == list(range(shards))
    assert min(counts.values()) > 0.7 * BUCKETS / shards


@given(queue=st.text(min_size=1, max_size=50), shards=st.integers(1, SHARDS_MAX), index=st.integers(0, 65535))
def test_an_id_leads_where_its_queue_leads(queue: str, shards: int, index: int) -> None:
    name = task_id(new_slab(bucket_of(queue)), index)
    assert len(name) == len("tsk_") + 32
    assert bucket_in(name) == bucket_of(queue)
    assert shards_of_id(name, shards) == (shard_of_queue(queue, shards),)
    assert submitted_at(name) is not None
    derived = derived_task_id(1.8e9, 70_000, 5, bucket_of(queue))
    assert shards_of_id(derived, shards) == (shard_of_queue(queue, shards),)


def test_an_id_from_before_may_be_anywhere() -> None:
    name = task_id(new_slab())
    assert bucket_in(name) is None
    assert shards_of_id(name, 1) == (0,)
    assert shards_of_id(name, 3) == (0, 1, 2)
    assert shards_of_id("nonsense", 2) == (0, 1)


@given(
    shard=st.integers(0, SHARDS_MAX - 1), epoch=st.integers(0, 2**19 - 1), counter=st.integers(0, 2**40 - 1)
)
def test_fences_say_their_shard_and_fit_into_the_ledger(shard: int, epoch: int, counter: int) -> None:
    value = fence(epoch, counter, shard)
    assert value < 2**63
    assert (shard_of_fence(value), epoch_of(value)) == (shard, epoch)


def test_fences_and_numbers_of_two_shards_never_meet() -> None:
    fences: set[int] = set()
    numbers: set[int] = set()
    for shard in range(3):
        core = CoordinatorCore("head", shard=shard, shards=3)
        core.handle(Recovered(epoch=1, last_seq=500), 100.0)
        mine = {core.next_fence(1) for _ in range(50)}
        assert not fences & mine
        fences |= mine
        given_now = [core.next_seq() for _ in range(50)]
        assert given_now == sorted(given_now)
        assert given_now[0] > 500
        assert not numbers & set(given_now)
        numbers |= set(given_now)


def test_one_shard_alone_numbers_as_ever() -> None:
    core = CoordinatorCore("head")
    core.handle(Recovered(epoch=3, last_seq=500), 100.0)
    assert [core.next_seq() for _ in range(3)] == [501, 502, 503]
    assert core.next_fence(1) == 3 << 40


# ---------------------------------------------------------------------------------- what a core is told


def a_core() -> CoordinatorCore:
    core = CoordinatorCore("head", shard=1, shards=2)
    core.handle(Recovered(epoch=1, last_seq=0), 100.0)
    core.handle(NodeJoined(NodeInfo("n1", max_concurrent_tasks=4, incarnation="a"), request=1), 100.0)
    return core


def submitted(core: CoordinatorCore, task: DistributedTask, **known: KnownTask) -> None:
    core.handle(Submit(2, [task], known_ids=known), 101.0)


def test_a_core_keeps_to_the_slots_that_the_node_gives_it() -> None:
    core = a_core()
    core.handle(Heartbeat("n1", "a", slots=1), 100.1)
    for n in range(8):
        submitted(core, DistributedTask(f"t{n}", "slow"))
    core.validate()
    assert sum(batch.slots for batch in core.batches.values()) == 1
    held = tuple((fence, None, None) for fence in core.batches)
    core.handle(Heartbeat("n1", "a", held, slots=3), 101.1)
    assert sum(batch.slots for batch in core.batches.values()) == 3
    held = tuple((fence, None, None) for fence in core.batches)
    core.handle(Heartbeat("n1", "a", held, slots=1), 101.2)
    assert len(core.batches) == 3, "what runs goes on"
    assert core.index.slots(frozenset()) == 1
    core.validate()


def test_tasks_of_other_shards_let_those_go_on_that_come_after_them() -> None:
    core = a_core()
    ids = [task_id(new_slab(bucket_of("default"))) for _ in range(2)]
    pending = {i: KnownTask(i, "pending") for i in ids}
    waiting = DistributedTask("w", "t", after=(ids[0], ids[1]))
    submitted(core, waiting, **pending)
    doomed = DistributedTask("d", "t", after=(ids[1],))
    then = DistributedTask("e", "t", after=("d",))
    submitted(core, doomed, **pending)
    submitted(core, then)
    core.handle(Settled([KnownTask(ids[0], "completed"), KnownTask(ids[1], "running")]), 102.0)
    assert waiting.status is doomed.status is TaskStatus.PENDING
    assert waiting.line is Line.WAITING
    core.handle(Settled([KnownTask(ids[1], "failed", cause="no luck")]), 103.0)
    assert [t.status for t in (waiting, doomed, then)] == [TaskStatus.FAILED] * 3
    assert doomed.error is not None
    assert doomed.error["dependency_cause"] == "no luck"
    core.handle(Settled([KnownTask(ids[1], "failed", cause="said twice")]), 104.0)
    core.validate()
