"""`Ghost`: what really happened in a simulation, noted by the simulator and never by the code under test."""

from __future__ import annotations

from omnimind.testing.workload import Submission


class TaskGhost:
    """One task, as the world outside the coordinator saw it."""

    __slots__ = (
        "accepted", "active", "cancel_asked", "checkpoints", "decided", "due", "ended", "failures",
        "fence", "fences_run", "grants", "index", "kept", "kills", "node", "results", "starts",
        "stopping", "sub", "task_id",
    )  # fmt: skip

    def __init__(self, task_id: str, sub: Submission | None, index: int) -> None:
        self.task_id = task_id
        self.sub = sub
        """None for a task that a schedule has made."""
        self.index = index
        self.accepted = False
        self.fence = -1
        """The newest fence that was granted: sent out by the coordinator that owns the ledger."""
        self.grants = 0
        self.decided = 0
        """Attempts that a core has decided on, sent out or not."""
        self.starts = 0
        self.failures = 0
        """How often its handler raised; `kills`: how often it killed a worker in which it was alone."""
        self.kills = 0
        self.fences_run: dict[int, None] = {}
        self.node = ("", "")
        """Where the newest fence was sent: node and incarnation."""
        self.active = False
        """Granted, and the ledger has not learned of its end or its return to a line since."""
        self.due: float | None = None
        """The coordinator's time before which it must not start."""
        self.results: dict[int, bytes] = {}
        """What each attempt that ended well gave, by fence."""
        self.checkpoints: list[bytes] = []
        """What its attempts wanted to have kept, in order. `kept`: the number of the last confirmed one."""
        self.kept = 0
        self.cancel_asked = False
        self.stopping = False
        """A client was told that its running attempt is being stopped."""
        self.ended: str | None = None

    @property
    def at_most_once(self) -> bool:
        """Return whether it may start only once."""
        return self.sub is not None and self.sub.at_most_once


class Ghost:
    """The truth about one run."""

    def __init__(self) -> None:
        self.tasks: dict[str, TaskGhost] = {}
        self.keys: dict[str, tuple[str, bytes]] = {}
        """Key -> (id, payload) of the first task that became durable under it."""
        self.used_keys: dict[str, dict[bytes, None]] = {}
        """Key -> payloads that clients have sent under it."""
        self.started: dict[int, tuple[str, str]] = {}
        """Fence -> (node, incarnation) where it ran."""
        self.held_back: dict[str, str] = {}
        """Nodes for which a cordon or a drain was acknowledged, and no uncordon sent since."""
        self.paused: dict[str, None] = {}
        """Queues whose pause was acknowledged, and no resumption sent since."""
        self.uncommitted: dict[str, int] = {}
        """Tasks by queue that the core has accepted and the ledger does not hold yet."""
        self.seconds: dict[str, float] = {}
        """Handler seconds by queue."""
        self.longest: dict[str, float] = {}

    def expect(self, sub: Submission) -> None:
        """Note a submission that a client sends."""
        for index, task_id in enumerate(sub.ids):
            self.tasks.setdefault(task_id, TaskGhost(task_id, sub, index))
            key = sub.keys[index]
            if key is not None:
                self.used_keys.setdefault(key, {})[sub.payload(index)] = None

    def of(self, task_id: str) -> TaskGhost:
        """Return a task's story; one that no client has sent was made by a schedule."""
        ghost = self.tasks.get(task_id)
        if ghost is None:
            ghost = self.tasks[task_id] = TaskGhost(task_id, None, 0)
        return ghost
