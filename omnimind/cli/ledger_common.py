"""What the commands of `omnimind ledger` share: which ledger is meant, and the bar of long work."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any, Self

import click

from omnimind.cli.options import current_output
from omnimind.cli.output import say
from omnimind.cli.session import Session

if TYPE_CHECKING:
    from omnimind.config import Settings
    from omnimind.config.sections import LedgerSettings

_WIDTH = 30
_TTY_EVERY, _LOG_EVERY = 0.1, 5.0


def url_option(function: Any) -> Any:
    """Add the option that names another ledger than the settings do."""
    return click.option(
        "--url",
        metavar="URL",
        default=None,
        help="Another ledger than the settings name: postgresql://…; sqlite for the file of the home.",
    )(function)


def settings_of(session: Session) -> Settings:
    """Return the settings in effect: those of the running instance, else those that the next start takes."""
    from omnimind.config import effective, load  # noqa: PLC0415
    from omnimind.instance import Paths, running  # noqa: PLC0415

    paths = Paths(session.home)
    return effective(paths.settings) if running(paths) is not None else load(session.home)


def ledger_of(session: Session, url: str | None) -> LedgerSettings:
    """Return which ledger is meant, and how it is reached."""
    import msgspec  # noqa: PLC0415

    found = settings_of(session).ledger
    if url is None:
        return found
    return msgspec.structs.replace(found, url="" if url in {"", "sqlite"} else url)


class Bar:
    """Shows progress on stderr: a bar on a terminal, a line now and then elsewhere, nothing for a program."""

    def __init__(self) -> None:
        self._quiet = current_output().structured
        self._tty = sys.stderr.isatty()
        self._next = time.monotonic() + (_TTY_EVERY if self._tty else _LOG_EVERY)
        self._shown = False

    def __call__(self, what: str, done: int, total: int) -> None:
        now = time.monotonic()
        if self._quiet or now < self._next:
            return
        self._next = now + (_TTY_EVERY if self._tty else _LOG_EVERY)
        part = min(1.0, done / total) if total else 1.0
        if self._tty:
            filled = round(part * _WIDTH)
            bar = "#" * filled + "-" * (_WIDTH - filled)
            click.echo(f"\r{what:<10} [{bar}] {part:4.0%}\x1b[K", err=True, nl=False)
            self._shown = True
        else:
            say(f"{what} {part:.0%}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._shown:
            click.echo("\r\x1b[K", err=True, nl=False)
