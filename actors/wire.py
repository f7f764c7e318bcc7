"""Messages between the Coordinator and the Node actors: msgpack of the core's own values."""

from __future__ import annotations

from typing import Any

import msgspec

from omnimind.cluster.events import Outcome, RunningBatch
from omnimind.cluster.node import NodeInfo


class Join(msgspec.Struct):
    """Node to coordinator: reports for work. Answer: the epoch."""

    node: NodeInfo
    running: tuple[RunningBatch, ...]


class Report(msgspec.Struct):
    """Node to coordinator: outcomes of a batch. Answered when they are durable."""

    node_id: str
    incarnation: str
    batch: int
    outcomes: tuple[Outcome, ...]
    final: bool


class Beat(msgspec.Struct):
    """Node to coordinator: lives, and holds these batches. Progress and log lines ride along."""

    node_id: str
    incarnation: str
    batches: tuple[tuple[int, int | None, float | None], ...]
    pids: dict[str, int]
    progress: dict[str, dict[str, Any]]
    logs: list[tuple[str, int, list[tuple[float, str, str]]]]


class Store(msgspec.Struct):
    """Node to coordinator: a checkpoint of a running attempt. Answered when it is durable."""

    task_id: str
    fence: int
    data: bytes


Up = Join | Report | Beat | Store

TYPES: dict[str, Any] = {"join": Join, "report": Report, "beat": Beat, "store": Store}

encode = msgspec.msgpack.Encoder().encode


def decode(kind: str, data: bytes) -> Any:
    """Return the message again."""
    return msgspec.msgpack.decode(data, type=TYPES[kind])
