"""Which node takes the next batch: `LoadBalancer` for a list of nodes, `NodeIndex` for a living cluster.

Both know the same strategies: ``least_loaded`` (smallest share of taken slots), ``round_robin``,
``random``, and ``ray`` (take the least loaded as the owner, and let Ray place the batch anywhere).
"""

from __future__ import annotations

from collections.abc import Iterable
from heapq import heapify, heappop, heappush
from random import Random
from typing import Protocol

from omnimind.cluster.node import NodeInfo
from omnimind.cluster.states import NodeStatus
from omnimind.errors import InvalidInput

STRATEGIES = ("least_loaded", "round_robin", "random", "ray")


def check_strategy(strategy: str) -> str:
    """Return the strategy; raises InvalidInput when there is none of this name."""
    if strategy not in STRATEGIES:
        raise InvalidInput(
            f"unknown load balancing strategy {strategy!r}",
            field="strategy",
            hint=f"use one of {', '.join(STRATEGIES)}",
        )
    return strategy


class _Wants(Protocol):
    """What a node is chosen for."""

    @property
    def task_type(self) -> str: ...
    @property
    def needs(self) -> frozenset[str]: ...


class LoadBalancer:
    """Chooses among nodes that are given with each call. Raises InvalidInput for an unknown strategy."""

    def __init__(self, strategy: str = "least_loaded", *, seed: int = 0) -> None:
        self.strategy = check_strategy(strategy)
        self._random = Random(seed)
        self._turn = 0

    def select_node(self, nodes: Iterable[NodeInfo], task: _Wants | None = None) -> NodeInfo | None:
        """Return a node that can accept the task, or None.

        `needs` of the task are strict; nodes that list its `task_type` among their capabilities come
        before those that do not.
        """
        able = [n for n in nodes if n.can_accept_task()]
        if task is not None:
            able = [n for n in able if n.offers(task.needs)]
            able = [n for n in able if task.task_type in n.capabilities] or able
        if not able:
            return None
        match self.strategy:
            case "round_robin":
                self._turn += 1
                return able[(self._turn - 1) % len(able)]
            case "random":
                return self._random.choice(able)
            case _:
                return min(able, key=NodeInfo.get_load_factor)


class Seat:
    """A node's slots as the scheduler counts them.

    A node whose batches are all short may hold as many again in waiting, so that a worker never idles
    for the length of a message: `spare` is what a batch that is known to be short may still take.
    """

    __slots__ = ("no", "node", "slow", "taken", "version")

    def __init__(self, node: NodeInfo, no: int) -> None:
        self.node = node
        self.no = no
        self.taken = 0
        self.slow = 0
        self.version = 0

    def free(self, *, quick: bool) -> int:
        """Return the slots that a batch may take, a `quick` one also from the spare ones."""
        slots = self.node.max_concurrent_tasks
        return slots - self.taken + (max(0, slots - self.slow) if quick else 0)

    def whole(self, slots: int) -> bool:
        """Return whether a batch of so many CPUs may have this idle node to itself."""
        node = self.node
        return self.taken == 0 and 0 < node.max_concurrent_tasks < slots <= node.cpu_cores

    @property
    def load(self) -> float:
        """Return taken slots over slots; over 1.0 when batches wait on the node."""
        slots = self.node.max_concurrent_tasks
        return self.taken / slots if slots > 0 else float("inf")


_MAX_GROUPS = 256
OPEN = (NodeStatus.ACTIVE, NodeStatus.BUSY)

_Entry = tuple[float, int, int, Seat]
"""(load, number, version, seat). One whose version is not its seat's is out of date."""


