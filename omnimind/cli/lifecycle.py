"""What `up` and `demo` share: settings from flags, starting with progress, and the end by Ctrl-C."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

import click

from omnimind.cli.output import Output, say
from omnimind.cli.session import Session
from omnimind.errors import AlreadyRunning, StartTimeout

if TYPE_CHECKING:
    from omnimind.config import Settings
    from omnimind.launch import Instance

_ENDING = (signal.SIGTERM, signal.SIGHUP)


def instance_options(function: Any) -> Any:
    """Add the options that say how an instance is started."""
    for option in (
        click.option(
            "--set", "given", multiple=True, metavar="KEY=VALUE", help="A setting; see omnimind config."
        ),
        click.option(
            "--num-gpus", type=click.IntRange(min=0), help="GPUs that tasks may use.  [all there are]"
        ),
        click.option(
            "--num-cpus", type=click.IntRange(min=1), help="Cores that tasks may use.  [all there are]"
        ),
    ):
        function = option(function)
    return function


def settings_of(
    session: Session, num_cpus: int | None, num_gpus: int | None, given: tuple[str, ...]
) -> Settings:
    """Return the settings of the home with the flags on top. Raises ConfigError."""
    from omnimind.config import load  # noqa: PLC0415

    flags: dict[str, str] = {}
    for text in given:
        key, sep, value = text.partition("=")
        if not sep:
            raise click.BadParameter(f"{text!r} is not KEY=VALUE", param_hint="--set")
        flags[key.strip()] = value
    if num_cpus is not None:
        flags["ray.num_cpus"] = str(num_cpus)
    if num_gpus is not None:
        flags["ray.num_gpus"] = str(num_gpus)
    return load(session.home, flags)


def progress(output: Output) -> Callable[[str], None]:
    """Return what prints the supervisor's progress: nothing where a program reads along."""
    if output.structured:
        return lambda _: None
    began = time.monotonic()
    return lambda text: say(f"{click.style(f'{time.monotonic() - began:5.1f} s', dim=True)}  {text}")


def wait_ready(found: Instance, settings: Settings) -> Instance:
    """Wait for an instance that somebody else starts. Raises StartTimeout, AlreadyRunning when it ends."""
    from omnimind.launch import find  # noqa: PLC0415

    give_up = time.monotonic() + settings.instance.start_timeout
    current: Instance | None = found
    while current is not None and current.record.state in {"starting", "restarting"}:
        if time.monotonic() > give_up:
            raise StartTimeout(f"the instance in {found.home} is {current.record.state} for too long")
        time.sleep(0.1)
        current = find(found.home)
    if current is None or current.record.state != "ready":
        raise AlreadyRunning(
            f"the instance in {found.home} is just being stopped", hint="try again in a moment"
        )
    return current


def _interrupt(_number: int, _frame: Any) -> NoReturn:
    raise KeyboardInterrupt


@contextmanager
def ending_as_interrupts() -> Iterator[None]:
    """Let SIGTERM and SIGHUP (a closed terminal) end the block as Ctrl-C does."""
    before = {number: signal.signal(number, _interrupt) for number in _ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def stop(instance: Instance, output: Output) -> None:
    """Stop an instance; another Ctrl-C meanwhile makes it hurry."""
    tell = progress(output)
    tell("stopping what was started")
    while True:
        try:
            report = instance.stop()
        except KeyboardInterrupt:
            tell("hurrying")
        else:
            tell(f"stopped after {report.seconds:.1f} s" + (" (killed)" if report.killed else ""))
            return
