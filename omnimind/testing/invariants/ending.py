"""What must be true when the faults are over and all work has had its time."""

from __future__ import annotations

from collections.abc import Collection

from omnimind.cluster.records import task_from_row
from omnimind.ledger.rows import STATUS
from omnimind.testing.invariants.base import Broken, Judge, must
from omnimind.testing.ledger import ENDED


class Ending(Judge):
    """Checks at the end of a run."""

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
        if core is not None and self.sim.options.quiet:
            lost = core.counts.get("nodes_lost", 0)
            must(not lost, "N", f"{lost} nodes were given up, though none has failed")
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
