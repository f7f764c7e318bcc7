"""How far the run is: bars on a terminal, one line a step elsewhere."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.settings import Settings, Suite


class Teller:
    """One bar for each suite; `console` may be no terminal."""

    def __init__(self, console: Console, suites: list[Suite], settings: Settings) -> None:
        self._console = console
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._titles = {suite.name: suite.title for suite in suites}
        self._totals = {suite.name: suite.steps(settings) for suite in suites}
        self._begun = dict.fromkeys(self._totals, 0)
        self._bars = {
            name: self._progress.add_task(self._titles[name], total=total, start=False)
            for name, total in self._totals.items()
        }

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def step(self, suite: str, text: str) -> None:
        """Say that the next step of a suite begins; the one before it is done."""
        if self._begun[suite] == 0:
            self._progress.start_task(self._bars[suite])
        self._progress.update(
            self._bars[suite], completed=self._begun[suite], description=f"{self._titles[suite]}: {text}"
        )
        self._begun[suite] += 1
        if not self._console.is_terminal:
            total = self._totals[suite]
            self._console.print(
                f"[{suite} {self._begun[suite]}/{total}] {text}", highlight=False, markup=False
            )

    def done(self, suite: str) -> None:
        self._progress.update(
            self._bars[suite], completed=self._totals[suite], description=self._titles[suite]
        )
        self._progress.stop_task(self._bars[suite])
