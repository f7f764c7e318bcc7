"""A ledger without room: new tasks are refused and schedules wait, whatever has been accepted goes on."""

from __future__ import annotations

import msgspec

from omnimind.cluster import events as ev
from omnimind.cluster.core import CoordinatorCore
from omnimind.cluster.node import NodeInfo
from omnimind.cluster.policies import Schedule
from omnimind.cluster.records import task_row
from omnimind.cluster.sends import Dispatch, Ended, Refusal
from omnimind.cluster.task import DistributedTask
from omnimind.errors import LedgerFull


def test_no_room_refuses_what_is_new_and_nothing_else() -> None:
    core = CoordinatorCore("me")
    core.handle(ev.Recovered(1, 0), 0.0)
    core.handle(ev.NodeJoined(NodeInfo("a", incarnation="1")), 0.0)
    [dispatch] = [
        s
        for s in core.handle(ev.Submit(1, [DistributedTask("t", "k")]), 0.0).sends
        if isinstance(s, Dispatch)
    ]
    template = msgspec.msgpack.encode(task_row(DistributedTask("s", "k")))
    core.handle(ev.ScheduleSet(2, Schedule("every", template, interval=10.0)), 0.0)
    core.handle(ev.Space(full=True), 1.0)

    [refusal] = core.handle(ev.Submit(3, [DistributedTask("u", "k")]), 2.0).sends
    assert isinstance(refusal, Refusal)
    assert isinstance(refusal.error, LedgerFull)
    assert refusal.error.retry_after
    assert "u" not in core.tasks

    outcome = ev.Outcome(0, "ok", b"1")
    ended = core.handle(ev.Outcomes(4, "a", "1", dispatch.batch.fence, [outcome], final=True), 3.0)
    assert any(isinstance(s, Ended) for s in ended.sends)
    assert not core.handle(ev.Tick(), 25.0).records.inserts

    core.handle(ev.Space(full=False), 26.0)
    # Two of its times have passed: they are made up for by one run.
    runs = [row for t in range(27, 34) for row in core.handle(ev.Tick(), float(t)).records.inserts]
    assert len(runs) == 1
    core.validate()
