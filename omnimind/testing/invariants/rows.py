"""What becomes durable."""

from __future__ import annotations

from omnimind.cluster.records import AttemptRow, TaskRow
from omnimind.cluster.states import Line
from omnimind.ledger.rows import CAUSE, CREATED_AT, DEADLINE, ID, KEY, LINE, PAYLOAD, QUEUE, RESULT, STATUS
from omnimind.testing.ghost import TaskGhost
from omnimind.testing.invariants.base import ROUNDING, Broken, Judge, must
from omnimind.testing.ledger import DEATHS, ENDED, ERROR, FENCE, RETRIES

_NO_REASON = ("submitted", "started")


class Rows(Judge):
    """Checks of the ledger, at the moment at which something becomes durable, and when it is opened."""

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
                for other in self.dependencies(ghost):
                    must(self.completed(other), "D", f"{story}, but {other} has not completed")
                self.coverage.add("dependency_completed", len(self.dependencies(ghost)))
            case "expired":
                must(row[DEADLINE] is not None, "D", f"{story}: it has no deadline")
                late = self.sim.latest_time - row[DEADLINE]
                must(late >= -ROUNDING, "D", f"{story}: {-late:.3f} s before its deadline")
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

    def within_bounds(self, queue: str) -> None:
        """Check a queue's bound, after a transaction that added tasks to it is durable."""
        held = untried = 0
        for row in self.disk.alive():
            if row[QUEUE] == queue:
                held += 1
                ghost = self.ghost.of(row[ID])
                untried += not ghost.decided and ghost.fence < 0
        bound = self.sim.bound(queue)
        must(
            untried <= bound,
            "P5",
            f"{queue} holds {held} tasks, {untried} of them never started; bound {bound}",
        )
