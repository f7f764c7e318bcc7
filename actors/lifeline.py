"""What ties a process to its supervisor. Linux: prctl."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_SET_PARENT_DEATH_SIGNAL = 1
_SET_CHILD_SUBREAPER = 36


def follow(parent: int) -> None:
    """Let the kernel send SIGTERM to this process when its parent ends; end now if it has ended already."""
    _prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGTERM)
    if os.getppid() != parent:
        sys.exit("the supervisor has ended")


def adopt_orphans() -> None:
    """Become the parent of descendants whose own parent ends: none escapes, and none stays a zombie."""
    _prctl(_SET_CHILD_SUBREAPER, 1)


def _prctl(option: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option})")
