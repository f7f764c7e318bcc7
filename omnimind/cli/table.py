"""Tables and sheets for people: aligned, coloured where colour is wanted, cut to the terminal's width."""

from __future__ import annotations

import re
import shutil
import sys
import textwrap
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import click

from omnimind.cli.times import relative

CELL_MAX = 200
"""Characters of one cell where no terminal sets a width; `-o json` has the whole."""

SHORT_ID = 12
"""Characters of a node's id in tables; `-o json` has the whole, and commands take any unique prefix."""

_LONG_ID = re.compile(r"\b[0-9a-f]{40,}\b")
_LEAST = 8
_GAP = 2

STYLES: dict[str, dict[str, Any]] = {
    "completed": {"fg": "green"},
    "active": {"fg": "green"},
    "ok": {"fg": "green"},
    "running": {"fg": "cyan"},
    "busy": {"fg": "cyan"},
    "pending": {"fg": "blue"},
    "failed": {"fg": "red"},
    "dead": {"fg": "red", "bold": True},
    "error": {"fg": "red", "bold": True},
    "offline": {"fg": "red"},
    "expired": {"fg": "magenta"},
    "cancelled": {"fg": "yellow"},
    "cordoned": {"fg": "yellow"},
    "draining": {"fg": "yellow"},
    "degraded": {"fg": "yellow"},
    "suspect": {"fg": "yellow"},
    "paused": {"fg": "yellow"},
    "warning": {"fg": "yellow"},
}
"""How a status word looks. The word itself always stands there: colour is never the only sign."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its title, and the key (dotted) or function that gives a row's value.

    kind: ``text``, ``status`` (coloured by `STYLES`), ``time`` (relative), ``number`` (right-aligned).
    elastic: gives way first when the terminal is narrow. spare: is left out when that is not enough.
    """

    title: str
    value: str | Callable[[Mapping[str, Any]], Any]
    kind: str = "text"
    elastic: bool = False
    spare: bool = False

    def of(self, row: Mapping[str, Any]) -> Any:
        """Return a row's value."""
        return pick(row, self.value) if isinstance(self.value, str) else self.value(row)


def pick(row: Any, path: str) -> Any:
    """Return the value at a dotted path, or None."""
    if isinstance(row, Mapping) and path in row:
        return row[path]
    for part in path.split("."):
        if not isinstance(row, Mapping):
            return None
        row = row.get(part)
    return row


def clean(text: str) -> str:
    """Return a text that cannot move the cursor, change colours or reorder what stands beside it."""
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() and unicodedata.category(c) != "Cf" else c.encode("unicode_escape").decode()
        for c in text
    )


def prose(text: str) -> str:
    """Return a text for people: cleaned, with the long ids of nodes cut to a prefix that commands accept."""
    return _LONG_ID.sub(lambda found: found[0][:SHORT_ID], clean(text))


