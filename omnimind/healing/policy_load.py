"""Reads, checks and writes policies. Pure: it takes text and values; who has the file reads the file."""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from omnimind.errors import ConfigError
from omnimind.healing.actions import Mode, Risk, Rung
from omnimind.healing.budgets import Budget
from omnimind.healing.issues import IssueType
from omnimind.healing.policy import (
    BudgetTable,
    Detection,
    Doubt,
    Policy,
    PriceTable,
    Remediation,
    Risks,
    Rule,
)

_ENTRIES: dict[str, type[msgspec.Struct]] = {"types": Rule, "monitors": Rule, "remediations": Remediation}
"""Tables of tables: their entries are read one by one, so that an error can name the entry."""

_TABLES: dict[str, type[msgspec.Struct]] = {
    "detection": Detection, "budgets": BudgetTable, "risk": Risks, "price": PriceTable, "doubt": Doubt,
    **_ENTRIES,
}  # fmt: skip

_BUDGETS = ("target", "kind", "breaker", "budget")


def load(text: str, origin: str = "the policy") -> Policy:
    """Read a policy from TOML; raises ConfigError that names the key, the place and the mend."""
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        msg = f"{origin} is no TOML: {error}"
        raise ConfigError(msg, hint="mend the line that it names", origin=origin) from error
    return convert(raw, origin)


def convert(raw: Any, origin: str = "the policy") -> Policy:
    """Make a policy from plain values; raises ConfigError as `load` does."""
    if isinstance(raw, Mapping):
        for kind, cls in _ENTRIES.items():
            entries = raw.get(kind)
            if isinstance(entries, Mapping):
                for name, table in entries.items():
                    _known_type(kind, str(name), origin)
                    _read(table, cls, (kind, str(name)), origin)
    policy: Policy = _read(raw, Policy, (), origin)
    for kind, rules in (("monitors", policy.monitors), ("types", policy.types)):
        for name, rule in rules.items():
            _check_thresholds(rule, f"{kind}.{name}", origin)
    return policy


def dump(policy: Policy) -> dict[str, Any]:
    """Return a policy as plain values, which `convert` takes."""
    return dict(msgspec.to_builtins(policy))


def check(policy: Policy, rungs: Iterable[Rung] = (), monitors: Iterable[str] = ()) -> list[str]:
    """Return what a person should know about a valid policy: one sentence each, none when all is usual.

    rungs, monitors: what is installed; names in the policy that are not among them do nothing.
    """
    known = {rung.name: rung for rung in rungs}
    names = list(monitors)
    nothing = "is not installed, so this does nothing"
    found = [f"remediations.{n}: {nothing}" for n in policy.remediations if known and n not in known]
    found += [f"monitors.{n}: {nothing}" for n in policy.monitors if names and n not in names]
    found += [
        f"remediations.{rung.name}: destructive, and done without asking anybody"
        for rung in known.values()
        if rung.risk is Risk.DESTRUCTIVE and policy.mode(rung) is Mode.AUTO
    ]
    if policy.risk.destructive is Mode.AUTO and not known:
        found.append("risk.destructive: destructive repairs are made without asking anybody")
    if policy.budgets.floor == 0:
        found.append("budgets.floor: 0 lets repairs take out the whole fleet")
    found += [
        f"budgets.{name}: 0 forbids every repair"
        for name in ("target", "kind", "breaker")
        if getattr(policy.budgets, name).count == 0
    ]
    if policy.doubt.witnesses == 1:
        found.append("doubt.witnesses: one observer is enough for a destructive repair")
    if policy.dry_run:
        found.append("dry_run: nothing is done, only written down")
    return found


def _read(raw: Any, cls: type[Any], path: tuple[str, ...], origin: str) -> Any:
    try:
        return msgspec.convert(raw, cls)
    except msgspec.ValidationError as error:
        story, _, where = str(error).partition(" - at ")
        keys = [*path, *re.findall(r"[\w-]+", where.strip("`").removeprefix("$"))]
        unknown = re.search(r"unknown field `([^`]+)`", story)
        if unknown:
            field, hint = [*keys, unknown[1]], f"known here are {', '.join(_known(keys))}"
            words = f"{unknown[1]!r} is no key of a policy"
        else:
            field, hint = keys, _mend(keys, story)
            words = story.replace("`", "")
            words = words[:1].lower() + words[1:]
        msg = f"{words} ({origin})"
        raise ConfigError(msg, field=".".join(field) or None, hint=hint, origin=origin) from error


def _known(keys: list[str]) -> tuple[str, ...]:
    """Return the keys of the table at a path."""
    if not keys:
        return Policy.__struct_fields__
    if keys[-1] in _BUDGETS and len(keys) > 1:
        return Budget.__struct_fields__
    return _TABLES[keys[0]].__struct_fields__


def _mend(keys: list[str], story: str) -> str:
    if bounds := re.search(r"(>=|<=|>|<) ([\d.e+]+)", story):
        return f"give a number {bounds[1]} {bounds[2]}"
    if keys and (keys[0] == "risk" or keys[-1] == "mode"):
        return f"give one of {', '.join(Mode)}"
    if kind := re.search(r"Expected `([^`]+)`", story):
        names = {"object": "a table", "int": "a whole number", "float": "a number", "bool": "true or false"}
        wanted = [names.get(name, name) for name in kind[1].split(" | ") if name != "null"]
        return f"give {' or '.join(wanted)}"
    return "leave it out for the default"


def _known_type(kind: str, name: str, origin: str) -> None:
    if kind == "types" and name not in list(IssueType):
        msg = f"{name!r} is no issue type ({origin})"
        raise ConfigError(
            msg, field=f"types.{name}", hint=f"use one of {', '.join(IssueType)}", origin=origin
        )


def _check_thresholds(rule: Rule, path: str, origin: str) -> None:
    for name in ("enter", "leave"):
        value = getattr(rule, name)
        if value is not None and not math.isfinite(value):
            msg = f"a threshold is a finite number, not {value} ({origin})"
            raise ConfigError(msg, field=f"{path}.{name}", hint="give a number", origin=origin)
    if rule.leave is not None and (rule.enter is None or rule.leave > rule.enter):
        msg = f"leave ({rule.leave:g}) needs an enter that is not below it ({origin})"
        raise ConfigError(msg, field=f"{path}.leave", hint="set enter to leave or more", origin=origin)
