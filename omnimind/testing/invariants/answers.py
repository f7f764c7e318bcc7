"""What clients are told."""

from __future__ import annotations

from omnimind.errors import OmniMindError, QueueFull
from omnimind.ledger.rows import STATUS
from omnimind.testing.invariants.base import Broken, Judge, must
from omnimind.testing.ledger import ENDED
from omnimind.testing.workload import Submission


class Answers(Judge):
    """Checks of answers, at the moment at which they are given or arrive."""

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

    def published(self, task_id: str, status: str) -> None:
        """Check a result when the waiters are told of it."""
        row = self.disk.row(task_id)
        must(
            row is not None and row[STATUS] == status, "P1a", f"{task_id}: {status} is told, but not durable"
        )
