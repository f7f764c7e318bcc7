"""The results file: put together from runs, written, and read again."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.figures import Figure
from benchmarks.machine import IDENTITY

RESULTS = Path(__file__).resolve().parent / "results"


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What `latest.json` holds. `suites` says of each suite when, at which commit and how it was measured."""

    when: str
    commit: str
    machine: Mapping[str, Any]
    versions: Mapping[str, str] = field(default_factory=dict)
    suites: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    figures: tuple[Figure, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return {
            "when": self.when,
            "commit": self.commit,
            "machine": dict(self.machine),
            "versions": dict(self.versions),
            "suites": {name: dict(facts) for name, facts in self.suites.items()},
            "figures": [figure.to_dict() for figure in self.figures],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Report:
        figures = tuple(Figure.from_dict(figure) for figure in data["figures"])
        return cls(
            **{
                **{key: data[key] for key in ("when", "commit", "machine", "versions", "suites")},
                "figures": figures,
            }
        )

    def same_machine(self, other: Report) -> bool:
        return all(self.machine.get(key) == other.machine.get(key) for key in IDENTITY)


def merge(old: Report | None, new: Report, order: Sequence[str]) -> Report:
    """Return `new` with the suites that only `old` has, in the order of `order`.

    A suite is replaced as a whole, so that its ratios always come from one run. Nothing is kept from another
    machine.
    """
    if old is None or not old.same_machine(new):
        return new
    suites = {**old.suites, **new.suites}
    kept = [figure for figure in old.figures if figure.suite not in new.suites]
    figures = sorted([*kept, *new.figures], key=lambda figure: _place(order, figure.suite))
    return Report(
        when=new.when,
        commit=new.commit,
        machine=new.machine,
        versions={**old.versions, **new.versions},
        suites={name: suites[name] for name in sorted(suites, key=lambda name: _place(order, name))},
        figures=tuple(figures),
    )


def _place(order: Sequence[str], name: str) -> int:
    return order.index(name) if name in order else len(order)


def asked(figures: Iterable[Figure]) -> list[Figure]:
    """Return the figures that must reach something."""
    return [figure for figure in figures if figure.must is not None]


def read(path: Path) -> Report | None:
    return Report.from_dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None


def write(report: Report, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report.to_dict(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
