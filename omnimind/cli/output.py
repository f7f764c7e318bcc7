"""Rendering, once for all commands: a `View` is what a command found, `emit` prints it as it was asked for.

Data goes to stdout. Prose (next steps, what was left off) goes to stderr, and is silent where a program
reads along (`-o json`, `yaml`), since the envelope of a list says the same there.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import click

from omnimind.cli.table import Column, pick, sheet, table, terminal_width
from omnimind.cli.times import public

FORMATS = ("table", "json", "jsonl", "yaml", "name")
STRUCTURED = ("json", "jsonl", "yaml")


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What a read found, or what a write did.

    data: one thing (a mapping) or several (a sequence of mappings); moments are Unix seconds.
    columns: how several are shown to people. text: how one is shown. key: the field that `-o name` prints.
    envelope: what stands beside `items` in JSON. notes: next steps. left_off: what a list does not show.
    empty: what is said when there is nothing. code: the exit code.
    """

    data: Mapping[str, Any] | Sequence[Mapping[str, Any]]
    columns: Sequence[Column] = ()
    text: str | None = None
    key: str = "name"
    envelope: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()
    left_off: Sequence[str] = ()
    empty: str = "nothing found"
    code: int = 0


@dataclass(frozen=True, slots=True)
class Output:
    """How the person wants it: format and fields."""

    format: str = "table"
    fields: tuple[str, ...] = ()

    @property
    def structured(self) -> bool:
        """Return whether a program reads along."""
        return self.format in STRUCTURED

    @property
    def as_json(self) -> bool:
        """Return whether errors are problem documents."""
        return self.structured


def emit(view: View, output: Output) -> None:
    """Print a view."""
    text = render(view, output)
    if text:
        click.echo(text)
    if output.format in {"table", "name", "jsonl"}:
        for line in view.left_off:
            say(line)
    if output.format == "table":
        if not view.data and view.text is None:
            say(view.empty)
        for line in view.notes:
            say(line)


def render(view: View, output: Output) -> str:
    """Return a view as text, without the prose."""
    if isinstance(view.data, Mapping):
        return _one(view, view.data, output)
    return _many(view, view.data, output)


def _one(view: View, data: Mapping[str, Any], output: Output) -> str:
    if output.format == "name":
        return str(pick(data, view.key) or "")
    if output.format == "table":
        if output.fields:
            return sheet([(name, pick(data, name)) for name in output.fields])
        return sheet(list(data.items())) if view.text is None else view.text
    return _dump(_chosen(public(data), output.fields), output.format)


def _many(view: View, rows: Sequence[Mapping[str, Any]], output: Output) -> str:
    if output.format == "name":
        return "\n".join(str(pick(row, view.key)) for row in rows)
    if output.format == "table":
        if view.text is not None and not output.fields:
            return view.text
        columns = [Column(n.upper(), n) for n in output.fields] or list(view.columns)
        return table(rows, columns, terminal_width()) if rows else ""
    items = [_chosen(public(row), output.fields) for row in rows]
    if output.format == "jsonl":
        return "\n".join(_dump(item, "jsonl") for item in items)
    return _dump({"items": items, **public(dict(view.envelope))}, output.format)


def _chosen(data: Any, fields: tuple[str, ...]) -> Any:
    return {name: pick(data, name) for name in fields} if fields else data


def _dump(value: Any, form: str) -> str:
    if form == "yaml":
        import yaml  # noqa: PLC0415 - who asks for it pays for it

        text: str = yaml.safe_dump(plain(value), sort_keys=False, allow_unicode=True, width=110)
        return text.rstrip("\n")
    indent = 2 if form == "json" else None
    text = json.dumps(value, indent=indent, ensure_ascii=False, default=str)
    if text.isascii() or _writes_unicode(text):
        return text
    return json.dumps(value, indent=indent, default=str)


def _writes_unicode(text: str) -> bool:
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return False
    return True


def plain(value: Any) -> Any:
    """Return a value as dicts, lists and scalars only, which is all that YAML's safe dumper takes."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(v) for v in value]
    return value if value is None or isinstance(value, bool | int | float) else str(value)


def say(line: str) -> None:
    """Print a line of prose on stderr."""
    click.echo(line, err=True)


def wants_colour() -> bool | None:
    """Return False where colour was declined (NO_COLOR, a dumb terminal), None to look at the stream."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    return None


def next_steps(*commands: str) -> list[str]:
    """Return the lines that say what to type next; they name the home where it came from a flag."""
    ctx = click.get_current_context(silent=True)
    session = getattr(ctx, "obj", None)
    if session is not None and session.home_origin == "flag":
        home = shlex.quote(str(session.home))
        commands = tuple(c.replace("omnimind ", f"omnimind --home {home} ", 1) for c in commands)
    return [f"next: {command}" for command in commands]
