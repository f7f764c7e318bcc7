"""`NodeAgent`: started once, nothing forgotten, whoever is obeyed."""

from __future__ import annotations

import pytest

from omnimind.cluster.agent import (
    Command,
    KillBatch,
    NodeAgent,
    SendHeartbeat,
    SendJoin,
    SendReport,
    StartBatch,
)
from omnimind.cluster.events import Outcome
from omnimind.cluster.sends import Batch, BatchItem
from omnimind.cluster.task import DEFAULT_OPTIONS
from omnimind.ids import fence


def batch(epoch: int = 1, counter: int = 0, items: int = 2, timeout: float | None = None) -> Batch:
    return Batch(
        fence(epoch, counter),
        "kind",
        DEFAULT_OPTIONS,
        (),
        tuple(BatchItem(f"t{i}", b"{}", "json", 0, timeout) for i in range(items)),
    )


def working() -> NodeAgent:
    agent = NodeAgent("life-1")
    assert [type(c) for c in agent.tick(0.0)] == [SendJoin]
    agent.registered(1, 0.0)
    agent.tick(0.0)
    return agent


def ok(index: int) -> Outcome:
    return Outcome(index, "ok", b"1")


def test_a_batch_is_started_once_whatever_arrives_twice() -> None:
    agent = working()
    assert agent.run(batch(), "life-1", 0.0) == [StartBatch(batch())]
    assert agent.run(batch(), "life-1", 0.0) == []
    [report] = agent.ended(batch().fence, [ok(0), ok(1)], None, 1.0)
    assert isinstance(report, SendReport)
    agent.acknowledged(report.number)
    assert agent.run(batch(), "life-1", 2.0) == []
    assert agent.held == {}


def test_an_old_coordinator_is_not_obeyed() -> None:
    agent = working()
    agent.registered(2, 0.0)
    assert agent.run(batch(epoch=1), "life-1", 0.0) == []
    assert agent.run(batch(epoch=2), "life-1", 0.0) != []


def test_a_batch_for_an_earlier_life_is_not_started() -> None:
    agent = working()
    agent.fenced("life-2", 0.0)
    assert agent.run(batch(), "life-1", 0.0) == []


def test_an_outcome_is_kept_until_it_is_acknowledged() -> None:
    agent = working()
    agent.run(batch(), "life-1", 0.0)
    [first] = agent.ended(batch().fence, [ok(0), ok(1)], None, 1.0)
    assert isinstance(first, SendReport)
    agent.failed(first.number, 1.0)
    again = [c for c in agent.tick(1.0) if isinstance(c, SendReport)]
    assert again == [first]
    assert [c for c in agent.tick(2.0) if isinstance(c, SendReport)] == []
    assert [c for c in agent.tick(7.0) if isinstance(c, SendReport)] == [first]
    agent.acknowledged(first.number)
    agent.acknowledged(first.number)
    assert [c for c in agent.tick(20.0) if isinstance(c, SendReport)] == []
    assert agent.owes == 0


def test_a_new_coordinator_hears_what_is_held_and_then_what_it_missed() -> None:
    agent = working()
    agent.run(batch(counter=0), "life-1", 0.0)
    agent.run(batch(counter=10), "life-1", 0.0)
    agent.beat(batch().fence, 1, 0.1, [ok(0)], 0.6)
    agent.ended(batch(counter=10).fence, [ok(0), ok(1)], None, 1.0)
    [join] = agent.asked_to_register(1.0)
    assert isinstance(join, SendJoin)
    [first, _] = join.running
    assert first.ran == pytest.approx(0.5)
    held = {r.fence: (r.open, r.current) for r in join.running}
    # Item 0 has ended, but nobody has acknowledged it: it is still this node's to report.
    assert held == {batch().fence: ((0, 1), 1), batch(counter=10).fence: ((0, 1), None)}
    assert agent.ended(batch().fence, [ok(1)], None, 1.5) == []
    sent = [c for c in agent.registered(2, 2.0) if isinstance(c, SendReport)]
    assert [(c.fence, len(c.outcomes), c.final) for c in sent] == [
        (batch().fence, 1, False),
        (batch(counter=10).fence, 2, True),
        (batch().fence, 1, True),
    ]


def test_a_life_that_was_given_up_ends_everything() -> None:
    agent = working()
    agent.run(batch(), "life-1", 0.0)
    commands = agent.fenced("life-2", 1.0)
    assert commands == [KillBatch(batch().fence), SendJoin("life-2", ())]
    assert agent.ended(batch().fence, [ok(0)], None, 1.1) == []
    assert agent.beat(batch().fence, 0, 0.0, [], 1.1) == ([], None)


def test_a_death_blames_those_who_ran_and_no_one_for_a_kill() -> None:
    agent = working()
    agent.run(batch(), "life-1", 0.0)
    [report] = agent.ended(batch().fence, [ok(0)], "SIGSEGV", 1.0)
    assert isinstance(report, SendReport)
    assert [(o.index, o.status) for o in report.outcomes] == [(0, "ok"), (1, "crashed")]
    agent.run(batch(counter=10), "life-1", 0.0)
    assert agent.stop(batch(counter=10).fence, (1,), hard=True, cause="cancelled") == [
        KillBatch(batch(counter=10).fence)
    ]
    [report] = agent.ended(batch(counter=10).fence, [], "SIGKILL", 1.0)
    assert isinstance(report, SendReport)
    assert [(o.index, o.status) for o in report.outcomes] == [(0, "lost"), (1, "cancelled")]


