"""Fold the results of single files into the report. The order in which they come does not matter."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from omnimind.survey.analysis import COMPLEXITY_STEPS, package_of

Entry = dict[str, Any]

_REASON_MAX = 500
KEPT = 20
"""How many entries a list of extremes has in the report."""
KEPT_WARNINGS = 200
"""How many warnings are listed; all are counted."""

_SUMS = (
    "bytes",
    "lines",
    "code",
    "comments",
    "blank",
    "functions",
    "classes",
    "public",
    "undocumented",
    "warnings",
)
OF_THE_RUN = frozenset({"seconds", "started", "python", "resumed", "nodes", "roots"})
"""Keys of a report that tell of the run: times and places. All others are the same for the same files."""


@dataclass(slots=True)
class Extremes:
    """The first `kept` of many entries by a total order, in bounded space."""

    order: Callable[[Entry], tuple[Any, ...]]
    kept: int = KEPT
    entries: list[Entry] = field(default_factory=list)

    def add(self, entries: Iterable[Entry]) -> None:
        self.entries.extend(entries)
        if len(self.entries) > 4 * self.kept:
            self._cut()

    def first(self) -> list[Entry]:
        self._cut()
        return self.entries

    def _cut(self) -> None:
        self.entries.sort(key=self.order)
        del self.entries[self.kept :]


@dataclass(slots=True)
class Sums:
    """Totals of a package, or of all."""

    files: int = 0
    failed: int = 0
    complexity: int = 0
    complexity_max: int = 0
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(_SUMS, 0))

    def add(self, result: Entry) -> None:
        self.files += 1
        self.complexity += result["complexity"]["total"]
        self.complexity_max = max(self.complexity_max, result["complexity"]["max"])
        for name in _SUMS:
            self.counts[name] += result[name]

    def fail(self) -> None:
        self.files += 1
        self.failed += 1

    def to_dict(self) -> Entry:
        return {
            "files": self.files,
            "failed": self.failed,
            **self.counts,
            "complexity": {
                "total": self.complexity,
                "mean": _ratio(self.complexity, self.counts["functions"]),
                "max": self.complexity_max,
            },
        }


class Reduction:
    """The fold: `add` each result, `fail` each file without one, then take the `report`.

    `files` counts every file handed in, also those that `failed`; all other totals are of those that did not.
    """

    def __init__(self) -> None:
        self.total = Sums()
        self._packages: dict[str, Sums] = {}
        self._histogram = [0] * len(COMPLEXITY_STEPS)
        self._failures: list[dict[str, str]] = []
        self._most_complex = Extremes(lambda e: (-e["complexity"], e["path"], e["line"], e["name"]))
        self._largest = Extremes(lambda e: (-e["lines"], e["path"]))
        self._undocumented = Extremes(lambda e: (-e["undocumented"], e["path"]))
        self._warnings = Extremes(
            lambda e: (e["path"], e["line"], e["category"], e["message"]), kept=KEPT_WARNINGS
        )

    def add(self, result: Entry) -> None:
        """Count what `analyse_file` returned for one file."""
        self.total.add(result)
        self._packages.setdefault(result["package"], Sums()).add(result)
        for index, count in enumerate(result["complexity"]["histogram"]):
            self._histogram[index] += count
        place = {"path": result["path"], "package": result["package"]}
        self._most_complex.add({**place, **function} for function in result["complexity"]["most"])
        self._warnings.add({**place, **warning} for warning in result["warnings_listed"])
        self._largest.add([{**place, "lines": result["lines"], "bytes": result["bytes"]}])
        if result["undocumented"]:
            names = [entry["name"] for entry in result["undocumented_names"]]
            counts = {"undocumented": result["undocumented"], "public": result["public"], "names": names}
            self._undocumented.add([{**place, **counts}])

    def fail(self, path: str, root: str, reason: str) -> None:
        """Count a file that has no result, and say why."""
        self.total.fail()
        package, _ = package_of(path, root)
        self._packages.setdefault(package, Sums()).fail()
        self._failures.append({"path": path, "reason": reason})

    def report(self, *, seconds: float, not_read: Iterable[str] = (), **of_the_run: Any) -> Entry:
        """Return the report, with JSON values only.

        not_read: folders that could not be looked into, with the reason. of_the_run: see `OF_THE_RUN`.
        """
        total = self.total.to_dict()
        counts = self.total.counts
        documented = counts["public"] - counts["undocumented"]
        return {
            **total,
            "seconds": round(seconds, 3),
            **of_the_run,
            "complexity": {
                **total["complexity"],
                "histogram": [
                    {"from": step, "functions": count}
                    for step, count in zip(COMPLEXITY_STEPS, self._histogram, strict=True)
                ],
            },
            "documented_percent": _ratio(100 * documented, counts["public"]),
            "most_complex": self._most_complex.first(),
            "largest_files": self._largest.first(),
            "least_documented": self._undocumented.first(),
            "warnings_listed": self._warnings.first(),
            "failures": sorted(self._failures, key=lambda f: (f["path"], f["reason"])),
            "folders_not_read": sorted(not_read),
            "by_package": {name: self._packages[name].to_dict() for name in sorted(self._packages)},
        }


def totals(report: Entry) -> Entry:
    """Return the report without what differs between two runs over the same files."""
    return {key: value for key, value in report.items() if key not in OF_THE_RUN}


def reason_of(kind: str, message: str) -> str:
    """Return one line that says why a file failed: the exception's class and its message."""
    short = kind.rpartition(".")[2]
    text = " ".join(message.split())[:_REASON_MAX]
    return f"{short}: {text}" if text else short


def _ratio(numerator: int, denominator: int) -> float:
    return round(numerator / denominator, 2) if denominator else 0.0
