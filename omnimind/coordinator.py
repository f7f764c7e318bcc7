"""`ClusterCoordinator`: the core, usable alone in one process.

The core itself knows neither clock nor loop; this class gives it both, and the verbs of a program that
runs its own nodes::

    coordinator = ClusterCoordinator("me")
    coordinator.register_node(NodeInfo("a", capabilities={"gpu"}))
    coordinator.register_task_callback(start_it)          # called when a task is placed, and when it ends
    coordinator.submit_task(DistributedTask("t1", "resize", {"path": "a.png"}))
    coordinator.complete_task("t1", {"ok": True})

Nothing is durable here: that is the shell's part (`actors.coordinator`), around the same core.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from typing import Any

from omnimind.cluster import events as ev
from omnimind.cluster.core import CoordinatorCore
from omnimind.cluster.events import KnownTask, Outcome
from omnimind.cluster.node import NodeInfo
from omnimind.cluster.placement import check_strategy
from omnimind.cluster.policies import CoreLimits
from omnimind.cluster.sends import Dispatch, Effects, Ended, Refusal
from omnimind.cluster.states import NodeStatus, TaskStatus
from omnimind.cluster.status import cluster_status
from omnimind.cluster.task import DistributedTask
from omnimind.errors import InvalidInput, NotFound

log = logging.getLogger("omnimind")

TaskCallback = Callable[[DistributedTask], Any]

_UNBOUNDED = 1 << 40


class ClusterCoordinator(CoordinatorCore):
    """A coordinator for nodes that this process itself drives.

    heartbeat_interval: seconds between two looks at the nodes' heartbeats, after `start`.
    heartbeat_timeout: seconds of silence after which a node is offline and its tasks go elsewhere.
    clock: returns Unix seconds. keep_ended: how many ended tasks stay in `tasks`.

    Raises InvalidInput for an unknown strategy. Every task is placed alone, so `current_tasks` of a node
    counts tasks. Retries, deadlines and delays are served by `start`'s loop, or by any later call.
    """

    def __init__(
        self,
        node_id: str,
        load_balancing_strategy: str = "least_loaded",
        heartbeat_interval: float = 10.0,
        heartbeat_timeout: float = 30.0,
        *,
        clock: Callable[[], float] = time.time,
        keep_ended: int = 10_000,
        seed: int = 0,
    ) -> None:
        for name, value in (
            ("heartbeat_interval", heartbeat_interval),
            ("heartbeat_timeout", heartbeat_timeout),
        ):
            if not 0 < value < float("inf"):
                msg = f"{name} is a positive number of seconds, not {value!r}"
                raise InvalidInput(msg, field=name)
        limits = CoreLimits(
            window=_UNBOUNDED,
            batch_seconds=0.0,
            batch_max=1,
            async_batch=1,
            heartbeat_timeout=heartbeat_timeout,
            suspect_after=heartbeat_timeout,
            stall=float("inf"),  # whoever drives it decides how often
            keep_ended=keep_ended,
        )
        super().__init__(node_id, limits, seed=seed, strategy=check_strategy(load_balancing_strategy))
        self.load_balancing_strategy = load_balancing_strategy
        self.heartbeat_interval = heartbeat_interval
        self.heartbeat_timeout = heartbeat_timeout
        self.running = False
        self._clock = clock
        self._callbacks: list[TaskCallback] = []
        self._loop: asyncio.Task[None] | None = None
        self._feed(ev.Recovered(epoch=1, last_seq=0))

    # --- nodes --------------------------------------------------------------------------------------

    def register_node(self, node: NodeInfo) -> None:
        """Let a node take part; work that waits for it is placed at once.

        A node that registers again under its id replaces its former self, whose tasks go elsewhere.
        """
        known = self.nodes.get(node.node_id)
        life = int(known.incarnation or "0") + 1 if known is not None else 1
        node.incarnation = str(life)
        ordered = node.status if node.status in {NodeStatus.CORDONED, NodeStatus.DRAINING} else None
        node.ordered = ordered
        self._feed(ev.NodeJoined(node))

    def unregister_node(self, node_id: str) -> bool:
        """Take a node out, its tasks going elsewhere. Returns False when there is no such node."""
        if node_id not in self.nodes:
            return False
        self._feed(ev.NodeGone(node_id, "unregistered"))
        self.nodes.pop(node_id, None)
        return True

    def update_node_heartbeat(self, node_id: str) -> bool:
        """Note that a node lives; one that was offline takes part again, as new.

        Returns False when there is no such node.
        """
        node = self.nodes.get(node_id)
        if node is None:
            return False
        if node.status is NodeStatus.OFFLINE:
            node.status = node.ordered or NodeStatus.ACTIVE
            self.register_node(node)
            return True
        held = tuple((fence, None, None) for fence in self.by_node.get(node_id, {}))
        self._feed(ev.Heartbeat(node_id, node.incarnation, held))
        return True

    def get_node_status(self, node_id: str) -> dict[str, Any] | None:
        """Return a node as `NodeInfo.to_dict`, None when there is no such node."""
        node = self.nodes.get(node_id)
        return None if node is None else node.to_dict()

    # --- tasks --------------------------------------------------------------------------------------

    def submit_task(self, task: DistributedTask) -> bool:
        """Accept a task. Returns True when it was placed at once, False when it waits.

        A task whose id, or whose key with the same payload, is known already changes nothing.
        Raises what is wrong with it (InvalidInput, UnknownQueue, KeyConflict, QueueFull, NotFound, …).
        """
        held = self.tasks.get(task.task_id)
        if held is not None:
            return held.status is TaskStatus.RUNNING
        known = {
            d: KnownTask(d, t.status, t.digest, t.cause)
            for d in task.after
            if (t := self.tasks.get(d)) is not None
        }
        self._feed(ev.Submit(1, [task], known_ids=known))
        return task.status is TaskStatus.RUNNING

    def complete_task(self, task_id: str, result: Any = None, error: Any = None) -> bool:
        """Report how a placed task went: a result, or an error (text or exception), which may be retried.

        Returns False, and changes nothing, when the task is not running.
        """
        task = self.tasks.get(task_id)
        if task is None or task.status is not TaskStatus.RUNNING:
            return False
        batch = self.batches[task.fence]
        seconds = max(0.0, self._clock() - (task.started_at or 0.0))
        if error is None:
            outcome = Outcome(0, "ok", result, seconds=seconds)
        else:
            kinds = type(error).__mro__ if isinstance(error, BaseException) else ()
            bases = [f"{c.__module__}.{c.__qualname__}" for c in kinds]
            name = type(error).__name__ if kinds else "Error"
            outcome = Outcome(
                0, "error", error={"type": name, "bases": bases, "message": str(error)}, seconds=seconds
            )
        self._feed(ev.Outcomes(0, batch.node_id, batch.incarnation, batch.fence, [outcome], final=True))
        return True

    def cancel_task(self, task_id: str) -> bool:
        """End a task. Returns False when it had ended, or there is none.

        One that runs is ended at once: its node's later word about it changes nothing.
        """
        task = self.live(task_id)
        if task is None:
            return False
        self._feed(ev.Cancel(0, [task_id]))
        if task.status is TaskStatus.RUNNING:
            batch = self.batches[task.fence]
            self._feed(
                ev.Outcomes(
                    0, batch.node_id, batch.incarnation, batch.fence, [Outcome(0, "cancelled")], final=True
                )
            )
        return True

    def get_task(self, task_id: str) -> DistributedTask:
        """Return a task; raises NotFound for one that was never submitted or is no longer kept."""
        task = self.tasks.get(task_id)
        if task is None:
            raise NotFound(f"there is no task {task_id}", field="task_id")
        return task

    def register_task_callback(self, callback: TaskCallback) -> None:
        """Call `callback(task)` whenever a task is placed on a node and when it ends.

        What a callback raises is logged; the coordinator and the other callbacks go on.
        """
        self._callbacks.append(callback)

    def get_cluster_status(self) -> dict[str, Any]:
        """Return the cluster at a glance, with every node."""
        return cluster_status(self)

    # --- time ---------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begin to look at heartbeats, deadlines and retries; a second call does nothing."""
        if self._loop is None:
            self.running = True
            self._loop = asyncio.create_task(self._watch())

    async def stop(self) -> None:
        """Stop looking; a second call does nothing."""
        self.running = False
        loop, self._loop = self._loop, None
        if loop is not None:
            loop.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await loop

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self.heartbeat_interval)
            self.tick()

    def tick(self) -> None:
        """Do what is due now; `start` calls it every `heartbeat_interval` seconds."""
        self.next_check = min(self.next_check, self._clock())
        self._feed(ev.Tick())

    def _feed(self, event: ev.Event) -> None:
        effects: Effects = self.handle(event, self._clock())
        for send in effects.sends:
            match send:
                case Refusal(_, error):
                    raise error
                case Dispatch(_, _, batch):
                    for item in batch.items:
                        self._tell(self.tasks[item.task_id])
                case Ended(tasks):
                    for task in tasks:
                        self._tell(task)
                case _:
                    # The nodes of this process are driven by its own program, and nothing is on disk.
                    pass

    def _tell(self, task: DistributedTask) -> None:
        for callback in self._callbacks:
            try:
                callback(task)
            except Exception:
                log.exception("a task callback failed for %s", task.task_id)
