"""From observation to verified repair, and every way in which nothing is done."""

from __future__ import annotations

from typing import Any

import pytest

from omnimind.healing import events as ev
from omnimind.healing.actions import RemediationAction
from omnimind.healing.controls import Control, ControlKind
from omnimind.healing.issues import Issue
from omnimind.healing.price import Attempt
from omnimind.healing.records import Abort, ActionSaved, AskWork, IssueSaved, Probe, Verdict


def saved(it: Any, action_id: str) -> RemediationAction:
    return [r.action for r in it.records if isinstance(r, ActionSaved) and r.action.action_id == action_id][
        -1
    ]


def closed(it: Any) -> list[Issue]:
    return [r.issue for r in it.records if isinstance(r, IssueSaved) and r.issue.status == "closed"]


def test_a_condition_becomes_an_issue_when_it_has_lasted(it: Any) -> None:
    it.see()
    it.wait(4.9)
    assert not it.core.issues
    it.wait(0.1)
    assert it.issue.key == ("service_failure", "n0", "unit")
    assert it.names == ["gentle"]


def test_one_that_goes_away_in_time_is_none(it: Any) -> None:
    it.see()
    it.wait(4)
    it.see(bad=False)
    it.wait(1000)
    assert not it.core.conditions
    assert not it.decisions


def test_fixed_is_what_the_monitor_says_afterwards(it: Any) -> None:
    it.see()
    it.wait(5)
    it.end()
    assert any(isinstance(send, Probe) for send in it.sends)
    assert it.issue.remediation_successful
    assert it.issue.verified is None
    it.see(bad=False)
    action = saved(it, it.acts[0].action_id)
    assert (action.success, action.outcome) == (True, "fixed")
    it.wait(19.9)
    assert it.issue.status == "holding"
    it.wait(0.1)
    assert [i.status.value for i in closed(it)] == ["closed"]
    assert it.core.counts["verified_fixes"] == 1


def test_the_next_rung_when_it_is_not_fixed_and_a_person_at_the_end(it: Any) -> None:
    it.see()
    it.wait(5)
    for _ in range(3):
        it.end()
        it.see()  # too soon to judge
        it.wait(10.0)
        it.see()
    assert it.names == ["gentle", "restart", "drain"]
    assert [saved(it, a.action_id).outcome for a in it.acts] == ["not_fixed"] * 3
    # The last one is destructive: it needs two observers, and then a person.
    assert it.last == "nothing:witnesses"
    it.see(observer="n1")
    assert it.last == "ask:consent"
    it.feed(ev.Approve(it.issue.issue_id, "ada"))
    assert it.names[3:] == ["reboot"]
    it.end(success=False)
    assert it.last == "escalate:rung"
    assert len(it.alerts("escalated")) == 1


def test_the_same_rung_never_runs_twice_on_the_same_evidence_but_again_when_it_gets_worse(it: Any) -> None:
    it.see(severity="warning")
    it.wait(5)
    it.end(success=False, details="no such unit")
    assert saved(it, it.acts[0].action_id).outcome == "not_fixed"
    assert it.names == ["gentle", "restart"]
    it.end(success=False)
    it.see(severity="critical")
    assert it.issue.evidence == 2
    it.end(success=False)
    assert it.names == ["gentle", "restart", "drain", "gentle"]
    it.end(success=False)
    assert it.last == "nothing:target"
    it.see(severity="warning")
    it.see(severity="critical")
    assert it.issue.evidence == 2


def test_no_word_from_the_monitor_is_unknown(it: Any) -> None:
    it.see()
    it.wait(5)
    it.end()
    it.wait(20)
    assert saved(it, it.acts[0].action_id).outcome == "unknown"


def test_another_monitor_neither_clears_nor_verifies(it: Any) -> None:
    it.see()
    it.wait(5)
    it.end()
    it.see(bad=False, monitor="liar")
    assert it.issue.status == "open"
    assert saved(it, it.acts[0].action_id).outcome is None


