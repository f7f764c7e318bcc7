"""A policy is valid as a whole or refused, naming the key and the mend."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omnimind.errors import ConfigError
from omnimind.healing import policy_load
from omnimind.healing.actions import Mode, Risk, Rung
from omnimind.healing.budgets import Budget, Budgets
from omnimind.healing.issues import IssueType
from omnimind.healing.policy import Policy
from omnimind.healing.policy_load import load
from tests.unit.healing.conftest import RUNGS


def test_an_empty_file_is_the_defaults_of_the_design() -> None:
    policy = load("")
    assert policy == Policy()
    assert (policy.budgets.target, policy.budgets.kind) == (Budget(3, 1800.0), Budget(10, 1800.0))
    assert (policy.budgets.breaker, policy.budgets.floor) == (Budget(20, 300.0), 0.51)
    own = Rung(name="a", issue_type=IssueType.DISK_FULL, risk=Risk.DISRUPTIVE)
    host = Rung(name="b", issue_type=IssueType.DISK_FULL, risk=Risk.DISRUPTIVE, host=True)
    last = Rung(name="c", issue_type=IssueType.DISK_FULL, risk=Risk.DESTRUCTIVE)
    assert [policy.mode(r) for r in (RUNGS[0], own, host, last)] == ["auto", "auto", "suggest", "approve"]


@pytest.mark.parametrize(
    ("text", "field", "words"),
    [
        ("x = 1", "x", "known here are dry_run"),
        ("[budgets]\ntarget = {count = -1, seconds = 5}", "budgets.target.count", ">= 0"),
        ("[budgets]\ntarget = {count = 1, secs = 5}", "budgets.target.secs", "count, seconds"),
        ("[budgets]\ntargget = {count = 1, seconds = 5}", "budgets.targget", "target, kind, breaker, floor"),
        ("[budgets]\nfloor = 1.5", "budgets.floor", "<= 1"),
        ("[budgets]\nfloor = nan", "budgets.floor", ">= 0"),
        ("[monitors.disk]\nentre = 3", "monitors.disk.entre", "enter, leave"),
        ("[monitors.disk]\nenter = 80\nleave = 90", "monitors.disk.leave", "set enter"),
        ("[monitors.disk]\nenter = inf", "monitors.disk.enter", "give a number"),
        ("[types.flood]\npersist = 3", "types.flood", "disk_full"),
        ('[remediations.x]\nmode = "yolo"', "remediations.x.mode", "observe, suggest, approve, auto"),
        ("[remediations.x.budget]\ncount = 1\nseconds = -4", "remediations.x.budget.seconds", "> 0"),
        ("[remediations.x]\ntimeout = 0", "remediations.x.timeout", "> 0"),
        ("budgets = 3", "budgets", "give a table"),
        ("dry_run = 1", "dry_run", "true or false"),
        ("[price]\nlimit = nan", "price.limit", ">= 0"),
        ("[detection]\nflap_count = 1", "detection.flap_count", ">= 2"),
    ],
)
def test_refused(text: str, field: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(text, "policy.toml")
    assert caught.value.field == field
    assert words in str(caught.value)
    assert "policy.toml" in str(caught.value)


def test_what_is_no_toml() -> None:
    with pytest.raises(ConfigError, match="line 1"):
        load("[budgets\nx = 1", "policy.toml")


def test_it_survives_being_written() -> None:
    text = """
    dry_run = true
    [types.disk_full]
    persist = 1
    [monitors.disk_space]
    enter = 90
    leave = 85
    [remediations.clear]
    mode = "approve"
    budget = {count = 1, seconds = 60}
    """
    policy = load(text)
    assert policy_load.convert(policy_load.dump(policy)) == policy
    rule = policy.rule("disk_space", IssueType.DISK_FULL)
    assert (rule.persist, rule.hold_down, rule.enter, rule.leave) == (1.0, 30.0, 90.0, 85.0)
    assert policy.kind_budget("clear") == Budget(1, 60.0)


def test_check_says_what_a_person_should_know() -> None:
    assert policy_load.check(Policy(), RUNGS, ["probe"]) == []
    policy = load(
        'dry_run = true\n[risk]\ndestructive = "auto"\n'
        "[budgets]\nfloor = 0\nkind = {count = 0, seconds = 1}\n"
        "[doubt]\nwitnesses = 1\n[remediations.gone]\norder = 1\n[monitors.gone]\npersist = 1\n"
    )
    found = " ".join(policy_load.check(policy, RUNGS, ["probe"]))
    for word in (
        "remediations.gone", "monitors.gone", "remediations.reboot", "budgets.floor", "budgets.kind",
        "witnesses", "dry_run",
    ):  # fmt: skip
        assert word in found
    assert policy.mode(RUNGS[3]) is Mode.AUTO


@given(st.lists(st.floats(0, 50), max_size=60), st.integers(1, 6), st.floats(1, 100), st.booleans())
def test_a_budget_is_never_exceeded_in_any_window(
    gaps: list[float], count: int, seconds: float, greedy: bool
) -> None:
    budget, budgets, now = Budget(count, seconds), Budgets(seconds), 0.0
    starts: list[float] = []
    for gap in gaps:
        now += gap
        free = budgets.free_at("a", budget, now)
        assert free is not None
        if greedy:
            now = free  # as early as it says, and not later
        if free <= now:
            budgets.charge("a", now)
            starts.append(now)
    for start in starts:
        # The witness counts by itself: within any half-open window of that length.
        assert sum(1 for s in starts if start <= s < start + seconds) <= count
    assert Budgets(1.0).free_at("a", Budget(0, 1.0), 0.0) is None
