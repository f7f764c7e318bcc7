"""Identifiers: how they look, and the few functions that make or read them.

A task id is ``tsk_`` and 32 hexadecimal digits, the last four of them the task's index within its
submission: a UUIDv8 (RFC 9562) laid out as a UUIDv7, whose 12 bits after the version are the *bucket* of the
task's queue (see `omnimind.cluster.sharding`), so that an id says where its task is kept; or, where the queue
was not known when it was made, a UUIDv7. A client makes the base once per submission, so a submission
that is sent twice carries the same ids and is recognised.
"""

from __future__ import annotations

import hashlib
import os
import time
from typing import NewType

TaskId = NewType("TaskId", str)
NodeId = NewType("NodeId", str)
Fence = NewType("Fence", int)

SLAB_MAX = 65_536
"""Most tasks in one submission: the index has four hexadecimal digits."""

SHARDS_MAX = 16
"""Most shards of one cluster: a fence has four bits for the shard."""

BUCKETS = 4096
"""What queues' names are hashed to: three hexadecimal digits of a task id."""

_COUNTER_BITS = 40
_EPOCH_BITS = 19
_ROUTED = "8"
"""The version digit of an id that says its bucket."""
_VERSION_AT = len("tsk_") + 12
_DIGITS = 32
_HEX = frozenset("0123456789abcdef")


def new_slab(bucket: int | None = None) -> str:
    """Return a fresh submission base: ``tsk_`` and 28 hexadecimal digits, sortable by time (ms).

    bucket: of the queue that the tasks will stand in, None where that is not known yet.
    """
    ms = time.time_ns() // 1_000_000
    rand = os.urandom(8)
    high = int.from_bytes(rand[:2], "big") & 0x0FFF
    low = (int.from_bytes(rand[2:], "big") & 0x3FFFFFFFFFFF) | 0x800000000000
    if bucket is not None:
        return f"tsk_{ms:012x}{_ROUTED}{bucket:03x}{low:012x}"
    return f"tsk_{ms:012x}{0x7000 | high:04x}{low:012x}"


def bucket_in(task: str) -> int | None:
    """Return the bucket that a task id (or a submission's base) carries, None when it carries none."""
    if task[_VERSION_AT : _VERSION_AT + 1] != _ROUTED:
        return None
    try:
        return int(task[_VERSION_AT + 1 : _VERSION_AT + 4], 16)
    except ValueError:
        return None


def task_id(slab: str, index: int = 0) -> str:
    """Return the id of task `index` of a submission."""
    return f"{slab}{index:04x}"


def slab_of(task: str) -> tuple[str, int]:
    """Split a task id into its submission base and index."""
    return task[:-4], int(task[-4:], 16)


def fence(epoch: int, counter: int, shard: int = 0) -> int:
    """Return the fence of attempt `counter` under a coordinator's `epoch`; within a shard fences only grow.

    Those of different shards never meet: the highest bits are the shard's number.
    """
    return (shard << _EPOCH_BITS | epoch) << _COUNTER_BITS | counter


def epoch_of(value: int) -> int:
    """Return the coordinator's epoch that granted a fence."""
    return value >> _COUNTER_BITS & (1 << _EPOCH_BITS) - 1


def shard_of_fence(value: int) -> int:
    """Return the shard whose coordinator granted a fence."""
    return value >> _COUNTER_BITS + _EPOCH_BITS


def digest_of(data: bytes) -> str:
    """Return the name of stored bytes (handler records and blobs): 32 hexadecimal digits of SHA-256."""
    return hashlib.sha256(data).hexdigest()[:32]


def derived_task_id(now: float, epoch: int, counter: int, bucket: int) -> str:
    """Return the id of a task that the coordinator itself makes: one that carries a bucket, no chance."""
    ms = int(now * 1000) & 0xFFFFFFFFFFFF
    low = 0x800000000000 | (epoch & 0x3FFF) << 32 | (counter & 0xFFFFFFFF)
    return f"tsk_{ms:012x}{_ROUTED}{bucket:03x}{low:012x}0000"


def submitted_at(task: str) -> float | None:
    """Return when a task's id was made, in Unix seconds by its client's clock; None when it is no task id."""
    digits = task[4:]
    if not task.startswith("tsk_") or len(digits) != _DIGITS or not set(digits) <= _HEX:
        return None
    return int(digits[:12], 16) / 1000
