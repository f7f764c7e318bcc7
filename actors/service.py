"""`Service`: the methods of `omnimind.client.protocol`, carried out on an `Engine`.

One method of the class for each method of the protocol; a request in, a value for msgpack out, errors
raised. What reads or changes tasks is here; queues, schedules, nodes and the rest are in `admin`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from actors.code import Code
from actors.elastic import Scaling
from actors.engine import Engine
from actors.sharded import Sharded
from actors.watching import Watchers
from omnimind.client import protocol as p
from omnimind.cluster import events as ev
from omnimind.cluster.records import (
    ATTEMPT_COLUMNS,
    AuditSaved,
    Discarded,
    Record,
    task_from_row,
)
from omnimind.cluster.sharding import bucket_of
from omnimind.cluster.states import TaskStatus
from omnimind.cluster.status import explain_node, explain_task, running_tasks
from omnimind.cluster.task import DistributedTask
from omnimind.errors import (
    Conflict,
    InvalidInput,
    NotFound,
)
from omnimind.ids import bucket_in, new_slab, task_id
from omnimind.ledger.interface import TaskFilter
from omnimind.ledger.retention import missing

LIST_MAX = 500
_READ_RESULTS = 64


def task_view(task: DistributedTask) -> dict[str, Any]:
    """Return a task as the protocol shows it."""
    view = task.to_dict()
    view["payload_encoding"] = task.encoding
    view["result_encoding"] = task.result_encoding
    return view


def _slim(task: DistributedTask, request: p.ListRequest) -> dict[str, Any]:
    """Return a task as lists show it: without payload and result."""
    view = task_view(task)
    view["payload"] = view["result"] = None
    if request.numbered:
        view["seq"] = task.seq
    return view


class Service:
    """Carries out the protocol's methods that concern tasks, and by its `code` those that concern code."""

    def __init__(self, engine: Engine, watchers: Watchers) -> None:
        self.engine = engine
        self.watchers = watchers
        self.code = Code(engine)
        self.progress_of: Callable[[str], dict[str, Any] | None] = lambda _task: None
        self.scaling: Scaling | None = None
        self.sharded: Sharded | None = None
        """What it is among several shards; None where there is one."""

    # --- submitting -------------------------------------------------------------------------------

    async def submit(self, request: p.SubmitRequest) -> p.SubmitAnswer:
        """Accept a slab of tasks."""
        tasks = await self.code.tasks_of(request, self.engine.clock.now())
        if request.watch:
            self.watchers.expect(t.task_id for t in tasks)
        try:
            self._check_slab(request.slab, tasks[0].queue)
            if self.sharded is None:
                accepted = await self.engine.submit(tasks)
            else:
                accepted = await self.sharded.submit(tasks)
        except BaseException:
            self.watchers.forget(t.task_id for t in tasks)
            raise
        return p.SubmitAnswer(accepted.count, accepted.existing)

    def _check_slab(self, slab: str, queue: str) -> None:
        """Refuse ids that say another bucket than their queue's: they would lead to another shard one day."""
        bucket = bucket_in(slab)
        if bucket is not None and bucket != bucket_of(queue):
            msg = f"these ids are not for queue {queue!r}"
            hint = "make them with ids.new_slab(bucket_of(queue)), or new_slab() where the queue is not known"
            raise InvalidInput(msg, field="slab", hint=hint)

    # --- results ----------------------------------------------------------------------------------

    async def watch(self, request: p.WatchRequest) -> p.WatchAnswer:
        """Wait for results; see the protocol. Large ones come in several answers."""
        found = self.watchers.take(request.ids)
        missing_ids = [i for i in request.ids if i not in found and self.engine.core.live(i) is None]
        watch = self.watchers.open(request.ids, found)
        try:
            for start in range(0, len(missing_ids), _READ_RESULTS):
                if not watch.full:
                    await self._from_disk(missing_ids[start : start + _READ_RESULTS], watch)
            await watch.wait(request.timeout, request.linger)
            return p.WatchAnswer(list(watch.results.values()))
        finally:
            self.watchers.close(watch)

    async def _from_disk(self, ids: list[str], watch: Any) -> None:
        # In two steps: what ends between the read and the look at memory is announced to the watch.
        rows = {row[1]: row for row in await self.engine.read(self.engine.ledger.tasks, ids)}
        for id_ in ids:
            row = rows.get(id_)
            if row is not None:
                task = task_from_row(row)
                if task.terminal:
                    watch.add(task)
            elif self.engine.core.live(id_) is None and id_ not in watch.results:
                raise await self._missing(id_)

    async def _missing(self, id_: str) -> NotFound:
        if self.sharded is not None:
            self.sharded.check_id(id_)
        return missing(id_, await self.engine.read(self.engine.ledger.pruned_before))

    # --- reading ----------------------------------------------------------------------------------

    async def find_tasks(self, ids: list[str]) -> list[DistributedTask]:
        """Return tasks by id, as memory knows them where it does; raises NotFound or Pruned."""
        held = {i: t for i in ids if (t := self.engine.core.live(i)) is not None}
        rest = [i for i in ids if i not in held]
        rows = await self.engine.read(self.engine.ledger.tasks, rest) if rest else []
        stored = {row[1]: task_from_row(row) for row in rows}
        found: list[DistributedTask] = []
        for id_ in ids:
            task = self.engine.core.live(id_) or held.get(id_) or stored.get(id_)
            if task is None:
                raise await self._missing(id_)
            found.append(task)
        return found

    async def tasks(self, request: p.IdsRequest) -> list[dict[str, Any]]:
        """Return tasks by id."""
        return [task_view(t) for t in await self.find_tasks(request.ids)]

    async def list_tasks(self, request: p.ListRequest) -> dict[str, Any]:
        """Return a page of tasks, newest first; memory knows the states better than the rows do."""
        if not 0 < request.limit <= LIST_MAX:
            raise InvalidInput(f"a page has 1 to {LIST_MAX} tasks", field="limit")
        if isinstance(request.cursor, str):
            raise InvalidInput("a cursor of one shard is a number", field="cursor")
        status = tuple(request.status) if request.status else None
        if status == ("running",):
            return self._list_running(request)
        live = status is not None and bool({"pending", "running"} & set(status))
        asked = tuple({*status, "pending", "running"}) if live and status else status
        where = TaskFilter(
            asked,
            request.queue,
            request.task_type,
            None if live else request.node,
            request.since,
            request.until,
            # Discarded dead letters are not on the list of dead letters.
            discarded=False if status == ("dead",) else None,
        )
        items: list[dict[str, Any]] = []
        cursor = last = request.cursor
        while True:
            page = await self.engine.read(self.engine.ledger.list, where, cursor, request.limit)
            for row in page.rows:
                task = self.engine.core.live(row[1]) or task_from_row(row)
                if status is not None and task.status.value not in status:
                    continue
                if request.node is not None and task.assigned_node != request.node:
                    continue
                if len(items) == request.limit:
                    return {"items": items, "next": last, "truncated_before": None}
                items.append(_slim(task, request))
                last = task.seq
            cursor = page.next_seq
            if cursor is None or len(items) >= request.limit or not live:
                break
        before = await self.engine.read(self.engine.ledger.pruned_before) if cursor is None else None
        return {"items": items, "next": cursor, "truncated_before": before}

    def _list_running(self, request: p.ListRequest) -> dict[str, Any]:
        """Return running tasks from memory: on disk they stand among all that wait."""
        found = [
            t
            for t in running_tasks(self.engine.core)
            if request.queue in (None, t.queue)
            and request.task_type in (None, t.task_type)
            and request.node in (None, t.assigned_node)
            and (request.since is None or t.created_at >= request.since)
            and (request.until is None or t.created_at < request.until)
            and (not isinstance(request.cursor, int) or t.seq < request.cursor)
        ]
        page = found[: request.limit]
        more = page[-1].seq if len(found) > len(page) else None
        return {"items": [_slim(t, request) for t in page], "next": more, "truncated_before": None}

    async def find(self, request: p.NameRequest) -> list[str]:
        """Return ids that begin with a prefix."""
        found: list[str] = await self.engine.read(self.engine.ledger.find, request.name, request.limit)
        return found

    async def attempts(self, request: p.NameRequest) -> list[dict[str, Any]]:
        """Return the attempts of a task that did not succeed."""
        await self.find_tasks([request.name])
        rows = await self.engine.read(self.engine.ledger.attempts, request.name)
        found = [dict(zip(ATTEMPT_COLUMNS, row, strict=True)) for row in rows]
        for attempt in found:
            attempt["error"] = msgspec.json.decode(attempt["error"]) if attempt["error"] else None
        return found

    async def logs(self, request: p.LogsRequest) -> list[tuple[int, float, str, str]]:
        """Return logged lines of a task."""
        await self.find_tasks([request.task_id])
        lines: list[tuple[int, float, str, str]] = await self.engine.read(
            self.engine.ledger.logs, request.task_id, request.after, request.limit
        )
        return lines

    async def progress(self, request: p.NameRequest) -> dict[str, Any]:
        """Return how far a task is, by its own word."""
        [task] = await self.find_tasks([request.name])
        value = self.progress_of(request.name)
        return {"status": task.status.value, "progress": value, "at": value["at"] if value else None}

    async def explain(self, request: p.NameRequest) -> dict[str, Any]:
        """Say why a task or a node is where it is."""
        core, now = self.engine.core, self.engine.clock.now()
        node = core.nodes.get(request.name)
        if node is not None:
            return explain_node(core, node, now)
        [task] = await self.find_tasks([request.name])
        told = explain_task(core, task, now)
        for attempt in await self.attempts(request):
            what = f"attempt {attempt['attempt'] + 1} on {attempt['node']}: {attempt['cause']}"
            told["story"].append({"at": attempt["ended_at"], "what": what})
        asked = None if self.scaling is None else self.scaling.story(self.engine, task)
        if asked is not None:
            told["verdict"] += f"; {asked['what']}"
            told["story"].append(asked)
        told["story"].sort(key=lambda entry: entry["at"] or now)
        return told

    # --- changing ---------------------------------------------------------------------------------

    async def cancel(self, request: p.IdsRequest) -> dict[str, str]:
        """End tasks; see the protocol."""
        before = {t.task_id: t for t in await self.find_tasks(request.ids)}
        if request.plan:
            return {i: _would_cancel(t) for i, t in before.items()}
        ended = {i: t.status.value for i, t in before.items() if t.terminal}

        def make(number: int, held: list[DistributedTask]) -> ev.Cancel:
            return ev.Cancel(number, request.ids, held)

        done = (await self.engine.ask_about(request.ids, make)).detail
        await self.audit(request.actor, "task.cancel", request.ids, request.reason)
        words = {"stopping": "cancelling"}
        return {i: ended.get(i) or words.get(what, what) for i, what in done.items()}

    async def retry(self, request: p.IdsRequest) -> dict[str, str]:
        """Run ended tasks again, each as a new task."""
        return await self._again(request, None, "task.retry")

    async def replay(self, request: p.IdsRequest) -> dict[str, str]:
        """Run dead letters again, each as a new task."""
        return await self._again(request, TaskStatus.DEAD, "deadletter.replay")

    async def _again(self, request: p.IdsRequest, only: TaskStatus | None, verb: str) -> dict[str, str]:
        old = await self.find_tasks(request.ids)
        for task in old:
            if not task.terminal or (only is not None and task.status is not only):
                wanted = "a dead letter" if only else "ended"
                raise Conflict(
                    f"task {task.task_id} is {task.status.value}, not {wanted}",
                    field="ids",
                    task_id=task.task_id,
                )
        new: dict[str, str] = {}
        if request.plan:
            return {t.task_id: "" for t in old}
        for task in old:
            fresh = DistributedTask(
                task_id(new_slab(bucket_of(task.queue))), task.task_type, task.payload, task.priority,
                task.queue, task.needs, task.max_retries, task.timeout, None, 0.0, None, (),
                task.at_most_once, task.options, task.encoding, f"retry_of:{task.task_id}",
            )  # fmt: skip
            await self.engine.submit([fresh])
            new[task.task_id] = fresh.task_id
        await self.audit(request.actor, verb, request.ids, request.reason)
        return new

    async def discard(self, request: p.IdsRequest) -> dict[str, str]:
        """Take dead letters off their list; their records stay."""
        old = await self.find_tasks(request.ids)
        for task in old:
            if task.status is not TaskStatus.DEAD:
                raise Conflict(f"task {task.task_id} is {task.status.value}, not a dead letter", field="ids")
        if not request.plan:
            for task in old:
                await self._note(Discarded(task.seq, self.engine.clock.now()))
            await self.audit(request.actor, "deadletter.discard", request.ids, request.reason)
        return {t.task_id: "discarded" for t in old}

    async def audit(self, actor: str, verb: str, subjects: list[str], detail: str = "") -> None:
        """Write down who changed what."""
        named = ", ".join(subjects[:5]) + (f" and {len(subjects) - 5} more" if len(subjects) > 5 else "")  # noqa: PLR2004
        record = AuditSaved(self.engine.clock.now(), actor or "unknown", verb, named, detail)
        await self._note(record)

    async def _note(self, record: Record) -> None:
        await self.engine.ask(lambda n: ev.Note(n, record))

    def methods(self) -> dict[str, Callable[[Any], Awaitable[Any]]]:
        """Return this object's part of the protocol, by method name."""
        return self.code.methods() | {
            "submit": self.submit,
            "watch": self.watch,
            "tasks": self.tasks,
            "list": self.list_tasks,
            "find": self.find,
            "attempts": self.attempts,
            "logs": self.logs,
            "progress": self.progress,
            "explain": self.explain,
            "cancel": self.cancel,
            "retry": self.retry,
            "replay": self.replay,
            "discard": self.discard,
        }


def _would_cancel(task: DistributedTask) -> str:
    if task.terminal:
        return task.status.value
    return "cancelling" if task.status is TaskStatus.RUNNING else "cancelled"
