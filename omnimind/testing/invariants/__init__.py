"""What must hold in every simulation, by the promise that it belongs to.

Most checks run at the moment at which they can first fail, and look only at what was touched:
`committed` for each row that becomes durable, `decided` for each thing that a core hands out, `granted`
when it leaves the coordinator, `started` when a handler begins. They ask the ghost and the durable
ledger, never the core.

====  ======================================================================================
P1a   what a client or a node is told is durable at the moment it is told
P1b   an acknowledged id is in the ledger after every restart
P1c   an acknowledged cancel survives: no new attempt is granted after it
P2a   a task has one terminal record, and it never changes
P2b   what is committed comes from the newest fence that was granted, and is what that attempt gave
P2c   fences grow strictly per task, over restarts too
P2d   one fence runs on one node incarnation, once
P2e   at_most_once: never two starts; a lost one ends as failed, lost
P2f   every acknowledged task ends, and every request is answered
P3    a key stands for one task for ever; with another payload it is refused
P4    every end, retry and refusal has a cause
P5    bounds hold; a refusal says when to come again; nothing is left over at the end
P7    a node that is drained or cordoned gets no work, nor does a paused queue start any; a drain is
      over only when nothing runs there
N     no node is given up when none has failed
S     the core's structure is sound, and no event makes it raise
D     no task runs before those it comes after have completed, before its time or past its deadline
A     nothing is overtaken without bound
R     a queue's limit of starts a second holds
F     queues that always have work share the handler seconds by their weights
====  ======================================================================================
"""

from __future__ import annotations

from omnimind.testing.invariants.answers import Answers
from omnimind.testing.invariants.base import Broken, must
from omnimind.testing.invariants.ending import Ending
from omnimind.testing.invariants.rows import Rows
from omnimind.testing.invariants.starts import Starts

__all__ = ["Broken", "Invariants", "must"]


class Invariants(Rows, Starts, Answers, Ending):
    """The checks of one run."""
