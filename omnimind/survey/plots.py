"""The report's plots, as inline SVG: the page's style gives the colours, each mark has a tooltip."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from itertools import pairwise
from typing import Any

from omnimind.survey.text import clip, printable

Packages = Sequence[tuple[str, dict[str, Any]]]

WIDTH = 640
WIDE = 1120
"""Units of a plot's width: about the pixels that it gets on a large screen, so that letters keep size."""
_NAME = 18
_PARTS = ("code", "comments", "blank")


def bars_of_packages(packages: Packages, *, most: int = 15) -> str:
    """Return bars of the packages with the most lines, each divided into code, comments and blank lines."""
    shown = sorted(packages, key=lambda item: (-item[1]["lines"], item[0]))[:most]
    left, right, step = 170, 90, 25
    largest = max((values["lines"] for _, values in shown), default=0) or 1
    scale = (WIDE - left - right) / largest
    marks = []
    for row, (name, values) in enumerate(shown):
        top = row * step + 4
        label = _label(name, left - 8, top + 13, "end", _NAME + 6)
        marks.append(f"<g>{_tooltip(name, values)}{label}")
        at = float(left)
        for part in _PARTS:
            width = values[part] * scale
            marks.append(f'<rect class="{part}" x="{at:.1f}" y="{top}" width="{width:.1f}" height="17"/>')
            at += width
        marks.append(f'<text class="value" x="{at + 6:.1f}" y="{top + 13}">{values["lines"]:,}</text></g>')
    return _svg("Lines of the largest packages", WIDE, len(shown) * step + 4, marks)


def columns_of_complexity(histogram: Sequence[dict[str, int]]) -> str:
    """Return columns: how many functions have which cyclomatic complexity."""
    height, bottom, top = 340, 44, 22
    slot = WIDTH / len(histogram)
    total = sum(step["functions"] for step in histogram) or 1
    largest = max(step["functions"] for step in histogram) or 1
    marks = [f'<line class="axis" x1="0" x2="{WIDTH}" y1="{height - bottom}" y2="{height - bottom}"/>']
    for index, (name, count) in enumerate(_classes(histogram)):
        tall = (height - bottom - top) * count / largest
        middle = index * slot + slot / 2
        y = height - bottom - tall
        marks.append(
            f"<g><title>complexity {name}: {count:,} functions, {100 * count / total:.1f} %</title>"
            f'<rect class="code" x="{middle - slot * 0.36:.1f}" y="{y:.1f}" width="{slot * 0.72:.1f}"'
            f' height="{tall:.1f}"/>'
            f'<text class="value" text-anchor="middle" x="{middle:.1f}" y="{y - 6:.1f}">{count:,}</text>'
            f'<text text-anchor="middle" x="{middle:.1f}" y="{height - bottom + 17}">{name}</text></g>'
        )
    marks.append(_axis_title(WIDTH / 2, height - 8, "cyclomatic complexity of a function"))
    return _svg("How many functions have which complexity", WIDTH, height, marks)


def scatter_of_packages(packages: Packages, *, named: int = 4) -> str:
    """Return points: a package's functions across (logarithmic), their mean complexity upwards.

    Named are those with the most functions, and those (of ten functions or more) with the highest mean.
    """
    points = [(name, values) for name, values in packages if values["functions"]]
    height, left, bottom, top = 340, 44, 44, 14
    decades = max(1, math.ceil(math.log10(max((v["functions"] for _, v in points), default=1) + 1)))
    highest = max((v["complexity"]["mean"] for _, v in points), default=1.0)
    tick = next(t for t in (1, 2, 5, 10, 20, 50, 100, 10**9) if highest / t <= 6)  # noqa: PLR2004 - lines
    ceiling = tick * max(1, math.ceil(highest / tick))
    across = (WIDTH - left - 30) / decades
    up = (height - bottom - top) / ceiling
    marks = _grid(height, (left, bottom, top), (decades, across), (ceiling, tick, up))
    places = {
        name: (left + across * math.log10(v["functions"]), height - bottom - up * v["complexity"]["mean"])
        for name, v in points
    }
    for name, values in points:
        x, y = places[name]
        tooltip = _tooltip(name, values)
        marks.append(f'<circle class="point" cx="{x:.1f}" cy="{y:.1f}" r="4">{tooltip}</circle>')
    many = sorted(points, key=lambda p: (-p[1]["functions"], p[0]))[:named]
    grown = [p for p in points if p[1]["functions"] >= 10]  # noqa: PLR2004 - one function is no mean
    steep = sorted(grown, key=lambda p: (-p[1]["complexity"]["mean"], p[0]))[:named]
    marks.extend(_labels({name: places[name] for name, _ in (*many, *steep)}))
    return _svg("Mean complexity against number of functions, by package", WIDTH, height, marks)


