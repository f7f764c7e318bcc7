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
P7    a node that is drained or cordoned gets no work; a drain is over only when nothing runs there
S     the core's structure is sound, and no event makes it raise
D     no task runs before those it comes after have completed, before its time or past its deadline
A     nothing is overtaken without bound
F     queues that always have work share the handler seconds by their weights
====  ======================================================================================
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from omnimind.cluster.records import AttemptRow, Records, TaskRow, task_from_row
from omnimind.cluster.sends import Batch, Dispatch
from omnimind.cluster.states import Line
from omnimind.errors import OmniMindError, QueueFull
from omnimind.ids import epoch_of
from omnimind.ledger.rows import CAUSE, CREATED_AT, DEADLINE, ID, KEY, LINE, PAYLOAD, QUEUE, RESULT, STATUS
from omnimind.testing.ledger import DEATHS, ENDED, ERROR, FENCE, RETRIES

if TYPE_CHECKING:
    from omnimind.testing.cluster import SimCluster
    from omnimind.testing.ghost import TaskGhost
    from omnimind.testing.workload import Submission

_ROUNDING = 1e-6
_NO_REASON = ("submitted", "started")


class Broken(AssertionError):
    """An invariant does not hold."""

    def __init__(self, invariant: str, story: str) -> None:
        super().__init__(f"{invariant}: {story}")
        self.invariant = invariant
        self.story = story


def must(holds: object, invariant: str, story: str) -> None:
    """Raise Broken unless something holds. For cold paths: the story is built in any case."""
    if not holds:
        raise Broken(invariant, story)


