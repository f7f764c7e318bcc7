"""`SlotShare`: the slots of one node, shared between the shards. Pure; one in each Node actor.

Each shard's coordinator places work by itself and knows nothing of the others; the node brings them
together. Two things, apart from each other:

- **The node admits.** A batch that arrives starts only when its slots are free, else it waits here, in the
  line of its shard. When slots become free the shard goes first that uses the fewest. So slots are never
  overcommitted, whatever the coordinators believe, and a shard that has a batch here gets its turn as
  soon as a batch of a richer one ends. A wide batch whose turn it is keeps what is free until it fits.
- **The node tells each shard what it may count on**: all slots but those that the others hold, and never
  less than its fair part. So the slots of idle shards are lent to those that have work, and are taken
  back as batches end; and a coordinator sends its work where there is room.
"""

from __future__ import annotations

from collections import deque


class SlotShare:
    """The slots of a node that has `slots` of them, for `shards` shards. Batches are known by their fence."""

    def __init__(self, slots: int, shards: int) -> None:
        self.slots = max(1, slots)
        self.shards = shards
        self.busy = [0] * shards
        """Slots of the batches that have started, by shard."""
        self._waiting: list[deque[tuple[int, int]]] = [deque() for _ in range(shards)]
        self._held: dict[int, tuple[int, int]] = {}
        """Shard and slots of each batch that has started, by fence."""
        self._served = [0] * shards
        self._turns = 0

    @property
    def floor(self) -> int:
        """Return the slots that every shard may count on, however busy the others are."""
        return max(1, self.slots // self.shards)

    @property
    def taken(self) -> int:
        """Return the slots of all batches that have started."""
        return sum(self.busy)

    def waits(self, fence: int) -> bool:
        """Return whether a batch is here and has not started."""
        return any(f == fence for line in self._waiting for f, _ in line)

    def offer(self, shard: int, fence: int, slots: int) -> list[int]:
        """Take a batch in; return the fences of the batches that start now."""
        # One that is wider than the node gets the node to itself.
        self._waiting[shard].append((fence, min(max(1, slots), self.slots)))
        return self._start()

    def leave(self, fence: int) -> list[int]:
        """Let a batch go that has ended or is not wanted any more; return those that start now.

        One that is not here (any more) changes nothing.
        """
        held = self._held.pop(fence, None)
        if held is not None:
            shard, slots = held
            self.busy[shard] -= slots
        else:
            for line in self._waiting:
                for entry in line:
                    if entry[0] == fence:
                        line.remove(entry)
                        break
        return self._start()

    def _start(self) -> list[int]:
        started: list[int] = []
        while True:
            wanting = [s for s in range(self.shards) if self._waiting[s]]
            if not wanting:
                return started
            shard = self._next(wanting)
            fence, slots = self._waiting[shard][0]
            if self.taken + slots > self.slots:
                return started
            self._waiting[shard].popleft()
            self.busy[shard] += slots
            self._held[fence] = (shard, slots)
            self._turns += 1
            self._served[shard] = self._turns
            started.append(fence)

    def _next(self, wanting: list[int]) -> int:
        """Return whose turn it is: who uses the fewest slots, and of these who was served longest ago."""
        return min(wanting, key=lambda s: (self.busy[s], self._served[s], s))

    def may_use(self, shard: int) -> int:
        """Return how many slots a shard may count on now."""
        others = sum(self._holds(s) for s in range(self.shards) if s != shard)
        return max(self.floor, self.slots - others)

    def _holds(self, shard: int) -> int:
        return self.busy[shard] + sum(slots for _, slots in self._waiting[shard])

    def validate(self) -> None:
        """Raise AssertionError with the story when slots are overcommitted, miscounted or left idle."""
        counted = [0] * self.shards
        for shard, slots in self._held.values():
            counted[shard] += slots
        assert counted == self.busy, f"counted {counted}, noted {self.busy}"
        assert self.taken <= self.slots, f"{self.taken} slots are taken of {self.slots}"
        narrow = [line[0][1] for line in self._waiting if line]
        if narrow:
            assert self.taken + max(narrow) > self.slots, "work waits beside free slots"
