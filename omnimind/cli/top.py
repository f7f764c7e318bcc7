"""`omnimind top`: the live view."""

from __future__ import annotations

import select
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import click

from omnimind.cli import snapshot
from omnimind.cli.options import current_output, read
from omnimind.cli.output import View, wants_colour
from omnimind.cli.session import Session
from omnimind.cli.table import terminal_width

QUIT = frozenset({"q", "Q", "\x03", "\x04", "\x1b"})
PLAIN_WIDTH = 160


@click.command()
@click.option("--once", is_flag=True, help="Print one page and return; so it does where no terminal is.")
@click.option(
    "--interval",
    "-i",
    type=click.FloatRange(min=0.2),
    default=1.0,
    show_default=True,
    help="Seconds between two looks.",
)
@read()
def top(session: Session, once: bool, interval: float) -> View:
    """Watch nodes, queues, running tasks and failures live; q quits."""
    output = current_output()
    first = snapshot.take(session)
    if output.format == "table" and not once and sys.stdout.isatty() and sys.stdin.isatty():
        _live(session, first, interval)
        return View(data={}, text="")
    colour = sys.stdout.isatty() and wants_colour() is not False
    page = ""
    if output.format == "table" and not output.fields:
        from omnimind.cli.top_view import text  # noqa: PLC0415

        page = text(first, str(session.home), colour=colour, width=terminal_width() or PLAIN_WIDTH)
    return View(data=first.to_dict(), text=page or None, key="status.coordinator_node_id")


def _live(session: Session, now: snapshot.Snapshot, interval: float) -> None:
    from rich.console import Console  # noqa: PLC0415
    from rich.live import Live  # noqa: PLC0415

    from omnimind.cli.top_view import History, screen  # noqa: PLC0415

    history = History()
    home = str(session.home)
    console = Console(no_color=wants_colour() is False, highlight=False)
    with keys(), Live(console=console, screen=True, auto_refresh=False, vertical_overflow="crop") as live:
        while True:
            before = history.add(now)
            live.update(screen(now, before, list(history.rates), home), refresh=True)
            if _quit_within(interval):
                return
            now = snapshot.again(session, now)


@contextmanager
def keys() -> Iterator[None]:
    """Give the terminal's keys to us one by one, unseen, and give them back afterwards."""
    import termios  # noqa: PLC0415
    import tty  # noqa: PLC0415

    before = termios.tcgetattr(sys.stdin)
    tty.setcbreak(sys.stdin)
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def _quit_within(seconds: float) -> bool:
    """Return whether a key that quits is pressed within so many seconds."""
    import os  # noqa: PLC0415

    until = time.monotonic() + seconds
    try:
        while (left := until - time.monotonic()) > 0:
            ready, _, _ = select.select([sys.stdin], [], [], left)
            if ready:
                typed = os.read(sys.stdin.fileno(), 64).decode(errors="replace")
                if not typed or typed in QUIT:
                    return True
    except KeyboardInterrupt:
        return True
    return False
