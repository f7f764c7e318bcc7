"""The report as one page that needs nothing else: no server, no network, no fonts, readable without scripts.

Everything that comes from the surveyed files (names, messages) is escaped, and made visible where it is not;
the page's own policy forbids every script and style but the two that are written into it.
"""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files
from typing import Any

from omnimind.survey.plots import bars_of_packages, columns_of_complexity, scatter_of_packages
from omnimind.survey.tables import count, failures, sections, text

Entry = dict[str, Any]


def render(report: Entry) -> str:
    """Return the page for a report of `Reduction.report`, with the keys of `reduce.OF_THE_RUN`."""
    style = files(__package__).joinpath("page.css").read_text(encoding="utf-8")
    script = files(__package__).joinpath("page.js").read_text(encoding="utf-8")
    policy = (
        f"default-src 'none'; style-src '{_digest(style)}'; script-src '{_digest(script)}';"
        " base-uri 'none'; form-action 'none'"
    )
    lines = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>Survey of {count(report['files'], 'Python file')}</title>",
        f"<style>{style}</style></head><body>",
        _header(report),
        f"<main>{_tiles(report)}{_plots(report)}{failures(report)}{sections(report)}</main>",
        _footer(report),
        f"<script>{script}</script></body></html>",
    ]
    return "\n".join(lines) + "\n"


def _digest(source: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()


def _header(report: Entry) -> str:
    roots = ", ".join(f"<code>{text(root)}</code>" for root in report["roots"])
    return (
        f"<header><h1>Survey of {count(report['files'], 'Python file')}</h1><p>Every file below {roots}.</p>"
        f"<p>Made {text(report['started'])} with Python {text(report['python'])} on"
        f" {count(report['nodes'], 'node')} in {report['seconds']:,.1f} s.</p></header>"
    )


def _tiles(report: Entry) -> str:
    tiles = [
        ("Files", f"{report['files']:,}", ""),
        ("Lines", f"{report['lines']:,}", ""),
        ("Functions", f"{report['functions']:,}", ""),
        ("Classes", f"{report['classes']:,}", ""),
        ("Failed", f"{report['failed']:,}", " bad" if report["failed"] else ""),
        ("Mean complexity", f"{report['complexity']['mean']:.2f}", ""),
        ("Documented public names", f"{report['documented_percent']:.1f} %", ""),
        ("Syntax warnings", f"{report['warnings']:,}", ""),
    ]
    inside = "".join(
        f'<div class="tile{more}"><dt>{name}</dt><dd>{value}</dd></div>' for name, value, more in tiles
    )
    return f'<dl class="tiles">{inside}</dl>'


def _plots(report: Entry) -> str:
    packages = list(report["by_package"].items())
    legend = "".join(
        f'<li><i class="{part}"></i>{name}</li>'
        for part, name in (("code", "code"), ("comments", "comments"), ("blank", "blank lines"))
    )
    return (
        "<section><h2>Largest packages</h2><p>By lines.</p>"
        f'<ul class="legend">{legend}</ul><div class="wide">{bars_of_packages(packages)}</div></section>'
        '<div class="pair"><section><h2>Complexity of functions</h2><p>By cyclomatic number.</p>'
        f"{columns_of_complexity(report['complexity']['histogram'])}</section>"
        "<section><h2>Size and complexity</h2><p>Each point is a package.</p>"
        f"{scatter_of_packages(packages)}</section></div>"
    )


def _footer(report: Entry) -> str:
    note = " Totals are of the files that could be analysed." if report["failed"] else ""
    return (
        "<footer><p>Complexity is McCabe's cyclomatic number: 1 + the decisions of a function (branches,"
        " loops, handlers, comprehensions, further operands of <code>and</code> and <code>or</code>, cases)."
        " Public names begin without an underscore; the documented ones have a docstring."
        f"{note} The same figures stand in <code>report.json</code>.</p></footer>"
    )
