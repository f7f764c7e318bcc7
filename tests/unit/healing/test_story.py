"""Explain and replay: what the records say, and what another policy would have made of them."""

from __future__ import annotations

from typing import Any

import pytest

from omnimind import NotFound
from omnimind.healing import events as ev
from omnimind.healing.policy import Policy
from omnimind.healing.policy_load import load
from omnimind.healing.replay import observations, replay
from omnimind.healing.story import as_text, explain
from tests.unit.healing.conftest import QUICK, RUNGS


def incident(it: Any) -> None:
    it.see()
    it.wait(5)
    it.end(success=False, details="no such unit")
    it.end(details="restarted")
    it.see(bad=False)
    it.wait(30)


def test_the_story_of_an_issue_has_every_question_and_answer(it: Any) -> None:
    incident(it)
    issue_id = it.decisions[0].issue_id
    story = explain(it.records, issue_id)
    assert [a.action for a in story.actions] == ["gentle", "restart"]
    text = as_text(story)
    for word in (
        "service_failure on n0/unit: closed", "it is down", "persistence: bad for 5.0 s", "mode: auto",
        "target: 1 of 3 in 1800 s", "price: nothing runs there", "act restart", "no such unit",
        "verified: fixed", "verified: not_fixed",
    ):  # fmt: skip
        assert word in text
    plain = story.to_dict()
    assert plain["decisions"][0]["steps"][0][0] == "condition"


def test_a_node_a_decision_and_an_action_lead_to_the_same_issue(it: Any) -> None:
    incident(it)
    decision, action = it.decisions[1], it.acts[1]
    assert explain(it.records, "n0").issues == explain(it.records, action.action_id).issues
    story = explain(it.records, decision.decision_id)
    assert [d.decision_id for d in story.decisions] == [decision.decision_id]
    assert [a.action_id for a in story.actions] == [action.action_id]
    with pytest.raises(NotFound, match="n7"):
        explain(it.records, "n7")


def test_what_people_said_and_the_breaker_are_in_the_story(make: Any) -> None:
    it = make("[budgets]\nbreaker = {count = 1, seconds = 300}\n")
    it.see(entity="a")
    it.see(entity="b")
    it.wait(5)
    issue = next(i for i in it.core.issues.values() if i.entity == "b")
    it.feed(ev.Reject(issue.issue_id, "ada", "it is mine"))
    it.feed(ev.ResetBreaker("bob", "resume"))
    text = as_text(explain(it.records, issue.issue_id))
    assert "ada: reject it is mine" in text
    assert "the breaker tripped" in text
    assert "reset by bob" in text


def test_the_same_policy_makes_the_same_repairs_and_a_stricter_one_fewer(make: Any) -> None:
    it = make()
    for n in range(8):
        it.see(node=f"n{n % 3}", entity=f"u{n}")
        it.wait(5)
        it.end()
        it.see(node=f"n{n % 3}", entity=f"u{n}", bad=False)
        it.wait(100)
    recorded = observations(it.records)
    assert len(recorded) == 16
    same = replay(recorded, load(QUICK), RUNGS)
    assert [(a.action, a.target, a.outcome) for a in same.actions] == [
        ("gentle", f"n{n % 3}/u{n}", "fixed") for n in range(8)
    ]
    assert same.issues == 8
    strict = replay(recorded, load(QUICK + "[budgets]\nkind = {count = 2, seconds = 1800}\n"), RUNGS)
    assert len(strict.actions) == 2
    assert strict.refusals["kind"] == 6
    added, lost = same.differs(strict)
    assert (len(added), len(lost)) == (0, 6)
    patient = replay(recorded, load(QUICK.replace("persist = 5", "persist = 60")), RUNGS)
    assert (patient.issues, patient.actions) == (0, [])
    tripped = replay(recorded, load(QUICK + "[budgets]\nbreaker = {count = 1, seconds = 3600}\n"), RUNGS)
    assert tripped.tripped
    assert len(tripped.actions) == 1


def test_nothing_recorded_is_nothing_done() -> None:
    assert replay([], Policy(), RUNGS).actions == []
