"""The survey as a user of OmniMind: a task for each file, results folded as they come, then the report."""

from __future__ import annotations

import asyncio
import json
import platform
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from omnimind.errors import OmniMindError
from omnimind.ids import submitted_at
from omnimind.survey.analysis import analyse_file
from omnimind.survey.files import SourceFile, Tree
from omnimind.survey.html import render
from omnimind.survey.live import Live, NodeView, Update
from omnimind.survey.output import prepare_folder, write_files
from omnimind.survey.reduce import Reduction, reason_of
from omnimind.survey.state import SurveyRun, SurveyState
from omnimind.survey.text import below

REPORT = "report.json"
PAGE = "report.html"

_TICK = 0.25
_ASK_NODES_EVERY = 4  # ticks
_RATE_SECONDS = 5.0

NodesSource = Callable[[], Awaitable[Sequence[Mapping[str, Any]]]]
"""Answers with the nodes as `NodeInfo.to_dict` has them; `AsyncClient.nodes.list` is one."""


class SurveyClient(Protocol):
    """What the survey asks of a client; `AsyncClient` is one."""

    def map(
        self,
        task: Any,
        payloads: Iterable[dict[str, Any]],
        /,
        *,
        keys: Iterable[str],
        return_exceptions: bool,
    ) -> AsyncIterator[Any]:
        """Run `task` for each payload and yield a `TaskResult` for each, in order of completion."""


async def survey(
    client: SurveyClient,
    tree: Tree,
    *,
    out: Path,
    state: SurveyState,
    live: Live,
    nodes: NodesSource | None = None,
) -> dict[str, Any]:
    """Analyse the files of `tree` and return the report, which then lies in `out` as JSON and as a page.

    A survey that was interrupted, in whatever way, goes on when it is started again over the same roots: what
    ended before is taken from the ledger, what was submitted is not submitted again, and files that changed
    meanwhile are analysed anew. Only when the report is written is the survey over.

    nodes: asked each second, for the display.

    Raises InvalidInput when `out` cannot be written to, and whatever the client raises; not for a file that
    fails, which is counted and listed in the report.
    """
    prepare_folder(out)
    run = state.begin(tree.roots)
    drive = _Drive(tree.files, run, live)
    live.begin(len(tree.files))
    ticking = asyncio.create_task(drive.tick(nodes))
    try:
        if run.is_resumed:
            live.note("going on with the survey that was interrupted: what is done is not done again")
        await drive.through(client)
    finally:
        ticking.cancel()
        with suppress(asyncio.CancelledError):
            await ticking
        drive.show()
        live.end()
    report = drive.report(tree)
    write_files(out, {REPORT: to_json(report), PAGE: render(report)})
    state.finish(tree.roots)
    return report


def to_json(report: Mapping[str, Any]) -> str:
    return json.dumps(report, indent=2) + "\n"


class _Drive:
    """One start of a survey: sends tasks, folds what comes back, and tells the display."""

    def __init__(self, files: Sequence[SourceFile], run: SurveyRun, live: Live) -> None:
        self._files = files
        self._run = run
        self._live = live
        self._reduction = Reduction()
        self._seen = bytearray(len(files))
        self._recent: deque[tuple[float, int]] = deque()
        self._nodes: Sequence[NodeView] | None = ()
        self._seen_nodes: set[str] = set()
        self._most_nodes = 1
        self._taken_over = 0
        self._began = time.perf_counter()
        self._started = datetime.now(UTC)

    async def through(self, client: SurveyClient) -> None:
        """See every file to its end. Raises OmniMindError when a result is missing, or comes twice."""
        payloads = ({"path": file.path, "root": file.root} for file in self._files)
        keys = (self._run.key_of(file) for file in self._files)
        async for outcome in client.map(analyse_file, payloads, keys=keys, return_exceptions=True):
            self._take(outcome)
        missing = self._seen.count(0)
        if missing:
            raise OmniMindError(f"the runtime gave no result for {missing:,} of {len(self._files):,} files")

    def _take(self, outcome: Any) -> None:
        file = self._files[outcome.index]
        if self._seen[outcome.index]:
            raise OmniMindError(f"the runtime gave two results for {file.path}")
        self._seen[outcome.index] = 1
        submitted = submitted_at(outcome.task_id)
        if submitted is not None and submitted < self._started.timestamp() - 1e-3:
            self._taken_over += 1
        if outcome.status == "completed":
            self._reduction.add(outcome.result)
        else:
            reason = _reason(outcome)
            self._reduction.fail(file.path, file.root, reason)
            self._live.failure(below(file.path, [file.root]), reason)

    async def tick(self, nodes: NodesSource | None) -> None:
        """Keep the display fresh until cancelled, also while no result comes."""
        ticks = 0
        asking: asyncio.Task[None] | None = None
        try:
            while True:
                if nodes is not None and ticks % _ASK_NODES_EVERY == 0 and (asking is None or asking.done()):
                    asking = asyncio.create_task(self._ask(nodes))
                ticks += 1
                self.show()
                await asyncio.sleep(_TICK)
        finally:
            if asking is not None:
                asking.cancel()

    async def _ask(self, nodes: NodesSource) -> None:
        try:
            found = await nodes()
        except (OmniMindError, OSError):
            self._nodes = None
        else:
            up = {node["node_id"] for node in found if node["status"] != "offline"}
            self._seen_nodes |= up
            self._most_nodes = max(self._most_nodes, len(up))
            # A node that went offline before this survey began is no news.
            self._nodes = [_view(node) for node in found if node["node_id"] in self._seen_nodes]

    def show(self) -> None:
        """Tell the display how far it is."""
        now, total = time.perf_counter(), self._reduction.total
        self._recent.append((now, total.files))
        while len(self._recent) > 2 and now - self._recent[0][0] > _RATE_SECONDS:  # noqa: PLR2004 - two for a rate
            self._recent.popleft()
        since, before = self._recent[0]
        rate = (total.files - before) / (now - since) if now > since else 0.0
        self._live.update(
            Update(
                done=total.files, failed=total.failed, total=len(self._files), rate=rate, nodes=self._nodes
            )
        )

    def report(self, tree: Tree) -> dict[str, Any]:
        return self._reduction.report(
            seconds=time.perf_counter() - self._began,
            not_read=tree.problems,
            started=self._started.isoformat(sep=" ", timespec="seconds"),
            python=platform.python_version(),
            nodes=self._most_nodes,
            resumed=self._taken_over,
            roots=list(tree.roots),
        )


def _view(node: Mapping[str, Any]) -> NodeView:
    return NodeView(
        name=node.get("hostname") or node["node_id"],
        status=node["status"],
        slots=node["max_concurrent_tasks"],
        busy=node["current_tasks"],
    )


def _reason(outcome: Any) -> str:
    """Say why a task ended without a result; a file's own fault reads as in the plain run."""
    details: Mapping[str, Any] = outcome.error.details
    kind, message = details.get("error_type") or "", details.get("error_message") or ""
    if outcome.status == "failed" and kind:
        return reason_of(kind, message)
    said = reason_of(kind, message) if kind else message or details.get("cause") or outcome.error.message
    return f"{outcome.status}: {said}"
