"""What the simulator has found in the core, as small as it gets. Each was a failing seed first."""

from __future__ import annotations

import subprocess
import sys

import msgspec
import pytest

from omnimind.cluster import events as ev
from omnimind.cluster.core import CoordinatorCore
from omnimind.cluster.events import KnownTask, Outcome, Outcomes, Recovered, RunningBatch
from omnimind.cluster.gate import CommitGate
from omnimind.cluster.node import NodeInfo
from omnimind.cluster.policies import CoreLimits, QueuePolicy, Schedule
from omnimind.cluster.records import AuditSaved, task_from_row, task_row
from omnimind.cluster.sends import (
    Accepted,
    AskRegister,
    Dispatch,
    Effects,
    FenceNode,
    Refusal,
    Reply,
    StopAttempts,
)
from omnimind.cluster.states import Line, TaskStatus
from omnimind.cluster.task import DistributedTask
from omnimind.ledger.memory import MemoryLedger
from omnimind.ledger.memory_store import Store

NOW = 1_700_000_000.0


class Cluster:
    """A core on a ledger in memory; `crash` begins the next life of it."""

    def __init__(self, **limits: float) -> None:
        self.limits = CoreLimits(**limits)  # type: ignore[arg-type]
        self.store = Store()
        self.now = NOW
        self.requests = 0
        self.begin()

    def begin(self) -> None:
        self.ledger = MemoryLedger(self.store)
        self.core = CoordinatorCore("head", self.limits)
        self.feed(self.ledger.open(self.limits.window))

    def feed(self, event: ev.Event) -> Effects:
        effects = self.core.handle(event, self.now)
        self.ledger.write(effects.records)
        self.core.validate()
        return effects

    def ask(self, event: ev.Event) -> object:
        replies = [s.value for s in self.feed(event).sends if isinstance(s, Reply)]
        assert len(replies) == 1
        return replies[0]

    def request(self) -> int:
        self.requests += 1
        return self.requests

    def submit(self, *tasks: DistributedTask) -> object:
        event = ev.Submit(self.request(), list(tasks))
        CommitGate().look_up(event, self.core.tasks, self.ledger)
        return self.ask(event)

    def join(self, name: str = "n0", *running: RunningBatch) -> Effects:
        ids = [i for batch in running for i in batch.task_ids]
        rows = CommitGate().load(ids, self.core.tasks, self.ledger)
        node = NodeInfo(name, max_concurrent_tasks=4, incarnation=f"{name}.1")
        return self.feed(ev.NodeJoined(node, running, rows, self.request()))

    def wait(self, seconds: float) -> Effects:
        """Let time pass, in which the nodes that have joined beat."""
        self.now += seconds
        self.core.next_check = self.now  # it was ticked all the while
        merged = Effects()
        beats: list[ev.Event] = [ev.Heartbeat(node, life) for node, life in self.core.joined.items()]
        for event in (*beats, ev.Tick()):
            effects = self.feed(event)
            merged.records.extend(effects.records)
            merged.sends += effects.sends
        return merged

    def status(self, number: int) -> tuple[str, str]:
        task = task_from_row(self.ledger.tasks([name(number)])[0])
        return task.status.value, task.cause


def name(number: int) -> str:
    return f"tsk_{number:032x}"


def a_task(number: int, payload: bytes = b"{}", **options: object) -> DistributedTask:
    return DistributedTask(name(number), "t", payload, **options)  # type: ignore[arg-type]


def dispatched(effects: Effects) -> Dispatch:
    return next(s for s in effects.sends if isinstance(s, Dispatch))


def test_a_resend_says_again_which_keys_stood_before() -> None:
    cluster = Cluster()
    cluster.submit(a_task(1, key="k"))
    first = cluster.submit(a_task(2), a_task(3, key="k"))
    assert first == Accepted(1, {1: name(1)})
    assert cluster.submit(a_task(2), a_task(3, key="k")) == first


def test_a_resend_whose_first_task_stood_under_a_key_is_recognised() -> None:
    cluster = Cluster()
    cluster.submit(a_task(1, key="k"))
    assert cluster.submit(a_task(2, key="k"), a_task(3)) == Accepted(1, {0: name(1)})
    assert cluster.submit(a_task(2, key="k"), a_task(3)) == Accepted(1, {0: name(1)})
    cluster.begin()
    assert cluster.submit(a_task(2, key="k"), a_task(3)) == Accepted(1, {0: name(1)})


