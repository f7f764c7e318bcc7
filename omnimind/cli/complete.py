"""Completion with live ids: asks the coordinator, for at most 300 ms, and says nothing when it cannot."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from omnimind.cli.session import Session, SocketLink, open_link

if TYPE_CHECKING:
    import msgspec
    from click.shell_completion import CompletionItem

CAP = 0.3
"""Seconds, from the first call to the last answer."""

_SHOWN = 50

Source = Callable[[Session], list[tuple[str, str]]]
Completer = Callable[[click.Context, click.Parameter, str], "list[CompletionItem[str]]"]


def _session(ctx: click.Context) -> Session:
    """Return a session that gives up at once. No command has run, so options are looked up by hand."""
    session = ctx.obj if isinstance(ctx.obj, Session) else Session(connect=_at_once)
    step: click.Context | None = ctx
    while step is not None:
        if step.params.get("home"):
            session.use_home(step.params["home"])
            break
        step = step.parent
    return session


def _at_once(session: Session) -> SocketLink:
    return open_link(session, patience=0.0)


def _complete(source: Source) -> Completer:
    def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
        from click.shell_completion import CompletionItem  # noqa: PLC0415

        found: list[tuple[str, str]] = []
        try:
            with _deadline(CAP):
                found = source(_session(ctx))
        except Exception:
            if os.environ.get("OMNIMIND_DEBUG", "") not in {"", "0"}:
                raise
        taken = ctx.params.get(param.name or "") or ()
        return [
            CompletionItem(name, help=text or None)
            for name, text in found
            if name.startswith(incomplete) and (isinstance(taken, str) or name not in taken)
        ][:_SHOWN]

    return complete


class _deadline:  # noqa: N801 - used as a statement
    """Ends the block with TimeoutError after some seconds, by the process's own alarm."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __enter__(self) -> None:
        import signal  # noqa: PLC0415

        def ring(_number: int, _frame: Any) -> None:
            raise TimeoutError

        self._before = signal.signal(signal.SIGALRM, ring)
        signal.setitimer(signal.ITIMER_REAL, self.seconds)

    def __exit__(self, *_: object) -> None:
        import signal  # noqa: PLC0415

        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self._before)


def _listed(statuses: tuple[str, ...] | None) -> Source:
    def source(session: Session) -> list[tuple[str, str]]:
        from omnimind.client.protocol import ListRequest  # noqa: PLC0415

        answer = session.call("list", ListRequest(status=list(statuses) if statuses else None, limit=_SHOWN))
        return [(t["task_id"], f"{t['status']} {t['task_type']}") for t in answer["items"]]

    return source


def _named(method: str, key: str, describe: Callable[[dict[str, Any]], str]) -> Source:
    def source(session: Session) -> list[tuple[str, str]]:
        request: msgspec.Struct | None = None
        return [(item[key], describe(item)) for item in session.call(method, request)]

    return source


tasks = _complete(_listed(None))
live_tasks = _complete(_listed(("pending", "running")))
ended_tasks = _complete(_listed(("failed", "cancelled", "expired", "dead", "completed")))
dead_tasks = _complete(_listed(("dead",)))
nodes = _complete(_named("nodes", "node_id", lambda n: f"{n['status']} {n['hostname']}"))
queues = _complete(_named("queues", "name", lambda q: "paused" if q["paused"] else ""))
tokens = _complete(_named("tokens", "name", lambda t: t["role"]))
schedules = _complete(_named("schedules", "name", lambda s: s["task_type"]))
types = _complete(_named("handlers", "task_type", lambda h: (h.get("doc") or "").split("\n")[0]))


def _either(session: Session) -> list[tuple[str, str]]:
    listed = _listed(None)(session)
    return listed + _named("nodes", "node_id", lambda n: f"node {n['hostname']}")(session)


tasks_and_nodes = _complete(_either)
