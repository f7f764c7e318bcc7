"""`SelfHealingLoop`: the healer's core, usable alone in one program.

::

    loop = SelfHealingLoop(alert_callback=print) loop.register_monitor(disk)                       # async ()
    -> {"status", "type", "severity", "description"} loop.register_remediation("disk_full", clean_up)  #
    async (issue) -> {"success", "description"} while True:
        await loop.run_cycle()
        await asyncio.sleep(5)

A cycle asks every monitor, lets `HealingCore` decide, runs what it decides, and asks the monitor that fired
whether it helped. Nothing that a monitor, a remediation, the sink or the callback does ends a cycle: what
they raise, a hang, and nonsense are alerts.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import math
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from omnimind.clock import Clock, SystemClock
from omnimind.errors import InvalidInput
from omnimind.healing import events as ev
from omnimind.healing import reports
from omnimind.healing.actions import RemediationAction, Risk, Rung
from omnimind.healing.core import HealingCore
from omnimind.healing.issues import Issue, IssueSeverity, IssueType
from omnimind.healing.policy import Detection, Policy
from omnimind.healing.records import Act, Alert, AskWork, Effects, Probe, Refused, Send, Told

log = logging.getLogger("omnimind")

Monitor = Callable[[], Awaitable[Any] | Any]
Remediation = Callable[[Issue], Awaitable[Any] | Any]

NODE = "local"
HISTORY = 1000
"""Issues that are kept."""

KNOWN = 10_000
"""Things that one monitor has complained about and that are remembered until it says that they are well."""

RECENT = 10
SAME_ALERT = 600.0
"""Seconds for which the same alert is not repeated."""

STANDALONE = Policy(detection=Detection(persist=0.0, hold_down=0.0), grace=0.0, stagger=0.0)
"""A loop's policy when none is given: each look counts; budgets and breaker are the usual ones."""


