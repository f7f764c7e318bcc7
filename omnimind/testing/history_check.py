"""The judge of histories: every rule of `history_rules`, and whether there was anything to judge.

A history in which nothing was acknowledged, or more than a quarter of the faults met no work that ran, proves
nothing: it is *vacuous*, and that is a failure too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import msgspec

from omnimind.testing.history import Record, line, when
from omnimind.testing.history_rules import RULES, Violation
from omnimind.testing.history_story import TERMINAL, Story

_SHOWN = 12
_LINES = 12
_MISSED = 0.25
"""The share of faults that may find nothing at work."""


class Verdict(msgspec.Struct):
    """What a check found. counts: what the history holds, for people and for `vacuous`."""

    violations: list[Violation]
    vacuous: list[str]
    counts: dict[str, int]
    zero: float

    @property
    def good(self) -> bool:
        """Return whether all rules hold of a history in which they could have been broken."""
        return not self.violations and not self.vacuous


def check(records: Iterable[Record]) -> Verdict:
    """Judge a history, in time that grows as it does."""
    story = Story(records)
    violations = [found for rule in RULES.values() for found in rule(story)]
    return Verdict(violations, _vacuous(story), _counts(story), story.zero)


def explain(verdict: Verdict) -> str:
    """Return the verdict for people: each broken rule once, with the fewest records that show it."""
    said = [", ".join(f"{count} {name}" for name, count in verdict.counts.items() if count)]
    said += [f"vacuous: {reason}" for reason in verdict.vacuous]
    by_rule: dict[str, list[Violation]] = {}
    for violation in verdict.violations:
        by_rule.setdefault(violation.rule, []).append(violation)
    for rule, found in list(by_rule.items())[:_SHOWN]:
        smallest = min(found, key=lambda violation: len(violation.because))
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        said.append(f"{rule}: {smallest.what}{more}")
        shown = sorted(smallest.because, key=when)
        said += [f"    {line(record, verdict.zero)}" for record in shown[:_LINES]]
        if len(shown) > _LINES:
            said.append(f"    and {len(shown) - _LINES} more records")
    if verdict.good:
        said.append("every rule holds")
    return "\n".join(said)


def _vacuous(story: Story) -> list[str]:
    reasons = []
    if story.run is None:
        reasons.append("it does not say how the run ended")
    if not any(task.acknowledged for task in story.tasks.values()):
        reasons.append("nothing was acknowledged")
    if not any(listed.status == "completed" for task in story.tasks.values() for listed in task.listed):
        reasons.append("nothing is listed as completed")
    asked = dict.fromkeys(call.call.verb for call in story.calls)
    answered = {call.call.verb for call in story.calls if call.outcome == "ok"}
    reasons += [f"no `{verb}` was ever answered" for verb in asked if verb not in answered]
    made = [fault for fault in story.faults if not fault.skipped]
    if not made:
        reasons.append("nothing was broken")
        return reasons
    spans = sorted((start.at, until) for start, until in story.attempts())
    missed = [fault.what for fault in made if not _running(spans, fault.at, fault.until)]
    if len(missed) > _MISSED * len(made):
        kinds = ", ".join(dict.fromkeys(missed))
        reasons.append(f"no attempt ran at {len(missed)} of {len(made)} faults ({kinds})")
    if not any(len(task.starts) > 1 for task in story.tasks.values()):
        reasons.append("nothing had to run again")
    return reasons


def _running(spans: list[tuple[float, float]], at: float, until: float) -> bool:
    return any(begun <= until and ended >= at for begun, ended in spans)


def _counts(story: Story) -> dict[str, int]:
    outcomes = Counter(f"{call.call.verb} {call.outcome}" for call in story.calls)
    ends = Counter(task.final.status for task in story.tasks.values() if task.final is not None)
    unknown = [
        task
        for task in story.tasks.values()
        if task.submissions and all(call.outcome == "unknown" for call in task.submissions)
    ]
    return {
        **dict(sorted(outcomes.items())),
        "acknowledged": sum(1 for task in story.tasks.values() if task.acknowledged),
        "unknown and found": sum(1 for task in unknown if task.listed),
        "unknown and not found": sum(1 for task in unknown if not task.listed),
        "attempts": sum(len(task.starts) for task in story.tasks.values()),
        "ran again": sum(1 for task in story.tasks.values() if len(task.starts) > 1),
        "checkpoints": sum(len(task.kept) for task in story.tasks.values()),
        **{f"ended {status}": ends[status] for status in sorted(TERMINAL)},
        "faults": sum(1 for fault in story.faults if not fault.skipped),
    }
