"""The part of the fake coordinator that takes code and tasks in, and runs them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec

from omnimind import encoding
from omnimind.client import protocol as p
from omnimind.cluster.events import Outcome
from omnimind.cluster.policies import QueuePolicy
from omnimind.cluster.sends import Batch, BatchItem
from omnimind.cluster.states import TaskStatus
from omnimind.cluster.task import DEFAULT_OPTIONS, DistributedTask, TaskOptions, payload_digest
from omnimind.errors import InvalidInput, KeyConflict, NotFound, UnknownQueue, UnknownTaskType
from omnimind.ids import digest_of, task_id
from omnimind.pulse import Pulse
from omnimind.registry import HandlerSpec
from omnimind.runner import run_batch

_ENDS = {"ok": TaskStatus.COMPLETED, "cancelled": TaskStatus.CANCELLED, "crashed": TaskStatus.DEAD}
_OF_HANDLER = ("priority", "queue", "needs", "max_retries", "timeout", "at_most_once")


class FakeWork:
    """Code and tasks, in memory."""

    def __init__(self, *, run: bool, now: Callable[[], float] = time.time) -> None:
        self.run = run
        self.now = now
        self.tasks: dict[str, DistributedTask] = {}
        self.specs: dict[str, HandlerSpec] = {}
        self.types: dict[str, str] = {}
        self.blobs: dict[str, bytes] = {}
        self.lines: dict[str, list[tuple[int, float, str, str]]] = {}
        self.said: dict[str, dict[str, Any]] = {}
        """The last progress of each task."""
        self.failures: dict[str, list[dict[str, Any]]] = {}
        """The attempts of each task that did not succeed."""
        self.queue_policies = {"default": QueuePolicy("default")}
        self.changed = asyncio.Event()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="omnimind-fake")
        self._running: set[asyncio.Task[None]] = set()

    def close(self) -> None:
        """End the thread that runs handlers."""
        for task in self._running:
            task.cancel()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def end(
        self,
        task: str,
        value: Any = None,
        *,
        status: str = "completed",
        error: dict[str, Any] | None = None,
        cause: str = "",
    ) -> None:
        """End a task as a worker would; `value` is its result when the status is ``completed``."""
        ended = self.tasks[task]
        if status == "completed":
            ended.result, ended.result_encoding = encoding.encode(value, "result")
        ended.error = error
        self._ended(ended, TaskStatus(status), cause)

    def find_task(self, name: str) -> DistributedTask:
        """Return a task. Raises NotFound."""
        task = self.tasks.get(name)
        if task is None:
            raise NotFound(f"there is no task {name}", field="task")
        return task

    def add(self, task: DistributedTask) -> None:
        """Take a task in, and run it where that is wanted."""
        task.seq, task.created_at = len(self.tasks) + 1, self.now()
        self.tasks[task.task_id] = task
        if self.run:
            work = asyncio.get_running_loop().create_task(self._work(task))
            self._running.add(work)
            work.add_done_callback(self._running.discard)

    def do_register(self, request: p.HandlerRequest) -> dict[str, Any]:
        spec = msgspec.json.decode(request.spec, type=HandlerSpec)
        digest = digest_of(request.spec)
        self.specs[digest] = spec
        self.types[spec.task_type] = digest
        missing = [b for b in (spec.blob, spec.package) if b and b not in self.blobs]
        return {"digest": digest, "missing": missing}

    def do_blob_put(self, request: p.BlobRequest) -> None:
        data = request.data or b""
        if digest_of(data) != request.digest:
            raise InvalidInput("the digest is not that of the data", field="digest")
        self.blobs[request.digest] = data

    def do_blob_get(self, request: p.BlobRequest) -> bytes:
        if request.digest not in self.blobs:
            raise NotFound(f"there are no stored bytes {request.digest}", field="digest")
        return self.blobs[request.digest]

    def do_handlers(self, _request: p.Empty) -> list[dict[str, Any]]:
        return [
            msgspec.to_builtins(self.specs[digest]) | {"digest": digest}
            for _, digest in sorted(self.types.items())
        ]

    def do_submit(self, request: p.SubmitRequest) -> p.SubmitAnswer:
        fresh = self.tasks_of(request)
        by_key = {task.key: task for task in self.tasks.values() if task.key}
        existing: dict[int, str] = {}
        for index, task in enumerate(fresh):
            other = by_key.setdefault(task.key, task) if task.key else task
            if other.digest != task.digest:
                raise KeyConflict(f"the key {task.key!r} stands for another payload", field="key")
            if other.task_id != task.task_id:
                existing[index] = other.task_id
        for index, task in enumerate(fresh):
            if index not in existing and task.task_id not in self.tasks:
                self.add(task)
        return p.SubmitAnswer(len(fresh), existing)

    def tasks_of(self, request: p.SubmitRequest) -> list[DistributedTask]:
        """Return the tasks that a submission describes. Raises UnknownTaskType, UnknownQueue."""
        digest = request.handler or self.types.get(request.task_type)
        if digest is None:
            raise UnknownTaskType(f"no handler is registered under {request.task_type!r}", field="task_type")
        if digest not in self.specs:
            raise NotFound(f"there is no handler {digest}", field="handler")
        spec = self.specs[digest]
        fields = {f: v for f in _OF_HANDLER if (v := getattr(request, f)) is not None}
        fields = {f: v for f, v in spec.defaults.items() if f in _OF_HANDLER} | fields
        if fields.get("queue", "default") not in self.queue_policies:
            raise UnknownQueue(f"there is no queue {fields['queue']!r}", field="queue")
        options = msgspec.to_builtins(msgspec.structs.asdict(DEFAULT_OPTIONS))
        options |= spec.defaults.get("options", {}) | (request.options or {})
        options |= {"handler": digest, "kind": spec.kind}
        shared = {
            **fields,
            "options": msgspec.convert(list(options.values()), TaskOptions),
            "deadline": request.deadline if request.ttl is None else self.now() + request.ttl,
            "not_before": self.now() + request.delay if request.delay else request.not_before or 0.0,
            "after": tuple(request.after),
            "encoding": request.encoding,
        }
        tasks = [
            DistributedTask(task_id(request.slab, i), request.task_type, payload, **shared)
            for i, payload in enumerate(request.payloads)
        ]
        for task, key in zip(tasks, request.keys or [None] * len(tasks), strict=True):
            task.key, task.digest = key, payload_digest(task)
        return tasks

    async def _work(self, task: DistributedTask) -> None:
        loop = asyncio.get_running_loop()
        while task.status is TaskStatus.PENDING:
            task.status, task.started_at, task.assigned_node = TaskStatus.RUNNING, self.now(), "nod_1"
            outcome = await loop.run_in_executor(self._pool, self._attempt, task)
            if task.terminal:
                return  # the test or a cancel was faster
            if outcome.status != "ok":
                self.failures.setdefault(task.task_id, []).append(
                    {"attempt": task.retry_count, "cause": outcome.status, "error": outcome.error}
                )
            error = outcome.error or {}
            names = {name.rpartition(".")[2] for name in error.get("bases", ())} | {*error.get("bases", ())}
            final = names & set(task.options.non_retryable) or task.retry_count >= task.max_retries
            if outcome.status in ("error", "timeout") and not final:
                task.retry_count += 1
                task.status = TaskStatus.PENDING
                continue
            task.result, task.result_encoding, task.error = outcome.value, outcome.encoding, outcome.error
            self._ended(task, _ENDS.get(outcome.status, TaskStatus.FAILED), outcome.status)

    def _ended(self, task: DistributedTask, status: TaskStatus, cause: str) -> None:
        task.status, task.cause, task.completed_at = status, cause or status.value, self.now()
        self.changed.set()
        self.changed = asyncio.Event()

    def _attempt(self, task: DistributedTask) -> Outcome:
        item = BatchItem(
            task.task_id,
            task.payload,
            task.encoding,
            task.retry_count,
            task.timeout,
            task.deadline,
            task.checkpoint,
        )
        wire = _Wire(self, task)
        left = run_batch(
            Batch(1, task.task_type, task.options, (), (item,)), self.specs[task.options.handler], wire
        )
        return (wire.outcomes + left)[-1]


class _Wire:
    """What the runner takes for its line to a node."""

    def __init__(self, fake: FakeWork, task: DistributedTask) -> None:
        self._fake = fake
        self._task = task
        self.outcomes: list[Outcome] = []

    def pulse(self, data: bytes) -> bytes:
        pulse = msgspec.msgpack.decode(data, type=Pulse, strict=False)
        self.outcomes += pulse.outcomes
        for value in pulse.progress.values():
            self._fake.said[self._task.task_id] = value
        lines = self._fake.lines.setdefault(self._task.task_id, [])
        lines += [(len(lines) + n, *line[1:]) for n, line in enumerate(pulse.logs, 1)]
        return msgspec.msgpack.encode({0: "cancelled"} if self._task.terminal else {})

    def blob(self, digest: str) -> bytes:
        return self._fake.blobs[digest]

    def checkpoint(self, _task_id: str, _fence: int, data: bytes) -> None:
        self._task.checkpoint = data
