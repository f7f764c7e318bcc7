"""Write the pages of `docs/` that are made from the code.

`python scripts/docs.py` writes them. With `--check` it writes nothing, names the pages that are out of date,
and exits 1 when there are any.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from enum import Enum
from importlib import import_module
from pathlib import Path
from typing import Any

import click

import omnimind
from omnimind.cli.main import cli
from omnimind.cli.options import kind_of
from omnimind.cluster import states
from omnimind.config import specs
from omnimind.config.spec import Spec
from omnimind.errors import OmniMindError

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"

WITH_ERRORS = ("omnimind.errors", "omnimind.cluster.states", "omnimind.context", "omnimind.cli.errors")
"""The modules that define errors which people can meet."""

SYNC: dict[str, type] = {"AsyncClient": omnimind.Client, "AsyncHandle": omnimind.Handle}
"""Of these only the verbs that the sync form has are for people; the rest serves `map` and `submit`."""

COMMON = {"output", "as_json", "fields", "home", "plan", "plan_id", "yes", "help"}
"""Options that every read or every write has; they are told once."""

SETTINGS_HEAD = """# Settings

A setting comes from the first of these that gives it: a flag of `omnimind up` (`--set KEY=VALUE`), the
environment variable, the file, the default. `omnimind config` shows the value in force and where it came
from. The file is `omnimind.toml` in the home, or the one that `OMNIMIND_CONFIG` names, with one table for
each section. Seconds may be written with a unit (`90s`, `15m`, `8h`, `7d`), and so may bytes (`256MiB`). A
change takes effect at the next start.
"""

ERRORS_HEAD = """# Errors

