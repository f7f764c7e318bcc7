"""The loop alone, with monitors and remediations of one program."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import pytest

from omnimind import (
    InvalidInput,
    Issue,
    IssueSeverity,
    IssueType,
    RemediationAction,
    SelfHealingIntegration,
    SelfHealingLoop,
)
from omnimind.clock import ManualClock
from omnimind.healing.policy_load import load

Alerts = list[dict[str, Any]]


class Machine:
    """Something that can be wrong, and what was done to it."""

    def __init__(self) -> None:
        self.bad = True
        self.looks = 0
        self.done: list[str] = []

    async def look(self) -> dict[str, Any]:
        self.looks += 1
        if not self.bad:
            return {"status": "ok"}
        return {
            "status": "issue",
            "type": "disk_full",
            "severity": "error",
            "description": "97 % full",
            "metrics": {"percent": 97, "path": object},
        }

    async def clean(self, issue: Issue) -> dict[str, Any]:
        self.done.append(f"clean {issue.description}")
        self.bad = False
        return {"success": True, "description": "removed 3 GB"}

    async def look_busy(self, issue: Issue) -> dict[str, Any]:
        self.done.append("look busy")
        return {"success": True, "description": "did something"}


@pytest.fixture
def machine() -> Machine:
    return Machine()


@pytest.fixture
def alerts() -> Alerts:
    return []


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def loop(alerts: Alerts, clock: ManualClock) -> SelfHealingLoop:
    return SelfHealingLoop(
        alert_callback=alerts.append, clock=clock, monitor_timeout=0.2, remediation_timeout=0.2
    )


async def test_one_cycle_sees_repairs_and_verifies(loop: SelfHealingLoop, machine: Machine) -> None:
    loop.register_monitor(machine.look)
    loop.register_remediation(IssueType.DISK_FULL, machine.clean)
    (action,) = await loop.run_cycle()
    assert (action.issue_type, action.action) == (IssueType.DISK_FULL, "clean")
    assert action.success
    assert action.details == "removed 3 GB"
    assert action.outcome == "fixed"
    assert action.to_dict()["outcome"] == "fixed"
    (issue,) = loop.issue_history
    assert issue.severity is IssueSeverity.ERROR
    assert issue.remediation_attempted
    assert issue.remediation_successful
    assert issue.remediation_details == "removed 3 GB"
    assert issue.status == "closed"
    assert issue.metrics["percent"] == 97
    assert isinstance(issue.to_dict()["metrics"]["path"], str)
    metrics = loop.get_metrics()
    assert {k: metrics[k] for k in ("cycles", "issues_detected", "remediations")} == {
        "cycles": 1, "issues_detected": 1, "remediations": 1,
    }  # fmt: skip
    assert (metrics["successful_remediations"], metrics["failed_remediations"]) == (1, 0)
    assert metrics["verified_fixes"] == 1
    assert await loop.run_cycle() == []
    assert loop.get_metrics()["cycles"] == 2


async def test_success_is_the_remediations_word_and_fixed_the_monitors(
    loop: SelfHealingLoop, machine: Machine
) -> None:
    loop.register_monitor(machine.look)
    loop.register_remediation("disk_full", machine.look_busy)
    (action,) = await loop.run_cycle()
    assert action.success
    assert action.outcome == "not_fixed"
    assert loop.get_metrics()["successful_remediations"] == 1
    assert loop.get_metrics()["verified_fixes"] == 0


async def test_several_remediations_are_a_ladder_one_rung_a_cycle(
    loop: SelfHealingLoop, machine: Machine, alerts: Alerts
) -> None:
    loop.register_monitor(machine.look)
    loop.register_remediation("disk_full", machine.look_busy, name="first")
    loop.register_remediation("disk_full", machine.look_busy, name="second")
    names = [[a.action for a in await loop.run_cycle()] for _ in range(4)]
    assert names == [["first"], ["second"], [], []]
    assert len(loop.issue_history) == 1
    assert [a["kind"] for a in alerts] == ["escalated"]
    assert loop.get_metrics()["escalations"] == 1


async def test_a_harsher_rung_comes_after_the_gentle_ones(loop: SelfHealingLoop, machine: Machine) -> None:
    loop.register_monitor(machine.look)
    loop.register_remediation("disk_full", machine.clean, name="harsh", risk="disruptive")
    loop.register_remediation("disk_full", machine.look_busy, name="gentle")
    names = [[a.action for a in await loop.run_cycle()] for _ in range(2)]
    assert names == [["gentle"], ["harsh"]]
    assert machine.done == ["look busy", "clean 97 % full"]


async def test_what_raises_is_an_alert_with_its_message_and_no_action(
    loop: SelfHealingLoop, machine: Machine, alerts: Alerts
) -> None:
    async def broken_monitor() -> dict[str, Any]:
        raise RuntimeError("sensor unplugged")

    async def broken_remediation(_: Issue) -> dict[str, Any]:
        raise OSError("permission denied on /var")

    loop.register_monitor(broken_monitor)
    loop.register_monitor(machine.look)
    loop.register_remediation("disk_full", broken_remediation)
    loop.register_remediation("disk_full", machine.clean)
    assert await loop.run_cycle() == []
    assert ["sensor unplugged" in alerts[0]["message"], "permission denied" in alerts[1]["message"]] == [
        True
    ] * 2
    assert loop.get_metrics()["failed_remediations"] == 1
    assert [a.action for a in await loop.run_cycle()] == ["clean"]
    # The same alert is not repeated while nothing has changed.
    assert len(alerts) == 2


async def test_what_hangs_is_an_alert_and_is_not_called_again_until_it_ends(
    loop: SelfHealingLoop, machine: Machine, alerts: Alerts
) -> None:
    calls = list[str]()
    gate = asyncio.Event()

    async def hanging_monitor() -> dict[str, Any]:
        calls.append("monitor")
        while True:
            # One that does not even end when it is cancelled.
            with contextlib.suppress(asyncio.CancelledError):
                await gate.wait()
            if gate.is_set():
                return {"status": "ok"}

    async def hanging_remediation(_: Issue) -> dict[str, Any]:
        await asyncio.sleep(3600)
        return {"success": True}

    loop.register_monitor(hanging_monitor)
    loop.register_monitor(machine.look)
    loop.register_remediation("disk_full", hanging_remediation)
    async with asyncio.timeout(30):
        assert await loop.run_cycle() == []
        await loop.run_cycle()
    assert calls == ["monitor"]
    messages = " ".join(a["message"] for a in alerts)
    assert "hanging_monitor: TimeoutError: it did not end within 0.2 s" in messages
    assert "its last call still hangs" in messages
    assert "hanging_remediation: TimeoutError" in messages
    gate.set()
    await asyncio.sleep(0.01)
    await loop.run_cycle()
    assert calls == ["monitor", "monitor"]


@pytest.mark.parametrize(
    "answer",
    [
        None, 5, "bad", [], {}, {"status": 1}, {"status": ""}, {"status": "bad"},
        {"status": "bad", "type": "flood", "severity": "error"},
        {"status": "bad", "type": "disk_full", "severity": "terrible"},
        {"status": "bad", "type": "disk_full", "severity": "error", "description": 7},
        {"status": "bad", "type": "disk_full", "severity": "error", "metrics": [1]},
        {"status": "bad", "type": "disk_full", "severity": "error", "id": [1]},
    ],
)  # fmt: skip
async def test_nonsense_from_a_monitor_is_an_alert(
    loop: SelfHealingLoop, alerts: Alerts, answer: Any
) -> None:
    async def monitor() -> Any:
        return answer

    loop.register_monitor(monitor)
    assert await loop.run_cycle() == []
    assert len(alerts) == 1
    assert alerts[0]["kind"] == "monitor"
    assert not loop.issue_history


@pytest.mark.parametrize("answer", [None, True, {}, {"success": "yes"}, {"success": 1, "description": "x"}])
async def test_nonsense_from_a_remediation_is_an_alert_and_no_success(
    loop: SelfHealingLoop, machine: Machine, alerts: Alerts, answer: Any
) -> None:
    loop.register_monitor(machine.look)
    loop.register_remediation("disk_full", lambda _: answer, name="odd")
    (action,) = await loop.run_cycle()
    assert not action.success
    assert action.outcome == "not_fixed"
    assert alerts[0]["message"].startswith("odd: ")


async def test_the_sink_gets_the_metrics_after_each_cycle_and_cannot_stop_it(
    machine: Machine, alerts: Alerts
) -> None:
    got: Alerts = []

    async def sink(told: dict[str, Any]) -> None:
        got.append(told)
        if len(got) == 2:
            raise ValueError("full")

    loop = SelfHealingLoop(metrics_sink=sink, alert_callback=alerts.append)
    loop.register_monitor(machine.look)
    for _ in range(3):
        await loop.run_cycle()
    assert [told["metrics"]["cycles"] for told in got] == [1, 2, 3]
    assert got[2]["metrics"] == loop.get_metrics()
    assert "full" in alerts[-1]["message"]


async def test_a_callback_that_raises_stops_nothing(machine: Machine) -> None:
    def callback(_: dict[str, Any]) -> None:
        raise RuntimeError("pager is broken")

    loop = SelfHealingLoop(alert_callback=callback)
    loop.register_monitor(machine.look)
    await loop.run_cycle()
    await loop.run_cycle()
    assert loop.get_metrics()["cycles"] == 2


async def test_ids_are_issues_of_their_own(loop: SelfHealingLoop) -> None:
    disks = {"a": True, "b": True}
    turn = {"n": 0}

    async def look() -> dict[str, Any]:
        turn["n"] += 1
        name = "ab"[turn["n"] % 2]
        if not disks[name]:
            return {"status": "ok", "id": name}
        return {
            "status": "full", "type": IssueType.DISK_FULL, "severity": IssueSeverity.WARNING,
            "description": name, "id": name,
        }  # fmt: skip

    loop.register_monitor(look)
    for _ in range(4):
        await loop.run_cycle()
    assert sorted(issue.entity for issue in loop.issue_history) == ["a", "b"]
    disks["a"] = False
    for _ in range(2):
        await loop.run_cycle()
    assert {issue.entity: issue.status.value for issue in loop.issue_history} == {"a": "closed", "b": "open"}
    summary = loop.get_issue_summary()
    assert summary["total_issues"] == 2
    assert summary["by_type"] == {"disk_full": 2}
    assert summary["by_severity"] == {"warning": 2}
    assert len(summary["recent_issues"]) == 2


async def test_a_slow_effect_is_waited_for(
    loop: SelfHealingLoop, machine: Machine, clock: ManualClock
) -> None:
    loop.register_monitor(machine.look)
    loop.register_remediation("disk_full", machine.look_busy, name="slow", verify_within=60)
    loop.register_remediation("disk_full", machine.clean, name="next")
    (slow,) = await loop.run_cycle()
    for _ in range(3):
        clock.advance(10)
        assert await loop.run_cycle() == []
    assert slow.outcome is None
    clock.advance(60)
    assert [a.action for a in await loop.run_cycle()] == ["next"]
    assert slow.outcome == "not_fixed"


async def test_a_budget_stops_a_repair_that_is_needed_again_and_again(
    loop: SelfHealingLoop, machine: Machine, clock: ManualClock
) -> None:
    loop.register_monitor(machine.look)
    loop.register_remediation("disk_full", machine.clean)
    made = 0
    for _ in range(30):
        made += len(await loop.run_cycle())
        machine.bad = True
        clock.advance(700)
        await loop.run_cycle()
        machine.bad = False
        await loop.run_cycle()
        machine.bad = True
    # At most three in any half hour.
    assert 0 < len(machine.done) <= 3 * (30 * 700 / 1800 + 1)


async def test_a_policy_of_its_own(machine: Machine) -> None:
    loop = SelfHealingLoop(policy=load("dry_run = true\ngrace = 0\n[detection]\npersist = 0\n"))
    loop.register_monitor(machine.look)
    loop.register_remediation("disk_full", machine.clean)
    assert await loop.run_cycle() == []
    assert machine.done == []


def test_bad_arguments_are_named() -> None:
    loop = SelfHealingLoop()
    wrong: list[tuple[Callable[[], Any], str]] = [
        (lambda: SelfHealingLoop(metrics_sink=5), "metrics_sink"),  # type: ignore[arg-type]
        (lambda: SelfHealingLoop(monitor_timeout=0), "monitor_timeout"),
        (lambda: loop.register_monitor(None), "function"),  # type: ignore[arg-type]
        (lambda: loop.register_remediation("flood", print), "type"),
        (lambda: loop.register_remediation("disk_full", print, risk="wild"), "risk"),
        (lambda: loop.register_remediation("disk_full", print, cooldown=-1), "cooldown"),
    ]
    for call, field in wrong:
        with pytest.raises(InvalidInput) as caught:
            call()
        assert caught.value.field == field
    assert loop.register_monitor(print) == "print"
    assert loop.register_monitor(print) == "print#2"
    with pytest.raises(InvalidInput, match="taken"):
        loop.register_monitor(print, name="print")


class Agent:
    def __init__(self, answer: Any = None) -> None:
        self.heard: list[Issue] = []
        self.answer = answer

    async def on_issue(self, issue: Issue) -> Any:
        self.heard.append(issue)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


async def exhaustion() -> dict[str, Any]:
    return {"status": "bad", "type": "resource_exhaustion", "severity": "critical", "description": "memory"}


async def test_the_integration_really_throttles_the_controller() -> None:
    from omnimind import HomeostaticController, ResourceMetrics

    class Reader:
        def read(self) -> Any:
            raise AssertionError("not asked")

    controller = HomeostaticController(reader=Reader())
    await controller.take(ResourceMetrics(10, 97, 0.1, 10, 1.0))
    integration = SelfHealingIntegration(homeostatic_controller=controller)
    assert (
        integration.get_status()["monitors_registered"],
        integration.get_status()["remediations_registered"],
    ) == (1, 1)
    (action,) = await integration.run_healing_cycle()
    assert (action.action, action.success) == ("throttle", True)
    assert controller.is_throttled()
    assert not controller.should_execute_task("low")
    assert "memory at 97 %" in controller.get_stats()["throttle_reason"]
    status = integration.get_status()
    assert status["metrics"]["remediations"] == 1
    assert status["issue_summary"]["by_type"] == {"resource_exhaustion": 1}


async def test_another_monitors_exhaustion_throttles_too() -> None:
    from omnimind import HomeostaticController, ResourceMetrics

    controller = HomeostaticController()
    await controller.take(ResourceMetrics(10, 10, 1, 10, 1.0))
    integration = SelfHealingIntegration(controller)
    integration.healing_loop.register_monitor(exhaustion)
    await integration.run_healing_cycle()
    assert controller.is_throttled()


@pytest.mark.parametrize(
    ("answer", "suggestions"),
    [
        ("buy memory", ("buy memory",)),
        (["a", "b", "a"], ("a", "b")),
        ([1, "c"], ("c",)),
        (None, ()),
        (7, ()),
        (RuntimeError("no idea"), ()),
    ],
)
async def test_the_agent_hears_of_each_issue_once_and_may_suggest(
    answer: Any, suggestions: tuple[str, ...]
) -> None:
    agent = Agent(answer)
    integration = SelfHealingIntegration(metacognition_agent=agent)
    integration.healing_loop.register_monitor(exhaustion)
    for _ in range(3):
        await integration.run_healing_cycle()
    assert [issue.description for issue in agent.heard] == ["memory"]
    (issue,) = integration.healing_loop.issue_history
    assert tuple(dict.fromkeys(issue.suggestions)) == suggestions


def test_without_anything_it_is_an_empty_loop() -> None:
    status = SelfHealingIntegration().get_status()
    assert (status["monitors_registered"], status["remediations_registered"]) == (0, 0)
    with pytest.raises(InvalidInput, match="homeostatic_controller"):
        SelfHealingIntegration(homeostatic_controller=object())
    with pytest.raises(InvalidInput, match="metacognition_agent"):
        SelfHealingIntegration(metacognition_agent=object())


def test_issues_and_actions_can_be_made_by_hand() -> None:
    metrics: dict[Any, Any] = {"free": object, 1: 2}
    issue = Issue(IssueType.DISK_FULL, IssueSeverity.ERROR, "full", metrics, True, False, "tried")
    plain = issue.to_dict()
    assert (plain["issue_type"], plain["severity"], plain["remediation_details"]) == (
        "disk_full",
        "error",
        "tried",
    )
    assert plain["metrics"]["1"] == 2
    action = RemediationAction(IssueType.DISK_FULL, "clean", True, "removed")
    assert {k: action.to_dict()[k] for k in ("issue_type", "action", "success", "details")} == {
        "issue_type": "disk_full", "action": "clean", "success": True, "details": "removed",
    }  # fmt: skip


async def test_a_monitor_that_makes_up_names_does_not_fill_the_memory(alerts: Alerts) -> None:
    loop = SelfHealingLoop(alert_callback=alerts.append)
    turn = {"n": 0}

    async def look() -> dict[str, Any]:
        turn["n"] += 1
        return {"status": "bad", "type": "disk_full", "severity": "info", "id": turn["n"]}

    loop.register_monitor(look)
    for _ in range(1500):
        await loop.run_cycle()
    assert len(loop.issue_history) == 1000
    assert loop.get_issue_summary()["total_issues"] == 1500
    assert len(loop.get_issue_summary()["recent_issues"]) == 10