def test_a_word_from_before_the_end_does_not_verify(it: Any) -> None:
    it.see()
    it.wait(5)
    early = it.now
    it.wait(3)
    it.end()
    it.feed(
        ev.Observation(
            monitor="probe", issue_type=it.issue.issue_type, node="n0", entity="unit", bad=False, at=early
        )
    )
    assert saved(it, it.acts[0].action_id).outcome is None


def test_a_repair_that_does_not_last_is_taken_back_and_the_ladder_goes_on(it: Any) -> None:
    it.see()
    it.wait(5)
    it.end()
    it.see(bad=False)
    it.wait(10)
    it.see()
    assert saved(it, it.acts[0].action_id).outcome == "not_fixed"
    assert it.core.counts["verified_fixes"] == 0
    assert it.names == ["gentle", "restart"]
    it.end()
    it.see(bad=False)
    it.wait(400)  # long enough not to be flapping
    first = closed(it)[-1]
    it.see()
    it.wait(5)
    assert it.issue.relapse_of == first.issue_id
    assert saved(it, it.acts[1].action_id).outcome == "not_fixed"
    assert it.names == ["gentle", "restart", "drain"]


def test_a_repair_that_hangs_is_given_up_and_its_lease_stands_a_little_longer(it: Any) -> None:
    it.see()
    it.wait(5)
    it.wait(29.9)
    assert it.names == ["gentle"]
    it.wait(0.1)
    assert any(isinstance(send, Abort) for send in it.sends)
    assert saved(it, it.acts[0].action_id).outcome == "unknown"
    assert it.last == "nothing:lease"
    it.see()
    it.wait(2)
    assert it.names == ["gentle", "restart"]
    # Its late word changes nothing.
    late = it.acts[0]
    it.feed(ev.ActionEnded(late.action_id, late.fence, True))
    assert saved(it, late.action_id).outcome == "unknown"
    assert it.core.counts["stale_ends"] == 1


def test_an_end_with_another_fence_is_not_believed(it: Any) -> None:
    it.see()
    it.wait(5)
    it.feed(ev.ActionEnded(it.acts[0].action_id, it.acts[0].fence - 1, True))
    assert it.core.actions[it.acts[0].action_id].status == "running"


def test_flapping_is_one_issue_that_says_so_and_gets_safe_repairs_only(it: Any) -> None:
    for n in range(20):
        it.see(bad=n % 2 == 0)
        it.wait(2)
    assert len([r for r in it.records if isinstance(r, IssueSaved) and r.issue.cause.startswith("bad")]) >= 1
    assert len({r.issue.issue_id for r in it.records if isinstance(r, IssueSaved)}) == 1
    assert it.issue.flapping
    assert len(it.alerts("flapping")) == 1
    assert it.names == ["gentle"]
    it.end(success=False)
    it.see()
    assert it.last == "nothing:flapping"
    it.wait(100)
    it.see(bad=False)
    it.wait(250)
    assert it.issue.status == "holding"
    it.wait(60)
    assert not it.core.issues


def test_thresholds_to_enter_and_to_leave(make: Any) -> None:
    it = make("[monitors.probe]\nenter = 90\nleave = 80\n")
    it.see(value=89.0)
    assert not it.core.conditions
    it.see(value=91.0, bad=False)
    it.wait(5)
    it.see(value=81.0, bad=False)
    assert it.issue.status == "open"
    it.see(value=80.0, bad=True)
    assert it.issue.status == "holding"


def test_information_is_written_down_and_never_acted_on(it: Any) -> None:
    it.see(severity="info")
    it.wait(500)
    assert it.names == []
    assert it.last == "nothing:severity"


def test_every_refusal_is_written_once_with_its_steps(it: Any) -> None:
    it.see(confidence=0.2)
    it.wait(5)
    it.end(success=False)
    for _ in range(50):
        it.see(confidence=0.2)
        it.wait(1)
    decision = it.decisions[-1]
    assert len(it.decisions) == 2
    assert decision.reason == "confidence"
    assert [step.gate for step in decision.steps] == [
        "condition",
        "persistence",
        "rung",
        "mode",
        "confidence",
    ]
    assert [step.passed for step in decision.steps] == [True] * 4 + [False]
    it.see(confidence=1.0)
    assert it.names == ["gentle", "restart"]