def test_a_soft_stop_is_told_with_the_next_beat() -> None:
    agent = working()
    agent.run(batch(), "life-1", 0.0)
    assert agent.stop(batch().fence, (1,), hard=False, cause="deadline") == []
    assert agent.beat(batch().fence, 0, 0.0, [], 0.2) == ([], {1: "deadline"})
    assert agent.beat(batch().fence, 1, 0.0, [ok(1)], 0.4)[1] == {}


def test_a_handler_far_over_its_timeout_is_killed() -> None:
    agent = working()
    agent.run(batch(timeout=1.0), "life-1", 0.0)
    agent.beat(batch().fence, 0, 0.2, [], 0.2)
    assert not any(isinstance(c, KillBatch) for c in agent.tick(2.9))
    assert KillBatch(batch().fence) in agent.tick(3.1)
    assert not any(isinstance(c, KillBatch) for c in agent.tick(3.2))
    [report] = agent.ended(batch().fence, [], "SIGKILL", 3.3)
    assert isinstance(report, SendReport)
    assert [(o.index, o.status) for o in report.outcomes] == [(0, "timeout"), (1, "lost")]


def test_heartbeats_name_what_is_held_each_second() -> None:
    agent = working()
    agent.run(batch(), "life-1", 0.0)
    beats = [c for t in range(1, 40) for c in agent.tick(t / 10) if isinstance(c, SendHeartbeat)]
    assert len(beats) == 3
    assert beats[0].batches == ((batch().fence, None, None),)


def large(index: int) -> Outcome:
    return Outcome(index, "ok", b"x" * 600)


def bounded() -> NodeAgent:
    agent = NodeAgent("life-1", bound=2000, all_slots=4)
    agent.registered(1, 0.0)
    agent.tick(0.0)
    return agent


def reports(commands: list[Command]) -> list[SendReport]:
    return [c for c in commands if isinstance(c, SendReport)]


def test_past_its_bound_a_node_starts_nothing_more_says_so_and_loses_nothing() -> None:
    agent = bounded()
    running = [batch(counter=n) for n in (0, 10, 20)]
    for each in running:
        assert agent.run(each, "life-1", 0.0) == [StartBatch(each)]
    sent = [c for each in running for c in agent.ended(each.fence, [large(0), large(1)], None, 1.0)]
    assert len(reports(sent)) == 3, "what runs ends, and is kept, whatever the bound"
    assert agent.full
    [beat] = [c for c in agent.tick(2.0) if isinstance(c, SendHeartbeat)]
    assert beat.slots == 0
    late = batch(counter=30)
    assert agent.run(late, "life-1", 2.0) == []
    assert not [c for c in agent.tick(3.0) if isinstance(c, StartBatch)]
    for number, report in enumerate(reports(sent)):
        assert agent.full, "until less than half of it is left"
        agent.acknowledged(report.number)
        assert agent.owed_bytes == (2 - number) * 2 * 856
    assert not agent.full
    commands = agent.tick(4.0)
    assert StartBatch(late) in commands
    assert [c.slots for c in commands if isinstance(c, SendHeartbeat)] == [4], "the slots are named again"


def test_a_batch_that_waits_for_room_can_be_stopped() -> None:
    agent = bounded()
    for counter in (0, 10):
        agent.run(batch(counter=counter), "life-1", 0.0)
        agent.ended(batch(counter=counter).fence, [large(0), large(1)], None, 1.0)
    assert agent.full
    late = batch(counter=30)
    assert agent.run(late, "life-1", 2.0) == []
    assert agent.stop(late.fence, (0,), hard=True, cause="cancelled by me") == [], "it has no worker to kill"
    [report] = [r for r in reports(agent.tick(2.1)) if r.fence == late.fence]
    assert [o.status for o in report.outcomes] == ["cancelled", "lost"]
    assert report.final


def test_one_that_was_given_up_starts_nothing_that_waited() -> None:
    agent = bounded()
    for counter in (0, 10):
        agent.run(batch(counter=counter), "life-1", 0.0)
        agent.ended(batch(counter=counter).fence, [large(0), large(1)], None, 1.0)
    agent.run(batch(counter=30), "life-1", 2.0)
    assert not [c for c in agent.fenced("life-2", 3.0) if isinstance(c, KillBatch)]
    assert not agent.full
    agent.registered(2, 3.0)
    assert not [c for c in agent.tick(4.0) if isinstance(c, StartBatch)]


def test_a_refused_report_comes_again_when_it_was_told_to() -> None:
    agent = working()
    agent.run(batch(), "life-1", 0.0)
    [report] = reports(agent.ended(batch().fence, [ok(0), ok(1)], None, 1.0))
    agent.failed(report.number, 1.0, again=2.0)
    assert not reports(agent.tick(2.9))
    assert [r.number for r in reports(agent.tick(3.1))] == [report.number]


def test_a_heartbeat_answered_by_another_coordinator_makes_the_node_report() -> None:
    agent = working()
    agent.run(batch(), "life-1", 0.0)
    assert agent.heard(1, 1.0) == []
    [join] = agent.heard(2, 1.5)
    assert isinstance(join, SendJoin)
    assert [r.fence for r in join.running] == [batch().fence]
    assert agent.heard(2, 1.6) == [], "it has reported, and waits for the answer"


def test_a_report_for_work_that_was_refused_is_made_again_soon() -> None:
    agent = working()
    assert [type(c) for c in agent.asked_to_register(1.0)] == [SendJoin]
    agent.join_failed(1.1)
    assert agent.tick(1.5) == []
    assert [type(c) for c in agent.tick(1.7)] == [SendJoin]
