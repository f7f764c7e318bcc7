"""Everything that can happen to the core. Each enters by ``CoordinatorCore.handle(event, now)``.

`request` is the number under which the shell waits for a `Reply`. `known` carries facts that the shell
read from the ledger for this event, since the core reads nothing by itself.
"""

from __future__ import annotations

from typing import Any

import msgspec

from omnimind.cluster.node import NodeInfo
from omnimind.cluster.policies import QueuePolicy, Schedule
from omnimind.cluster.task import DistributedTask


class KnownTask(msgspec.Struct, frozen=True, gc=False):
    """A fact from the ledger: a task's state. `digest` is set when it was looked up by key."""

    task_id: str
    status: str
    digest: bytes | None = None
    cause: str = ""


class Submit(msgspec.Struct):
    """New tasks, accepted or refused as one. Replied with `Accepted` or an error.

    known_ids: facts about the ids in `after`. known_keys: facts about the tasks' keys.
    resent: whether the first task without a key is in the ledger already: the same submission, sent again.
    """

    request: int
    tasks: list[DistributedTask]
    known_ids: dict[str, KnownTask] = msgspec.field(default_factory=dict)
    known_keys: dict[str, KnownTask] = msgspec.field(default_factory=dict)
    resent: bool = False


class Outcome(msgspec.Struct, array_like=True, gc=False):
    """How one task of a batch went. `index` is its place in the batch.

    status: ``ok``, ``error`` (the handler raised), ``timeout``, ``cancelled``, ``invalid`` (never worth
    a retry: handler not found, result too large, …), ``crashed`` (its worker died),
    ``lost`` (never ran, or nobody knows). error: type, message, traceback. seconds: of handler time.
    """

    index: int
    status: str
    value: bytes | None = None
    encoding: str = "json"
    error: dict[str, Any] | None = None
    seconds: float = 0.0


class Outcomes(msgspec.Struct):
    """A node reports outcomes of a batch. `final`: the batch has left the node; what is missing is lost.

    Replied with `Acknowledged` after the commit, stale or not, so that the node can forget them.
    """

    request: int
    node_id: str
    incarnation: str
    batch: int
    outcomes: list[Outcome]
    final: bool


class RunningBatch(msgspec.Struct, array_like=True):
    """A batch that a node holds.

    open: indexes whose outcome is not acknowledged. current: the one that runs now, and has for `ran`
    seconds, where known.
    """

    fence: int
    task_ids: tuple[str, ...]
    open: tuple[int, ...]
    current: int | None = None
    ran: float | None = None


class NodeJoined(msgspec.Struct):
    """A node reports for work, at its start or because the coordinator is new.

    tasks: rows of the tasks in `running` that the core may not hold in memory.
    """

    node: NodeInfo
    running: tuple[RunningBatch, ...] = ()
    tasks: list[DistributedTask] = msgspec.field(default_factory=list)
    request: int = 0


class Heartbeat(msgspec.Struct):
    """A node lives, and holds these batches: (fence, index that runs, for how many seconds).

    slots: how many slots this shard may use there now; None: as many as before.
    """

    node_id: str
    incarnation: str
    batches: tuple[tuple[int, int | None, float | None], ...] = ()
    pids: dict[str, int] | None = None
    slots: int | None = None


class NodeGone(msgspec.Struct):
    """Somebody who knows (Ray) says that a node is dead."""

    node_id: str
    cause: str = "node died"


class NodeControl(msgspec.Struct):
    """A person or the healer changes what a node may be given: ``cordon``, ``drain``, ``uncordon``.

    deadline: of a drain, Unix seconds; None waits for ever. by: who wants it: ``person``, ``healer``, ``ray``
    (Ray drains the node itself) or ``idle`` (nothing to do, the autoscaler may end it).
    """

    request: int
    node_id: str
    verb: str
    deadline: float | None = None
    by: str = "person"
    reason: str = ""


class Cancel(msgspec.Struct):
    """End tasks, co-operatively first. `tasks`: rows of those that are not in memory."""

    request: int
    task_ids: list[str]
    tasks: list[DistributedTask] = msgspec.field(default_factory=list)


class QueueSet(msgspec.Struct):
    """Create a queue or change its limits."""

    request: int
    policy: QueuePolicy


class QueueRemove(msgspec.Struct):
    """Remove an empty queue."""

    request: int
    name: str


class ScheduleSet(msgspec.Struct):
    """Create or replace a schedule; the core sets `next_run`."""

    request: int
    schedule: Schedule


class ScheduleRemove(msgspec.Struct):
    """Remove a schedule."""

    request: int
    name: str


class ScheduleRun(msgspec.Struct):
    """Run a schedule now, besides its times."""

    request: int
    name: str


class Loaded(msgspec.Struct):
    """Rows that a `Fetch` asked for. `more`: whether the ledger holds further ones of that line."""

    line: str
    queue: str
    tasks: list[DistributedTask]
    more: bool


class Note(msgspec.Struct):
    """A record that passes through (handler, blob, log, checkpoint, audit), acknowledged after its commit."""

    request: int
    record: Any


class Claimed(msgspec.Struct):
    """Keys whose home is this shard stand for tasks now; records of one transaction. Acknowledged."""

    request: int
    records: list[Any]


class Settled(msgspec.Struct):
    """Tasks of other shards have ended: those that come after them go on, or fail with them."""

    tasks: list[KnownTask]


class Checkpoint(msgspec.Struct):
    """A running attempt stores how far it is; refused when its fence is not the newest."""

    request: int
    task_id: str
    fence: int
    data: bytes


class Space(msgspec.Struct):
    """The ledger has no room for new tasks any more, or has it again; ends of tasks it still takes."""

    full: bool


class Tick(msgspec.Struct):
    """Time passed."""


class Recovered(msgspec.Struct):
    """The first event of a core's life: what the ledger holds.

    ready and delayed: the first tasks of each line, in order; waiting and running: all of them.
    tails: tasks of each queue's ready line that were left on disk; delayed_tails likewise.
    """

    epoch: int
    last_seq: int
    ready: list[DistributedTask] = msgspec.field(default_factory=list)
    delayed: list[DistributedTask] = msgspec.field(default_factory=list)
    waiting: list[DistributedTask] = msgspec.field(default_factory=list)
    running: list[DistributedTask] = msgspec.field(default_factory=list)
    tails: dict[str, int] = msgspec.field(default_factory=dict)
    delayed_tails: dict[str, int] = msgspec.field(default_factory=dict)
    nodes: list[NodeInfo] = msgspec.field(default_factory=list)
    queues: list[QueuePolicy] = msgspec.field(default_factory=list)
    schedules: list[Schedule] = msgspec.field(default_factory=list)
    known_ids: dict[str, KnownTask] = msgspec.field(default_factory=dict)
    """Facts about the ids that the waiting tasks come after."""


Event = (
    Submit
    | Outcomes
    | NodeJoined
    | Heartbeat
    | NodeGone
    | NodeControl
    | Cancel
    | QueueSet
    | QueueRemove
    | ScheduleSet
    | ScheduleRemove
    | ScheduleRun
    | Loaded
    | Note
    | Claimed
    | Settled
    | Checkpoint
    | Space
    | Tick
    | Recovered
)