Every error is an `OmniMindError`. It carries `code`, `status` (below 500 it is the caller's to mend),
`retryable` and `retry_after` in seconds (whether the same call may work later), `hint` (what to do) and
`field` (the argument that was wrong). `to_problem()` is its RFC 9457 document, which `-o json` prints. It is
caught by its class or by any parent of that. Those that `omnimind` itself exports are in
[Python names](python.md); the others are in `omnimind.errors`, but for three: `InvalidTransition`
(`omnimind.cluster.states`), `Cancelled` (`omnimind.context`), and `ConfirmationNeeded` (the command line).

"""

CLI_HEAD = """Every read has `-o table|json|jsonl|yaml|name`, `--json` (the same as `-o json`) and
`--fields A,B.C`. Every write has `--plan` (say what it would do, do nothing, exit 10 if it would change
something), `--plan-id ID` (do it only if the plan is still that one, else exit 8), `--yes`, and `-o`. Both
have `--home DIR`. Data goes to standard output, all else to standard error.

| command | meaning |
| --- | --- |
"""

PYTHON_HEAD = """# Python names

Public is what `omnimind` exports; all else may change. Besides: `omnimind.errors`, every error, and
`omnimind.testing`, the simulator and the fakes. How to use them: [The Python client](../python-client.md).

"""

STATES_HEAD = """# States

A transition that is not here cannot happen: the core raises `InvalidTransition` instead.

## A task

"""


def header(source: str) -> str:
    """Return the line that keeps people from editing a generated page."""
    return f"<!-- Written by scripts/docs.py from {source}. Do not edit it here. -->\n\n"


def cell(text: str) -> str:
    """Return text for one cell of a table."""
    return " ".join(text.split()).replace("|", "\\|")


# --- settings


def settings_page() -> str:
    """Return docs/reference/settings.md."""
    parts = [
        header("omnimind/config/sections.py"),
        SETTINGS_HEAD,
    ]
    section = ""
    for spec in specs():
        if spec.section != section:
            section = spec.section
            parts.append(
                f"\n## {section}\n\n"
                "| setting | default | allowed | variable | meaning |\n| --- | --- | --- | --- | --- |\n"
            )
        shown = spec.write(spec.default) or "unset"
        unit = " s" if spec.unit == "s" else " bytes" if spec.unit == "bytes" else ""
        default = f"`{shown}`{unit}" if shown != "unset" else shown
        parts.append(
            f"| `{spec.key}` | {default} | {allowed(spec)} | `{spec.variable}` | {cell(spec.doc)} |\n"
        )
    return "".join(parts)


def allowed(spec: Spec) -> str:
    """Return the bounds of a setting."""
    if spec.low is not None and spec.high is not None:
        return f"{spec.low:,g} to {spec.high:,g}" if spec.high < 1e6 else f"{spec.low:,} to {spec.high:,}"
    if spec.kind is bool:
        return "true, false"
    return "k=v,k2=v2" if spec.kind == dict[str, str] else "text"


# --- errors


def errors() -> list[type[OmniMindError]]:
    """Return every error of OmniMind, parents before children."""
    for module in WITH_ERRORS:
        import_module(module)

    def below(cls: type[OmniMindError]) -> Iterator[type[OmniMindError]]:
        yield cls
        for child in cls.__subclasses__():
            if child.__module__ in WITH_ERRORS:
                yield from below(child)

    return list(below(OmniMindError))


def errors_page() -> str:
    """Return docs/reference/errors.md."""
    rows = []
    for cls in errors():
        says = cell((cls.__doc__ or "").strip().splitlines()[0])
        parent = "" if cls is OmniMindError else f"`{cls.__mro__[1].__name__}`"
        rows.append(
            f"| <a id='{cls.code}'></a>`{cls.code}` | `{cls.__name__}` | {parent} | {cls.status} | "
            f"{'yes' if cls.retryable else 'no'} | {says} | {cell(cls.default_hint)} |\n"
        )
    return (
        header("omnimind/errors.py")
        + ERRORS_HEAD
        + "| code | class | parent | status | retry | says | hint |\n"
        "| --- | --- | --- | --- | --- | --- | --- |\n" + "".join(rows)
    )


# --- command line


def commands() -> Iterator[tuple[str, click.Command]]:
    """Yield every command with its full name, groups included."""

    def walk(name: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
        yield name, command
        if isinstance(command, click.Group):
            context = click.Context(command, info_name=name)
            for child in command.list_commands(context):
                found = command.get_command(context, child)
                if found is not None and not found.hidden:
                    yield from walk(f"{name} {child}", found)

    yield from walk("omnimind", cli)


def command_text(name: str, command: click.Command) -> str:
    """Return the section of one command."""
    context = click.Context(command, info_name=name)
    pieces = " ".join(p for p in command.collect_usage_pieces(context) if p != "[OPTIONS]")
    kind = kind_of(command)
    rows = []
    for param in command.get_params(context):
        record = param.get_help_record(context) if isinstance(param, click.Option) else None
        if record is not None and param.name not in COMMON and "--help" not in param.opts:
            rows.append(f"| `{cell(record[0])}` | {cell(record[1])} |\n")
    table = "\n| option | meaning |\n| --- | --- |\n" + "".join(rows) if rows else ""
    says = inspect.cleandoc(command.help or "").replace("\b\n", "").strip()
    said = {"read": "A read.", "write": "A write."}.get(kind, "")
    return (
        f"\n### {name}\n\n```text\n{name} {pieces}".rstrip()
        + f"\n```\n\n```text\n{says}\n```\n"
        + (f"\n{said}\n" if said else "")
        + table
    )


def cli_page() -> str:
    """Return docs/reference/cli.md."""
    everything = list(commands())
    root = everything[0][1]
    index = "".join(
        f"| `{name}` | {cell(command.get_short_help_str(200))} |\n" for name, command in everything[1:]
    )
    return (
        header("the click commands in omnimind/cli/")
        + "# The command line\n\n"
        + f"```text\n{inspect.cleandoc(root.help or '').replace(chr(8) + chr(10), '')}\n```\n\n"
        + CLI_HEAD
        + index
        + "\n## Each command\n"
        + "".join(command_text(name, command) for name, command in everything[1:])
    )


# --- Python


def signature(value: Any) -> str:
    """Return a signature that is the same on every version of Python, with names only."""
    try:
        found = inspect.signature(value)
    except (TypeError, ValueError):
        return ""
    parts = []
    starred = False
    for parameter in found.parameters.values():
        if parameter.name == "self":
            continue
        match parameter.kind:
            case inspect.Parameter.VAR_POSITIONAL:
                parts.append(f"*{parameter.name}")
                starred = True
            case inspect.Parameter.VAR_KEYWORD:
                parts.append(f"**{parameter.name}")
            case inspect.Parameter.KEYWORD_ONLY if not starred:
                parts += ["*", optional(parameter)]
                starred = True
            case _:
                parts.append(optional(parameter))
    return f"({', '.join(parts)})"


def optional(parameter: inspect.Parameter) -> str:
    """Return a parameter's name, with `=…` when it has a default."""
    return parameter.name if parameter.default is inspect.Parameter.empty else f"{parameter.name}=…"


def first_line(value: Any) -> str:
    """Return the first paragraph of a docstring in one line."""
    return " ".join((inspect.getdoc(value) or "").partition("\n\n")[0].split())


def members(cls: type) -> Iterator[tuple[str, str]]:
    """Yield the public methods and properties of a class with what they say."""
    shown = dir(SYNC[cls.__name__]) if cls.__name__ in SYNC else None
    for name in sorted(dir(cls)):
        if name.startswith("_") or (shown is not None and name not in shown):
            continue
        value = inspect.getattr_static(cls, name)
        if isinstance(value, property):
            yield name, first_line(value)
        elif inspect.isfunction(value):
            yield f"{name}{signature(value)}", first_line(value)


def name_text(name: str) -> str:
    """Return the section of one public name."""
    value = getattr(omnimind, name)
    text = f"\n## {name}\n\n"
    if not isinstance(value, type):
        body = inspect.getdoc(value) or ""
        return f"{text}```text\n{name}{signature(value)}\n\n{body}\n```\n"
    if issubclass(value, OmniMindError):
        return f"{text}{first_line(value)} See [errors](errors.md#{value.code}).\n"
    text += f"```text\n{inspect.getdoc(value) or ''}\n```\n"
    if issubclass(value, Enum):
        return text + "\nValues: " + ", ".join(f"`{m.name.lower()}`" for m in value) + ".\n"
    rows = "".join(f"| `{cell(n)}` | {cell(doc)} |\n" for n, doc in members(value))
    return text + (f"\n| member | meaning |\n| --- | --- |\n{rows}" if rows else "")


def python_page() -> str:
    """Return docs/reference/python.md."""
    return (
        header("the public names of omnimind")
        + PYTHON_HEAD
        + ", ".join(f"[{name}](#{name.lower()})" for name in omnimind.__all__)
        + "\n"
        + "".join(name_text(name) for name in omnimind.__all__)
    )


# --- states


def diagram(table: dict[Any, tuple[Any, ...]], begin: str, terminal: tuple[Any, ...] = ()) -> str:
    """Return a transition table as a Mermaid state diagram."""
    lines = [f"    [*] --> {begin}"]
    lines += [f"    {a.value} --> {b.value}" for a, targets in table.items() for b in targets]
    lines += [f"    {state.value} --> [*]" for state in terminal]
    return "```mermaid\nstateDiagram-v2\n" + "\n".join(lines) + "\n```\n"


TASK_MEANS = {
    "pending": "waits: for its turn, its time, other tasks, or its next attempt",
    "running": "an attempt has been given to a node",
    "completed": "the handler returned; the result is in the ledger",
    "failed": "the handler raised and may not be retried, or what it came after failed, or it was lost",
    "cancelled": "a person or a program asked for its end",
    "expired": "its deadline passed first",
    "dead": "it killed its workers too often, and stands among the dead letters",
}
NODE_MEANS = {
    "active": "takes work",
    "busy": "all slots are taken",
    "degraded": "in bad condition; gets no new work. Kept for the healer, nothing sets it yet",
    "cordoned": "gets no new work; what runs there goes on",
    "draining": "gets no new work; what still runs at the deadline is requeued elsewhere",
    "suspect": "silent for `coordinator.suspect_after` seconds; gets no work",
    "offline": "silent for `coordinator.heartbeat_timeout` seconds, or gone; its attempts were requeued",
}


def states_page() -> str:
    """Return docs/explain/states.md."""
    tasks = "".join(
        f"| `{s.value}` | {TASK_MEANS[s.value]} | "
        f"{', '.join(f'`{t.value}`' for t in states.TASK_TRANSITIONS[s]) or 'nothing: it is terminal'} |\n"
        for s in states.TaskStatus
    )
    nodes = "".join(
        f"| `{s.value}` | {NODE_MEANS[s.value]} | "
        f"{', '.join(f'`{t.value}`' for t in states.NODE_TRANSITIONS[s])} |\n"
        for s in states.NodeStatus
    )
    classes = ", ".join(f"`{p.name.lower()}` ({int(p)} and {int(p) + 1})" for p in states.TaskPriority)
    return (
        header("omnimind/cluster/states.py")
        + STATES_HEAD
        + diagram(states.TASK_TRANSITIONS, "pending", states.TERMINAL)
        + "\n| state | means | may become |\n| --- | --- | --- |\n"
        + tasks
        + "\nA terminal state is for ever: `retry` and `deadletter replay` make a new task "
        "([why](../decisions/0005-terminal-is-for-ever.md)).\n\n"
        "A live task stands in one line: "
        + ", ".join(f"`{line.name.lower()}`" for line in states.Line if line is not states.Line.NONE)
        + ". The first three are `pending`: ready to start, not before a time, and after other tasks.\n\n"
        f"## Priorities\n\nFrom the most urgent: {classes}.\n\n"
        "## A node\n\n"
        + diagram(states.NODE_TRANSITIONS, "active")
        + "\n| state | means | may become |\n| --- | --- | --- |\n"
        + nodes
    )


PAGES: dict[str, Callable[[], str]] = {
    "reference/settings.md": settings_page,
    "reference/errors.md": errors_page,
    "reference/cli.md": cli_page,
    "reference/python.md": python_page,
    "explain/states.md": states_page,
}


def outdated() -> list[str]:
    """Return the generated pages that differ from what the code says."""
    return [
        name
        for name, make in PAGES.items()
        if not (DOCS / name).is_file() or (DOCS / name).read_text(encoding="utf-8") != make()
    ]


def main(arguments: list[str]) -> int:
    """Write the pages, or check them."""
    stale = outdated()
    if arguments == ["--check"]:
        for name in stale:
            print(f"docs/{name} is out of date: run python scripts/docs.py")
        return 1 if stale else 0
    for name in stale:
        path = DOCS / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(PAGES[name](), encoding="utf-8")
        print(f"wrote docs/{name}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
