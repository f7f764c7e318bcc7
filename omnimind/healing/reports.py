"""Reads what monitors and remediations of a program return: plain dicts, which may be nonsense. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, TypeVar

import msgspec

from omnimind.errors import InvalidInput
from omnimind.healing.issues import IssueSeverity, IssueType

GOOD = frozenset({
    "ok", "okay", "healthy", "good", "normal", "optimal", "up", "running", "pass", "passed", "none",
})  # fmt: skip
"""Words for `status` that say that nothing is wrong. Any other word is about an issue."""

_TEXT = 2000

T = TypeVar("T", bound=StrEnum)


class Report(msgspec.Struct, frozen=True):
    """What a monitor said. issue_type and severity count when it is bad. entity: its `id`, "" for none."""

    bad: bool
    issue_type: IssueType | None = None
    severity: IssueSeverity = IssueSeverity.WARNING
    description: str = ""
    entity: str = ""
    metrics: dict[str, Any] = msgspec.field(default_factory=dict)


def issue_type(value: Any) -> IssueType:
    """Return an issue type given as such or as its name; raises InvalidInput that names those there are."""
    return _member(IssueType, value, "type")


def severity(value: Any) -> IssueSeverity:
    """Return a severity given as such or as its name; raises InvalidInput that names those there are."""
    return _member(IssueSeverity, value, "severity")


def read(answer: Any) -> Report:
    """Read what a monitor returned; raises InvalidInput that says what is wrong with it."""
    if not isinstance(answer, Mapping):
        raise InvalidInput(f"a monitor returns a dict, not {_shown(answer)}", field="monitor")
    status = answer.get("status")
    if not isinstance(status, str) or not status.strip():
        raise InvalidInput(f"a status is a word, not {_shown(status)}", field="status")
    entity = answer.get("id", "")
    if entity is None:
        entity = ""
    if isinstance(entity, bool) or not isinstance(entity, str | int):
        raise InvalidInput(f"an id is a text, not {_shown(entity)}", field="id")
    if status.strip().lower() in GOOD:
        return Report(bad=False, entity=str(entity))
    description = answer.get("description", "")
    if not isinstance(description, str):
        raise InvalidInput(f"a description is a text, not {_shown(description)}", field="description")
    return Report(
        True,
        issue_type(answer.get("type")),
        severity(answer.get("severity")),
        description[:_TEXT],
        str(entity)[:_TEXT],
        metrics(answer.get("metrics")),
    )


def metrics(value: Any) -> dict[str, Any]:
    """Return metrics as JSON values; what has no JSON form becomes its text."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise InvalidInput(f"metrics are a dict, not {_shown(value)}", field="metrics")
    try:
        return dict(msgspec.to_builtins(dict(value), enc_hook=str, str_keys=True))
    except Exception as error:
        raise InvalidInput(f"metrics cannot be read: {error}", field="metrics") from error


def result(answer: Any) -> tuple[bool, str]:
    """Read what a remediation returned: (success, description). Raises InvalidInput naming what is wrong."""
    if not isinstance(answer, Mapping):
        raise InvalidInput(f"a remediation returns a dict, not {_shown(answer)}", field="remediation")
    success, description = answer.get("success"), answer.get("description", "")
    if not isinstance(success, bool):
        raise InvalidInput(f"success is True or False, not {_shown(success)}", field="success")
    if not isinstance(description, str):
        raise InvalidInput(f"a description is a text, not {_shown(description)}", field="description")
    return success, description[:_TEXT]


def _member(kind: type[T], value: Any, field: str) -> T:
    text = value.strip().lower() if isinstance(value, str) else value
    try:
        return kind(text)
    except ValueError as error:
        known = ", ".join(kind.__members__).lower()
        raise InvalidInput(
            f"{_shown(value)} is no {field}", field=field, hint=f"use one of {known}"
        ) from error


def _shown(value: Any) -> str:
    try:
        return repr(value)[:100]
    except Exception:  # noqa: BLE001 (what cannot even be shown is named by its type)
        return f"a {type(value).__name__}"