def test_a_dependency_that_stood_under_a_key_is_the_one_that_stood_there() -> None:
    cluster = Cluster()
    cluster.submit(a_task(1, key="k"))
    cluster.submit(a_task(2, key="k"), a_task(3, after=(name(2),)))
    assert cluster.core.tasks[name(3)].after == (name(1),)
    cluster.ask(ev.Cancel(cluster.request(), [name(1)]))
    assert cluster.status(3) == ("failed", f"dependency {name(1)} ended cancelled")


def test_a_failure_goes_down_a_chain_that_arrives_after_it() -> None:
    cluster = Cluster()
    cluster.submit(a_task(1))
    cluster.ask(ev.Cancel(cluster.request(), [name(1)]))
    cluster.submit(
        a_task(2, after=(name(1),)), a_task(3, after=(name(2),)), a_task(4, after=(name(3), name(1)))
    )
    assert [cluster.status(n)[0] for n in (2, 3, 4)] == ["failed"] * 3
    assert not cluster.core.dependents
    assert not cluster.core.remaining


def test_a_failure_goes_down_a_chain_at_a_restart() -> None:
    waiting = [a_task(n, after=(name(n - 1),), seq=n, line=Line.WAITING, created_at=NOW) for n in (4, 3, 2)]
    core = CoordinatorCore("head")
    known = {name(1): KnownTask(name(1), "dead", cause="killed its worker")}
    known |= {name(n): KnownTask(name(n), "pending") for n in (2, 3)}
    core.handle(Recovered(2, 4, waiting=waiting, known_ids=known), NOW)
    core.validate()
    assert not core.tasks


@pytest.mark.parametrize("end", ["cancel", "complete"])
def test_a_task_may_name_what_it_comes_after_twice(end: str) -> None:
    cluster = Cluster()
    cluster.join()
    cluster.submit(a_task(1, not_before=NOW + 5))
    cluster.submit(a_task(2, after=(name(1), name(1))))
    if end == "cancel":
        cluster.ask(ev.Cancel(cluster.request(), [name(1)]))
        assert cluster.status(2)[0] == "failed"
    else:
        batch = dispatched(cluster.wait(6)).batch
        done = [Outcome(0, "ok", b"1")]
        cluster.feed(Outcomes(cluster.request(), "n0", "n0.1", batch.fence, done, final=True))
        assert cluster.core.tasks[name(2)].status is TaskStatus.RUNNING


def test_nothing_rings_all_the_time_while_the_core_recovers() -> None:
    cluster = Cluster()
    cluster.join()
    cluster.submit(a_task(1, not_before=NOW + 1))
    cluster.begin()
    cluster.wait(2)
    assert cluster.core.recovering
    assert cluster.core.next_wakeup() > cluster.now


def test_an_acknowledged_cancel_survives_the_coordinator() -> None:
    cluster = Cluster()
    cluster.join()
    cluster.submit(a_task(1))
    cluster.ask(ev.Cancel(cluster.request(), [name(1)]))
    cluster.begin()
    fence = cluster.core.tasks[name(1)].fence
    effects = cluster.join("n0", RunningBatch(fence, (name(1),), (0,)))
    assert [(s.batch, s.hard) for s in effects.sends if isinstance(s, StopAttempts)] == [(fence, False)]
    cluster.feed(Outcomes(cluster.request(), "n0", "n0.1", fence, [Outcome(0, "lost")], final=True))
    assert cluster.status(1) == ("cancelled", "cancelled")


def test_an_attempt_of_two_coordinators_ago_is_not_the_newest() -> None:
    cluster = Cluster()
    cluster.join()
    cluster.submit(a_task(1))
    old = cluster.core.tasks[name(1)].fence
    cluster.begin()  # the node is not heard of in time, so the task goes elsewhere
    cluster.wait(0.1)
    cluster.join("n1")
    again = dispatched(cluster.wait(4))
    assert again.node_id == "n1"
    cluster.begin()
    effects = cluster.join("n0", RunningBatch(old, (name(1),), (0,)))
    assert any(isinstance(s, FenceNode | StopAttempts) for s in effects.sends)
    cluster.feed(Outcomes(cluster.request(), "n0", "n0.1", old, [Outcome(0, "ok", b"1")], final=True))
    assert cluster.status(1)[0] != "completed"