class _Group:
    """The seats that satisfy one set of needs, in the order of the strategy."""

    __slots__ = ("heap", "idle", "needs", "seats", "slots", "turn", "wide")

    def __init__(self, needs: frozenset[str]) -> None:
        self.needs = needs
        self.seats: dict[str, Seat] = {}
        self.heap: list[_Entry] = []
        self.wide: dict[bool, dict[int, list[_Entry]]] = {}
        """For batches of several slots, by `quick` and by the slots that are free: made when asked for."""
        self.idle: dict[int, list[_Entry]] = {}
        """Idle seats with more CPUs than slots, by their CPUs: see `Seat.whole`."""
        self.turn = 0
        self.slots = 0

    def add(self, seat: Seat) -> None:
        """Let a seat be chosen."""
        self.remove(seat.node.node_id)
        self.seats[seat.node.node_id] = seat
        self.slots += max(0, seat.node.max_concurrent_tasks)

    def remove(self, node_id: str) -> None:
        """Let a seat be chosen no more."""
        seat = self.seats.pop(node_id, None)
        if seat is not None:
            self.slots -= max(0, seat.node.max_concurrent_tasks)

    def offer(self, seat: Seat) -> None:
        """Note a seat's room, as it is now."""
        entry = (seat.load, seat.no, seat.version, seat)
        if seat.free(quick=True) > 0:
            self._push(self.heap, entry)
        for quick, by_free in self.wide.items():
            free = seat.free(quick=quick)
            if free > 1:
                self._push(by_free.setdefault(free, []), entry)
        if self.wide and seat.taken == 0 and 0 < seat.node.max_concurrent_tasks < seat.node.cpu_cores:
            self._push(self.idle.setdefault(seat.node.cpu_cores, []), entry)

    def _push(self, heap: list[_Entry], entry: _Entry) -> None:
        heappush(heap, entry)
        # What is out of date goes when it comes to the front; what never comes there must not pile up.
        if len(heap) > 64 + 4 * len(self.seats):
            heap[:] = [e for e in heap if self._stands(e)]
            heapify(heap)

    def _stands(self, entry: _Entry) -> bool:
        return entry[2] == entry[3].version and entry[3].node.node_id in self.seats

    def first(self, heap: list[_Entry]) -> _Entry | None:
        """Return the first entry of a heap that is not out of date."""
        while heap:
            if self._stands(heap[0]):
                return heap[0]
            heappop(heap)
        return None

    def widest(self, slots: int, *, quick: bool) -> Seat | None:
        """Return the least loaded seat with room for a batch of several slots, or one that it may have whole.

        O(log seats) for each number of free slots that occurs.
        """
        if quick not in self.wide:
            by_free = self.wide[quick] = {}
            for seat in self.seats.values():
                free = seat.free(quick=quick)
                if free > 1:
                    by_free.setdefault(free, []).append((seat.load, seat.no, seat.version, seat))
            for heap in by_free.values():
                heapify(heap)
            self.idle.clear()
            for seat in self.seats.values():
                if seat.taken == 0 and 0 < seat.node.max_concurrent_tasks < seat.node.cpu_cores:
                    self._push(
                        self.idle.setdefault(seat.node.cpu_cores, []), (0.0, seat.no, seat.version, seat)
                    )
        found = [e for free, heap in self.wide[quick].items() if free >= slots and (e := self.first(heap))]
        if found:
            return min(found, key=lambda e: e[:2])[3]
        # With fewer slots than CPUs, what is wider than the slots gets the node to itself.
        for cpus, heap in self.idle.items():
            if cpus >= slots and (e := self.first(heap)) and e[3].whole(slots):
                found.append(e)
        return min(found, key=lambda e: e[:2])[3] if found else None


