"""Messages between the Coordinator and the Node actors: msgpack of the core's own values.

They travel over the coordinator's unix socket when both are on one host (a tenth of a millisecond), and
as Ray actor calls otherwise. The messages are the same.
"""

from __future__ import annotations

from typing import Any

import msgspec

from omnimind.cluster.events import Outcome, RunningBatch
from omnimind.cluster.node import NodeInfo
from omnimind.cluster.sends import Batch

# --- up: node to coordinator ------------------------------------------------------------------------


class Join(msgspec.Struct):
    """Reports for work. Answer: the epoch."""

    node: NodeInfo
    running: tuple[RunningBatch, ...]
    sent_at: float
    """Unix seconds by the node's own wall clock."""


class Report(msgspec.Struct):
    """Outcomes of a batch. Answered, with null, when they are durable."""

    node_id: str
    incarnation: str
    batch: int
    outcomes: tuple[Outcome, ...]
    final: bool
    progress: dict[str, dict[str, Any]] = {}
    """What is not known yet of the progress of any task."""
    logs: list[tuple[str, int, list[tuple[float, str, str]]]] = []
    """Lines that are to be there before the outcomes are."""


class Beat(msgspec.Struct):
    """Lives, and holds these batches. Progress and log lines ride along. Answer: the epoch."""

    node_id: str
    incarnation: str
    batches: tuple[tuple[int, int | None, float | None], ...]
    pids: dict[str, int]
    progress: dict[str, dict[str, Any]]
    logs: list[tuple[str, int, list[tuple[float, str, str]]]]
    slots: int | None = None
    """How many of the node's slots the shard may use now; None where there is one shard."""
    sent_at: float | None = None
    """Unix seconds by the node's own wall clock."""


class Store(msgspec.Struct):
    """A checkpoint of a running attempt. Answered, with null, when it is durable."""

    task_id: str
    fence: int
    data: bytes


class Fetch(msgspec.Struct):
    """Wants a handler's record (`spec`) or stored bytes (`blob`), by digest. Answer: bytes."""

    what: str
    digest: str


Up = Join | Report | Beat | Store | Fetch

UP: dict[str, Any] = {"join": Join, "report": Report, "beat": Beat, "store": Store, "fetch": Fetch}

# --- down: coordinator to node ----------------------------------------------------------------------


class Run(msgspec.Struct):
    """Start a batch. spec: its handler's record where the coordinator has it at hand."""

    batch: Batch
    incarnation: str
    spec: bytes


class Stop(msgspec.Struct):
    """End items of a batch; see `sends.StopAttempts`."""

    incarnation: str
    fence: int
    indexes: tuple[int, ...]
    hard: bool
    cause: str


class Register(msgspec.Struct):
    """Report for work."""


class Fence(msgspec.Struct):
    """This incarnation was given up: end its batches, join as new."""

    incarnation: str


Down = Run | Stop | Register | Fence

DOWN: dict[str, Any] = {"run": Run, "stop": Stop, "register": Register, "fence": Fence}

encode = msgspec.msgpack.Encoder().encode

_decoders = {kind: msgspec.msgpack.Decoder(type_) for kind, type_ in {**UP, **DOWN}.items()}


def decode(kind: str, data: bytes) -> Any:
    """Return the message again."""
    return _decoders[kind].decode(data)
