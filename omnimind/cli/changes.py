"""Writes: what a change would do (its plan), whether it may be done, and the doing."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import click

from omnimind.cli.errors import ConfirmationNeeded, Exit
from omnimind.cli.output import Output, View, say
from omnimind.cli.session import Session
from omnimind.cli.table import Column
from omnimind.errors import PlanStale


@dataclass(frozen=True, slots=True)
class Effect:
    """One thing that a write would do. `now` and `then` say what changes; equal means nothing does.

    passing: it is so at this moment, and no part of what the plan's name stands for.
    """

    subject: str
    verb: str
    now: str = ""
    then: str = ""
    note: str = ""
    passing: bool = False

    @property
    def changes(self) -> bool:
        """Return whether anything would be different."""
        return self.now != self.then

    def to_dict(self) -> dict[str, Any]:
        """Return the public form."""
        return {
            "subject": self.subject,
            "verb": self.verb,
            "now": self.now,
            "then": self.then,
            "changes": self.changes,
            "note": self.note,
        }


@dataclass(frozen=True, slots=True)
class Change:
    """A write that has not happened.

    plan: returns its effects, by asking. apply: does it and returns what was done, None when it has
    printed that itself.
    destructive: cannot be taken back, so it is asked about, or needs `--yes`.
    """

    plan: Callable[[], Sequence[Effect]]
    apply: Callable[[], View | None]
    destructive: bool = False


PLAN_COLUMNS = (
    Column("SUBJECT", "subject"),
    Column("VERB", "verb"),
    Column("NOW", "now", elastic=True),
    Column("THEN", "then", elastic=True),
    Column("NOTE", "note", elastic=True),
)


def plan_id(effects: Sequence[Effect]) -> str:
    """Return the name of a plan: equal for equal effects. Notes are left out, since they speak of moments."""
    facts = [(e.subject, e.verb, e.now, e.then) for e in effects if not e.passing]
    return "pln_" + hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


def plan_view(effects: Sequence[Effect]) -> View:
    """Return a plan as it is shown; its exit code says whether it would change something."""
    changes = any(e.changes for e in effects)
    name = plan_id(effects)
    note = (
        f"to do exactly this: the same command with --plan-id {name}" if changes else "nothing would change"
    )
    return View(
        data=[e.to_dict() for e in effects],
        columns=PLAN_COLUMNS,
        key="subject",
        envelope={"plan_id": name, "changes": changes},
        notes=[note],
        empty="nothing to do",
        code=Exit.WOULD_CHANGE if changes else Exit.OK,
    )


def permit(change: Change, expected: str | None, session: Session, output: Output) -> None:
    """Return when the change may be made. Raises PlanStale, Refused, or Abort for a no."""
    ask = change.destructive and not session.assume_yes and expected is None
    if not ask and expected is None:
        return
    effects = change.plan()
    if expected is not None and plan_id(effects) != expected:
        raise PlanStale(plan_id=plan_id(effects), effects=[e.to_dict() for e in effects])
    if not ask or not any(e.changes for e in effects):
        return
    if not asks() or output.structured:
        raise ConfirmationNeeded(
            f"this cannot be undone: {summary(effects)}",
            hint="look with --plan, then repeat it with --yes",
        )
    say(summary(effects))
    if not click.confirm("This cannot be undone. Go on?", err=True):
        say("nothing was done")
        click.get_current_context().exit(Exit.REFUSED)


def asks() -> bool:
    """Return whether there is somebody to ask."""
    return sys.stdin.isatty()


def summary(effects: Sequence[Effect]) -> str:
    """Return the effects in one line."""
    changing = [e for e in effects if e.changes]
    if len(changing) == 1:
        return f"{changing[0].verb} {changing[0].subject}" + (
            f" ({changing[0].note})" if changing[0].note else ""
        )
    verbs: dict[str, int] = {}
    for effect in changing:
        verbs[effect.verb] = verbs.get(effect.verb, 0) + 1
    return ", ".join(f"{verb} {count:,}" for verb, count in verbs.items())


def difference(now: Mapping[str, Any], then: Mapping[str, Any]) -> tuple[str, str]:
    """Return the fields in which two states of one thing differ, as text, before and after."""
    keys = [key for key in then if now.get(key) != then[key]]
    return (
        ", ".join(f"{key}={now.get(key)}" for key in keys if key in now),
        ", ".join(f"{key}={then[key]}" for key in keys),
    )
