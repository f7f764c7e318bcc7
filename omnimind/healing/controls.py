"""What people say while it runs: pauses, ignores, windows, dry run, kill switch; and the breaker."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from omnimind.errors import InvalidInput
from omnimind.healing.issues import Key


class ControlKind(StrEnum):
    """What a control does.

    pause: nothing is done. window: the same, for planned work. ignore: an issue is not acted on. dry_run: all
    is decided and written down, nothing is done. kill: nothing is done, and what runs is aborted.
    """

    PAUSE = "pause"
    WINDOW = "window"
    IGNORE = "ignore"
    DRY_RUN = "dry_run"
    KILL = "kill"


class Control(msgspec.Struct, frozen=True, kw_only=True):
    """Something that a named person has said, with a reason.

    begins, until: Unix seconds; None means at once, and until it is ended. issue_type, node, entity: what it
    is about; "" means any, and a control that names nothing is about everything, which `ignore` may not be.
    """

    kind: ControlKind
    name: str
    by: str
    reason: str
    begins: float | None = None
    until: float | None = None
    issue_type: str = ""
    node: str = ""
    entity: str = ""

    def covers(self, key: Key, now: float) -> bool:
        """Return whether it holds for an issue now."""
        return self.holds(now) and all(
            mine in {"", theirs}
            for mine, theirs in zip((self.issue_type, self.node, self.entity), key, strict=True)
        )

    def holds(self, now: float) -> bool:
        """Return whether it is in force."""
        begun = self.begins is None or self.begins <= now
        return begun and (self.until is None or now < self.until)


def check_control(control: Control, now: float) -> None:
    """Raise InvalidInput, naming the field, for a control that nobody could answer for."""
    for field in ("name", "by", "reason"):
        if not getattr(control, field).strip():
            msg = f"a {control.kind} needs a {field}"
            raise InvalidInput(msg, field=field, hint="say who, and why: others will read it")
    everything = not (control.issue_type or control.node or control.entity)
    if control.kind is ControlKind.IGNORE and everything:
        raise InvalidInput("an ignore must name what it ignores", field="issue_type", hint="pause instead")
    if control.until is not None and control.until <= max(now, control.begins or now):
        raise InvalidInput("it would be over before it begins", field="until", hint="give a later time")


class Breaker(msgspec.Struct, frozen=True):
    """Why nothing is done in the whole fleet: too many repairs in too short a time."""

    tripped_at: float
    reason: str


class Score(msgspec.Struct, frozen=True):
    """How often a remediation was tried on an issue type, and how often it was verified to have fixed it."""

    issue_type: str
    rung: str
    tried: int
    fixed: int
