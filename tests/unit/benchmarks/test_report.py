"""Partial runs are put together without mixing what does not belong together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from benchmarks import show
from benchmarks.figures import Figure
from benchmarks.report import Report, merge, read, write

MACHINE = {
    "cpu": "Some CPU",
    "cores": 2,
    "memory_gib": 24,
    "system": "Linux",
    "python": "3.11.7",
    "disk": "ext4",
}
ORDER = ["peers", "core", "status"]


def a_report(*names: str, commit: str = "aaa", value: float = 1.0) -> Report:
    figures = tuple(Figure(name=name, value=value, unit="x", must=">= 1") for name in names)
    suites = {figure.suite: {"commit": commit} for figure in figures}
    return Report(
        when="2026-01-02T03:04:05+00:00", commit=commit, machine=MACHINE, suites=suites, figures=figures
    )


def test_a_partial_run_replaces_its_suite_as_a_whole_and_keeps_the_others() -> None:
    old = a_report("peers.ratio.noop.dask", "core.decisions", "core.growth", "status.p99")
    new = a_report("core.decisions", commit="bbb", value=2.0)
    merged = merge(old, new, ORDER)
    assert [(figure.name, figure.value) for figure in merged.figures] == [
        ("peers.ratio.noop.dask", 1.0),
        ("core.decisions", 2.0),
        ("status.p99", 1.0),
    ]
    assert [(name, facts["commit"]) for name, facts in merged.suites.items()] == [
        ("peers", "aaa"),
        ("core", "bbb"),
        ("status", "aaa"),
    ]
    assert merged.commit == "bbb"


def test_nothing_is_kept_from_another_machine() -> None:
    old = replace(a_report("peers.ratio.noop.dask"), machine={**MACHINE, "cores": 64})
    new = a_report("core.decisions")
    assert merge(old, new, ORDER) == new


def test_another_speed_of_the_same_disk_is_the_same_machine() -> None:
    old = replace(a_report("peers.ratio.noop.dask"), machine={**MACHINE, "disk": "ext4, slower today"})
    assert len(merge(old, a_report("core.decisions"), ORDER).figures) == 2


def test_the_first_run_needs_no_file(tmp_path: Path) -> None:
    path = tmp_path / "results" / "latest.json"
    assert read(path) is None
    report = a_report("core.decisions")
    write(merge(read(path), report, ORDER), path)
    assert read(path) == report


def test_the_markdown_names_every_asked_figure_and_the_machine() -> None:
    report = a_report(
        "peers.throughput.noop.omnimind",
        "peers.throughput.noop.dask",
        "peers.ratio.noop.dask",
        "core.decisions",
    )
    text = show.markdown(report)
    assert "| Dask distributed | 1 (1x) |" in text
    assert "| `core.decisions` | 1 x | >= 1 | yes |" in text
    assert "Some CPU, 2 cores, 24 GiB" in text


def test_numbers_are_short_and_counts_are_exact() -> None:
    assert show.number(1_000_000) == "1,000,000"
    assert show.number(23_456.7) == "23,500"
    assert show.number(1.2345, "ms") == "1.23 ms"
    assert show.number(0.81) == "0.81"
    assert show.number(158.4) == "158"
