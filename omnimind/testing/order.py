"""Who goes first: the checks of ageing within a queue, and of fairness between queues."""

from __future__ import annotations

from omnimind.cluster.records import Records, TaskRow
from omnimind.cluster.sends import Batch
from omnimind.cluster.states import Line, priority_class
from omnimind.ledger.rows import CREATED_AT, ID, QUEUE, SEQ
from omnimind.testing.coverage import Coverage
from omnimind.testing.ghost import Ghost
from omnimind.testing.ledger import NOT_BEFORE, PRIORITY
from omnimind.testing.options import SimOptions

_LINE_IN_STATE = 1
WIDE_WINDOW = 1000
_ROUNDING = 1e-3

Group = tuple[str, frozenset[str], float]


class Order:
    """Ageing: among tasks of one queue that the same nodes can take, the one that aged most goes first.

    A task has aged by the time since its submission, less half an ageing period for each step of
    priority. Only tasks that have never started are looked at, and those of the present life of the
    coordinator. With a narrow window, what waits on disk may be overtaken while it is being read, so
    there a number of times is allowed.
    """

    def __init__(self, options: SimOptions, ghost: Ghost, coverage: Coverage) -> None:
        self.ageing = options.ageing
        self.ghost = ghost
        self.coverage = coverage
        self.allowed = 0 if options.window >= WIDE_WINDOW else 20 + 4 * options.window
        self._waiting: dict[Group, dict[str, tuple[float, int]]] = {}
        self._group_of: dict[str, Group] = {}
        self._id_of: dict[int, str] = {}
        self._overtaken: dict[str, int] = {}

    def restart(self) -> None:
        """Forget what waits: a new coordinator may adopt running attempts of it."""
        self._waiting.clear()
        self._group_of.clear()
        self._id_of.clear()

    def ready(self, row: TaskRow) -> None:
        """Note a task that is ready from its submission on."""
        ghost = self.ghost.of(row[ID])
        if ghost.sub is None or ghost.decided:
            return
        group = (row[QUEUE], ghost.sub.needs, ghost.sub.num_cpus)
        rank = max(row[NOT_BEFORE], row[CREATED_AT]) + (row[PRIORITY] - 1) * self.ageing / 2
        self._waiting.setdefault(group, {})[row[ID]] = (rank, row[PRIORITY])
        self._group_of[row[ID]] = group
        self._id_of[row[SEQ]] = row[ID]

    def left(self, records: Records) -> None:
        """Note tasks that no longer wait."""
        for state in records.updates:
            if state[_LINE_IN_STATE] != Line.READY:
                task_id = self._id_of.pop(state[-1], None)
                if task_id is not None:
                    self._take(task_id)

    def _take(self, task_id: str) -> tuple[Group, tuple[float, int]] | None:
        group = self._group_of.pop(task_id, None)
        if group is None:
            return None
        return group, self._waiting[group].pop(task_id)

    def starts(self, batch: Batch) -> str | None:
        """Note a batch that starts; return the story when somebody is overtaken once too often."""
        # The first item decides; the others travel along, since they are of its kind.
        taken = [self._take(item.task_id) for item in batch.items]
        first = taken[0]
        if first is None:
            return None
        group, (rank, priority) = first
        waiting = self._waiting[group]
        if not waiting:
            return None
        if any(priority_class(p) < priority_class(priority) for _, p in waiting.values()):
            self.coverage.add("ageing_checked")
        oldest = min(waiting, key=lambda i: (waiting[i][0], i))
        if waiting[oldest][0] >= rank - 1e-6:
            return None
        times = self._overtaken[oldest] = self._overtaken.get(oldest, 0) + 1
        if times <= self.allowed:
            return None
        ahead = rank - waiting[oldest][0]
        story = f"{oldest} is overtaken by {batch.items[0].task_id}, which aged {ahead:.3f} s less"
        return f"{story} ({times} times)"


class Rate:
    """A queue with a rate starts at most that many tasks a second, and one second's worth at once."""

    def __init__(self, rates: dict[str, float]) -> None:
        self.rates = rates
        self._tokens: dict[str, tuple[float, float]] = {}

    def restart(self) -> None:
        """Forget: a new coordinator begins with a full allowance."""
        self._tokens.clear()

    def starts(self, queue: str, tasks: int, now: float) -> str | None:
        """Note tasks that start; return the story when they are too many."""
        rate = self.rates.get(queue)
        if rate is None:
            return None
        most = max(1.0, rate)
        tokens, since = self._tokens.get(queue, (most, now))
        tokens = min(most, tokens + (now - since) * rate) - tasks
        self._tokens[queue] = tokens, now
        return None if tokens > -_ROUNDING else f"{queue} starts {-tokens:.2f} tasks too many at once"


class Fairness:
    """Two queues that always have work get handler seconds in proportion to their weights.

    The tolerance is that of start-time fair queuing with several servers: for each slot, the longest
    run of each queue, in units of its weight.
    """

    def __init__(self, weights: dict[str, float], slots: int, coverage: Coverage) -> None:
        self.weights = weights
        self.slots = slots
        self.coverage = coverage
        self.left: dict[str, int] = {}
        self.seconds = dict.fromkeys(weights, 0.0)
        self.longest = dict.fromkeys(weights, 0.0)
        self.over = len(weights) < 2  # noqa: PLR2004 (fairness needs two)

    def waits(self, queue: str, tasks: int) -> None:
        """Note tasks that a queue has got (or, negative, started)."""
        self.left[queue] = self.left.get(queue, 0) + tasks

    def ran(self, queue: str, seconds: float) -> None:
        """Note handler seconds."""
        if not self.over:
            self.seconds[queue] += seconds
            self.longest[queue] = max(self.longest[queue], seconds)

    def check(self) -> str | None:
        """Return the story when a queue, at the moment at which one runs out of work, got too little."""
        if self.over or all(self.left.get(q, 0) > 0 for q in self.weights):
            return None
        self.over = True
        shares = {q: self.seconds[q] / w for q, w in self.weights.items()}
        tolerance = (self.slots + 1) * sum(self.longest[q] / w for q, w in self.weights.items())
        most, least = max(shares.values()), min(shares.values())
        if most < 2 * tolerance:
            return None
        self.coverage.add("fairness_checked")
        if most - least <= tolerance:
            return None
        return f"handler seconds {self.seconds} for weights {self.weights} (tolerance {tolerance:.2f} s)"
