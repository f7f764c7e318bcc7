"""Durations and moments: how people write them, and how they are shown."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime
from typing import Any

import click

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|w)")
_STEPS = ((172800, 86400, "d"), (7200, 3600, "h"), (120, 60, "m"), (0, 1, "s"))

TIME_FIELDS = frozenset({
    "at", "created_at", "started_at", "completed_at", "ended_at", "deadline", "not_before",
    "drain_deadline", "last_heartbeat", "next_run", "last_run", "truncated_before", "pruned_before", "oldest",
    "made_at",
})  # fmt: skip
"""Names that hold Unix seconds wherever they occur in an answer; they leave as RFC 3339."""


def parse_duration(text: str) -> float:
    """Return seconds: ``90``, ``1.5s``, ``250ms``, ``1h30m``, ``7d``. Raises ValueError."""
    compact = text.strip().replace(" ", "")
    try:
        seconds = float(compact)
    except ValueError:
        parts = _PART.findall(compact)
        if not parts or "".join(number + unit for number, unit in parts) != compact:
            msg = f"{text!r} is no duration: write 90, 1.5s, 250ms, 1h30m or 7d"
            raise ValueError(msg) from None
        return sum(float(number) * _UNITS[unit] for number, unit in parts)
    if not 0 <= seconds < float("inf"):
        msg = f"{text!r} is no duration: it must be finite and not negative"
        raise ValueError(msg)
    return seconds


def parse_moment(text: str) -> float:
    """Return Unix seconds of an ISO 8601 time; local time when it names no zone. Raises ValueError."""
    try:
        return datetime.fromisoformat(text.strip()).timestamp()
    except ValueError:
        msg = f"{text!r} is no time: write 2026-01-31T18:00:00Z, or a duration such as 10m"
        raise ValueError(msg) from None


class Duration(click.ParamType):  # type: ignore[type-arg]  # no generic before click 8.4
    """A duration on the command line, in seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, int | float):
            return float(value)
        try:
            return parse_duration(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Moment(click.ParamType):  # type: ignore[type-arg]
    """A duration (kept as seconds, tagged ``in``) or a point in time (Unix seconds, tagged ``at``)."""

    name = "duration|time"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, float]:
        if isinstance(value, tuple):
            return value
        try:
            return "in", parse_duration(value)
        except ValueError:
            try:
                return "at", parse_moment(value)
            except ValueError as error:
                self.fail(str(error), param, ctx)


class Past(click.ParamType):  # type: ignore[type-arg]
    """A point in time (Unix seconds), or a duration that counts back from now."""

    name = "duration|time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        kind, seconds = Moment().convert(value, param, ctx)
        return time.time() - seconds if kind == "in" else seconds


def rfc3339(seconds: float) -> str:
    """Return a moment as RFC 3339 in UTC with milliseconds."""
    moment = datetime.fromtimestamp(seconds, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def span(seconds: float) -> str:
    """Return a duration as a person says it: ``12ms``, ``4.2s``, ``45s``, ``3m``, ``5h``, ``2d``."""
    if seconds < 0:
        return "-" + span(-seconds)
    if seconds < 1:
        return f"{seconds * 1000:.0f}ms"
    return f"{seconds:.1f}s" if seconds < 10 else _whole(seconds)  # noqa: PLR2004


def _whole(seconds: float) -> str:
    unit, letter = next((unit, letter) for least, unit, letter in _STEPS if seconds >= least)
    return f"{int(seconds // unit)}{letter}"


def relative(seconds: float, now: float | None = None) -> str:
    """Return ``3m ago``, ``in 5h`` or ``now``."""
    away = seconds - (time.time() if now is None else now)
    if abs(away) < 1:
        return "now"
    return f"in {_whole(away)}" if away > 0 else f"{_whole(-away)} ago"


def local(seconds: float, now: float | None = None) -> str:
    """Return a moment in local time, with the zone, and how far away it is."""
    moment = datetime.fromtimestamp(seconds).astimezone()
    return f"{moment:%Y-%m-%d %H:%M:%S %Z} ({relative(seconds, now)})"


def public(value: Any, key: str = "") -> Any:
    """Return an answer with its moments as RFC 3339 in UTC, at any depth."""
    if isinstance(value, dict):
        return {str(k): public(v, str(k)) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [public(v, key) for v in value]
    if key in TIME_FIELDS and isinstance(value, int | float) and not isinstance(value, bool):
        return rfc3339(float(value)) if value else None
    return value
