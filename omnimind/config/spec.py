"""`Spec`: what is known of one setting, and how its value is read from text and written as text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from types import NoneType
from typing import Any, get_args, get_type_hints

import msgspec

from omnimind.errors import ConfigError

PREFIX = "OMNIMIND_"

_UNITS: dict[str, dict[str, float]] = {
    "s": {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400},
    "bytes": {
        "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12,
        "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "tib": 1 << 40,
    },
}  # fmt: skip
_SWITCH = {"yes": "true", "on": "true", "no": "false", "off": "false"}
_KINDS: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    dict[str, str]: "k=v,k2=v2",
}
_EXAMPLES = {"s": " of seconds (or 90s, 15m, 8h, 7d)", "bytes": " of bytes (or 256MiB)", "": ""}


class Spec(msgspec.Struct, frozen=True):
    """What is known of one setting.

    kind: its type without None. optional: it may be unset. low and high are inclusive, None where there
    is no bound. unit: ``s``, ``bytes`` or nothing.
    """

    section: str
    name: str
    kind: Any
    annotation: Any
    optional: bool
    default: Any
    doc: str
    unit: str
    low: float | None
    high: float | None

    @property
    def key(self) -> str:
        """Return ``section.name``."""
        return f"{self.section}.{self.name}"

    @property
    def variable(self) -> str:
        """Return the environment variable that sets it."""
        return f"{PREFIX}{self.section}_{self.name}".upper()

    def read(self, value: Any, origin: str) -> Any:
        """Return a value of the right type. Raises ConfigError that names the key, the place and the mend."""
        text = value.strip() if isinstance(value, str) else None
        try:
            parsed = value if text is None else self._parse(text)
            return msgspec.convert(parsed, self.annotation, strict=text is None)
        except (msgspec.ValidationError, ValueError, OverflowError) as error:
            shown = text if text is not None else _shown(value)
            msg = f"{shown!r} ({origin}) will not do: {_plain(str(error))}"
            raise ConfigError(msg, field=self.key, hint=self.expected(), origin=origin) from error

    def write(self, value: Any) -> str:
        """Return the text of a value, as `read` takes it."""
        if value is None:
            return ""
        if isinstance(value, dict):
            return ",".join(f"{k}={v}" for k, v in value.items())
        return str(value).lower() if isinstance(value, bool) else str(value)

    def expected(self) -> str:
        """Return what a value may be, in words."""
        bounds = ""
        if self.low is not None and self.high is not None:
            bounds = f" from {_number(self.low)} to {_number(self.high)}"
        unset = ", or leave it out" if self.optional else ""
        return f"give {_KINDS[self.kind]}{_EXAMPLES[self.unit]}{bounds}{unset}"

    def _parse(self, text: str) -> Any:
        if not text and self.optional:
            return None
        if self.kind == dict[str, str]:
            return _parse_pairs(text)
        if self.unit:
            return _parse_unit(text, self.unit)
        if self.kind is bool:
            return _SWITCH.get(text.lower(), text.lower())
        return text


def specs_of(section: str, cls: type[msgspec.Struct]) -> Iterator[Spec]:
    """Yield the settings of one section, in the order of their fields."""
    hints = get_type_hints(cls, include_extras=True)
    defaults = cls()
    for name in cls.__struct_fields__:
        annotation = hints[name]
        optional = NoneType in get_args(annotation)
        inner = next(a for a in get_args(annotation) if a is not NoneType) if optional else annotation
        meta: msgspec.Meta = inner.__metadata__[0]
        yield Spec(
            section=section,
            name=name,
            kind=inner.__origin__,
            annotation=annotation,
            optional=optional,
            default=getattr(defaults, name),
            doc=meta.description or "",
            unit=(meta.extra or {}).get("unit", ""),
            low=meta.ge,
            high=meta.le,
        )


def _parse_pairs(text: str) -> dict[str, str]:
    pairs = [part.partition("=") for part in text.split(",") if part.strip()]
    if any(not sep or not key.strip() for key, sep, _ in pairs):
        raise ValueError("each label is k=v")
    return {key.strip(): value.strip() for key, _, value in pairs}


def _parse_unit(text: str, unit: str) -> int | float | str:
    match = re.fullmatch(r"([0-9]*\.?[0-9]+)\s*([A-Za-z]+)", text)
    if match is None:
        return text
    factor = _UNITS[unit].get(match[2].lower())
    if factor is None:
        msg = f"unknown unit {match[2]!r}"
        raise ValueError(msg)
    value = float(match[1]) * factor
    return int(value) if unit == "bytes" else value


def _number(value: float) -> str:
    return f"{int(value):,}" if value == int(value) else f"{value:g}"


def _shown(value: Any) -> str:
    return msgspec.json.encode(value, enc_hook=str).decode()


def _plain(message: str) -> str:
    """Turn msgspec's words into a person's."""
    return message.replace("`", "").replace("Expected", "expected").replace("int | null", "int")
