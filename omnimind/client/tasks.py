"""The verbs on tasks that exist: result, wait, cancel, retry, explain, list, logs."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable
from typing import Any, Generic, Literal, NamedTuple, TypeVar

from omnimind import encoding
from omnimind.client.base import Caller
from omnimind.client.handle import AsyncHandle, LogLine
from omnimind.client.options import HasId, task_id_of
from omnimind.client.protocol import IdsRequest, ListRequest, LogsRequest, NameRequest, Result
from omnimind.client.results import value_of
from omnimind.cluster.states import TaskStatus
from omnimind.errors import InvalidInput, NotFound

R = TypeVar("R")
H = TypeVar("H", bound="str | HasId")
Task = str | HasId
Info = dict[str, Any]
Infos = list[Info]
ReturnWhen = Literal["all", "any", "failure"]

_LOG_PAGE = 500
_LOG_PAUSE = 0.5
_PAGE = 200


class Waited(NamedTuple, Generic[H]):
    """What `wait` found, each in the order of its argument."""

    done: list[H]
    pending: list[H]


class TaskVerbs(Caller):
    """What can be done with tasks. Where a task is asked for, a handle or an id will do."""

    def handle(self, task: Task) -> AsyncHandle[Any]:
        """Return a handle of a task that was submitted earlier, here or elsewhere; nothing is asked."""
        return AsyncHandle(self, task_id_of(task))

    async def result(self, task: Task, timeout: float | None = None) -> Any:
        """Return a task's result, waiting for it. Raises TaskFailed and its kinds, WaitTimeout, NotFound."""
        return value_of(await self.watcher.result(task_id_of(task), timeout))

    async def wait(
        self, tasks: Iterable[H], return_when: ReturnWhen = "all", timeout: float | None = None
    ) -> Waited[H]:
        """Wait for tasks to end, whatever the end is; return which have and which have not.

        return_when: ``all`` of them have ended, ``any`` has, or ``failure``: one has ended without a result
        (or all have). timeout: seconds after which it returns in any case. Raises NotFound, Pruned.
        """
        if return_when not in ("all", "any", "failure"):
            raise InvalidInput(f"{return_when!r} is none of all, any, failure", field="return_when")
        given = list(tasks)
        futures = [self.watcher.future(task_id_of(task, "tasks")) for task in given]
        settled: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        left = len(futures)

        def ended(future: asyncio.Future[Result]) -> None:
            nonlocal left
            left -= 1
            if settled.done() or future.cancelled():
                return
            bad = future.exception() is not None or future.result().status != "completed"
            if not left or return_when == "any" or future.exception() or (bad and return_when == "failure"):
                settled.set_result(None)

        for future in futures:
            future.add_done_callback(ended)
        try:
            if futures:
                await asyncio.wait({settled}, timeout=timeout)
            done: list[H] = []
            pending: list[H] = []
            for task, future in zip(given, futures, strict=True):
                if not future.done():
                    pending.append(task)
                    continue
                result = future.result()
                if isinstance(task, AsyncHandle):
                    task.learn(result)
                done.append(task)
            return Waited(done, pending)
        finally:
            for future in futures:
                future.cancel()

    async def task(self, task: Task) -> Info:
        """Return all that is kept of a task, as `omnimind task show` prints it.

        Payload and result are decoded; where that fails (a class that is not here) they are left as bytes.
        """
        found = await self.ask("tasks", IdsRequest(ids=[task_id_of(task)]))
        if not found:
            raise NotFound(f"there is no task {task_id_of(task)}")
        info: Info = found[0]
        for name in ("payload", "result"):
            info[name] = _decoded(info.get(name), info.get(f"{name}_encoding", encoding.JSON))
        return info

    async def status(self, task: Task) -> TaskStatus:
        """Return where a task is now."""
        return TaskStatus((await self.task(task))["status"])

    async def progress(self, task: Task) -> Info:
        """Return the handler's last word on its progress: {"status", "progress", "at"}."""
        answer: Info = await self.ask("progress", NameRequest(name=task_id_of(task)))
        return answer

    async def attempts(self, task: Task) -> Infos:
        """Return the attempts of a task that did not succeed, oldest first."""
        answer: Infos = await self.ask("attempts", NameRequest(name=task_id_of(task)))
        return answer

    async def explain(self, subject: Task) -> Info:
        """Return why a task or a node (by its id) is where it is.

        The keys: kind, id, status, verdict (one sentence), facts, checks (node by node), story.
        """
        name = subject if isinstance(subject, str) else task_id_of(subject)
        answer: Info = await self.ask("explain", NameRequest(name=name))
        return answer

    async def cancel(self, task: Task, *, reason: str = "", plan: bool = False) -> str:
        """End a task. Returns what was done.

        ``cancelled``: it was waiting and will not run. ``cancelling``: it runs and was asked to stop; after a
        grace its worker is killed. Otherwise the status in which it had ended before. plan: say so only.
        """
        return (await self.on_ids("cancel", [task], reason=reason, plan=plan))[task_id_of(task)]

    async def cancel_many(
        self, tasks: Iterable[Task], *, reason: str = "", plan: bool = False
    ) -> dict[str, str]:
        """End several tasks; returns what was done, by id, in the words of `cancel`."""
        return await self.on_ids("cancel", tasks, reason=reason, plan=plan)

    async def retry(self, task: Task, *, reason: str = "") -> AsyncHandle[Any]:
        """Submit a task that has ended again, as a new one. Raises Conflict when it has not ended."""
        answer = await self.on_ids("retry", [task], reason=reason)
        return AsyncHandle(self, answer[task_id_of(task)])

    async def on_ids(
        self, method: str, tasks: Iterable[Task], *, reason: str = "", plan: bool = False
    ) -> dict[str, str]:
        """Call a method that takes ids and answers by id."""
        ids = [task_id_of(task) for task in tasks]
        if not ids:
            return {}
        request = IdsRequest(ids=ids, plan=plan, actor=self.actor, reason=reason)
        answer: dict[str, str] = await self.ask(method, request)
        return answer

    async def pages(
        self,
        *,
        status: str | Iterable[str] | None = None,
        queue: str | None = None,
        task_type: str | None = None,
        node: str | None = None,
        since: float | None = None,
        until: float | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[Infos]:
        """Yield what `list` yields, by the page."""
        request = ListRequest(
            status=_statuses(status), queue=queue, task_type=task_type, node=node, since=since, until=until
        )
        left = limit
        while left is None or left > 0:
            request.limit = _PAGE if left is None else min(left, _PAGE)
            answer = await self.ask("list", request)
            if answer["items"]:
                yield answer["items"]
            if left is not None:
                left -= len(answer["items"])
            request.cursor = answer["next"]
            if request.cursor is None:
                return

    async def list(self, **filters: Any) -> AsyncIterator[Info]:
        """Yield tasks, newest first, without payloads and results.

        filters: status (one or several), queue, task_type, node, since and until (Unix seconds of the
        submission), limit.
        """
        async for page in self.pages(**filters):
            for task in page:
                yield task

    async def logs(self, task: Task, *, follow: bool = False) -> AsyncIterator[LogLine]:
        """Yield the lines that a task logged; with `follow`, those to come too, until it has ended."""
        name = task_id_of(task)
        request = LogsRequest(task_id=name, limit=_LOG_PAGE)
        end = self.watcher.future(name) if follow else None
        last = end is None
        try:
            while True:
                over = end is None or end.done()
                lines = [LogLine(*line) for line in await self.ask("logs", request)]
                for line in lines:
                    request.after = line.number
                    yield line
                if len(lines) == _LOG_PAGE:
                    continue
                if last or end is None:
                    return
                if over:
                    # The last lines of a short attempt travel beside its result, and may come after it.
                    last = True
                    await asyncio.sleep(_LOG_PAUSE)
                else:
                    await asyncio.wait({end}, timeout=_LOG_PAUSE)
        finally:
            if end is not None:
                end.cancel()


def _decoded(value: Any, tag: str) -> Any:
    if isinstance(value, bytes):
        with contextlib.suppress(Exception):
            return encoding.decode(value, tag)
    return value


def _statuses(status: str | Iterable[str] | None) -> list[str] | None:
    if status is None:
        return None
    names = [status] if isinstance(status, str) else list(status)
    for name in names:
        if name not in TaskStatus.__members__.values():
            known = ", ".join(TaskStatus)
            raise InvalidInput(f"{name!r} is no status of a task", field="status", hint=f"they are: {known}")
    return names