@pytest.mark.parametrize("kind", ["pause", "window", "kill", "ignore"])
def test_controls_hold_it_back_and_say_by_whom(it: Any, kind: str) -> None:
    it.feed(
        ev.SetControl(
            Control(
                kind=ControlKind(kind),
                name="c",
                by="ada",
                reason="moving racks",
                node="n0",
                until=it.now + 60,
            )
        )
    )
    it.see()
    it.wait(5)
    assert it.last == f"nothing:{kind}"
    assert "ada: moving racks" in it.decisions[-1].steps[-1].text
    it.see(node="n1")
    it.wait(5)
    assert [a.node for a in it.acts] == ["n1"]
    it.wait(51)
    assert [a.node for a in it.acts] == ["n1", "n0"]


def test_what_a_pause_has_held_back_comes_one_after_the_other(it: Any) -> None:
    it.feed(ev.SetControl(Control(kind=ControlKind.PAUSE, name="c", by="ada", reason="moving")))
    for n in range(6):
        it.see(entity=f"unit{n}")
    it.wait(10)
    assert it.acts == []
    it.feed(ev.EndControl("c", "ada"))
    seen = []
    for _ in range(6):
        seen.append(len(it.acts))
        it.wait(1.0)
    assert seen == sorted(seen)
    assert seen[0] <= 1
    assert seen[-1] >= 5


def test_the_kill_switch_ends_what_runs(it: Any) -> None:
    it.see()
    it.wait(5)
    it.feed(ev.SetControl(Control(kind=ControlKind.KILL, name="stop", by="ada", reason="it goes mad")))
    assert [s.action_id for s in it.sends if isinstance(s, Abort)] == [it.acts[0].action_id]
    assert it.last == "nothing:kill"
    it.wait(1000)
    assert it.names == ["gentle"]


def test_a_dry_run_decides_and_does_nothing(make: Any) -> None:
    it = make()
    it.feed(ev.SetControl(Control(kind=ControlKind.DRY_RUN, name="dry", by="ada", reason="try out")))
    it.see()
    it.wait(100)
    assert it.acts == []
    assert it.last == "would_act:dry_run"
    assert it.decisions[-1].rung == "gentle"


@pytest.mark.parametrize(
    ("mode", "verdict", "alert"),
    [("observe", "nothing", None), ("suggest", "suggest", "suggestion"), ("approve", "ask", "approval")],
)
def test_modes(make: Any, mode: str, verdict: str, alert: str | None) -> None:
    it = make(f'[remediations.gentle]\nmode = "{mode}"\n')
    it.see()
    it.wait(300)
    it.see()
    assert it.acts == []
    assert it.decisions[-1].verdict == verdict
    assert [a.kind for a in it.sends if hasattr(a, "kind")] == ([alert] if alert else [])
    it.feed(ev.Approve(it.issue.issue_id, "ada"))
    assert it.names == ["gentle"]
    assert it.acts[0].by == "ada"


def test_a_person_who_does_not_answer_and_one_who_refuses(make: Any) -> None:
    it = make('[remediations.gentle]\nmode = "approve"\n')
    it.see()
    it.wait(5)
    it.wait(3600)
    assert it.last == "escalate:unanswered"
    assert len(it.alerts("escalated")) == 1
    it.feed(ev.Reject(it.issue.issue_id, "ada", "known, harmless"))
    assert it.last == "nothing:rejected"
    it.feed(ev.Reject(it.issue.issue_id, "ada", " "))
    assert "reason" in str(it.refusal)
    it.see()
    it.feed(ev.Approve(it.issue.issue_id, "ada", "reboot"))
    assert it.names == ["reboot"]
    it.feed(ev.Approve(it.issue.issue_id, "ada", "reboot"))
    assert "cannot be approved" in str(it.refusal)
    it.feed(ev.Approve("iss_none", "ada"))
    assert "no open issue" in str(it.refusal)


