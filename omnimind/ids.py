"""Identifiers: how they look, and the few functions that make or read them.

A task id is ``tsk_`` and 32 hexadecimal digits: a UUIDv7 (RFC 9562) whose last four digits are the
task's index within its submission. A client makes the base once per submission, so a submission that
is sent twice carries the same ids and is recognised.
"""

from __future__ import annotations

import os
import time
from typing import NewType

TaskId = NewType("TaskId", str)
NodeId = NewType("NodeId", str)
Fence = NewType("Fence", int)

SLAB_MAX = 65_536
"""Most tasks in one submission: the index has four hexadecimal digits."""

_COUNTER_BITS = 40


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
