"""`omnimind config`: the effective value of each setting, and where it came from."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

import click

from omnimind.cli.options import read
from omnimind.cli.output import View
from omnimind.cli.session import Session
from omnimind.cli.table import Column, clean, sheet, show
from omnimind.errors import NotFound

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from omnimind.config import Settings, Spec

COLUMNS = (
    Column("SETTING", "key"),
    Column("VALUE", lambda r: _text(r["value"], r["unit"])),
    Column("FROM", "origin", elastic=True),
    Column("WHAT", "what", elastic=True),
)

UNITS: dict[str, tuple[tuple[str, int], ...]] = {
    "s": (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)),
    "bytes": (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)),
}


class ListWhenBare(click.Group):
    """A group that lists when no sub-command is named."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args or (args[0].startswith("-") and args[0] not in ctx.help_option_names):
            args = ["list", *args]
        return super().parse_args(ctx, args)


@click.group(cls=ListWhenBare)
def config() -> None:
    """Show each setting and where it came from.

    Settings come from the default, omnimind.toml in the home (or the file that OMNIMIND_CONFIG names),
    the environment (OMNIMIND_RAY_NUM_CPUS for ray.num_cpus) and `omnimind up --set KEY=VALUE`; the last
    one counts.
    """


@config.command("list")
@click.option("--changed", is_flag=True, help="Only those that are not at their default.")
@read()
def list_settings(session: Session, changed: bool) -> View:
    """List the settings: value, source and meaning."""
    rows = _rows(session)
    if changed:
        rows = [row for row in rows if row["origin"] != "default"]
    notes = [_differs(row) for row in rows if "running" in row]
    return View(data=rows, columns=COLUMNS, key="key", notes=notes, empty="every setting is at its default")


def _complete(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    from click.shell_completion import CompletionItem  # noqa: PLC0415

    from omnimind.config import specs  # noqa: PLC0415

    return [CompletionItem(s.key, help=s.doc) for s in specs() if s.key.startswith(incomplete)]


@config.command("show")
@click.argument("key", shell_complete=_complete)
@read()
def show_setting(session: Session, key: str) -> View:
    """Show one setting: value, source, default, bounds, and how to set it."""
    rows = {row["key"]: row for row in _rows(session)}
    if key not in rows:
        near = difflib.get_close_matches(key, rows, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}?" if near else "see all with: omnimind config"
        raise NotFound(f"there is no setting {key!r}", hint=hint)
    row = rows[key]
    notes = [_differs(row)] if "running" in row else []
    return View(data=row, text=_page(row), key="key", notes=notes)


def _rows(session: Session) -> list[dict[str, Any]]:
    from omnimind.config import effective, load, specs  # noqa: PLC0415
    from omnimind.instance import Paths, running  # noqa: PLC0415

    paths = Paths(session.home)
    settings = load(paths.home)
    used = effective(paths.settings) if running(paths) is not None else None
    rows = [
        {
            "key": "home",
            "value": str(paths.home),
            "origin": session.home_origin,
            "default": None,
            "unit": "",
            "what": "Folder of the instance: ledger, tokens, logs, Ray's temporary files.",
            "variable": "OMNIMIND_HOME",
            "expected": "give a folder",
        }
    ]
    return rows + [_row(spec, settings, used) for spec in specs()]


def _row(spec: Spec, settings: Settings, used: Settings | None) -> dict[str, Any]:
    value = settings.get(spec.key)
    row = {
        "key": spec.key,
        "value": value,
        "origin": settings.origins.get(spec.key, "default"),
        "default": spec.default,
        "unit": spec.unit,
        "what": spec.doc,
        "variable": spec.variable,
        "expected": spec.expected(),
    }
    if used is not None and used.get(spec.key) != value:
        row["running"] = used.get(spec.key)
    return row


def _differs(row: dict[str, Any]) -> str:
    now = _text(row["running"], row["unit"])
    return f"{row['key']}: the running instance uses {now}; what stands here counts from its next start"


def _text(value: Any, unit: str = "") -> str:
    """Return a value as it may be written in the file or on the command line."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        for name, size in UNITS.get(unit, ()):
            if value and value % size == 0:
                return f"{value / size:g}{name}"
        return f"{value:g}{unit}" if isinstance(value, float) else f"{value}"
    if isinstance(value, dict) and value:
        return clean(",".join(f"{k}={v}" for k, v in value.items()))
    return show(value)


def _page(row: dict[str, Any]) -> str:
    section, _, name = row["key"].partition(".")
    in_file = f"[{section}] {name} = … in omnimind.toml" if name else None
    return sheet([
        ("setting", row["key"]),
        ("value", _text(row["value"], row["unit"])),
        ("from", row["origin"]),
        ("default", None if row["default"] is None else _text(row["default"], row["unit"])),
        ("running", _text(row["running"], row["unit"]) if "running" in row else None),
        ("what", row["what"]),
        ("to set it", row["expected"]),
        ("variable", row["variable"]),
        ("file", in_file),
    ])  # fmt: skip
