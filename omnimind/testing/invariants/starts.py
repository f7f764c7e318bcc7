"""What a core decides, what leaves it, and what runs."""

from __future__ import annotations

from omnimind.cluster.records import CheckpointSaved, Records
from omnimind.cluster.sends import Acknowledged, Batch, BatchItem, Dispatch
from omnimind.cluster.states import Line
from omnimind.errors import Conflict
from omnimind.ids import epoch_of
from omnimind.ledger.rows import ID, LINE, QUEUE, STATUS
from omnimind.testing.ghost import TaskGhost
from omnimind.testing.invariants.base import ROUNDING, Broken, Judge, must
from omnimind.testing.ledger import ENDED, FENCE


class Starts(Judge):
    """Checks of attempts: when they are decided on, when they are sent out, when they run."""

    def decided(self, records: Records, grants: list[Dispatch], now: float) -> None:
        """Check what came out of one event, before it is durable."""
        for row in records.inserts:
            self.ghost.uncommitted[row[QUEUE]] = self.ghost.uncommitted.get(row[QUEUE], 0) + 1
            if row[STATUS] not in ENDED and row[LINE] == Line.READY:
                self.sim.order.ready(row)
        for record in records.others:
            if isinstance(record, CheckpointSaved):
                self._keeps(record)
        for grant in grants:
            node = grant.node_id
            if node in self.ghost.held_back:
                raise Broken("P7", f"{node} gets work, though it was told to {self.ghost.held_back[node]}")
            batch = grant.batch
            queue = self._queue_of(batch)
            if queue in self.ghost.paused:
                raise Broken("P7", f"{queue} starts something, though it is paused")
            too_many = self.sim.rate.starts(queue, len(batch.items), now)
            if too_many is not None:
                raise Broken("R", too_many)
            overtaken = self.sim.order.starts(batch)
            if overtaken is not None:
                raise Broken("A", overtaken)
            for item in batch.items:
                self._starts(item, now)

    def _starts(self, item: BatchItem, now: float) -> None:
        ghost = self.ghost.of(item.task_id)
        if item.deadline is not None and item.deadline < now:
            raise Broken("D", f"{item.task_id} starts {now - item.deadline:.3f} s past its deadline")
        if ghost.kept:
            self._goes_on(ghost, item)
        # A clock that is set back does not undo that its time had come once.
        early = 0.0 if ghost.due is None else ghost.due - self.sim.latest_time
        if early > ROUNDING:
            raise Broken("D", f"{item.task_id} starts {early:.3f} s too early")
        ghost.decided += 1

    def _queue_of(self, batch: Batch) -> str:
        sub = self.ghost.of(batch.items[0].task_id).sub
        return "default" if sub is None else sub.queue

    def _keeps(self, record: CheckpointSaved) -> None:
        """Check that a checkpoint comes from the newest attempt."""
        fence = int(record.data.partition(b":")[0])
        task_id = next((i for i, seq in self.disk.store.seq_of.items() if seq == record.seq), "")
        newest = self.ghost.of(task_id).fence
        must(fence == newest, "P2b", f"{task_id}: checkpoint of {fence:x}, the newest is {newest:x}")

    def _goes_on(self, ghost: TaskGhost, item: BatchItem) -> None:
        """Check that a new attempt gets the last checkpoint that was confirmed, or a later one."""
        confirmed = ghost.checkpoints[ghost.kept - 1 :]
        if item.checkpoint not in confirmed:
            raise Broken(
                "P1a", f"{ghost.task_id} goes on from {item.checkpoint!r}, {confirmed[0]!r} was confirmed"
            )
        self.coverage.add("checkpoint_taken_up")

    def checkpointed(self, ghost: TaskGhost, number: int, value: object) -> None:
        """Note the answer to a checkpoint when the worker gets it."""
        if isinstance(value, Acknowledged):
            ghost.kept = max(ghost.kept, number)
        elif isinstance(value, Conflict):
            self.coverage.add("checkpoint_refused")

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
            for other in self.dependencies(ghost):
                must(self.completed(other), "D", f"{story}, but {other} has not completed")
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
        if ghost.sub is not None and self.sim.options.quiet:
            most = ghost.sub.max_retries + 1
            must(ghost.failures <= most, "P5", f"{task_id} raised {ghost.failures} times, {most} allowed")
            most = self.sim.limits.max_deaths
            must(ghost.kills <= most, "P5", f"{task_id} killed {ghost.kills} workers, {most} allowed")

    def released(self, node_id: str, incarnation: str) -> None:
        """Check the end of a drain: everything that was granted there has ended or stands in line again."""
        for row in self.disk.alive():
            ghost = self.ghost.of(row[ID])
            wanted = ghost.active and epoch_of(ghost.fence) == self.disk.epoch
            if wanted and ghost.node == (node_id, incarnation):
                raise Broken("P7", f"{node_id} is released, but {row[ID]} runs there")
