"""Identifiers: how they look, and the few functions that make or read them.

A task id is ``tsk_`` and 32 hexadecimal digits: a UUIDv7 (RFC 9562) whose last four digits are the
task's index within its submission. A client makes the base once per submission, so a submission that
is sent twice carries the same ids and is recognised.
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

_COUNTER_BITS = 40
_DIGITS = 32
_HEX = frozenset("0123456789abcdef")


def new_slab() -> str:
    """Return a fresh submission base: ``tsk_`` and 28 hexadecimal digits, sortable by time (ms)."""
    ms = time.time_ns() // 1_000_000
    rand = os.urandom(8)
    high = int.from_bytes(rand[:2], "big") & 0x0FFF
    low = (int.from_bytes(rand[2:], "big") & 0x3FFFFFFFFFFF) | 0x800000000000
    return f"tsk_{ms:012x}{0x7000 | high:04x}{low:012x}"


def task_id(slab: str, index: int = 0) -> str:
    """Return the id of task `index` of a submission."""
    return f"{slab}{index:04x}"


def slab_of(task: str) -> tuple[str, int]:
    """Split a task id into its submission base and index."""
    return task[:-4], int(task[-4:], 16)


def fence(epoch: int, counter: int) -> int:
    """Return the fence of attempt `counter` under a coordinator's `epoch`; fences only grow."""
    return epoch << _COUNTER_BITS | counter


def epoch_of(value: int) -> int:
    """Return the coordinator's epoch that granted a fence."""
    return value >> _COUNTER_BITS


def digest_of(data: bytes) -> str:
    """Return the name of stored bytes (handler records and blobs): 32 hexadecimal digits of SHA-256."""
    return hashlib.sha256(data).hexdigest()[:32]


def derived_task_id(now: float, epoch: int, counter: int) -> str:
    """Return the id of a task that the coordinator itself makes: a UUIDv7 with no chance in it."""
    ms = int(now * 1000) & 0xFFFFFFFFFFFF
    low = 0x800000000000 | (epoch & 0x3FFF) << 32 | (counter & 0xFFFFFFFF)
    return f"tsk_{ms:012x}{0x7000 | (epoch >> 14) & 0xFFF:04x}{low:012x}0000"


def submitted_at(task: str) -> float | None:
    """Return when a task's id was made, in Unix seconds by its client's clock; None when it is no task id."""
    digits = task[4:]
    if not task.startswith("tsk_") or len(digits) != _DIGITS or not set(digits) <= _HEX:
        return None
    return int(digits[:12], 16) / 1000