def width_of(text: str) -> int:
    """Return the columns that a text takes on a terminal."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text
    )


def cut(text: str, width: int) -> str:
    """Return a text of at most `width` columns, ending in ``…`` when something was left off."""
    if width_of(text) <= width:
        return text
    kept, taken = [], 1
    for c in text:
        taken += width_of(c)
        if taken > width:
            break
        kept.append(c)
    return "".join(kept) + "…"


def show(value: Any, kind: str = "text") -> str:
    """Return a value as a cell's text."""
    if value is None or value in ("", [], {}):
        return "-"
    if kind == "time":
        return relative(float(value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.4g}"
    if isinstance(value, list | tuple | set | frozenset):
        return ", ".join(show(v) for v in value)
    if isinstance(value, Mapping):
        return ", ".join(f"{prose(str(k))}={show(v)}" for k, v in value.items())
    return prose(str(value))


def table(rows: Sequence[Mapping[str, Any]], columns: Sequence[Column], width: int | None = None) -> str:
    """Return the rows as a table with a header; `width` None leaves cells up to `CELL_MAX` whole."""
    cells = [[cut(show(c.of(row), c.kind), CELL_MAX) for c in columns] for row in rows]
    widths = [max([width_of(c.title), *(width_of(line[i]) for line in cells)]) for i, c in enumerate(columns)]
    kept = list(range(len(columns)))
    if width is not None:
        _fit(widths, columns, kept, width)

    def line(texts: Sequence[str], style: dict[str, Any] | None = None) -> str:
        return _line([(texts[i], widths[i], columns[i]) for i in kept], style)

    return "\n".join([line([c.title for c in columns], {"bold": True}), *(line(texts) for texts in cells)])


def _fit(widths: list[int], columns: Sequence[Column], kept: list[int], width: int) -> None:
    """Narrow the elastic columns; where that is not enough, leave out spare ones, the last first."""
    least = [
        min(w, max(_LEAST, width_of(c.title))) if c.elastic else w
        for w, c in zip(widths, columns, strict=True)
    ]
    for i in reversed(range(len(columns))):
        if columns[i].spare and _sum(least, kept) > width:
            kept.remove(i)
    elastic = [i for i in kept if columns[i].elastic]
    while (over := _sum(widths, kept) - width) > 0:
        widest = max(elastic, key=lambda i: widths[i] - least[i], default=None)
        if widest is None or widths[widest] == least[widest]:
            return
        widths[widest] -= min(widths[widest] - least[widest], max(1, over // len(elastic)))


def _sum(widths: Sequence[int], kept: Sequence[int]) -> int:
    return sum(widths[i] for i in kept) + _GAP * (len(kept) - 1)


def _line(cells: Sequence[tuple[str, int, Column]], style: dict[str, Any] | None) -> str:
    parts = []
    for text, width, column in cells:
        short = cut(text, width)
        pad = " " * (width - width_of(short))
        look = style
        if style is None and column.kind == "status":
            look = STYLES.get(short.split(" ", 1)[0])
        painted = click.style(short, **look) if look else short
        parts.append(pad + painted if column.kind == "number" else painted + pad)
    return (" " * _GAP).join(parts).rstrip()


@dataclass(frozen=True, slots=True)
class Styled:
    """A text that may hold line breaks. `look`: of `click.style`. `wraps`: False when it is in colours."""

    text: str
    look: Mapping[str, Any] | None = None
    wraps: bool = True

    @property
    def painted(self) -> str:
        """Return the text in its look."""
        return click.style(self.text, **self.look) if self.look else self.text


def status(word: str) -> Styled:
    """Return a status word in its colour."""
    return Styled(clean(word), STYLES.get(word))


def block(text: str, look: Mapping[str, Any] | None = None) -> Styled:
    """Return a text of several lines, each of them cleaned."""
    return Styled("\n".join(clean(line) for line in text.splitlines()), look)


def whole(text: str) -> Styled:
    """Return an id in full, to be copied."""
    return Styled(clean(text))


def sheet(pairs: Sequence[tuple[str, Any]], width: int | None = None) -> str:
    """Return labelled values, one below the other; those that are None are left out.

    width: of the terminal, beyond which values are wrapped; None asks it.
    """
    shown = [(label, value) for label, value in pairs if value is not None]
    indent = max((len(label) for label, _ in shown), default=0) + _GAP
    room = (width or terminal_width() or 0) - indent
    return "\n".join(
        click.style(label, bold=True) + " " * (indent - len(label)) + _value(value, indent, room)
        for label, value in shown
    )


def _value(value: Any, indent: int, room: int) -> str:
    styled = value if isinstance(value, Styled) else Styled(show(value))
    lines = styled.text.split("\n")
    if styled.wraps and room >= _LEAST:
        lines = [part for line in lines for part in _wrap(line, room)]
    return ("\n" + " " * indent).join(Styled(line, styled.look).painted for line in lines)


def _wrap(line: str, room: int) -> list[str]:
    if width_of(line) <= room:
        return [line]
    lead = line[: len(line) - len(line.lstrip())][: room // 2]
    return textwrap.wrap(line, room, subsequent_indent=lead, break_on_hyphens=False, drop_whitespace=True)


def terminal_width() -> int | None:
    """Return the columns of the terminal that stdout is, or None when it is none."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None