def _labels(places: dict[str, tuple[float, float]]) -> list[str]:
    """Name these points; one whose name would lie over an earlier one's goes without."""
    marks: list[str] = []
    taken: list[tuple[float, float, float]] = []
    for name, (x, y) in places.items():
        width = 7.0 * min(len(printable(name)), _NAME)
        is_left = x + 8 + width > WIDTH
        start = x - 8 - width if is_left else x + 8
        if any(abs(y - b) < 13 and start < end and begin < start + width for begin, end, b in taken):  # noqa: PLR2004
            continue
        taken.append((start, start + width, y))
        marks.append(_label(name, x - 8 if is_left else x + 8, y + 4, "end" if is_left else "start", _NAME))
    return marks


def _classes(histogram: Sequence[dict[str, int]]) -> list[tuple[str, int]]:
    """Return the classes' names (`1`, `4-5`, `51+`) with their counts."""
    starts = [step["from"] for step in histogram]
    names = [
        str(first) if after == first + 1 else f"{first}–{after - 1}"  # noqa: RUF001 - a dash for a range
        for first, after in pairwise(starts)
    ]
    names.append(f"{starts[-1]}+")
    return [(name, step["functions"]) for name, step in zip(names, histogram, strict=True)]


def _grid(
    height: int, edges: tuple[int, int, int], x: tuple[int, float], y: tuple[int, int, float]
) -> list[str]:
    (left, bottom, top), (decades, across), (ceiling, tick, up) = edges, x, y
    floor = height - bottom
    marks = []
    for value in range(0, ceiling + 1, tick):
        at = floor - up * value
        marks.append(f'<line class="grid" x1="{left}" x2="{WIDTH}" y1="{at:.1f}" y2="{at:.1f}"/>')
        marks.append(f'<text text-anchor="end" x="{left - 8}" y="{at + 4:.1f}">{value}</text>')
    for decade in range(decades + 1):
        at = left + across * decade
        marks.append(f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="{top}" y2="{floor}"/>')
        marks.append(f'<text text-anchor="middle" x="{at:.1f}" y="{floor + 17}">{10**decade:,}</text>')
    marks.append(_axis_title((left + WIDTH) / 2, height - 8, "functions of the package"))
    marks.append(f'<text class="axis-title" x="{left + 6}" y="{top + 14}">mean complexity</text>')
    return marks


def _axis_title(x: float, y: float, text: str) -> str:
    return f'<text class="axis-title" text-anchor="middle" x="{x:.1f}" y="{y:.1f}">{text}</text>'


def _label(name: str, x: float, y: float, anchor: str, width: int) -> str:
    shown = escape(clip(printable(name), width))
    return f'<text class="name" text-anchor="{anchor}" x="{x:.1f}" y="{y:.1f}">{shown}</text>'


def _tooltip(name: str, values: dict[str, Any]) -> str:
    said = (
        f"{printable(name)}: {values['files']:,} files, {values['lines']:,} lines ({values['code']:,} code,"
        f" {values['comments']:,} comments, {values['blank']:,} blank), {values['functions']:,} functions,"
        f" mean complexity {values['complexity']['mean']}"
    )
    return f"<title>{escape(said)}</title>"


def _svg(title: str, width: int, height: int, marks: Sequence[str]) -> str:
    inside = "".join(marks)
    return f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(title)}">{inside}</svg>'
