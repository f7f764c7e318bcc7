from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from omnimind.survey.baseline import run_plain
from omnimind.survey.files import find_files
from omnimind.survey.html import render
from omnimind.survey.plots import bars_of_packages, columns_of_complexity, scatter_of_packages

VOID = {"meta"}


class Page(HTMLParser):
    """Checks that elements close in order; keeps tags, attributes and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in {"style", "script"}:
            self.text.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]


@pytest.fixture
def report_of() -> Callable[[Path], dict[str, Any]]:
    def make(root: Path) -> dict[str, Any]:
        tree = find_files(root)
        where = {"started": "2026-11-24 05:30:00+00:00", "python": "3.11.7", "nodes": 2, "resumed": 0}
        return {**run_plain(tree), **where, "roots": list(tree.roots)}

    return make


def test_the_page_is_well_formed_and_says_what_the_report_says(
    tree_of_files: Path, report_of: Callable[[Path], dict[str, Any]]
) -> None:
    report = report_of(tree_of_files)
    page = Page(render(report))
    said = " ".join(page.text)
    assert "Survey of 9 Python files" in said
    assert str(tree_of_files) in said
    assert "2 nodes" in said
    for failure in report["failures"]:
        assert Path(failure["path"]).name in said
        assert failure["reason"] in said
    for package in report["by_package"]:
        assert package in said
    assert len(page.all("svg")) == 3
    assert all(svg["role"] == "img" and svg["aria-label"] for svg in page.all("svg"))


def test_tables_are_accessible(tree_of_files: Path, report_of: Callable[[Path], dict[str, Any]]) -> None:
    page = Page(render(report_of(tree_of_files)))
    assert len(page.all("table")) == len(page.all("caption")) == 6
    assert all(head["scope"] == "col" for head in page.all("th"))
    regions = [attrs for attrs in page.all("div") if attrs.get("role") == "region"]
    assert all(region["aria-label"] and region["tabindex"] == "0" for region in regions)
    assert page.all("html") == [{"lang": "en"}]


def test_nothing_comes_from_outside(tree_of_files: Path, report_of: Callable[[Path], dict[str, Any]]) -> None:
    text = render(report_of(tree_of_files))
    page = Page(text)
    assert not {"link", "img", "iframe", "object", "base", "form"} & {tag for tag, _ in page.tags}
    assert not any({"src", "href", "style"} & attrs.keys() for _, attrs in page.tags)
    assert not any(name.startswith("on") for _, attrs in page.tags for name in attrs)
    assert not re.search(r"https?://|url\(|@import", text)


def test_the_policy_allows_just_the_style_and_the_script_of_the_page(
    tree_of_files: Path, report_of: Callable[[Path], dict[str, Any]]
) -> None:
    text = render(report_of(tree_of_files))
    policy = next(m["content"] for m in Page(text).all("meta") if "http-equiv" in m)
    assert policy is not None
    assert "default-src 'none'" in policy
    for tag, directive in (("style", "style-src"), ("script", "script-src")):
        (content,) = re.findall(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{directive} 'sha256-{digest}';" in policy


HOSTILE = "<script>alert(1)</script>&\"'<!--\u202e\x1b[31m"


def test_names_of_files_are_hostile_input(
    tmp_path: Path, report_of: Callable[[Path], dict[str, Any]]
) -> None:
    folder = tmp_path / HOSTILE.replace("/", "\u2215")
    folder.mkdir()
    (folder / "bad.py").write_text("def f(:\n", encoding="utf-8")
    (folder / "good.py").write_text("def f(): '\\d'\n", encoding="utf-8")
    text = render(report_of(tmp_path))
    page = Page(text)
    assert len(page.all("script")) == 1
    assert "<!--" not in text
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "\\u202e\\x1b[31m" in " ".join(page.text)
    assert "&lt;script&gt;alert(1)&lt;\u2215script&gt;&amp;&quot;&#x27;&lt;!--" in text


def test_a_survey_without_failures_has_no_such_section(
    tmp_path: Path, report_of: Callable[[Path], dict[str, Any]]
) -> None:
    (tmp_path / "a.py").touch()
    page = Page(render(report_of(tmp_path)))
    assert not any(section.get("class") == "failures" for section in page.all("section"))
    assert "Survey of 1 Python file" in page.text


def test_folders_that_could_not_be_read_are_named(
    tmp_path: Path, report_of: Callable[[Path], dict[str, Any]]
) -> None:
    (tmp_path / "a.py").touch()
    report = report_of(tmp_path) | {"folders_not_read": ["/root/<b>: Permission denied"]}
    assert "/root/&lt;b&gt;: Permission denied" in render(report)


def package(lines: int = 10, functions: int = 1, mean: float = 1.0) -> dict[str, Any]:
    return {
        "files": 1,
        "lines": lines,
        "code": lines,
        "comments": 0,
        "blank": 0,
        "functions": functions,
        "complexity": {"mean": mean},
    }


def test_bars_stay_inside_and_are_ordered() -> None:
    svg = bars_of_packages([(f"p{i}", package(lines=i * 1000)) for i in range(40)])
    assert re.findall(r">(p\d+)</text>", svg) == [f"p{i}" for i in range(39, 24, -1)]
    page = Page(svg)
    assert max(float(r["x"] or 0) + float(r["width"] or 0) for r in page.all("rect")) <= 1120


@pytest.mark.parametrize(
    "packages", [[], [("a", package(lines=0, functions=0))], [("a", package(functions=1))]]
)
def test_plots_of_next_to_nothing(packages: list[tuple[str, dict[str, Any]]]) -> None:
    for plot in (bars_of_packages, scatter_of_packages):
        Page(plot(packages))


def test_columns_carry_their_classes_and_counts() -> None:
    steps = [{"from": 1, "functions": 0}, {"from": 2, "functions": 1234}, {"from": 4, "functions": 5}]
    said = Page(columns_of_complexity(steps)).text
    assert [text for text in said if text in {"1", "2–3", "4+"}] == ["1", "2–3", "4+"]  # noqa: RUF001
    assert "1,234" in said
    Page(columns_of_complexity([{"from": 1, "functions": 0}]))


def test_points_stay_inside_and_names_do_not_overlap() -> None:
    packages = [(f"package-{i}", package(functions=10 + i, mean=50.0)) for i in range(8)]
    packages.append(("huge", package(functions=10**6, mean=400.0)))
    svg = scatter_of_packages(packages)
    page = Page(svg)
    assert all(
        0 <= float(c["cx"] or -1) <= 640 and 0 <= float(c["cy"] or -1) <= 340 for c in page.all("circle")
    )
    names = re.findall(r'class="name"[^>]*>([^<]*)<', svg)
    assert "huge" in names
    assert len([name for name in names if name.startswith("package-")]) == 1
