"""Work that is witnessed: a handler that writes down each of its attempts, beside the runtime.

It is an installed module, so that it travels by name to every host. The journal's path must lead to the
same file on all of them.
"""

from __future__ import annotations

import os
import socket
import time
import uuid

from omnimind.context import Cancelled, TaskContext
from omnimind.errors import Conflict
from omnimind.registry import task
from omnimind.testing.history import Ended, Journal, Kept, Started, now

KIND = "omnimind.witnessed"
_STEP = 0.05
_journals: dict[str, Journal] = {}


class Meant(Exception):
    """The handler was told to raise."""


@task(name=KIND)
def witnessed(
    ctx: TaskContext, journal: str, seconds: float = 0.0, raises: int = 0, marks: int = 0, tag: str = ""
) -> str:
    """Work for `seconds`, in sight of the witness, and return a value that no other attempt returns.

    raises: attempts that raise at their end instead. marks: checkpoints on the way, numbered from 1; an
    attempt goes on from the one that it is given. tag: makes one payload differ from another.
    """
    del tag
    said = _journals.get(journal)
    if said is None:
        said = _journals[journal] = Journal(journal)
    done = int(ctx.last_checkpoint or 0)
    said.write(Started(ctx.task_id, ctx.fence, now(), socket.gethostname(), os.getpid(), done))
    try:
        for number in range(done + 1, marks + 1):
            _pass(ctx, seconds / max(1, marks))
            ctx.checkpoint(number)
            said.write(Kept(ctx.task_id, ctx.fence, now(), number))
        if not marks:
            _pass(ctx, seconds)
    except (Cancelled, Conflict):
        # Asked to end, or its checkpoint was refused: another attempt has taken over.
        said.write(Ended(ctx.task_id, ctx.fence, now(), stopped=True))
        raise
    except Exception:
        said.write(Ended(ctx.task_id, ctx.fence, now()))
        raise
    if ctx.attempt < raises:
        said.write(Ended(ctx.task_id, ctx.fence, now()))
        msg = f"attempt {ctx.attempt} of {raises} that raise"
        raise Meant(msg)
    value = f"{ctx.fence:x}-{uuid.uuid4().hex[:12]}"
    said.write(Ended(ctx.task_id, ctx.fence, now(), value))
    return value


def _pass(ctx: TaskContext, seconds: float) -> None:
    """Let time pass, and hear of a cancel."""
    until = now() + seconds
    while (left := until - now()) > 0:
        ctx.check()
        time.sleep(min(_STEP, left))
