"""`SelfHealingIntegration`: the loop joined with the machine's ladder and with an agent."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Iterable
from typing import Any

from omnimind.errors import InvalidInput
from omnimind.healing.issues import Issue, IssueType
from omnimind.healing.loop import SelfHealingLoop
from omnimind.homeostasis.ladder import ResourceState

log = logging.getLogger("omnimind")

BRAKE_SECONDS = 60.0
"""How long the controller is throttled for one resource exhaustion."""

AGENT_SECONDS = 10.0
"""How long the agent may think about one issue."""

_BAD = (ResourceState.CRITICAL, ResourceState.EMERGENCY)


class SelfHealingIntegration:
    """A `SelfHealingLoop` that throttles a `HomeostaticController` and tells an agent of each issue.

    homeostatic_controller: its state is a monitor (`critical` or worse is an issue), and its brake
    (`throttle`) the gentlest remediation of `resource_exhaustion`, whoever has seen that.
    metacognition_agent: has ``on_issue(issue)``, or is called so itself; may be async. What it
    returns, a text or several, becomes suggestions of the issue. It decides nothing, and what it
    raises stops nothing. More arguments go to `SelfHealingLoop`.
    """

    def __init__(
        self, homeostatic_controller: Any = None, metacognition_agent: Any = None, **loop: Any
    ) -> None:
        self.homeostatic_controller = homeostatic_controller
        self.metacognition_agent = metacognition_agent
        self.healing_loop = SelfHealingLoop(**loop)
        self._told: dict[str, None] = {}
        self._hear = None
        if metacognition_agent is not None:
            self._hear = getattr(metacognition_agent, "on_issue", None) or metacognition_agent
            if not callable(self._hear):
                msg = "an agent has on_issue(issue), or can be called with the issue"
                raise InvalidInput(msg, field="metacognition_agent")
        if homeostatic_controller is not None:
            for verb in ("throttle", "get_current_metrics"):
                if not callable(getattr(homeostatic_controller, verb, None)):
                    msg = f"a controller has {verb}(), as HomeostaticController has"
                    raise InvalidInput(msg, field="homeostatic_controller")
            self.healing_loop.register_monitor(self._pressure, name="homeostasis")
            self.healing_loop.register_remediation(
                IssueType.RESOURCE_EXHAUSTION, self._throttle, name="throttle", verify_within=BRAKE_SECONDS
            )

    async def run_healing_cycle(self) -> list[Any]:
        """Run one cycle of the loop, and tell the agent of what is new; returns the repairs."""
        actions = await self.healing_loop.run_cycle()
        if self._hear is not None:
            for issue in self.healing_loop.issue_history:
                if issue.issue_id not in self._told:
                    self._told[issue.issue_id] = None
                    await self._think(issue)
            while len(self._told) > 2 * len(self.healing_loop.issue_history) + 1:
                del self._told[next(iter(self._told))]
        return list(actions)

    def get_status(self) -> dict[str, Any]:
        """Return metrics, issues, and how many monitors and remediations there are."""
        return {
            "metrics": self.healing_loop.get_metrics(),
            "issue_summary": self.healing_loop.get_issue_summary(),
            "monitors_registered": len(self.healing_loop.monitors),
            "remediations_registered": len(self.healing_loop.remediations),
        }

    async def _pressure(self) -> dict[str, Any]:
        controller = self.homeostatic_controller
        metrics = await asyncio.to_thread(controller.get_current_metrics)
        ladder = getattr(controller, "ladder", None)
        state = ladder.state if ladder is not None else metrics.get_overall_state()
        if state not in _BAD:
            return {"status": "ok"}
        worst = max(metrics.percents().items(), key=lambda pair: pair[1])
        return {
            "status": state.value,
            "type": IssueType.RESOURCE_EXHAUSTION,
            "severity": "critical" if state is ResourceState.EMERGENCY else "error",
            "description": f"{worst[0]} at {worst[1]:.0f} %",
            "metrics": metrics.to_dict(),
        }

    async def _throttle(self, issue: Issue) -> dict[str, Any]:
        self.homeostatic_controller.throttle(BRAKE_SECONDS, f"healing: {issue.description}")
        return {"success": True, "description": f"throttled for {BRAKE_SECONDS:g} s"}

    async def _think(self, issue: Issue) -> None:
        assert self._hear is not None
        try:
            answer = self._hear(issue)
            if inspect.isawaitable(answer):
                answer = await asyncio.wait_for(answer, AGENT_SECONDS)
        except Exception:
            log.exception("the agent failed on issue %s", issue.issue_id)
            return
        given = [answer] if isinstance(answer, str) else answer
        if isinstance(given, Iterable) and not isinstance(given, bytes):
            texts = [text for text in given if isinstance(text, str) and text.strip()]
            if texts:
                self.healing_loop.suggest(issue.issue_id, *texts)
