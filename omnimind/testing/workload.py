"""What the simulated clients ask for: drawn once per seed, before anything runs."""

from __future__ import annotations

import msgspec

from omnimind.cluster.policies import QueuePolicy, Schedule
from omnimind.cluster.records import task_row
from omnimind.cluster.task import DistributedTask, TaskOptions
from omnimind.ids import task_id
from omnimind.testing.draws import Draws
from omnimind.testing.options import SimOptions

GPU, FAST = "gpu", "fast"
_KEYS = 6


class Submission(msgspec.Struct):
    """One slab of tasks that a client submits as one.

    at: seconds after the start. keys and variants: per task; tasks with the same key and another
    variant have another payload. after: the numbers of submissions of the same client that must
    complete first; chain: each task also comes after the one before it. ttl: a deadline, delay: a
    not-before, in seconds from the submission. cancel_after: seconds between its acceptance and the
    request to cancel part of it.
    """

    number: int
    client: int
    at: float
    slab: str
    count: int
    queue: str = "default"
    task_type: str = "t0"
    duration: float = 0.2
    priority: int = 5
    keys: list[str | None] = msgspec.field(default_factory=list)
    variants: list[int] = msgspec.field(default_factory=list)
    needs: frozenset[str] = frozenset()
    after: list[int] = msgspec.field(default_factory=list)
    chain: bool = False
    at_most_once: bool = False
    max_retries: int = 2
    timeout: float | None = None
    ttl: float | None = None
    delay: float = 0.0
    cancel_after: float | None = None
    kind: str = "sync"
    num_cpus: float = 1.0
    ids: list[str] = msgspec.field(default_factory=list)
    depends: list[str] = msgspec.field(default_factory=list)
    """Ids of the tasks that `after` means, once they are known to be accepted."""

    def payload(self, index: int) -> bytes:
        """Return a task's payload: JSON that names it, or its key and variant."""
        key = self.keys[index]
        return msgspec.json.encode([key, self.variants[index], self.task_type] if key else [self.ids[index]])


def queue_policies(options: SimOptions, draws: Draws) -> list[QueuePolicy]:
    """Return the queues of a run: ``default``, ``q1``, ``q2``, with weights and bounds."""
    return [
        QueuePolicy(
            "default" if n == 0 else f"q{n}",
            weight=draws.pick("weight", "queue", n, (1.0, 1.0, 2.0, 4.0)),
            concurrency=2 if options.limited and n == 1 else None,
            rate=4.0 if options.limited and n == 2 else None,  # noqa: PLR2004
            max_pending=options.bound,
        )
        for n in range(options.queues)
    ]


def schedules(options: SimOptions) -> list[Schedule]:
    """Return the recurring submissions of a run."""
    template = DistributedTask(
        task_id("tsk_" + "0" * 28),
        "t0",
        b"[]",
        options=TaskOptions(handler="scheduled", retry_base=0.2, retry_cap=1.0),
        max_retries=1,
    )
    row = msgspec.msgpack.encode(task_row(template))
    return [Schedule(f"every-{n}", row, interval=3.0) for n in range(options.schedules)]


def submissions(options: SimOptions, draws: Draws) -> list[Submission]:
    """Return everything that the clients will submit."""
    match options.profile:
        case "fair":
            return _backlogs(options, draws)
        case "ageing":
            return _streams(options)
        case _:
            return _mixed(options, draws)


def _mixed(options: SimOptions, draws: Draws) -> list[Submission]:
    found: list[Submission] = []
    left = options.tasks
    while left > 0:
        n = len(found)
        value = _Drawer(draws, n)
        count = min(left, options.bound, 1 + int(value("count") ** 2 * 8))
        left -= count
        sub = _submission(
            options, n, int(value("client") * options.clients), value("at") * options.seconds * 0.8
        )
        sub.count = count
        sub.queue = "default" if (q := int(value("queue") * options.queues)) == 0 else f"q{q}"
        kind = int(value("type") * 3)
        sub.task_type = f"t{kind}"
        sub.duration = options.duration * (0.5, 1.0, 1.5)[kind]
        sub.kind = "async" if kind == 2 and value("async") < 0.5 else "sync"  # noqa: PLR2004
        sub.num_cpus = 2.0 if value("wide") < options.picky / 4 else 1.0
        sub.priority = 1 + int(value("priority") * 10)
        if value("needs") < options.picky:
            sub.needs = frozenset({GPU, FAST} if value("gpu") < 0.5 else {FAST})  # noqa: PLR2004
        sub.at_most_once = value("once") < options.at_most_once
        sub.max_retries = int(value("retries") * 4)
        if value("timeout") < 0.1:  # noqa: PLR2004
            sub.timeout = sub.duration * (0.5 + value("timeout seconds") * 2)
        if value("deadline") < options.deadlines:
            sub.ttl = 0.5 + value("ttl") * 15
        if value("delayed") < options.delays:
            sub.delay = value("delay") * 6
        if value("cancelled") < options.cancels:
            sub.cancel_after = value("cancel") * 6
        _fill(sub)
        _name_keys(sub, options, value)
        before = [s.number for s in found if s.client == sub.client]
        if before and value("after") < options.after:
            sub.after = [before[int(value("which") * len(before))]]
        sub.chain = value("chain") < options.after / 3
        found.append(sub)
    return found


