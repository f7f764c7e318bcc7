"""Lines of tasks: order within a queue, fairness between queues.

Order within a queue is by *rank*: the time of submission plus half an ageing period for each step of
priority. So an urgent task overtakes what was submitted in the last minutes, and nothing waits for
ever: after `ageing` seconds a task stands where the next class stands now. Rank never changes while a
task waits, so a heap keeps the order, and so does an index on disk.

Between queues: start-time fair queuing. Each queue has a virtual time that grows by the handler
seconds it was given, divided by its weight; the queue that is furthest behind goes next.

Tasks that may share a batch stand in one *lane*: same type, options, needs, priority class. Lanes are
grouped by *signature* (needs, slots), which is what decides whether a node can take them: when no node
can take a signature now, the whole group is passed over at once.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush

from omnimind.cluster.policies import QueuePolicy
from omnimind.cluster.states import Line, TaskPriority, priority_class
from omnimind.cluster.task import DistributedTask, TaskOptions

Signature = tuple[frozenset[str], int]
LaneKey = tuple[str, TaskOptions, frozenset[str], TaskPriority]
Key = tuple[float, int]

_UNIT_SHIFT = 11
_MIN_WINDOW = 128


def units(task: DistributedTask) -> int:
    """Return what a task weighs in the window: 1, and 1 more for each 2 KiB of payload."""
    payload = task.payload
    return 1 + (len(payload) >> _UNIT_SHIFT) if type(payload) is bytes else 1


def rank_of(task: DistributedTask, ageing: float) -> float:
    """Return a task's place in its queue's order; see the module's docstring."""
    base = max(task.not_before, task.created_at)
    return base + (task.priority - 1) * ageing / 2


Entry = tuple[float, int, int, DistributedTask]
"""(rank, seq, number of the entry, task): a task that left its line and came back has a new number."""


def _stands(entry: Entry) -> bool:
    """Return whether an entry is not left over from an earlier stay of its task in line."""
    return entry[3].line is Line.READY and entry[3].entry == entry[2]


class Lane:
    """Ready tasks of one kind of one queue, by rank. Entries of tasks that have left are skipped lazily."""

    __slots__ = ("count", "heap", "key", "no", "queue", "signature")

    def __init__(self, key: LaneKey, queue: QueueState, no: int) -> None:
        self.key = key
        self.queue = queue
        self.no = no
        self.signature: Signature = (key[2], key[1].slots)
        self.heap: list[Entry] = []
        self.count = 0

    @property
    def task_type(self) -> str:
        """Return the task type of the lane's tasks."""
        return self.key[0]

    @property
    def options(self) -> TaskOptions:
        """Return the options that the lane's tasks share."""
        return self.key[1]

    def head(self) -> DistributedTask | None:
        """Return the first task, None when the lane is empty."""
        heap = self.heap
        while heap:
            entry = heap[0]
            if _stands(entry):
                return entry[3]
            heappop(heap)
        return None

    def compact(self) -> None:
        """Drop the entries of tasks that have left, when they are the greater part."""
        if len(self.heap) > 64 + 2 * self.count:
            self.heap = [entry for entry in self.heap if _stands(entry)]
            heapify(self.heap)


class QueueState:
    """One queue: its policy, its lanes, what runs, and which part of its ready line is on disk.

    tail: ready tasks that are on disk only; all of them have a key of at least `horizon`.
    """

    __slots__ = (
        "ended", "fetching", "gated", "horizon", "lanes", "max_key", "no", "pending", "policy", "ready",
        "running", "signatures", "tail", "tokens", "tokens_at", "units", "vtime",
    )  # fmt: skip

    def __init__(self, policy: QueuePolicy, no: int) -> None:
        self.policy = policy
        self.no = no
        self.lanes: dict[LaneKey, Lane] = {}
        self.signatures: dict[Signature, list[tuple[Key, int, Lane]]] = {}
        self.vtime = 0.0
        self.running = 0
        self.ready = 0
        self.units = 0
        self.pending = 0
        """All tasks that have not started: ready, delayed and waiting, in memory or on disk."""
        self.tail = 0
        self.horizon: Key | None = None
        self.max_key: Key = (float("-inf"), -1)
        self.fetching = False
        self.tokens = 1.0
        self.tokens_at = 0.0
        self.gated: str | None = None
        self.ended = 0

    def refill_tokens(self, now: float) -> None:
        """Bring the token bucket of the rate limit up to `now`: at most one second's worth, at least 1."""
        rate = self.policy.rate
        if rate is not None:
            gained = max(0.0, now - self.tokens_at) * rate
            self.tokens = min(max(1.0, rate), self.tokens + gained)
            self.tokens_at = now

    def gate(self, now: float) -> str | None:
        """Return why nothing of this queue may start now: ``paused``, ``concurrency``, ``rate``, or None."""
        policy = self.policy
        if policy.paused:
            return "paused"
        if policy.concurrency is not None and self.running >= policy.concurrency:
            return "concurrency"
        if policy.rate is not None:
            self.refill_tokens(now)
            if self.tokens < 1.0 - 1e-9:
                return "rate"
        return None

    def ahead_of(self, place: Key) -> int:
        """Return how many ready tasks in memory come before a place. O(tasks): for people's questions."""
        return sum(
            1 for lane in self.lanes.values() for entry in lane.heap if _stands(entry) and entry[:2] < place
        )

    def head_lane(self, signature: Signature) -> Lane | None:
        """Return the lane of this signature whose first task is first in order."""
        heap = self.signatures.get(signature)
        while heap:
            key, _, lane = heap[0]
            head = lane.head()
            if head is not None and (head.rank, head.seq) == key:
                return lane
            heappop(heap)
        if heap is not None:
            del self.signatures[signature]
        return None