def test_budgets_of_target_and_kind(make: Any) -> None:
    it = make("[budgets]\ntarget = {count = 2, seconds = 100}\nkind = {count = 3, seconds = 1000}\n")
    for n in range(5):
        it.see(entity=f"u{n}", node="n1")
    it.wait(5)
    assert it.names == ["gentle"] * 3
    assert it.last == "nothing:kind"
    assert "3 of 3" in it.decisions[-1].steps[-1].text
    it.wait(1000)
    assert len(it.acts) >= 5


def test_the_breaker_trips_and_a_named_person_resets_it(make: Any) -> None:
    it = make(
        "[budgets]\nbreaker = {count = 4, seconds = 300}\nkind = {count = 100, seconds = 60}\n", nodes=30
    )
    for n in range(30):
        it.see(node=f"n{n}")
    it.wait(5)
    assert len(it.acts) == 4
    assert it.core.breaker is not None
    assert len(it.alerts("breaker")) == 1
    assert len({d.issue_id for d in it.decisions}) == 30
    it.wait(5000)
    assert len(it.acts) == 4
    it.feed(ev.ResetBreaker("", "resume"))
    it.feed(ev.ResetBreaker("ada", "what"))
    assert it.core.breaker is not None
    it.feed(ev.ResetBreaker("ada", "skip"))
    it.wait(5000)
    assert len(it.acts) == 4
    it.see(node="n29", severity="critical")
    assert len(it.acts) == 5


def test_the_floor_holds_nodes_in_service(it: Any) -> None:
    it.feed(ev.NodeState("n1", "out"))
    it.see()
    it.wait(5)
    it.end(success=False)
    # One of the two others is healthy: too few for anything disruptive.
    assert it.last == "nothing:floor"
    it.feed(ev.NodeState("n1", "up"))
    it.wait(1)
    it.see()
    assert it.names == ["gentle", "restart"]
    it.end(success=False)
    assert it.names == ["gentle", "restart", "drain"]


def test_a_drain_on_its_way_counts_as_out(it: Any) -> None:
    for node in ("n0", "n1"):
        it.see(node=node)
    it.wait(5)
    for action in list(it.acts):
        it.feed(ev.ActionEnded(action.action_id, action.fence, False))
    assert sorted(it.names) == ["gentle", "gentle"]
    assert it.last == "nothing:floor"


def test_a_single_machine_is_repaired_but_never_drained(make: Any) -> None:
    it = make(nodes=1)
    it.see()
    it.wait(5)
    it.end(success=False)
    it.end(success=False)
    assert it.names == ["gentle", "restart"]
    assert it.last == "nothing:floor"


def test_the_price_is_asked_before_anything_disruptive(it: Any) -> None:
    it.see()
    it.wait(5)
    it.wait(20)
    it.end(success=False)
    assert it.last == "nothing:price"
    assert [s.node for s in it.sends if isinstance(s, AskWork)] == ["n0"]
    attempt = Attempt("t1", it.now - 100, expected=110, entity="unit")
    it.feed(ev.Work("n0", (attempt,)))
    assert it.names == ["gentle", "restart"]
    price = it.acts[1].price
    assert price is not None
    assert (price.way, price.lost_now, price.wait, price.lost) == ("drain", 100.0, 10.0, 0.0)


def test_work_that_may_run_only_once_is_a_matter_for_a_person(it: Any) -> None:
    attempts = (Attempt("t1", it.now - 100, once=True, entity="unit"),)
    it.see(attempts=attempts)
    it.wait(5)
    it.end(success=False)
    assert it.last == "ask:price"
    assert it.names == ["gentle"]
    it.feed(ev.Approve(it.issue.issue_id, "ada"))
    assert it.names == ["gentle", "restart"]


