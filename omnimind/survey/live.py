"""What a person sees of a survey while it runs, on stderr: a live display on a terminal, lines elsewhere.

The driver tells a `Live` what happened; nothing here asks anybody for anything.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TextIO

from omnimind.survey.text import clip, printable

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

INTERVAL = 5.0
"""Seconds between two lines where there is no terminal."""
FAILURES_SHOWN = 50
"""Failures shown as they come; all of them stand in the report."""
_LINE = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeView:
    """A node as the display shows it."""

    name: str
    status: str
    slots: int
    busy: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """How far the survey is. `done` counts failed files too; `rate` is tasks a second of late.

    nodes: None while nobody answers, as when the coordinator restarts.
    """

    done: int
    failed: int
    total: int
    rate: float
    nodes: Sequence[NodeView] | None


class Live(Protocol):
    """A display of one survey: `begin`, then any of the others, then `end`, also after an error."""

    def begin(self, total: int) -> None:
        """Open the display."""

    def note(self, text: str) -> None:
        """Say something that is worth a line of its own."""

    def failure(self, path: str, reason: str) -> None:
        """Show a file that failed."""

    def update(self, update: Update) -> None:
        """Show how far it is; may be called as often as one likes."""

    def end(self) -> None:
        """Close the display; the last update stays."""


def open_live(stream: TextIO, environ: Mapping[str, str] = os.environ) -> Live:
    """Return the display that fits `stream`: for terminals that can move the cursor, or plain lines.

    NO_COLOR (https://no-color.org) takes the colours away, TERM=dumb the terminal.
    """
    if not stream.isatty() or environ.get("TERM", "dumb") == "dumb":
        return LineLive(stream)
    from rich.console import Console  # noqa: PLC0415 - a tenth of a second, for terminals only

    return TerminalLive(Console(file=stream, no_color=bool(environ.get("NO_COLOR")), highlight=False))


def summary(update: Update) -> str:
    """Return an update in one line."""
    percent = 100 * update.done // update.total if update.total else 100
    said = [f"{update.done:,} of {update.total:,} files ({percent} %)", f"{update.failed:,} failed"]
    said.append(f"{update.rate:,.0f} tasks/s")
    if update.nodes is None:
        said.append("waiting for the coordinator")
    else:
        up = [node for node in update.nodes if node.status != "offline"]
        busy, slots = sum(node.busy for node in up), sum(node.slots for node in up)
        noun = "node" if len(up) == 1 else "nodes"
        said.append(f"{len(up):,} {noun}, {busy:,} of {slots:,} slots busy")
    return ", ".join(said)


class LineLive:
    """A line every `INTERVAL` seconds, one per failure, one at the end: for logs and pipes."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._next = clock()
        self._failures = 0
        self._last: Update | None = None

    def begin(self, total: int) -> None:
        """Open the display."""
        self._say(f"survey of {total:,} files")
        self._next = self._clock() + INTERVAL

    def note(self, text: str) -> None:
        """Say something that is worth a line of its own."""
        self._say(text)

    def failure(self, path: str, reason: str) -> None:
        """Show a file that failed."""
        self._failures += 1
        if self._failures <= FAILURES_SHOWN:
            self._say(f"failed: {_failure(path, reason)}")
        elif self._failures == FAILURES_SHOWN + 1:
            self._say("more files failed; all are listed in the report")

    def update(self, update: Update) -> None:
        """Show how far it is, when it is time for that."""
        self._last = update
        if self._clock() >= self._next:
            self._next = self._clock() + INTERVAL
            self._say(summary(update))

    def end(self) -> None:
        """Say how far it came."""
        if self._last is not None:
            self._say(summary(self._last))

    def _say(self, text: str) -> None:
        self._stream.write(f"{text}\n")
        self._stream.flush()


class TerminalLive:
    """A bar, figures and the nodes at the foot of the terminal; failures scroll by above them."""

    def __init__(self, console: Console) -> None:
        from rich.live import Live as Foot  # noqa: PLC0415 - see `open_live`

        self._console = console
        self._began = time.monotonic()
        self._failures = 0
        self._last = Update(done=0, failed=0, total=0, rate=0.0, nodes=())
        self._foot = Foot(console=console, get_renderable=self._render, refresh_per_second=8)

    def begin(self, total: int) -> None:
        """Open the display."""
        self._began = time.monotonic()
        self._last = Update(done=0, failed=0, total=total, rate=0.0, nodes=())
        self._foot.start()

    def note(self, text: str) -> None:
        """Say something that is worth a line of its own."""
        self._print(text, "dim")

    def failure(self, path: str, reason: str) -> None:
        """Show a file that failed."""
        self._failures += 1
        if self._failures <= FAILURES_SHOWN:
            self._print(f"✗ {_failure(path, reason)}", "red")
        elif self._failures == FAILURES_SHOWN + 1:
            self._print("more files failed; all are listed in the report", "red")

    def update(self, update: Update) -> None:
        """Show how far it is, at the next refresh."""
        self._last = update

    def end(self) -> None:
        """Close the display; the last update stays."""
        self._foot.stop()

    def _print(self, text: str, style: str) -> None:
        from rich.text import Text  # noqa: PLC0415 - see `open_live`

        self._console.print(Text(text, style=style), soft_wrap=True)

    def _render(self) -> RenderableType:
        from rich.console import Group  # noqa: PLC0415 - see `open_live`
        from rich.progress_bar import ProgressBar  # noqa: PLC0415
        from rich.table import Table  # noqa: PLC0415
        from rich.text import Text  # noqa: PLC0415

        last = self._last
        percent = 100 * last.done // last.total if last.total else 0
        row = Table.grid(padding=(0, 2))
        bar = ProgressBar(total=max(last.total, 1), completed=last.done, width=36)
        row.add_row(bar, Text(f"{percent} %", "bold"), f"{last.done:,} of {last.total:,} files", self._rest())
        figures = Text(f"{last.rate:,.0f} tasks/s", "cyan")
        figures.append(f"   {last.failed:,} failed", "red" if last.failed else "dim")
        lines: list[RenderableType] = [row, figures]
        if last.nodes is None:
            lines.append(Text("waiting for the coordinator", "yellow"))
        lines.extend(_node(node) for node in last.nodes or ())
        return Group(*lines)

    def _rest(self) -> str:
        last, spent = self._last, time.monotonic() - self._began
        if not last.done or last.done == last.total or last.rate <= 0:
            return f"{_clock(spent)}"
        return f"{_clock(spent)}, about {_clock((last.total - last.done) / last.rate)} left"


def _node(node: NodeView) -> RenderableType:
    from rich.text import Text  # noqa: PLC0415 - see `open_live`

    style = "green" if node.status in {"active", "busy"} else "yellow"
    text = Text("● ", style).append(f"{clip(printable(node.name), 32)}  ", "bold")
    text.append(f"{node.status}  ", style)
    shown = min(node.slots, 32)
    filled = round(shown * node.busy / node.slots) if node.slots > 0 else 0
    text.append("■" * filled, "cyan").append("□" * (shown - filled), "dim")
    return text.append(f"  {node.busy} of {node.slots} slots", "dim")


def _failure(path: str, reason: str) -> str:
    return clip(printable(f"{path}: {reason}"), _LINE)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"
