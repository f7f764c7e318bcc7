"""Everything that the core may ask of the world, and `Effects`, which joins it with the records."""

from __future__ import annotations

from typing import Any

import msgspec

from omnimind.cluster.records import Records
from omnimind.cluster.task import DistributedTask, TaskOptions
from omnimind.errors import OmniMindError


class BatchItem(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One task of a batch. `attempt` counts from 0; `deadline` in Unix seconds."""

    task_id: str
    payload: Any
    encoding: str
    attempt: int
    timeout: float | None = None
    deadline: float | None = None
    checkpoint: bytes | None = None


class Batch(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Tasks of one type that travel together. Item i has the fence ``fence + i``.

    strategy: ``affinity`` (Ray should run it on this node) or ``spread`` (anywhere that `needs` allow).
    """

    fence: int
    task_type: str
    options: TaskOptions
    needs: tuple[str, ...]
    items: tuple[BatchItem, ...]
    strategy: str = "affinity"


class Dispatch(msgspec.Struct, frozen=True, gc=False):
    """Give a batch to a node."""

    node_id: str
    incarnation: str
    batch: Batch


class StopAttempts(msgspec.Struct, frozen=True):
    """Ask a node to end items of a batch. `hard`: end the worker, whatever else it runs.

    An empty `indexes` means the whole batch.
    """

    node_id: str
    incarnation: str
    batch: int
    indexes: tuple[int, ...]
    hard: bool
    cause: str


class AskRegister(msgspec.Struct, frozen=True):
    """Tell a node that the coordinator does not know it (any more): it should report for work."""

    node_id: str
    incarnation: str


class FenceNode(msgspec.Struct, frozen=True):
    """Tell a node that this incarnation was given up: end its batches and join as new."""

    node_id: str
    incarnation: str


class ReleaseNode(msgspec.Struct, frozen=True):
    """A drain is over: the node holds no more work."""

    node_id: str


class Accepted(msgspec.Struct, frozen=True, array_like=True):
    """A submission is durable. `existing`: by index, the ids of tasks that stood under the same key."""

    count: int
    existing: dict[int, str]


class Acknowledged(msgspec.Struct, frozen=True, array_like=True):
    """An event is durable. `detail` says what was done, where there is something to say."""

    detail: Any = None


class Reply(msgspec.Struct, frozen=True):
    """Answer to a request: a value, or the error to raise there."""

    request: int
    value: Any


class Refusal(msgspec.Struct, frozen=True):
    """Answer to a request: an error."""

    request: int
    error: OmniMindError


class Ended(msgspec.Struct, frozen=True):
    """Tasks that have reached their terminal state, for waiters, metrics and streams."""

    tasks: list[DistributedTask]


class Fetch(msgspec.Struct, frozen=True):
    """Ask the ledger for more of a line; answered by `Loaded`.

    line: ``ready`` (of a queue, beyond (rank, seq)), ``delayed`` (beyond (rank, seq)) or ``overdue``
    (deadline up to `before`).
    """

    line: str
    queue: str = ""
    after: tuple[float, int] = (float("-inf"), -1)
    limit: int = 0
    before: float = 0.0


Send = Dispatch | StopAttempts | AskRegister | FenceNode | ReleaseNode | Reply | Refusal | Ended | Fetch


class Effects(msgspec.Struct):
    """What `handle` returns. The sends may leave only when the records are durable."""

    records: Records = msgspec.field(default_factory=Records)
    sends: list[Send] = msgspec.field(default_factory=list)