def test_dear_work_is_a_matter_for_a_person(it: Any) -> None:
    attempts = tuple(Attempt(f"t{n}", it.now - 100, entity="unit") for n in range(7))
    it.see(attempts=attempts)
    it.wait(5)
    it.end(success=False)
    assert it.last == "ask:price"
    assert "600 are allowed" in it.decisions[-1].steps[-1].text


def test_two_issues_never_have_the_same_target(it: Any) -> None:
    it.see(entity="", monitor="a")
    it.see(entity="unit")
    it.wait(5)
    assert it.names == ["gentle"]
    assert it.last == "nothing:lease"
    it.end()
    it.see(entity="", monitor="a", bad=False)
    assert [a.target for a in it.acts] == ["n0", "n0/unit"]


def test_cool_down_is_about_one_target(make: Any) -> None:
    it = make("[remediations.gentle]\ncooldown = 100\n")
    it.see()
    it.wait(5)
    it.end()
    it.see(bad=False)
    it.wait(700)
    it.see()
    it.wait(5)
    assert it.names == ["gentle", "gentle"]
    it.end()
    it.see(bad=False)
    it.wait(25)
    it.see(severity="critical")
    it.wait(5)
    assert it.last == "nothing:cooldown"
    it.wait(80)
    assert it.names == ["gentle"] * 3


def test_the_ladder_is_ordered_by_measured_success_within_a_risk(it: Any) -> None:
    it.core.scores["service_failure", "restart"] = (10, 1)
    it.core.scores["service_failure", "drain"] = (10, 9)
    it.see()
    it.wait(5)
    it.end(success=False)
    assert it.names == ["gentle", "drain"]


def test_a_rung_that_is_switched_off_is_not_on_the_ladder(make: Any) -> None:
    it = make("[remediations.gentle]\nenabled = false\n")
    it.see()
    it.wait(5)
    assert it.names == ["restart"]


def test_without_a_remediation_a_person_is_told(make: Any) -> None:
    it = make(rungs=())
    it.see()
    it.wait(500)
    it.see()
    assert it.last == "escalate:rung"
    assert len(it.alerts("escalated")) == 1


def test_memory_is_bounded_and_a_person_is_told(it: Any) -> None:
    it.core.most_conditions = 10
    for n in range(50):
        it.see(entity=f"u{n}")
    assert len(it.core.conditions) == 10
    assert it.core.counts["dropped_observations"] == 40
    assert len(it.alerts("crowded")) == 1


def test_a_node_that_was_removed_takes_its_issues_along(it: Any) -> None:
    it.see()
    it.wait(5)
    it.feed(ev.NodeState("n0", "removed"))
    assert not it.core.issues
    it.end()
    it.wait(1000)
    assert not it.core.actions
    assert not it.core.conditions


def test_a_new_core_goes_on_where_the_old_one_was(it: Any, make: Any) -> None:
    it.see()
    it.wait(5)
    it.end(success=False)
    issue, action = it.issue, saved(it, it.acts[-1].action_id)
    old = saved(it, it.acts[0].action_id)
    new = make()
    new.core = type(new.core)(new.core.policy)
    new.now = it.now + 1
    new.feed(ev.Recovered(2, issues=(issue,), actions=(old, action)))
    for rung in it.core.rungs.values():
        new.feed(ev.RungKnown(rung))
    new.wait(1)
    assert new.acts == []
    # The repair that ran still holds its target, and whoever runs it may report to the new core.
    new.feed(ev.ActionEnded(action.action_id, action.fence, False))
    for n in range(3):
        new.feed(ev.NodeState(f"n{n}", "up"))
    new.see()
    new.wait(61)
    new.see()
    assert new.names == ["drain"]
    assert new.acts[0].fence > action.fence
    assert {r.decision_id for r in new.decisions}.isdisjoint({r.decision_id for r in it.decisions})


def test_verdicts_cover_what_is_decided() -> None:
    assert {v.value for v in Verdict} == {"act", "would_act", "suggest", "ask", "escalate", "nothing"}
