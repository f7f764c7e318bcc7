"""`Service`: the methods of `omnimind.client.protocol`, carried out on an `Engine`.

One method of the class for each method of the protocol; a request in, a value for msgpack out, errors
raised. What reads or changes tasks is here; queues, schedules, nodes and the rest are in `admin`.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from actors.engine import Engine
from actors.watching import Watchers
from omnimind.client import protocol as p
from omnimind.cluster import events as ev
from omnimind.cluster.records import (
    ATTEMPT_COLUMNS,
    AuditSaved,
    BlobSaved,
    Discarded,
    HandlerSaved,
    Record,
    task_from_row,
)
from omnimind.cluster.states import TaskStatus
from omnimind.cluster.status import explain_node, explain_task, running_tasks
from omnimind.cluster.task import DEFAULT_OPTIONS, DistributedTask, TaskOptions
from omnimind.errors import (
    Conflict,
    InvalidInput,
    NotFound,
    PayloadTooLarge,
    UnknownTaskType,
)
from omnimind.ids import SLAB_MAX, new_slab, slab_of, task_id
from omnimind.ledger.interface import TaskFilter
from omnimind.ledger.retention import missing
from omnimind.registry import MAX_NAME, HandlerSpec

KEY_MAX = 1_024
LIST_MAX = 500


def task_view(task: DistributedTask) -> dict[str, Any]:
    """Return a task as the protocol shows it."""
    view = task.to_dict()
    view["payload_encoding"] = task.encoding
    view["result_encoding"] = task.result_encoding
    return view


def _slim(task: DistributedTask) -> dict[str, Any]:
    """Return a task as lists show it: without payload and result."""
    view = task_view(task)
    view["payload"] = view["result"] = None
    return view


class Service:
    """Carries out the protocol's methods that concern tasks and code."""

    def __init__(self, engine: Engine, watchers: Watchers) -> None:
        self.engine = engine
        self.watchers = watchers
        self._handlers: dict[str, tuple[HandlerSpec, TaskOptions]] = {}
        self._current: dict[str, str] | None = None
        self.learned: Callable[[str, bytes], None] = lambda _digest, _spec: None
        self.progress_of: Callable[[str], dict[str, Any] | None] = lambda _task: None

    # --- code -------------------------------------------------------------------------------------

    async def _types(self) -> dict[str, str]:
        if self._current is None:
            known = await self.engine.read(self.engine.ledger.handlers)
            self._current = {task_type: digest for task_type, (digest, _) in known.items()}
        return self._current

    async def handler(self, digest: str) -> tuple[HandlerSpec, TaskOptions]:
        """Return a handler's record and the options that its defaults make."""
        found = self._handlers.get(digest)
        if found is None:
            data = await self.engine.read(self.engine.ledger.handler, digest)
            if data is None:
                raise NotFound(
                    f"there is no handler {digest}", field="handler", hint="register it again, by submitting"
                )
            spec = msgspec.json.decode(data, type=HandlerSpec)
            self.learned(digest, data)
            found = self._handlers[digest] = (spec, _options(DEFAULT_OPTIONS, spec, digest, None))
        return found

    async def register(self, request: p.HandlerRequest) -> dict[str, Any]:
        """Store a handler's record, and say which blobs are missing."""
        try:
            spec = msgspec.json.decode(request.spec, type=HandlerSpec)
        except msgspec.MsgspecError as error:
            raise InvalidInput(f"this is no handler's record: {error}", field="spec") from None
        if not 0 < len(spec.task_type) <= MAX_NAME:
            raise InvalidInput(f"a task type has 1 to {MAX_NAME} characters", field="task_type")
        digest = hashlib.sha256(request.spec).hexdigest()[:32]
        types = await self._types()
        if types.get(spec.task_type) != digest:
            await self.engine.ask(lambda n: ev.Note(n, HandlerSaved(digest, spec.task_type, request.spec)))
            types[spec.task_type] = digest
        blobs = [b for b in (spec.blob, spec.package) if b]
        lacking = [b for b in blobs if await self.engine.read(self.engine.ledger.blob, b) is None]
        return {"digest": digest, "missing": lacking}

    async def blob_put(self, request: p.BlobRequest) -> None:
        """Store bytes by their digest."""
        data = request.data or b""
        if hashlib.sha256(data).hexdigest()[: len(request.digest)] != request.digest:
            raise InvalidInput("the digest is not that of the data", field="digest")
        await self.engine.ask(lambda n: ev.Note(n, BlobSaved(request.digest, data)))

    async def blob_get(self, request: p.BlobRequest) -> bytes:
        """Return stored bytes."""
        data: bytes | None = await self.engine.read(self.engine.ledger.blob, request.digest)
        if data is None:
            raise NotFound(f"there are no stored bytes {request.digest}", field="digest")
        return data

    async def handlers(self, _request: p.Empty) -> list[dict[str, Any]]:
        """Return every task type's current handler."""
        known = await self.engine.read(self.engine.ledger.handlers)
        return [msgspec.json.decode(spec) | {"digest": digest} for _, (digest, spec) in sorted(known.items())]

    # --- submitting -------------------------------------------------------------------------------

    async def submit(self, request: p.SubmitRequest) -> p.SubmitAnswer:
        """Accept a slab of tasks."""
        tasks = await self.tasks_of(request, self.engine.clock.now())
        if request.watch:
            self.watchers.expect(t.task_id for t in tasks)
        try:
            accepted = await self.engine.submit(tasks)
        except BaseException:
            self.watchers.forget(t.task_id for t in tasks)
            raise
        return p.SubmitAnswer(accepted.count, accepted.existing)

    async def tasks_of(self, request: p.SubmitRequest, now: float) -> list[DistributedTask]:
        """Return the tasks that a request describes; raises InvalidInput naming the field."""
        _check_request(request)
        digest = request.handler or (await self._types()).get(request.task_type)
        if digest is None:
            raise _unknown_type(request.task_type, await self._types())
        spec, options = await self.handler(digest)
        if request.options:
            options = _options(options, spec, digest, request.options)
        defaults = spec.defaults
        needs = frozenset(request.needs if request.needs is not None else defaults.get("needs", ()))
        not_before = request.not_before or 0.0
        if request.delay:
            not_before = now + request.delay
        deadline = now + request.ttl if request.ttl is not None else request.deadline

        def value(name: str, otherwise: Any) -> Any:
            given = getattr(request, name)
            return given if given is not None else defaults.get(name, otherwise)

        priority, queue = value("priority", 5), value("queue", "default")
        retries, timeout = value("max_retries", 3), value("timeout", None)
        at_most_once, after = value("at_most_once", False), tuple(request.after)
        keys = request.keys
        try:
            return [
                DistributedTask(
                    task_id(request.slab, index), request.task_type, payload, priority, queue, needs,
                    retries, timeout, deadline, not_before, keys[index] if keys else None, after,
                    at_most_once, options, request.encoding,
                )
                for index, payload in enumerate(request.payloads)
            ]  # fmt: skip
        except ValueError as error:
            raise InvalidInput(str(error), field="priority") from None

    # --- results ----------------------------------------------------------------------------------

    async def watch(self, request: p.WatchRequest) -> p.WatchAnswer:
        """Wait for results; see the protocol."""
        found = self.watchers.take(request.ids)
        missing_ids = [i for i in request.ids if i not in found and self.engine.core.live(i) is None]
        watch = self.watchers.open(request.ids, found)
        try:
            if missing_ids:
                await self._from_disk(missing_ids, watch)
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
        usage = await self.engine.read(self.engine.ledger.usage)
        return missing(id_, usage.pruned_before)

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
                items.append(_slim(task))
                last = task.seq
            cursor = page.next_seq
            if cursor is None or len(items) >= request.limit or not live:
                break
        usage = await self.engine.read(self.engine.ledger.usage) if cursor is None else None
        before = usage.pruned_before if usage else None
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
            and (request.cursor is None or t.seq < request.cursor)
        ]
        page = found[: request.limit]
        more = page[-1].seq if len(found) > len(page) else None
        return {"items": [_slim(t) for t in page], "next": more, "truncated_before": None}

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
        told["story"].sort(key=lambda entry: entry["at"] or now)
        return told

    # --- changing ---------------------------------------------------------------------------------

    async def cancel(self, request: p.IdsRequest) -> dict[str, str]:
        """End tasks; see the protocol."""
        before = {t.task_id: t for t in await self.find_tasks(request.ids)}
        if request.plan:
            return {i: _would_cancel(t) for i, t in before.items()}
        ended = {i: t.status.value for i, t in before.items() if t.terminal}

        def make(number: int) -> ev.Cancel:
            rows = self.engine.gate.load(request.ids, self.engine.core.tasks, self.engine.ledger)
            return ev.Cancel(number, request.ids, rows)

        done = (await self.engine.ask(make)).detail
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
                task_id(new_slab()), task.task_type, task.payload, task.priority, task.queue, task.needs,
                task.max_retries, task.timeout, None, 0.0, None, (), task.at_most_once, task.options,
                task.encoding, f"retry_of:{task.task_id}",
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
        return {
            "register": self.register,
            "blob_put": self.blob_put,
            "blob_get": self.blob_get,
            "handlers": self.handlers,
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


def _options(
    base: TaskOptions, spec: HandlerSpec, digest: str, overrides: dict[str, Any] | None
) -> TaskOptions:
    given = dict(overrides if overrides is not None else spec.defaults.get("options", {}))
    unknown = sorted(set(given) - set(TaskOptions.__struct_fields__) | ({"handler", "kind"} & set(given)))
    if unknown:
        raise InvalidInput(f"there is no option {unknown[0]!r}", field=f"options.{unknown[0]}")
    merged = msgspec.structs.asdict(base) | given | {"handler": digest, "kind": spec.kind}
    try:
        options = msgspec.convert(list(merged.values()), TaskOptions)
    except msgspec.ValidationError as error:
        raise InvalidInput(f"options: {error}", field="options") from None
    for name in ("retry_base", "retry_factor", "retry_cap", "num_cpus", "num_gpus", "memory"):
        value = getattr(options, name)
        if not 0 <= value < float("inf"):
            raise InvalidInput(f"{name} is 0 or more, not {value!r}", field=f"options.{name}")
    return options


def _check_request(request: p.SubmitRequest) -> None:
    if len(request.slab) != len(new_slab()) or not request.slab.startswith("tsk_"):
        raise InvalidInput("a slab is made by omnimind.ids.new_slab", field="slab")
    slab_of(request.slab + "0000")
    if not 0 < len(request.payloads) <= SLAB_MAX:
        raise InvalidInput(f"a submission has 1 to {SLAB_MAX} tasks", field="payloads")
    if request.keys is not None and len(request.keys) != len(request.payloads):
        raise InvalidInput("there are not as many keys as payloads", field="keys")
    for key in request.keys or ():
        if key is not None and not 0 < len(key) <= KEY_MAX:
            raise InvalidInput(f"a key has 1 to {KEY_MAX} characters", field="key")
    largest = max(map(len, request.payloads))
    if largest > p.PAYLOAD_MAX:
        raise PayloadTooLarge(
            f"{largest:,} bytes of payload; the limit is {p.PAYLOAD_MAX:,}", field="payload"
        )
    if request.encoding not in {"json", "pickle"}:
        raise InvalidInput(f"there is no encoding {request.encoding!r}", field="encoding")
    for name in ("delay", "ttl", "not_before", "deadline", "timeout"):
        value = getattr(request, name)
        if value is not None and not -1e12 < value < 1e12:  # noqa: PLR2004 (NaN and infinities too)
            raise InvalidInput(f"{value!r} is no time", field=name)
    if request.delay is not None and request.delay < 0:
        raise InvalidInput(f"a delay is 0 or more seconds, not {request.delay!r}", field="delay")


def _unknown_type(task_type: str, known: dict[str, str]) -> UnknownTaskType:
    close = difflib.get_close_matches(task_type, list(known), 1)
    hint = (
        f"did you mean {close[0]}?" if close else "submit it once from Python, or see: omnimind handler list"
    )
    return UnknownTaskType(
        f"no handler is registered under {task_type[:200]!r}", field="task_type", hint=hint
    )