class NodeIndex:
    """The nodes that may take work, kept so that a choice costs O(log nodes)."""

    def __init__(self, strategy: str, seed: int) -> None:
        self.strategy = check_strategy(strategy)
        self.seats: dict[str, Seat] = {}
        self._random = Random(seed)
        self._groups: dict[frozenset[str], _Group] = {}
        self._types: dict[str, int] = {}
        self._next_no = 0

    def refresh(self, node: NodeInfo) -> Seat:
        """Take in a node, or what has changed about it (status, capabilities, slots)."""
        seat = self.seats.get(node.node_id)
        if seat is None or seat.node is not node:
            self.drop(node.node_id)
            self._next_no += 1
            seat = self.seats[node.node_id] = Seat(node, self._next_no)
            for name in sorted(node.capabilities):
                self._types[name] = self._types.get(name, 0) + 1
        able = node.status in OPEN
        for group in self._groups.values():
            if able and node.offers(group.needs):
                group.add(seat)
            else:
                group.remove(node.node_id)
        self._offer(seat)
        return seat

    def drop(self, node_id: str) -> None:
        """Forget a node."""
        seat = self.seats.pop(node_id, None)
        if seat is None:
            return
        seat.version += 1
        for name in sorted(seat.node.capabilities):
            self._types[name] -= 1
            if not self._types[name]:
                del self._types[name]
        for group in self._groups.values():
            group.remove(node_id)

    def take(self, seat: Seat, slots: int, *, quick: bool) -> None:
        """Count slots as taken."""
        seat.taken += slots
        seat.slow += 0 if quick else slots
        self._count(seat)

    def give(self, seat: Seat, slots: int, *, quick: bool) -> None:
        """Count slots as free again."""
        seat.taken -= slots
        seat.slow -= 0 if quick else slots
        self._count(seat)

    def resize(self, node: NodeInfo, slots: int) -> None:
        """Let a node have another number of slots; what runs there goes on."""
        seat = self.seats.get(node.node_id)
        more = max(0, slots) - max(0, node.max_concurrent_tasks)
        node.max_concurrent_tasks = slots
        if seat is None or seat.node is not node or not more:
            return
        for group in self._groups.values():
            if node.node_id in group.seats:
                group.slots += more
        self._count(seat)

    def _count(self, seat: Seat) -> None:
        node = seat.node
        node.current_tasks = min(seat.taken, node.max_concurrent_tasks)
        if node.status in OPEN:
            full = seat.taken >= node.max_concurrent_tasks
            node.status = NodeStatus.BUSY if full else NodeStatus.ACTIVE
        self._offer(seat)

    def _offer(self, seat: Seat) -> None:
        seat.version += 1
        if self.strategy in {"least_loaded", "ray"}:
            for group in self._groups.values():
                if seat.node.node_id in group.seats:
                    group.offer(seat)

    def _group(self, needs: frozenset[str]) -> _Group:
        group = self._groups.get(needs)
        if group is None:
            if len(self._groups) >= _MAX_GROUPS:
                self._groups.clear()
            group = self._groups[needs] = _Group(needs)
            for seat in self.seats.values():
                if seat.node.status in OPEN and seat.node.offers(needs):
                    group.add(seat)
                    group.offer(seat)
        return group

    def capable(self, needs: frozenset[str]) -> int:
        """Return how many open nodes satisfy the needs, free or not."""
        return len(self._group(needs).seats)

    def slots(self, needs: frozenset[str]) -> int:
        """Return the slots of all open nodes that satisfy the needs."""
        return self._group(needs).slots

    def pick(self, needs: frozenset[str], slots: int, task_type: str, *, quick: bool) -> Seat | None:
        """Return a seat with room, one that lists the task type as a capability where there is one."""
        if task_type in self._types:
            seat = self._choose(self._group(needs | {task_type}), slots, quick=quick)
            if seat is not None:
                return seat
        return self._choose(self._group(needs), slots, quick=quick)

    def _choose(self, group: _Group, slots: int, *, quick: bool) -> Seat | None:
        if self.strategy in {"round_robin", "random"}:
            able = [s for s in group.seats.values() if s.free(quick=quick) >= slots]
            able = able or [s for s in group.seats.values() if s.whole(slots)]
            if not able:
                return None
            if self.strategy == "random":
                return self._random.choice(able)
            group.turn += 1
            return able[group.turn % len(able)]
        if slots > 1:
            return group.widest(slots, quick=quick)
        first = group.first(group.heap)
        return first[3] if first is not None and first[3].free(quick=quick) >= slots else None
