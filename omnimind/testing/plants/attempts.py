"""Bugs in fences, attempts, nodes and outcomes."""

from __future__ import annotations

from typing import Any

from omnimind.cluster import attempts, drains, members, outcomes, stopping
from omnimind.cluster import events as ev
from omnimind.cluster.attempts import LiveBatch
from omnimind.cluster.core import CoordinatorCore
from omnimind.cluster.events import Outcome
from omnimind.cluster.node import NodeInfo
from omnimind.cluster.queues import Lane
from omnimind.cluster.records import node_saved, state_row
from omnimind.cluster.sends import Acknowledged, Effects, ReleaseNode, Reply
from omnimind.cluster.states import Line, NodeStatus, TaskStatus
from omnimind.cluster.task import DistributedTask
from omnimind.ids import epoch_of
from omnimind.testing.plants.registry import Patches, plant

_COUNTER = (1 << 40) - 1


def _remember(patches: Patches) -> dict[int, list[DistributedTask | None]]:
    """Keep the tasks of every batch by its fence, also after the core has forgotten it."""
    sent: dict[int, list[DistributedTask | None]] = {}

    def init(self: LiveBatch, fence: int, *args: Any) -> None:
        original(self, fence, *args)
        sent[fence] = list(self.tasks)

    original = patches.put(LiveBatch, "__init__", init)
    return sent


@plant("P2b", 60, "An outcome counts for its task, whatever fence it carries")
def fence_check_dropped(patches: Patches) -> None:
    sent = _remember(patches)

    def careless(core: CoordinatorCore, event: ev.Outcomes, now: float, fx: Effects) -> None:
        if event.batch in core.batches:
            original(core, event, now, fx)
            return
        for outcome in event.outcomes:
            old = sent.get(event.batch, [None] * 999)[outcome.index]
            task = None if old is None else core.live(old.task_id)
            if task is not None and outcome.status == "ok":
                _commit(core, task, event.batch + outcome.index, outcome, now, fx)
        fx.sends.append(Reply(event.request, Acknowledged()))

    original = patches.put(outcomes, "outcomes", careless)


def _commit(
    core: CoordinatorCore, task: DistributedTask, fence: int, outcome: Outcome, now: float, fx: Effects
) -> None:
    from omnimind.cluster import lines  # noqa: PLC0415 (beside a module of this name in this package)

    if task.line is Line.RUNNING:
        attempts._take_back(core, task, now, fx)  # noqa: SLF001
    else:
        lines.withdraw(core, task, Line.RUNNING)
    task.status, task.fence = TaskStatus.RUNNING, fence
    outcomes.apply(core, task, outcome, outcomes._Where("", alone=True), now, fx)  # noqa: SLF001


@plant("P2a", 60, "An outcome that comes twice is committed twice")
def committed_twice(patches: Patches) -> None:
    sent = _remember(patches)

    def careless(core: CoordinatorCore, event: ev.Outcomes, now: float, fx: Effects) -> None:
        if event.batch not in core.batches:
            for outcome in event.outcomes:
                task = sent.get(event.batch, [None] * 999)[outcome.index]
                if task is not None and task.status is TaskStatus.COMPLETED:
                    task.completed_at = now
                    fx.records.updates.append(state_row(task))
        original(core, event, now, fx)

    original = patches.put(outcomes, "outcomes", careless)


@plant(
    "P2a",
    200,
    "A result that comes after the task's end by a cancel is committed over it",
    cancels=1.0,
    tasks=40,
    bound=50,
    duration=1.0,
)
def cancelled_task_committed(patches: Patches) -> None:
    sent = _remember(patches)

    def careless(core: CoordinatorCore, event: ev.Outcomes, now: float, fx: Effects) -> None:
        if event.batch not in core.batches:
            for outcome in event.outcomes:
                task = sent.get(event.batch, [None] * 999)[outcome.index]
                if task is not None and task.status is TaskStatus.CANCELLED and outcome.status == "ok":
                    task.status, task.result = TaskStatus.COMPLETED, outcome.value
                    fx.records.updates.append(state_row(task))
        original(core, event, now, fx)

    original = patches.put(outcomes, "outcomes", careless)


@plant("S", 60, "A lost batch is forgotten, its tasks are not requeued")
def no_requeue_on_node_loss(patches: Patches) -> None:

    def forgetful(core: CoordinatorCore, batch: LiveBatch, _cause: str, now: float, _fx: Effects) -> None:
        batch.tasks[:] = [None] * len(batch.tasks)
        batch.open = 0
        attempts.close(core, batch, now)

    patches.put(outcomes, "lose", forgetful)


@plant(
    "P2f",
    200,
    "A node that is silent for ever keeps its work for ever",
    crash=0.2,
    coordinator_before=0.0,
    coordinator_after=0.0,
    jump=0.0,
)
def node_never_given_up(patches: Patches) -> None:
    patches.put(members, "check", lambda *_: None)
    patches.put(members, "gone", lambda *_: None)


@plant("P2c", 60, "A task that is tried again gets the fence that it had")
def fence_reused_on_requeue(patches: Patches) -> None:

    def thrifty(core: CoordinatorCore, lane: Lane, *args: Any, **options: Any) -> None:
        head, counter = lane.head(), core.counter
        again = head is not None and lane.count == 1 and head.fence and epoch_of(head.fence) == core.epoch
        if head is not None and again and head.fence not in core.batches:
            core.counter = head.fence & _COUNTER
        original(core, lane, *args, **options)
        core.counter = max(counter, core.counter)

    original = patches.put(attempts, "_start", thrifty)