class SelfHealingLoop:
    """Watches, repairs, verifies, and remembers why.

    metrics_sink: called after each cycle with a dict whose `metrics` are those of `get_metrics`.
    alert_callback: called with a dict (`kind`, `severity`, `message`, `source`, `at`) for each thing that
    a person should know. Both may be coroutine functions. policy: see `policy_load.load`.
    monitor_timeout, remediation_timeout: seconds after which a call counts as hanging.
    """

    def __init__(
        self,
        metrics_sink: Callable[[dict[str, Any]], Any] | None = None,
        alert_callback: Callable[[dict[str, Any]], Any] | None = None,
        *,
        policy: Policy | None = None,
        monitor_timeout: float = 10.0,
        remediation_timeout: float = 60.0,
        clock: Clock | None = None,
    ) -> None:
        for name, value in (("metrics_sink", metrics_sink), ("alert_callback", alert_callback)):
            if value is not None and not callable(value):
                raise InvalidInput(f"{name} must be callable, not {value!r}", field=name)
        for name, seconds in (
            ("monitor_timeout", monitor_timeout),
            ("remediation_timeout", remediation_timeout),
        ):
            if isinstance(seconds, bool) or not 0 < seconds < math.inf:
                msg = f"{name} is a positive number of seconds, not {seconds!r}"
                raise InvalidInput(msg, field=name)
        self.metrics_sink = metrics_sink
        self.alert_callback = alert_callback
        self.monitor_timeout = monitor_timeout
        self.remediation_timeout = remediation_timeout
        self.core = HealingCore(policy or STANDALONE, turns=True)
        self.monitors: dict[str, Monitor] = {}
        self.remediations: dict[str, Remediation] = {}
        self._clock = clock or SystemClock()
        self._history: dict[str, Issue] = {}
        self._known: dict[str, dict[tuple[IssueType, str], None]] = {}
        self._hanging: dict[str, asyncio.Task[Any]] = {}
        self._alerted: dict[str, float] = {}
        self._cycles = self._failures = 0
        self._turn = asyncio.Lock()
        self._actions: list[RemediationAction] = []
        self._feed(ev.Recovered(1))

    # --- what it is given -----------------------------------------------------------------------------

    def register_monitor(self, monitor: Monitor, *, name: str | None = None) -> str:
        """Ask a monitor in each cycle; returns the name under which it is known.

        It returns a dict: `status` (``ok``, ``healthy``, … or a word for what is wrong), and when something
        is wrong `type` (an `IssueType`), `severity` (an `IssueSeverity`), `description`, and perhaps `id`
        (which of several things it is) and `metrics`. Raises InvalidInput for what cannot be called.
        """
        return self._register(self.monitors, monitor, name)

    def register_remediation(
        self,
        issue_type: IssueType | str,
        remediation: Remediation,
        *,
        name: str | None = None,
        risk: Risk | str = Risk.SAFE,
        verify_within: float = 0.0,
        cooldown: float = 0.0,
    ) -> str:
        """Add a rung to the ladder of an issue type, after those of the same risk; returns its name.

        It is called with the `Issue` and returns a dict: `success`, and `description` of what it did.
        verify_within: seconds that its effect may take; until then the issue gets no other repair.
        cooldown: seconds before it may run again for the same thing. Raises InvalidInput.
        """
        kind = reports.issue_type(issue_type)
        if isinstance(risk, str):
            if risk.upper() not in Risk.__members__:
                known = ", ".join(r.name.lower() for r in Risk)
                raise InvalidInput(f"{risk!r} is no risk", field="risk", hint=f"use one of {known}")
            risk = Risk[risk.upper()]
        for field, seconds in (("verify_within", verify_within), ("cooldown", cooldown)):
            if isinstance(seconds, bool) or not 0 <= seconds < math.inf:
                msg = f"{field} is a number of seconds, not {seconds!r}"
                raise InvalidInput(msg, field=field)
        known_as = self._register(self.remediations, remediation, name)
        rung = Rung(
            name=known_as,
            issue_type=kind,
            risk=risk,
            order=len(self.remediations),
            # The loop itself ends what hangs; the core's clock for it only has to be the longer one.
            timeout=self.remediation_timeout + 3600.0,
            verify=verify_within,
            cooldown=cooldown,
        )
        self._feed(ev.RungKnown(rung))
        return known_as

    # --- what it does ---------------------------------------------------------------------------------

    async def run_cycle(self) -> list[RemediationAction]:
        """Watch, decide, repair and verify once; returns the repairs that were made, as live objects.

        Their `outcome` may come later, with `verify_within`. A repair that raised is an alert and not among
        them. Two calls at a time take turns.
        """
        async with self._turn:
            self._cycles += 1
            self._actions = []
            await self._carry_out(self._feed(ev.Tick(turn=True)))
            for answer in await asyncio.gather(*(self._ask(name) for name in list(self.monitors))):
                for observation in answer:
                    await self._carry_out(self._feed(observation))
            await self._carry_out(self._feed(ev.Tick()))
            actions = self._actions
            if self.metrics_sink is not None:
                told = {
                    "timestamp": self._clock.now(),
                    "metrics": self.get_metrics(),
                    "actions": [action.to_dict() for action in actions],
                    "open_issues": len(self.core.issues),
                }
                await self._tell("metrics_sink", self.metrics_sink, told)
            return actions

    # --- what it knows --------------------------------------------------------------------------------

    @property
    def issue_history(self) -> list[Issue]:
        """Return the last 1,000 issues, oldest first, as live objects."""
        return list(self._history.values())

    def get_metrics(self) -> dict[str, int]:
        """Return counters since the start.

        successful_remediations: by their own word; verified_fixes: by that of the monitor that fired.
        """
        counts = self.core.counts
        names = (
            "issues_detected",
            "remediations",
            "successful_remediations",
            "failed_remediations",
            "verified_fixes",
            "did_not_last",
        )
        return {
            "cycles": self._cycles,
            **{name: counts.get(name, 0) for name in names},
            "escalations": counts.get("decided_escalate", 0),
            "monitor_failures": self._failures,
            "open_issues": len(self.core.issues),
        }

    def get_issue_summary(self) -> dict[str, Any]:
        """Return the issues at a glance: `total_issues` since the start, the rest of those that are kept."""
        by_type: dict[str, int] = {}
        by_severity: dict[str, int] = {}
        for issue in self._history.values():
            by_type[issue.issue_type.value] = by_type.get(issue.issue_type.value, 0) + 1
            by_severity[issue.severity.value] = by_severity.get(issue.severity.value, 0) + 1
        return {
            "total_issues": self.core.counts.get("issues_detected", 0),
            "by_type": by_type,
            "by_severity": by_severity,
            "recent_issues": [issue.to_dict() for issue in self.issue_history[-RECENT:]],
        }

    def suggest(self, issue_id: str, *suggestions: str) -> None:
        """Add suggestions to an open issue, for a person to read; nothing happens when it is not open."""
        self._feed(ev.Suggested(issue_id, suggestions))

    # --- the core and the world -----------------------------------------------------------------------

    def _feed(self, event: ev.Event) -> list[Send]:
        effects: Effects = self.core.handle(event, self._clock.now())
        for send in effects.sends:
            if isinstance(send, Told) and isinstance(send.what, Issue):
                issue = self.core.issues.get(send.what.issue_id)
                if issue is not None and issue.issue_id not in self._history:
                    self._history[issue.issue_id] = issue
                    if len(self._history) > HISTORY:
                        del self._history[next(iter(self._history))]
        return effects.sends

    async def _carry_out(self, sends: list[Send]) -> None:
        """Do what the core asks for, and what follows from that, until nothing is left."""
        waiting = deque(sends)
        while waiting:
            match waiting.popleft():
                case Act(action, issue):
                    waiting += await self._repair(action, issue)
                case Probe(monitor, _, entity, _):
                    for observation in await self._ask(monitor, entity):
                        waiting += self._feed(observation)
                case AskWork(node):
                    waiting += self._feed(ev.Work(node))
                case Alert(kind, severity, message, issue_id):
                    await self._alert(kind, severity, message, issue_id)
                case Refused(error):
                    await self._alert("refused", "warning", str(error), "core")
                case _:
                    pass  # streams and aborts: nobody listens here, and the loop ends what hangs by itself

    async def _repair(self, action: RemediationAction, issue: Issue) -> list[Send]:
        remediation = self.remediations[action.action]
        live = self.core.actions[action.action_id]
        try:
            answer = await self._call(action.action, remediation, self.remediation_timeout, issue)
        except Exception as error:  # noqa: BLE001 (whatever it raises is its own affair, and an alert)
            message = f"{action.action}: {_words(error)}"
            await self._alert("remediation", "error", message, action.action)
            return self._feed(ev.ActionEnded(action.action_id, action.fence, False, message))
        try:
            success, details = reports.result(answer)
        except InvalidInput as error:
            success, details = False, str(error)
            await self._alert("remediation", "error", f"{action.action}: {error}", action.action)
        self._actions.append(live)
        return self._feed(ev.ActionEnded(action.action_id, action.fence, success, details))

    async def _ask(self, name: str, entity: str | None = None) -> list[ev.Observation]:
        """Ask a monitor and return what it saw; `entity` is the one that a repair was about."""
        monitor = self.monitors.get(name)
        if monitor is None:
            return []
        at = self._clock.now()
        try:
            report = reports.read(await self._call(name, monitor, self.monitor_timeout))
        except Exception as error:  # noqa: BLE001 (whatever it raises is its own affair, and an alert)
            self._failures += 1
            await self._alert("monitor", "error", f"{name}: {_words(error)}", name)
            return []
        known = self._known.setdefault(name, {})
        if report.bad:
            assert report.issue_type is not None
            place = report.entity or name
            if entity is not None and place != entity:
                return []  # it speaks of something else: that is for the next cycle
            known[report.issue_type, place] = None
            if len(known) > KNOWN:
                del known[next(iter(known))]
            places = [(report.issue_type, place)]
        else:
            # Without an id, all that it has ever complained about is well.
            places = [p for p in known if not report.entity or p[1] == report.entity]
            for well in places:
                del known[well]
        return [
            ev.Observation(
                monitor=name,
                issue_type=kind,
                node=NODE,
                entity=place,
                bad=report.bad,
                severity=report.severity,
                description=report.description,
                metrics=report.metrics,
                at=at,
            )
            for kind, place in places
        ]

    async def _call(self, name: str, function: Callable[..., Any], timeout: float, *arguments: Any) -> Any:
        """Call somebody else's function; raises what it raises, and TimeoutError when it hangs."""
        before = self._hanging.get(name)
        if before is not None:
            if not before.done():
                raise TimeoutError("its last call still hangs")
            del self._hanging[name]

        async def call() -> Any:
            answer = function(*arguments)
            return await answer if inspect.isawaitable(answer) else answer

        task = asyncio.create_task(call())
        try:
            await asyncio.wait({task}, timeout=timeout)
        except asyncio.CancelledError:
            task.cancel()
            raise
        if task.done():
            if task.cancelled():
                raise TimeoutError("it was cancelled")
            return task.result()
        # One that does not even end when it is cancelled is left alone, and not called again until it does.
        task.cancel()
        self._hanging[name] = task
        task.add_done_callback(_look_at)
        raise TimeoutError(f"it did not end within {timeout:g} s")

    async def _alert(self, kind: str, severity: str, message: str, source: str) -> None:
        now = self._clock.now()
        key = f"{kind}:{message}"
        self._alerted = {k: at for k, at in self._alerted.items() if now - at < SAME_ALERT}
        if key in self._alerted:
            return
        self._alerted[key] = now
        log.warning("%s: %s", kind, message)
        if self.alert_callback is not None:
            alert = {"kind": kind, "severity": severity, "message": message, "source": source, "at": now}
            await self._tell("alert_callback", self.alert_callback, alert)

    async def _tell(self, name: str, function: Callable[[dict[str, Any]], Any], what: dict[str, Any]) -> None:
        try:
            await self._call(name, function, self.monitor_timeout, what)
        except Exception as error:
            log.exception("the %s failed", name)
            if name != "alert_callback":
                await self._alert("sink", IssueSeverity.ERROR, f"{name}: {_words(error)}", name)

    def _register(self, kind: dict[str, Any], function: Callable[..., Any], name: str | None) -> str:
        if not callable(function):
            raise InvalidInput(f"it must be callable, not {function!r}", field="function")
        if name is not None and (not isinstance(name, str) or not name.strip() or name in kind):
            raise InvalidInput(f"{name!r} is no name, or is taken", field="name")
        base = name or getattr(function, "__qualname__", type(function).__qualname__).rpartition(".")[2]
        found, number = base, 1
        while found in self.monitors or found in self.remediations:
            number += 1
            found = f"{base}#{number}"
        kind[found] = function
        return found


def _look_at(task: asyncio.Task[Any]) -> None:
    """Take the result of an abandoned call, so that nobody complains that it was never looked at."""
    if not task.cancelled():
        task.exception()


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
