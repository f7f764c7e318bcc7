"""What real hosts with real faults have shown of the cores, as small as it gets."""

from __future__ import annotations

from omnimind.cluster import events as ev
from omnimind.cluster.core import CoordinatorCore
from omnimind.cluster.gate import CommitGate
from omnimind.cluster.node import NodeInfo
from omnimind.cluster.policies import CoreLimits
from omnimind.cluster.sends import Dispatch
from omnimind.cluster.states import Line
from omnimind.cluster.task import DistributedTask
from omnimind.ledger.memory import MemoryLedger
from omnimind.ledger.memory_store import Store

NOW = 1_700_000_000.0


def stored(core: CoordinatorCore) -> Line:
    return core.tasks["t1"].stored


def test_the_start_of_an_attempt_is_noted_by_the_coordinators_clock() -> None:
    """A node whose clock was an hour ahead: the starts of its attempts were never written down."""
    limits = CoreLimits()
    ledger = MemoryLedger(Store())
    core = CoordinatorCore("head", limits)
    ledger.write(core.handle(ledger.open(limits.window), NOW).records)
    node = NodeInfo("n0", "w1", "10.0.0.1", max_concurrent_tasks=1, incarnation="life")
    ledger.write(core.handle(ev.NodeJoined(node), NOW).records)
    event = ev.Submit(1, [DistributedTask("t1", "kind")])
    CommitGate().look_up(event, core.tasks, ledger)
    effects = core.handle(event, NOW)
    ledger.write(effects.records)
    [batch] = [send.batch for send in effects.sends if isinstance(send, Dispatch)]
    core.handle(ev.Heartbeat("n0", "life", ((batch.fence, 0, 0.5),)), NOW + 1.0)
    assert stored(core) is Line.READY
    effects = core.handle(ev.Heartbeat("n0", "life", ((batch.fence, 0, 1.5),)), NOW + 2.0)
    assert effects.records
    assert stored(core) is Line.RUNNING
    assert core.tasks["t1"].started_at == NOW + 0.5