@plant("P2e", 100, "A lost attempt is repeated, whatever the task says", at_most_once=0.5)
def at_most_once_run_again(patches: Patches) -> None:

    def eager(core: CoordinatorCore, task: DistributedTask, outcome: Outcome, *args: Any) -> None:
        if outcome.status in {"lost", "crashed"}:
            task.at_most_once = False
        original(core, task, outcome, *args)

    original = patches.put(outcomes, "apply", eager)


@plant("P2e", 100, "An at_most_once task is sent out before its start is durable", at_most_once=0.5)
def start_not_written(patches: Patches) -> None:

    def lazy(self: CoordinatorCore, task: DistributedTask, fx: Effects) -> None:
        if not (task.at_most_once and task.cause == "started"):
            original(self, task, fx)

    original = patches.put(CoordinatorCore, "save", lazy)


@plant("P2f", 100, "A batch that its node does not hold is waited for all the same")
def lost_batch_never_noticed(patches: Patches) -> None:

    def trusting(core: CoordinatorCore, event: ev.Heartbeat, now: float, fx: Effects) -> None:
        for batch in core.by_node.get(event.node_id, {}).values():
            batch.sent_at = now
        original(core, event, now, fx)

    original = patches.put(members, "heartbeat", trusting)


@plant("S", 100, "What ran when the coordinator died, and that no node reports, is not requeued")
def orphans_forgotten(patches: Patches) -> None:

    def hasty(core: CoordinatorCore, _now: float, _fx: Effects) -> None:
        core.recovering = False

    patches.put(members, "_end_recovery", hasty)


@plant("P4", 60, "An attempt that failed leaves no reason")
def end_without_a_cause(patches: Patches) -> None:
    patches.put(outcomes, "_cause", lambda *_: "")


@plant("P1c", 300, "The wish to stop a running attempt is only in memory", cancels=0.6)
def cancel_forgotten_at_restart(patches: Patches) -> None:

    def forgetful(core: CoordinatorCore, task: DistributedTask, why: str, now: float, fx: Effects) -> None:
        task.cancelling = why
        batch, index = attempts.batch_of(core, task)
        if batch is not None:
            stopping.ask_to_stop(core, task, batch, index, now, fx)

    patches.put(stopping, "stop_running", forgetful)


@plant("P7", 300, "A new coordinator gives work to nodes that were told to drain", controls=0.6)
def drain_forgotten_at_restart(patches: Patches) -> None:

    def forgetful(core: CoordinatorCore, event: ev.Recovered, now: float) -> None:
        for node in event.nodes:
            node.ordered = None
        original(core, event, now)

    original = patches.put(members, "restore", forgetful)


@plant("P7", 200, "A drain is reported as over while its node still runs something", controls=0.6)
def drain_over_too_early(patches: Patches) -> None:

    def hasty(_core: CoordinatorCore, node: NodeInfo, _now: float, fx: Effects) -> None:
        if node.ordered is NodeStatus.DRAINING:
            node.ordered = node.status = NodeStatus.CORDONED
            fx.records.others.append(node_saved(node))
            fx.sends.append(ReleaseNode(node.node_id))

    patches.put(drains, "drained", hasty)


@plant("P5", 100, "A retry is not counted", mix="calm", raises=0.5)
def retries_without_end(patches: Patches) -> None:
    def patient(core: CoordinatorCore, task: DistributedTask, *args: Any) -> None:
        task.retry_count, task.max_retries = 0, 99
        original(core, task, *args)

    original = patches.put(outcomes, "_after_error", patient)


@plant("P5", 100, "A task may kill as many workers as it likes", mix="calm", poison=0.3)
def killers_never_parked(patches: Patches) -> None:
    def forgiving(core: CoordinatorCore, task: DistributedTask, *args: Any, **options: Any) -> None:
        task.deaths = 0
        original(core, task, *args, **options)

    original = patches.put(outcomes, "_after_crash", forgiving)


@plant("P2b", 300, "A checkpoint of an attempt that was replaced is kept", checkpoints=1.0)
def stale_checkpoint_kept(patches: Patches) -> None:
    def careless(core: CoordinatorCore, event: ev.Checkpoint, fx: Effects) -> None:
        task = core.live(event.task_id)
        if task is not None:
            event.fence = task.fence
        original(core, event, fx)

    original = patches.put(outcomes, "checkpoint", careless)


@plant("P1a", 100, "A checkpoint is confirmed and forgotten", checkpoints=1.0, raises=0.5)
def checkpoint_forgotten(patches: Patches) -> None:
    def forgetful(core: CoordinatorCore, event: ev.Checkpoint, fx: Effects) -> None:
        original(core, event, fx)
        task = core.live(event.task_id)
        if task is not None:
            task.checkpoint = None

    original = patches.put(outcomes, "checkpoint", forgetful)


@plant("N", 300, "A coordinator that stood still takes its nodes for silent", mix="calm", stall=0.08)
def stall_blamed_on_the_nodes(patches: Patches) -> None:
    patches.put(members, "excuse", lambda *_: None)