class QueueBook:
    """All queues, and whose turn it is."""

    def __init__(self, ageing: float, window: int) -> None:
        self.ageing = ageing
        self._budget = window
        self.window = window
        """Units of ready tasks that each queue may hold in memory."""
        self.tailing = False
        """Whether any queue may have tasks on disk only."""
        self.queues: dict[str, QueueState] = {}
        self.groups: dict[Signature, list[tuple[float, int, QueueState]]] = {}
        self.ready = 0
        self._vnow = 0.0
        self._next_no = 0
        self._entries = 0
        self._rate_gated: dict[str, None] = {}

    def set(self, policy: QueuePolicy, now: float) -> QueueState:
        """Create a queue, or give an existing one a new policy."""
        queue = self.queues.get(policy.name)
        if queue is None:
            self._next_no += 1
            queue = self.queues[policy.name] = QueueState(policy, self._next_no)
            queue.tokens_at = now
        else:
            queue.policy = policy
        self.regate(queue, now)
        return queue

    def push(self, task: DistributedTask) -> None:
        """Stand a task in its ready line; its rank must be set."""
        queue = self.queues[task.queue]
        key: LaneKey = (task.task_type, task.options, task.needs, priority_class(task.priority))
        lane = queue.lanes.get(key)
        if lane is None:
            self._next_no += 1
            lane = queue.lanes[key] = Lane(key, queue, self._next_no)
        place = (task.rank, task.seq)
        head = lane.head()
        first = head is None or place < (head.rank, head.seq)
        task.line = Line.READY
        self._entries += 1
        task.entry = self._entries
        heappush(lane.heap, (task.rank, task.seq, task.entry, task))
        lane.count += 1
        if queue.ready == 0 and queue.running == 0:
            # It had nothing to give, so it may not claim the time that went by.
            queue.vtime = max(queue.vtime, self._vnow)
        queue.ready += 1
        queue.units += units(task)
        queue.max_key = max(queue.max_key, place)
        self.ready += 1
        if first:
            self._enlist(queue, lane, place)

    def _enlist(self, queue: QueueState, lane: Lane, place: Key) -> None:
        signature = lane.signature
        heappush(queue.signatures.setdefault(signature, []), (place, lane.no, lane))
        if queue.gated is None:
            self._offer(queue, signature)

    def _offer(self, queue: QueueState, signature: Signature) -> None:
        group = self.groups.setdefault(signature, [])
        if not group or group[0][0] != queue.vtime or group[0][2] is not queue:
            heappush(group, (queue.vtime, queue.no, queue))

    def leave(self, task: DistributedTask, line: Line) -> None:
        """Take a task out of its ready line, into `line`."""
        queue = self.queues[task.queue]
        key: LaneKey = (task.task_type, task.options, task.needs, priority_class(task.priority))
        lane = queue.lanes[key]
        task.line = line
        lane.count -= 1
        queue.ready -= 1
        queue.units -= units(task)
        self.ready -= 1
        lane.compact()
        self._settle(queue, lane)
        if queue.gated is None:
            self._offer(queue, lane.signature)

    def share_window(self) -> None:
        """Share the window among the queues that hold something."""
        busy = sum(1 for q in self.queues.values() if q.ready or q.tail)
        self.window = max(min(_MIN_WINDOW, self._budget), self._budget // max(1, busy))

    def cut(self, queue: QueueState, keep: int) -> list[DistributedTask]:
        """Take everything of a queue's ready line beyond its first `keep` units out, and return it."""
        entries = sorted(
            (e for lane in queue.lanes.values() for e in lane.heap if _stands(e)), key=lambda e: e[:3]
        )
        held = 0
        kept = len(entries)
        for position, entry in enumerate(entries):
            held += units(entry[3])
            if held > keep:
                kept = max(1, position)
                break
        cut = [entry[3] for entry in entries[kept:]]
        lost = {task.task_id for task in cut}
        for lane in list(queue.lanes.values()):
            lane.heap = [e for e in lane.heap if _stands(e) and e[3].task_id not in lost]
            heapify(lane.heap)
            lane.count = len(lane.heap)
            self._settle(queue, lane)
        queue.ready -= len(cut)
        self.ready -= len(cut)
        queue.units -= sum(units(task) for task in cut)
        queue.max_key = entries[kept - 1][:2] if kept else (float("-inf"), -1)
        return cut

    def take(self, lane: Lane, limit: int, max_bytes: int) -> list[DistributedTask]:
        """Take up to `limit` tasks from the front of a lane; a task that travels alone, alone."""
        taken: list[DistributedTask] = []
        size = 0
        queue = lane.queue
        heap = lane.heap
        while len(taken) < limit:
            head = lane.head()
            if head is None:
                break
            weight = len(head.payload) if type(head.payload) is bytes else 0
            alone = head.solo or head.at_most_once
            if taken and (alone or size + weight > max_bytes):
                break
            heappop(heap)
            head.line = Line.RUNNING
            size += weight
            queue.units -= units(head)
            taken.append(head)
            if alone:
                # At most once: a mate's crash must not cost a task that had not even begun.
                break
        lane.count -= len(taken)
        queue.ready -= len(taken)
        self.ready -= len(taken)
        self._settle(queue, lane)
        return taken

    def _settle(self, queue: QueueState, lane: Lane) -> None:
        head = lane.head()
        if head is None:
            del queue.lanes[lane.key]
        else:
            heappush(queue.signatures.setdefault(lane.signature, []), ((head.rank, head.seq), lane.no, lane))

    def charge(self, queue: QueueState, seconds: float) -> None:
        """Move a queue's virtual time by handler seconds given (or, negative, given back)."""
        queue.vtime = max(0.0, queue.vtime + seconds / queue.policy.weight)
        self._offer_all(queue)

    def begin(self, queue: QueueState, load: int, tasks: int, seconds: float, now: float) -> None:
        """Count a batch as started: `load` attempts at one time, `tasks` against the rate."""
        self._vnow = queue.vtime
        queue.running += load
        if queue.policy.rate is not None:
            queue.tokens -= tasks
        queue.vtime += seconds / queue.policy.weight
        self.regate(queue, now)

    def finish(self, queue: QueueState, load: int, now: float) -> None:
        """Count a batch's attempts as no longer running."""
        queue.running -= load
        if queue.gated is not None:
            self.regate(queue, now)

    def regate(self, queue: QueueState, now: float) -> None:
        """Look again whether a queue may start tasks, and offer it when it may."""
        gated, queue.gated = queue.gated, queue.gate(now)
        if queue.gated == "rate":
            self._rate_gated[queue.policy.name] = None
        elif gated is not None and queue.running == 0:
            # The same for a queue that was stopped. All its signatures are offered at its new time below.
            queue.vtime = max(queue.vtime, self._vnow)
        self._offer_all(queue)

    def _offer_all(self, queue: QueueState) -> None:
        if queue.gated is None:
            for signature in queue.signatures:
                self._offer(queue, signature)

    def turn(self, signature: Signature, now: float) -> QueueState | None:
        """Return the queue of this signature that is furthest behind and may start something now."""
        group = self.groups.get(signature)
        while group:
            vtime, _, queue = group[0]
            if queue.gated is None and queue.vtime == vtime and queue.head_lane(signature) is not None:
                queue.gated = queue.gate(now)
                if queue.gated is None:
                    return queue
                if queue.gated == "rate":
                    self._rate_gated[queue.policy.name] = None
            heappop(group)
        if group is not None:
            del self.groups[signature]
        return None

    def take_rate_gated(self) -> list[str]:
        """Return the queues that their rate has stopped since the last call."""
        if not self._rate_gated:
            return []
        names = [n for n in self._rate_gated if n in self.queues]
        self._rate_gated.clear()
        return names

    def when_rate_allows(self, queue: QueueState) -> float:
        """Return when a rate-gated queue has its next token."""
        rate = queue.policy.rate or 1.0
        return queue.tokens_at + (1.0 - queue.tokens) / rate
