"""The report's tables: sorted by what matters, sortable by any column where scripts run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape
from operator import itemgetter
from typing import Any

from omnimind.survey.text import below, printable

Entry = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table: its heading, what it shows of an entry, and how."""

    title: str
    cell: Callable[[Entry], Any]
    kind: str = ""  # "number", "path", or plain text


@dataclass(frozen=True, slots=True)
class Section:
    """A heading, a sentence, a table."""

    title: str
    said: str
    columns: Sequence[Column]
    entries: Sequence[Entry]


_DOCUMENTED = (
    Column("Public", itemgetter("public"), "number"),
    Column("Undocumented", itemgetter("undocumented"), "number"),
)


def text(value: object) -> str:
    """Return a stranger's text as HTML."""
    return escape(printable(str(value)))


def count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def failures(report: Entry) -> str:
    """Return the section of the files without a result and the folders that could not be read, or nothing."""
    said = f"{count(report['failed'], 'file')} could not be analysed; the others are not touched by that."
    columns = (_path(report), Column("Reason", itemgetter("reason")))
    table = _table("Failures", columns, report["failures"]) if report["failures"] else ""
    folders = "".join(f"<li>{text(problem)}</li>" for problem in report["folders_not_read"])
    also = f"<p>Folders that could not be read:</p><ul>{folders}</ul>" if folders else ""
    inside = f"<h2>Failures</h2><p>{said}</p>{table}{also}"
    return f'<section class="failures">{inside}</section>' if table or also else ""


def sections(report: Entry) -> str:
    """Return the sections with all other tables; those without an entry are left out."""
    every = (_packages(report), *_extremes(report), _warnings(report))
    return "".join(
        f"<section><h2>{s.title}</h2><p>{s.said}</p>{_table(s.title, s.columns, s.entries)}</section>"
        for s in every
        if s.entries
    )


def _path(report: Entry) -> Column:
    roots = report["roots"]
    return Column("File", lambda entry: below(entry["path"], roots), "path")


def _packages(report: Entry) -> Section:
    entries = [{"name": name, **values} for name, values in report["by_package"].items()]
    entries.sort(key=lambda e: (-e["lines"], e["name"]))
    sums = ("Files", "Failed", "Lines", "Functions", "Classes")
    columns = (
        Column("Package", itemgetter("name")),
        *(Column(title, itemgetter(title.lower()), "number") for title in sums),
        Column("Complexity", lambda e: e["complexity"]["mean"], "number"),
        Column("Highest", lambda e: e["complexity"]["max"], "number"),
        *_DOCUMENTED,
        Column("Warnings", itemgetter("warnings"), "number"),
    )
    return Section("Packages", f"All {len(entries):,}, by lines. Complexity is the mean.", columns, entries)


def _extremes(report: Entry) -> tuple[Section, ...]:
    path = _path(report)
    complexity = (
        Column("Function", itemgetter("name"), "path"),
        Column("Complexity", itemgetter("complexity"), "number"),
        path,
        Column("Line", itemgetter("line"), "number"),
    )
    size = (
        path,
        Column("Lines", itemgetter("lines"), "number"),
        Column("Bytes", itemgetter("bytes"), "number"),
    )
    names = (path, *_DOCUMENTED, Column("The first of them", lambda e: ", ".join(e["names"])))
    return (
        Section("Most complex functions", "At most five of one file.", complexity, report["most_complex"]),
        Section("Largest files", "By lines.", size, report["largest_files"]),
        Section(
            "Least documented files",
            "By public names without a docstring.",
            names,
            report["least_documented"],
        ),
    )


def _warnings(report: Entry) -> Section:
    listed = report["warnings_listed"]
    columns = (
        _path(report),
        Column("Line", itemgetter("line"), "number"),
        Column("Kind", itemgetter("category")),
        Column("Warning", itemgetter("message")),
    )
    said = f"{count(report['warnings'], 'warning')}; listed are {len(listed):,}, by file and line."
    return Section("Syntax warnings", said, columns, listed)


def _table(caption: str, columns: Sequence[Column], entries: Iterable[Entry]) -> str:
    head = "".join(
        f'<th scope="col"{_class(column.kind, only="number")}><span>{column.title}</span></th>'
        for column in columns
    )
    rows = "".join(f"<tr>{''.join(_cell(column, entry) for column in columns)}</tr>" for entry in entries)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{caption}"><table>'
        f"<caption>{caption}</caption><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _cell(column: Column, entry: Entry) -> str:
    value = column.cell(entry)
    if column.kind == "number":
        shown = f"{value:,.2f}" if isinstance(value, float) else f"{value:,}"
        return f'<td class="number" data-value="{value}">{shown}</td>'
    return f"<td{_class(column.kind)}><bdi>{text(value)}</bdi></td>"


def _class(kind: str, only: str = "") -> str:
    return f' class="{kind}"' if kind and only in {"", kind} else ""