def _name_keys(sub: Submission, options: SimOptions, value: _Drawer) -> None:
    names: list[str | None] = []
    for i in range(sub.count):
        key: str | None = None
        if value(f"keyed {i}") < options.keyed:
            key = f"k{int(value(f'key {i}') * _KEYS)}"
            if key in names:
                key = None
            elif value(f"variant {i}") < 0.15:  # noqa: PLR2004
                sub.variants[i] = 1
        names.append(key)
    sub.keys = names


def _backlogs(options: SimOptions, draws: Draws) -> list[Submission]:
    """Two queues that both have work from the first moment on; their tasks have different lengths."""
    found: list[Submission] = []
    each = options.tasks // 2
    for n in range(2):
        sub = _submission(options, n, n, 0.0)
        sub.count = each
        sub.queue = "default" if n == 0 else "q1"
        sub.task_type = f"t{n}"
        sub.duration = (0.2, 1.0)[n] * draws.pick("fair", "duration", n, (0.5, 1.0))
        found.append(_fill(sub))
    return found


def _streams(options: SimOptions) -> list[Submission]:
    """Urgent tasks faster than they can be run, and from the start one task of each lower class."""
    found: list[Submission] = []
    for n, priority in enumerate((9, 7, 5)):
        sub = _submission(options, n, 0, 0.5)
        sub.priority = priority
        found.append(_fill(sub))
    while len(found) < options.tasks:
        n = len(found)
        sub = _submission(options, n, n % options.clients, n * options.duration * 0.7)
        sub.priority = 1
        sub.count = 2
        found.append(_fill(sub))
    return found


def _submission(options: SimOptions, number: int, client: int, at: float) -> Submission:
    ms = 1_700_000_000_000 + int(at * 1000)
    slab = f"tsk_{ms:012x}7{number:03x}8{options.seed & 0xFFFFFFF:07x}{client:04x}"
    return Submission(number, client, at, slab, 1, duration=options.duration)


def _fill(sub: Submission) -> Submission:
    sub.ids = [task_id(sub.slab, i) for i in range(sub.count)]
    sub.keys = [None] * sub.count
    sub.variants = [0] * sub.count
    return sub


class _Drawer:
    """Draws for one submission, by name."""

    def __init__(self, draws: Draws, number: int) -> None:
        self.draws = draws
        self.number = number

    def __call__(self, what: str) -> float:
        return self.draws.value("work", what, self.number)


def build_tasks(sub: Submission, now: float) -> list[DistributedTask]:
    """Return a submission's tasks as the coordinator's shell makes them of a request."""
    options = TaskOptions(
        retry_base=0.2,
        retry_cap=2.0,
        non_retryable=("Fatal",),
        handler=sub.task_type,
        kind=sub.kind,
        num_cpus=sub.num_cpus,
    )
    tasks = []
    for i in range(sub.count):
        after = [*sub.depends, sub.ids[i - 1]] if sub.chain and i else sub.depends
        tasks.append(
            DistributedTask(
                sub.ids[i],
                sub.task_type,
                sub.payload(i),
                sub.priority,
                sub.queue,
                sub.needs,
                sub.max_retries,
                sub.timeout,
                None if sub.ttl is None else now + sub.ttl,
                now + sub.delay if sub.delay else 0.0,
                sub.keys[i],
                tuple(after),
                sub.at_most_once,
                options,
            )
        )
    return tasks