class Invariants:
    """The checks of one run."""

    def __init__(self, sim: SimCluster) -> None:
        self.sim = sim
        self.ghost = sim.ghost
        self.disk = sim.disk
        self.coverage = sim.coverage

    # ---------------------------------------------------------------------------------- the ledger

    def committed(self, before: TaskRow | None, row: TaskRow) -> None:
        """Check a task's row at the moment at which it becomes durable."""
        task_id: str = row[ID]
        ghost = self.ghost.of(task_id)
        status: str = row[STATUS]
        if before is None:
            self._inserted(row)
            if ghost.sub is not None and ghost.sub.delay:
                ghost.due = row[CREATED_AT] + ghost.sub.delay
        elif before[STATUS] in ENDED and row != before:
            raise Broken(
                "P2a", f"{task_id} ended as {before[STATUS]} ({before[CAUSE]}); then came {row[STATUS]}"
            )
        elif (row[RETRIES], row[DEATHS]) != (before[RETRIES], before[DEATHS]):
            must(row[CAUSE] not in _NO_REASON, "P4", f"{task_id}: tried again because of {row[CAUSE]!r}")
            self.coverage.add("retry_after_restart", self.disk.epoch > 1)
        if not row[CAUSE]:
            raise Broken("P4", f"{task_id} is {status} without a cause")
        ghost.active = ghost.active and row[LINE] == Line.RUNNING
        if status in ENDED:
            ghost.ended = status
            self._ended(ghost, row)

    def _inserted(self, row: TaskRow) -> None:
        queue: str = row[QUEUE]
        self.ghost.uncommitted[queue] -= 1
        key: str | None = row[KEY]
        if key is not None:
            owner = self.ghost.keys.setdefault(key, (row[ID], row[PAYLOAD]))
            must(owner[0] == row[ID], "P3", f"key {key} stands for {owner[0]}, and now for {row[ID]} too")

    def _ended(self, ghost: TaskGhost, row: TaskRow) -> None:
        status, cause = row[STATUS], row[CAUSE]
        story = f"{ghost.task_id} {status} ({cause}) with fence {row[FENCE]:x}"
        if ghost.at_most_once:
            must(row[RETRIES] == row[DEATHS] == 0, "P2e", f"{story}: retried")
        match str(status):
            case "completed":
                must(row[FENCE] == ghost.fence, "P2b", f"{story}, the newest granted is {ghost.fence:x}")
                given = ghost.results.get(row[FENCE])
                must(
                    given is not None and given == row[RESULT],
                    "P2b",
                    f"{story}: {row[RESULT]!r} is not {given!r}",
                )
                for other in self._dependencies(ghost):
                    must(self._completed(other), "D", f"{story}, but {other} has not completed")
                self.coverage.add("dependency_completed", len(self._dependencies(ghost)))
            case "expired":
                must(row[DEADLINE] is not None, "D", f"{story}: it has no deadline")
                late = self.sim.latest_time - row[DEADLINE]
                must(late >= -_ROUNDING, "D", f"{story}: {-late:.3f} s before its deadline")
                self.coverage.add("expired")
            case "cancelled":
                must(ghost.cancel_asked, "P4", f"{story}: nobody asked for it")
                self.coverage.add("cancelled_running" if ghost.decided else "cancelled_waiting")
            case "failed":
                if cause == "lost":
                    must(ghost.at_most_once, "P2e", f"{story}: it may be repeated")
                    self.coverage.add("at_most_once_lost")
                elif cause.startswith("dependency "):
                    self.coverage.add("dependency_failed")
                must(row[ERROR], "P4", f"{story}: without an error")
            case "dead":
                must(row[DEATHS] >= self.sim.limits.max_deaths, "P4", f"{story}: only {row[DEATHS]} deaths")
                self.coverage.add("dead")
            case other:
                raise Broken("P2a", f"{story}: {other} is no end")

    def _dependencies(self, ghost: TaskGhost) -> list[str]:
        sub = ghost.sub
        if sub is None:
            return []
        if not sub.chain or not ghost.index:
            return sub.depends
        before, key = sub.ids[ghost.index - 1], sub.keys[ghost.index - 1]
        if self.disk.row(before) is None and key is not None and key in self.ghost.keys:
            before = self.ghost.keys[key][0]
        return [*sub.depends, before]

    def _completed(self, task_id: str) -> bool:
        row = self.disk.row(task_id)
        return row is not None and row[STATUS] == "completed"

    def attempt(self, row: AttemptRow) -> None:
        """Check the record of an attempt that did not succeed."""
        task_id, _, fence, _, outcome, cause = row[:6]
        ghost = self.ghost.of(task_id)
        must(cause and outcome, "P4", f"{task_id}: an attempt ended as {outcome!r} because of {cause!r}")
        if outcome != "lost":
            must(
                fence == ghost.fence,
                "P2b",
                f"{task_id}: {outcome} of {fence:x}, the newest is {ghost.fence:x}",
            )

    def recovered(self) -> None:
        """Check the ledger when a coordinator has opened it; what it does not hold by now was lost."""
        self.ghost.uncommitted.clear()
        for task_id, ghost in self.ghost.tasks.items():
            if ghost.accepted:
                must(self.disk.row(task_id) is not None, "P1b", f"{task_id} was acknowledged and is gone")

    # ------------------------------------------------------------------------- what a core decides

    def decided(self, records: Records, grants: list[Dispatch], now: float) -> None:
        """Check what came out of one event, before it is durable."""
        for row in records.inserts:
            self.ghost.uncommitted[row[QUEUE]] = self.ghost.uncommitted.get(row[QUEUE], 0) + 1
            if row[STATUS] not in ENDED and row[LINE] == Line.READY:
                self.sim.order.ready(row)
        for grant in grants:
            node = grant.node_id
            if node in self.ghost.held_back:
                raise Broken("P7", f"{node} gets work, though it was told to {self.ghost.held_back[node]}")
            batch = grant.batch
            overtaken = self.sim.order.starts(batch)
            if overtaken is not None:
                raise Broken("A", overtaken)
            for item in batch.items:
                ghost = self.ghost.of(item.task_id)
                if item.deadline is not None and item.deadline < now:
                    raise Broken("D", f"{item.task_id} starts {now - item.deadline:.3f} s past its deadline")
                # A clock that is set back does not undo that its time had come once.
                early = 0.0 if ghost.due is None else ghost.due - self.sim.latest_time
                if early > _ROUNDING:
                    raise Broken("D", f"{item.task_id} starts {early:.3f} s too early")
                ghost.decided += 1

    def full(self, sub: Submission, error: OmniMindError) -> None:
        """Check when a core refuses a submission that the bound is really reached."""
        if isinstance(error, QueueFull) and error.field == "queue":
            held = self.live(sub.queue) + self.ghost.uncommitted.get(sub.queue, 0)
            fits = held + sub.count <= self.sim.bound(sub.queue)
            must(
                not fits,
                "P5",
                f"submission {sub.number}: refused, though {sub.queue} holds only {held} tasks",
            )

    def refused(self, request: str, error: OmniMindError) -> None:
        """Check a refusal when it is told."""
        must(error.message and error.code, "P4", f"{request}: refused without a reason")
        if isinstance(error, QueueFull):
            must(error.retry_after, "P5", f"{request}: refused without saying when to come again")

    def live(self, queue: str) -> int:
        """Return how many tasks of a queue the ledger holds that have not ended."""
        return sum(1 for row in self.disk.alive() if row[QUEUE] == queue)

    def within_bounds(self, queue: str) -> None:
        """Check a queue's bound, after a transaction that added tasks to it is durable."""
        held = untried = 0
        for row in self.disk.alive():
            if row[QUEUE] == queue:
                held += 1
                untried += not self.ghost.of(row[ID]).decided
        bound = self.sim.bound(queue)
        must(
            untried <= bound,
            "P5",
            f"{queue} holds {held} tasks, {untried} of them never started; bound {bound}",
        )

    # ------------------------------------------------------------------------ what leaves, and runs

    def granted(self, node_id: str, incarnation: str, batch: Batch, epoch: int) -> None:
        """Check a batch at the moment at which it leaves the coordinator that owns the ledger."""
        must(epoch_of(batch.fence) == epoch, "P2c", f"fence {batch.fence:x} in epoch {epoch}")
        if len(batch.items) > 1:
            self.coverage.add("batch_of_many")
        for index, item in enumerate(batch.items):
            fence = batch.fence + index
            ghost = self.ghost.of(item.task_id)
            story = f"{item.task_id} to {node_id} with fence {fence:x}"
            row = self.disk.row(item.task_id)
            must(row is not None, "P1a", f"{story}, before it is durable")
            must(fence > ghost.fence, "P2c", f"{story}, after {ghost.fence:x}")
            must(not ghost.stopping, "P1c", f"{story}, after its cancel was acknowledged")
            for other in self._dependencies(ghost):
                must(self._completed(other), "D", f"{story}, but {other} has not completed")
            if ghost.at_most_once:
                must(ghost.grants == 0, "P2e", f"{story}: the second grant")
                must(row is not None and row[FENCE] == fence, "P2e", f"{story}: the start is not durable")
            ghost.fence = fence
            ghost.node = (node_id, incarnation)
            # It may have been taken back in the transaction that let it go.
            ghost.active = row is not None and (row[FENCE] != fence or row[LINE] == Line.RUNNING)
            ghost.grants += 1

    def started(self, node_id: str, incarnation: str, task_id: str, fence: int) -> None:
        """Check a handler's start."""
        ghost = self.ghost.of(task_id)
        first = self.ghost.started.setdefault(fence, (node_id, incarnation))
        ghost.starts += 1
        must(first == (node_id, incarnation) and fence not in ghost.fences_run, "P2d",
             f"{task_id}: fence {fence:x} ran on {first}, now on {(node_id, incarnation)}")  # fmt: skip
        ghost.fences_run[fence] = None
        if ghost.at_most_once:
            must(ghost.starts == 1, "P2e", f"{task_id}: start number {ghost.starts}")
        if ghost.starts > 1:
            self.coverage.add("rerun_after_loss")

    def spoiled(self, task_id: str, *, killed: bool) -> None:
        """Check, where nothing but handlers fails, that a task which fails is not tried without end."""
        ghost = self.ghost.of(task_id)
        ghost.kills += killed
        ghost.failures += not killed
        if ghost.sub is not None and self.sim.options.mix == "calm":
            most = ghost.sub.max_retries + 1
            must(ghost.failures <= most, "P5", f"{task_id} raised {ghost.failures} times, {most} allowed")
            most = self.sim.limits.max_deaths
            must(ghost.kills <= most, "P5", f"{task_id} killed {ghost.kills} workers, {most} allowed")

    def published(self, task_id: str, status: str) -> None:
        """Check a result when the waiters are told of it."""
        row = self.disk.row(task_id)
        must(
            row is not None and row[STATUS] == status, "P1a", f"{task_id}: {status} is told, but not durable"
        )

    def released(self, node_id: str, incarnation: str) -> None:
        """Check the end of a drain: everything that was granted there has ended or stands in line again."""
        for row in self.disk.alive():
            ghost = self.ghost.of(row[ID])
            wanted = ghost.active and epoch_of(ghost.fence) == self.disk.epoch
            if wanted and ghost.node == (node_id, incarnation):
                raise Broken("P7", f"{node_id} is released, but {row[ID]} runs there")

    # -------------------------------------------------------------------------------- what is told

    def accepted(self, sub: Submission, count: int, existing: dict[int, str]) -> None:
        """Check a submission's answer at the moment at which the client gets it."""
        for index, task_id in enumerate(sub.ids):
            key = sub.keys[index]
            other = existing.get(index)
            if other is None:
                row = self.disk.row(task_id)
                must(row is not None, "P1a", f"{task_id} is acknowledged, but not in the ledger")
                self.ghost.of(task_id).accepted = True
            else:
                self.coverage.add("answered_existing_key")
            if key is not None:
                owner, payload = self.ghost.keys.get(key, ("nobody", b""))
                told = other or task_id
                must(owner == told, "P3", f"key {key} stands for {owner}, the client is told {told}")
                must(payload == sub.payload(index), "P3", f"key {key} with another payload is accepted")
        made = sum(1 for i in range(sub.count) if i not in existing)
        must(count == made, "P1a", f"{count} accepted, {made} of {sub.count} are new")

    def conflict(self, sub: Submission) -> None:
        """Check that a key conflict has a reason."""
        for index, key in enumerate(sub.keys):
            if key is not None and any(p != sub.payload(index) for p in self.ghost.used_keys.get(key, {})):
                return
        raise Broken("P3", f"submission {sub.number} is refused, though no key has another payload")

    def cancelled(self, done: dict[str, str]) -> None:
        """Check a cancel's answer at the moment at which the client gets it."""
        for task_id, what in done.items():
            row = self.disk.row(task_id)
            status = row[STATUS] if row is not None else "unknown"
            match what:
                case "stopping":
                    self.ghost.of(task_id).stopping = True
                case _:
                    must(
                        status in ENDED,
                        "P1a",
                        f"{task_id}: the client is told {what!r}, the ledger says {status}",
                    )

    # ----------------------------------------------------------------------------------- at the end

    def lived(self) -> None:
        """Check that all that was asked for has been done, at the end of the healing phase."""
        for client in self.sim.clients:
            for operation in client.open.values():
                raise Broken(
                    "P2f", f"{client.name} has no answer to {operation.story} after {operation.tries} tries"
                )
        for task_id, ghost in self.ghost.tasks.items():
            row = self.disk.row(task_id)
            if row is not None and row[STATUS] not in ENDED:
                task = task_from_row(row)
                raise Broken("P2f", f"{task_id} is {task.status} ({task.line.name}, {task.cause}) at the end")
            must(row is not None or not ghost.accepted, "P1b", f"{task_id} was acknowledged and is gone")

    def empty(self) -> None:
        """Check that nothing is left over once all work has ended."""
        core = self.sim.core
        must(core is not None, "P2f", "no coordinator lives at the end")
        if core is None:
            return
        left: dict[str, Collection[object]] = {
            "tasks": core.tasks, "keys": core.keys, "remaining": core.remaining,
            "dependents": core.dependents,
            "batches": core.batches, "by_node": {k: v for k, v in core.by_node.items() if v},
        }  # fmt: skip
        for name, things in left.items():
            must(
                not things, "P5", f"core.{name} holds {len(things)} entries after the end: {list(things)[:3]}"
            )
        for name, queue in core.book.queues.items():
            counted = (queue.pending, queue.running, queue.ready, queue.tail, queue.units)
            must(not any(counted), "P5", f"queue {name} counts {counted} when all is done")
        must(core.fetches or not core.gone, "P5", f"core.gone holds {len(core.gone)} entries after the end")
        for node in self.sim.nodes:
            if node.agent is not None:
                must(node.agent.owes == 0, "P5", f"{node.name} still owes {node.agent.owes} reports")
                must(not node.agent.held, "P5", f"{node.name} still holds {list(node.agent.held)}")
