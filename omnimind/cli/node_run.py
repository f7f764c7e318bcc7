"""`omnimind node run`: make this machine a host of a cluster."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from omnimind.cli import lifecycle
from omnimind.cli.changes import Change, Effect
from omnimind.cli.options import write
from omnimind.cli.output import View
from omnimind.cli.session import Session
from omnimind.cli.times import Duration
from omnimind.cli.up import launched


@click.command()
@click.option("--address", required=True, metavar="HOST:PORT", help="The head's; `omnimind up` shows it.")
@click.option(
    "--token-file", "source", metavar="FILE",
    help="The head's HOME/ray-token; -: standard input.  [the one this home has, else Ray's own]",
)  # fmt: skip
@click.option(
    "--labels", metavar="K=V,…", help="Labels of this node, which tasks may need.  [the setting ray.labels]"
)
@click.option(
    "--patience", type=Duration(), default=None,
    help="Give up when the head has not been reached by then.  [for ever; detached: instance.start_timeout]",
)  # fmt: skip
@click.option("--detach", "-d", is_flag=True, help="Return when it has joined; `omnimind down` ends it.")
@lifecycle.instance_options
@write()
def run(
    session: Session,
    address: str,
    source: str | None,
    labels: str | None,
    patience: float | None,
    detach: bool,
    **flags: Any,
) -> Change:
    """Make this machine a host of a cluster, and keep it one.

    It joins the head's Ray and takes work. When the head has given this host up, or was away for long, it
    joins again, as a new node. It stays in the foreground and leaves the cluster with Ctrl-C, unless it is
    detached.
    """
    from omnimind import joining, launch  # noqa: PLC0415
    from omnimind.instance import Paths  # noqa: PLC0415

    if labels is not None:
        flags["given"] = (*flags["given"], f"ray.labels={labels}")
    settings = lifecycle.settings_of(session, **flags)
    if detach and patience is None:
        patience = settings.instance.start_timeout
    join = joining.Join.parse(address, patience)

    def plan() -> list[Effect]:
        home = str(session.home)
        if (found := launch.find(session.home)) is not None:
            note = f"pid {found.record.supervisor.pid}, {found.record.ray_address}"
            return [Effect(home, "join", "running", "running", note)]
        return [Effect(home, "join", "not running", f"host of {join.address}")]

    def apply() -> View | None:
        given = None if source is None else _token(source)
        joining.take_token(Paths(session.home), given, source or "")
        return launched(session, settings, detach=detach, join=join)

    return Change(plan, apply)


def _token(source: str) -> str:
    from omnimind.joining import read_token_file  # noqa: PLC0415

    return sys.stdin.read(8192) if source == "-" else read_token_file(Path(source))