def test_an_outcome_that_comes_before_its_node_has_reported_is_not_taken_for_a_stale_one() -> None:
    # Found on hosts: an attempt that began just before the coordinator died, and ended while it was away.
    cluster = Cluster()
    cluster.join()
    cluster.submit(a_task(1, at_most_once=True), a_task(2))
    fences = {n: cluster.core.tasks[name(n)].fence for n in (1, 2)}
    cluster.begin()
    for n in (1, 2):
        early = Outcomes(cluster.request(), "n0", "n0.1", fences[n], [Outcome(0, "ok", b"1")], final=True)
        sends = cluster.feed(early).sends
        assert not any(isinstance(s, Reply) for s in sends), "the node would forget it"
        assert any(isinstance(s, AskRegister) for s in sends)
        assert [s.error.retryable for s in sends if isinstance(s, Refusal)] == [True]
    cluster.join("n0", *(RunningBatch(fences[n], (name(n),), (0,)) for n in (1, 2)))
    for n in (1, 2):
        late = Outcomes(cluster.request(), "n0", "n0.1", fences[n], [Outcome(0, "ok", b"1")], final=True)
        cluster.ask(late)
        assert cluster.status(n)[0] == "completed"


def test_an_ended_task_that_a_node_reports_stays_on_disk() -> None:
    cluster = Cluster()
    cluster.join()
    cluster.submit(a_task(1))
    fence = cluster.core.tasks[name(1)].fence
    done = [Outcome(0, "ok", b"1")]
    cluster.feed(Outcomes(cluster.request(), "n0", "n0.1", fence, done, final=True))
    cluster.begin()
    cluster.join("n0", RunningBatch(fence, (name(1),), (0,)))
    assert not cluster.core.tasks


def test_delayed_tasks_on_disk_count_as_pending_after_a_restart() -> None:
    cluster = Cluster(window=2)
    cluster.feed(ev.QueueSet(cluster.request(), QueuePolicy("default", max_pending=6)))
    cluster.submit(*(a_task(n, not_before=NOW + 60 + n) for n in range(1, 7)))
    cluster.begin()
    assert cluster.core.book.queues["default"].pending == 6
    refused = cluster.feed(ev.Submit(cluster.request(), [a_task(9)])).sends[0]
    assert "its bound is 6" in str(getattr(refused, "error", ""))


def test_a_schedule_respects_the_bound_of_its_queue_and_says_what_it_left_out() -> None:
    cluster = Cluster()
    cluster.feed(ev.QueueSet(cluster.request(), QueuePolicy("default", max_pending=1)))
    cluster.submit(a_task(1))
    template = task_row(a_task(99))
    encoded = msgspec.msgpack.encode(template)
    cluster.ask(ev.ScheduleSet(cluster.request(), Schedule("s", encoded, interval=1.0)))
    effects = cluster.wait(1.5)
    assert not effects.records.inserts
    [entry] = [record for record in effects.records.others if isinstance(record, AuditSaved)]
    assert (entry.actor, entry.verb) == ("schedule:s", "skip")
    assert "is full" in entry.detail


def test_facts_are_laid_over_by_what_is_not_committed_yet() -> None:
    cluster = Cluster()
    cluster.submit(a_task(1))
    gate = CommitGate()
    effects = cluster.core.handle(ev.Cancel(1, [name(1)]), NOW)
    gate.add(effects)
    [task] = gate.load([name(1)], {}, cluster.ledger)
    assert task.status is TaskStatus.CANCELLED


def test_a_coordinator_that_stood_still_blames_no_node() -> None:
    cluster = Cluster()
    cluster.join()
    cluster.submit(a_task(1))
    cluster.now += 30
    cluster.feed(ev.Tick())  # before it has read what the node sent all the while
    assert cluster.core.tasks[name(1)].status is TaskStatus.RUNNING
    cluster.feed(ev.Heartbeat("n0", "n0.1"))
    assert cluster.core.tasks[name(1)].status is TaskStatus.RUNNING
    for _ in range(7):
        cluster.now += 1
        cluster.feed(ev.Tick())
    assert cluster.core.tasks[name(1)].status is TaskStatus.PENDING


def test_the_record_of_a_node_does_not_depend_on_the_hash_seed() -> None:
    program = (
        "from omnimind.cluster.node import NodeInfo\n"
        "from omnimind.cluster.records import node_saved\n"
        "print(node_saved(NodeInfo('n', capabilities={'a', 'b', 'gpu', 'fast', 'x'})).info)\n"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program], env={"PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("0", "1", "2", "3")
    }
    assert len(outputs) == 1
