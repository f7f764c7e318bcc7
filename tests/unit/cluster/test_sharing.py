"""A node's slots between the shards: never overcommitted, never idle beside work, nobody starved."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omnimind.cluster.agent import NodeAgent, SendHeartbeat
from omnimind.cluster.sharing import SlotShare


class Story:
    """Shards that send work to one node for some time, and what came of it. The witness counts by itself."""

    def __init__(self, share: SlotShare, seed: int, *, greedy: bool = False) -> None:
        self.share = share
        self.chance = random.Random(seed)
        self.greedy = greedy
        self.running: dict[int, tuple[int, int, int]] = {}
        self.sent: dict[int, tuple[int, int]] = {}
        self.waited: dict[int, int] = {}
        self.got: Counter[int] = Counter()
        self.next = 0

    def began(self, fences: list[int], now: int) -> None:
        for fence in fences:
            shard, slots = self.sent.pop(fence)
            self.waited[fence] = now - self.waited[fence]
            self.running[fence] = (shard, slots, now + self.chance.randrange(1, 10))
            self.got[shard] += 1

    def send(self, shard: int, slots: int, now: int) -> None:
        self.next += 1
        self.sent[self.next] = (shard, min(slots, self.share.slots))
        self.waited[self.next] = now
        self.began(self.share.offer(shard, self.next, slots), now)

    def tick(self, now: int, rates: list[int], widths: tuple[int, ...]) -> None:
        for fence in [f for f, (_, _, end) in self.running.items() if end <= now]:
            del self.running[fence]
            self.began(self.share.leave(fence), now)
        for shard, rate in enumerate(rates):
            mine = sum(s for who, s, _ in self.running.values() if who == shard)
            mine += sum(s for who, s in self.sent.values() if who == shard)
            for _ in range(rate):
                if self.greedy or mine < self.share.may_use(shard):
                    slots = self.chance.choice(widths)
                    self.send(shard, slots, now)
                    mine += slots
        if self.sent and self.chance.random() < 0.05:
            # A batch that is not wanted any more.
            fence = self.chance.choice(list(self.sent))
            del self.sent[fence]
            self.began(self.share.leave(fence), now)
        self.check()

    def check(self) -> None:
        taken = sum(slots for _, slots, _ in self.running.values())
        assert taken <= self.share.slots, "overcommitted"
        assert self.share.taken == taken
        if self.sent:
            shards = range(self.share.shards)
            heads = [next((s for who, s in self.sent.values() if who == shard), 0) for shard in shards]
            assert taken + max(heads) > self.share.slots, "work waits beside free slots"
        self.share.validate()


@given(
    slots=st.integers(1, 9),
    shards=st.integers(1, 5),
    seed=st.integers(0, 10**6),
    widths=st.sampled_from([(1,), (1, 1, 2), (1, 3), (1, 20)]),
    greedy=st.booleans(),
)
def test_never_overcommitted_and_never_idle(
    slots: int, shards: int, seed: int, widths: tuple[int, ...], greedy: bool
) -> None:
    story = Story(SlotShare(slots, shards), seed, greedy=greedy)
    for now in range(150):
        rates = [story.chance.randrange(3) for _ in range(shards)]
        story.tick(now, rates, widths)


@pytest.mark.parametrize("slots", [1, 2, 3, 8])
@pytest.mark.parametrize("shards", [2, 3, 5])
def test_nobody_starves_beside_a_greedy_shard(slots: int, shards: int) -> None:
    """A coordinator that sends more than it may only lengthens its own line."""
    story = Story(SlotShare(slots, shards), 1, greedy=True)
    for now in range(600):
        story.tick(now, [3] + [1] * (shards - 1), (1,))
    fair = sum(story.got.values()) / shards
    assert all(story.got[shard] > 0.8 * fair for shard in range(shards)), story.got


def test_idle_slots_are_lent_and_come_back() -> None:
    share = SlotShare(4, 2)
    assert [share.may_use(s) for s in (0, 1)] == [4, 4]
    assert [share.offer(0, fence, 1) for fence in range(4)] == [[0], [1], [2], [3]]
    assert [share.may_use(s) for s in (0, 1)] == [4, 2]
    assert share.offer(1, 10, 1) == []
    assert share.offer(1, 11, 1) == []
    assert share.offer(0, 4, 1) == []
    assert [share.may_use(s) for s in (0, 1)] == [2, 2]
    assert share.leave(0) == [10]
    assert share.leave(1) == [11], "the poorer one first"
    assert share.leave(2) == [4]
    assert share.leave(10) == []
    assert share.leave(11) == []
    assert [share.may_use(s) for s in (0, 1)] == [4, 2]


def test_a_wide_batch_whose_turn_it_is_gets_its_slots() -> None:
    share = SlotShare(2, 2)
    assert share.offer(0, 1, 1) == [1]
    assert share.offer(1, 2, 2) == []
    assert share.offer(0, 3, 1) == [], "what is free is kept for the one that is poorer"
    assert share.leave(1) == [2]
    assert share.leave(2) == [3]


def test_what_is_not_here_changes_nothing() -> None:
    share = SlotShare(2, 2)
    assert share.leave(99) == []
    share.offer(0, 1, 1)
    share.leave(1)
    assert share.leave(1) == []
    assert share.taken == 0


def test_an_agent_tells_a_change_soon_and_not_too_often() -> None:
    agent = NodeAgent("life")
    assert agent.may_use(2, 0.0) == []
    agent.registered(1, 10.0)
    [beat] = [c for c in agent.tick(10.0) if isinstance(c, SendHeartbeat)]
    assert beat.slots == 2
    assert agent.may_use(2, 10.1) == []
    [again] = agent.may_use(1, 10.1)
    assert isinstance(again, SendHeartbeat)
    assert again.slots == 1
    assert agent.may_use(2, 10.101) == [], "in a moment"
    [late] = [c for c in agent.tick(10.2) if isinstance(c, SendHeartbeat)]
    assert late.slots == 2


# ---------------------------------------------------------------------------------------- planted bugs


class Overcommits(SlotShare):
    """Counts a wide batch as one slot."""

    def offer(self, shard: int, fence: int, slots: int) -> list[int]:
        return super().offer(shard, fence, 1)


class Starves(SlotShare):
    """Always serves the first shard first."""

    def _next(self, wanting: list[int]) -> int:
        return wanting[0]


class Idles(SlotShare):
    """Forgets to look who may start when a batch leaves."""

    def leave(self, fence: int) -> list[int]:
        start, self._start = self._start, list  # type: ignore[method-assign]
        try:
            return super().leave(fence)
        finally:
            self._start = start  # type: ignore[method-assign]


Promise = Callable[[type[SlotShare]], None]


def no_overcommit(kind: type[SlotShare]) -> None:
    story = Story(kind(4, 2), 3)
    for now in range(200):
        story.tick(now, [2, 2], (1, 3))


def no_starvation(kind: type[SlotShare]) -> None:
    story = Story(kind(2, 3), 1, greedy=True)
    for now in range(600):
        story.tick(now, [3, 1, 1], (1,))
    assert min(story.got[shard] for shard in range(3)) > 0.8 * sum(story.got.values()) / 3, story.got


@pytest.mark.parametrize(
    ("kind", "promise"), [(Overcommits, no_overcommit), (Idles, no_overcommit), (Starves, no_starvation)]
)
def test_planted_bugs_are_seen(kind: type[SlotShare], promise: Promise) -> None:
    promise(SlotShare)
    with pytest.raises(AssertionError):
        promise(kind)
