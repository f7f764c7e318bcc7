"""`SimClient`: somebody who submits, waits for the answer, sends again when none comes, and cancels."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from omnimind.cluster.sends import Accepted, Acknowledged
from omnimind.errors import Conflict, InvalidInput, KeyConflict, NotFound, OmniMindError, Refused
from omnimind.testing.invariants import Broken
from omnimind.testing.workload import Submission

if TYPE_CHECKING:
    from omnimind.testing.cluster import SimCluster
    from omnimind.testing.coordinator import Answer, SimCoordinator

PATIENCE = 2.0
"""Seconds after which a client sends a request again."""


class Operation(msgspec.Struct):
    """A request that is sent until it is answered; `settle` says whether an answer is the last one."""

    story: str
    ask: Callable[[SimCoordinator, Answer], None]
    settle: Callable[[Any], bool]
    tries: int = 0


class SimClient:
    """One client. `open`: requests without a final answer, by number."""

    def __init__(self, sim: SimCluster, number: int) -> None:
        self.sim = sim
        self.number = number
        self.name = f"c{number}"
        self.open: dict[int, Operation] = {}
        self.settled: dict[int, bool] = {}
        """Submissions by number: whether they were accepted."""
        self._operations = 0
        self._waiting: list[Submission] = []

    # ------------------------------------------------------------------------------------- sending

    def begin(self, operation: Operation) -> None:
        """Send a request, again and again until it is answered."""
        self._operations += 1
        self.open[self._operations] = operation
        self.sim.unanswered += 1
        self._try(self._operations, 0)

    def _try(self, number: int, tries: int) -> None:
        operation = self.open.get(number)
        if operation is None or operation.tries != tries:
            return
        operation.tries += 1
        self.sim.net.send(self.name, "co", self.sim.to_life, self._ask, operation, number)
        wait = PATIENCE * (0.5 + self.sim.draws.next("patience", self.name))
        self.sim.clock.after(wait, self._try, number, operation.tries)

    def _ask(self, life: SimCoordinator, operation: Operation, number: int) -> None:
        """Hand the request over (at the coordinator's place); the answer travels back."""
        net, name, sim = self.sim.net, self.name, self.sim

        def answer(value: Any) -> None:
            if isinstance(value, OmniMindError):
                sim.invariants.refused(operation.story, value)
                sim.refused(operation.story, value)
            net.send("co", name, self._answered, number, value)

        operation.ask(life, answer)

    def _answered(self, number: int, value: Any) -> None:
        operation = self.open.get(number)
        if operation is None:
            return
        if isinstance(value, Refused):
            # Not now: try again when told to, or when patience ends.
            if value.retry_after is not None:
                self.sim.clock.after(value.retry_after, self._try, number, operation.tries)
            return
        if operation.settle(value):
            del self.open[number]
            self.sim.unanswered -= 1

    # ------------------------------------------------------------------------------------ requests

    def submit(self, sub: Submission) -> None:
        """Submit, once what it comes after has been answered."""
        if any(other not in self.settled for other in sub.after):
            self._waiting.append(sub)
            return
        for other in sub.after:
            if self.settled[other]:
                sub.depends += [i for i in self.sim.subs[other].ids if self.sim.ghost.of(i).accepted]
        self.sim.ghost.expect(sub)
        self.begin(
            Operation(
                f"submission {sub.number}",
                lambda life, answer: life.submit(answer, sub),
                lambda value: self._submitted(sub, value),
            )
        )

    def _submitted(self, sub: Submission, value: Any) -> bool:
        match value:
            case Accepted(count=count, existing=existing):
                self.sim.invariants.accepted(sub, count, existing)
                self.settled[sub.number] = True
                if sub.cancel_after is not None:
                    self.sim.clock.after(sub.cancel_after, self.cancel, sub)
            case KeyConflict():
                self.sim.invariants.conflict(sub)
                self.settled[sub.number] = False
            case InvalidInput(field=field) if field is not None and field.startswith("deadline"):
                # It was refused so long that its time has passed.
                self.settled[sub.number] = False
            case _:
                raise Broken("P4", f"submission {sub.number}: unexpected answer {value!r}")
        waiting, self._waiting = self._waiting, []
        for other in waiting:
            self.submit(other)
        return True

    def cancel(self, sub: Submission) -> None:
        """Cancel the first half of a submission's tasks."""
        ids = [i for i in sub.ids[: -(-sub.count // 2)] if self.sim.ghost.of(i).accepted]
        if not ids:
            return
        for task_id in ids:
            self.sim.ghost.of(task_id).cancel_asked = True

        def settle(value: Any) -> bool:
            if not isinstance(value, Acknowledged):
                raise Broken("P4", f"cancel of submission {sub.number}: unexpected answer {value!r}")
            self.sim.invariants.cancelled(value.detail)
            return True

        self.begin(
            Operation(
                f"cancel of submission {sub.number}", lambda life, answer: life.cancel(answer, ids), settle
            )
        )

    def order(
        self, story: str, ask: Callable[[SimCoordinator, Answer], None], done: Callable[[], None]
    ) -> None:
        """Ask for something that an operator wants; a node or a name that is not there ends it too."""

        def settle(value: Any) -> bool:
            if not isinstance(value, NotFound | Conflict):
                if isinstance(value, OmniMindError):
                    raise Broken("P4", f"{story}: unexpected answer {value!r}")
                done()
            return True

        self.begin(Operation(story, ask, settle))
