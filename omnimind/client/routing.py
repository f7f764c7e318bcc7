"""`RoutedTransport`: a client's way to all shards. With one shard it is a way to that one, and no more.

What concerns a queue goes to the queue's shard, what concerns a task to the shard that its id says, and what
concerns everything to all of them, whose answers `merging` puts together. The number of shards is what
shard 0 said when it was last connected to; who is sent to the wrong one after a change goes again.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import msgspec

from omnimind.client import merging
from omnimind.client import protocol as p
from omnimind.client.transport import Transport
from omnimind.cluster.sharding import shard_of_bucket, shard_of_queue, shards_of_id
from omnimind.errors import Conflict, NotFound, OmniMindError, Unavailable, WrongShard
from omnimind.ids import bucket_in

_LATE = 1.0
"""Seconds that a registration waits for shards that do not answer, when the first one has."""
_LOCATED_MAX = 10_000

Make = Callable[[int], Transport]


class _Submission(msgspec.Struct):
    """What of a submission says where it goes; the rest is not decoded."""

    slab: str
    queue: str | None = None


class _Scheduled(msgspec.Struct):
    name: str
    task: _Submission


class RoutedTransport:
    """A `Transport` to all shards. first: to shard 0. make: makes one to another shard, not connected yet."""

    def __init__(self, first: Transport, make: Make) -> None:
        self._links: dict[int, Transport] = {0: first}
        self._make = make
        self._late: set[asyncio.Task[bytes]] = set()
        self._located: dict[str, int] = {}
        """Where tasks were found whose ids do not say it."""
        self._routes: dict[str, Callable[[str, bytes, float | None], Awaitable[bytes]]] = {
            "hello": self._to_first,
            "shutdown": self._to_first,
            "submit": self._submit,
            "watch": self._watch,
            "register": self._register,
            "blob_put": self._register,
            "blob_get": self._anywhere,
            "schedule": self._anywhere,
            "schedule_run": self._anywhere,
            "schedule_pause": self._anywhere,
            "schedule_resume": self._anywhere,
            "schedule_remove": self._anywhere,
            "schedule_set": self._schedule_set,
            "queue_set": self._queue,
            "queue_remove": self._queue,
            "explain": self._explain,
            "progress": self._of_task,
            "attempts": self._of_task,
            "logs": self._of_task,
            "list": self._list,
            **dict.fromkeys(("tasks", "cancel", "retry", "replay", "discard"), self._of_tasks),
        }

    @property
    def shards(self) -> int:
        """Return how many shards there are, as far as is known."""
        return int(self._links[0].info.get("shards", 1))

    @property
    def info(self) -> dict[str, Any]:
        """Return the last answer of shard 0's `hello`."""
        return self._links[0].info

    async def connect(self) -> dict[str, Any]:
        return await self._links[0].connect()

    async def close(self) -> None:
        for task in self._late:
            task.cancel()
        for link in self._links.values():
            await link.close()

    async def call(self, method: str, body: bytes, timeout: float | None = None) -> bytes:
        if self.shards == 1:
            try:
                return await self._links[0].call(method, body, timeout)
            except WrongShard:
                if self.shards == 1:
                    raise
        route = self._routes.get(method, self._everywhere)
        try:
            return await route(method, body, timeout)
        except WrongShard as error:
            # The number has changed, or the coordinator knows a queue that the request leaves to it.
            shard = error.details.get("shard")
            if method not in ("submit", "schedule_set", "queue_set", "queue_remove") or shard is None:
                return await route(method, body, timeout)
            return await self._to(int(shard), method, body, timeout)

    def split(self, ids: Iterable[str]) -> list[list[str]]:
        """Return ids in groups that are best asked about apart."""
        if self.shards == 1:
            return [list(ids)]
        groups: dict[int, list[str]] = {}
        for task_id in ids:
            shards = shards_of_id(task_id, self.shards)
            groups.setdefault(shards[0] if len(shards) == 1 else -1, []).append(task_id)
        return list(groups.values())

    # --------------------------------------------------------------------------------------- the ways

    def _to(self, shard: int, method: str, body: bytes, timeout: float | None) -> Awaitable[bytes]:
        link = self._links.get(shard)
        if link is None:
            link = self._links[shard] = self._make(shard)
        return link.call(method, body, timeout)

    def _to_first(self, method: str, body: bytes, timeout: float | None) -> Awaitable[bytes]:
        return self._to(0, method, body, timeout)

    async def _all(self, method: str, body: bytes, timeout: float | None) -> list[Any]:
        """Return the answers of all shards, in their order; raises the first error."""
        asked = (self._to(shard, method, body, timeout) for shard in range(self.shards))
        return [p.decode(answer) for answer in await asyncio.gather(*asked)]

    async def _everywhere(self, method: str, body: bytes, timeout: float | None) -> bytes:
        if method in {"node_control", "node"}:
            return p.encode(merging.merge(method, await self._where_known(method, body, timeout), body))
        return p.encode(merging.merge(method, await self._all(method, body, timeout), body))

    async def _where_known(self, method: str, body: bytes, timeout: float | None) -> list[Any]:
        """Return the answers of the shards that know a thing. Raises NotFound when none does."""
        asked = (self._to(shard, method, body, timeout) for shard in range(self.shards))
        answers = await asyncio.gather(*asked, return_exceptions=True)
        found = [p.decode(answer) for answer in answers if isinstance(answer, bytes)]
        for answer in answers:
            if isinstance(answer, BaseException) and not (isinstance(answer, NotFound) and found):
                raise answer
        return found

    async def _anywhere(self, method: str, body: bytes, timeout: float | None) -> bytes:
        """Ask one shard after the other for a thing whose name does not say where it is."""
        missing: NotFound | None = None
        for shard in range(self.shards):
            try:
                return await self._to(shard, method, body, timeout)
            except NotFound as error:
                missing = error
        assert missing is not None
        raise missing

    # --------------------------------------------------------------------------------------- submitting

    async def _submit(self, method: str, body: bytes, timeout: float | None) -> bytes:
        wanted = msgspec.msgpack.decode(body, type=_Submission)
        return await self._to(self._shard_for(wanted), method, body, timeout)

    def _shard_for(self, wanted: _Submission) -> int:
        bucket = bucket_in(wanted.slab)
        if bucket is not None:
            return shard_of_bucket(bucket, self.shards)
        # Where the handler's own queue is meant, its coordinator says where that is.
        return 0 if wanted.queue is None else shard_of_queue(wanted.queue, self.shards)

    async def _register(self, method: str, body: bytes, timeout: float | None) -> bytes:
        """Tell every shard; one that is away hears of it when it is back, and needs nobody to wait.

        A submission that comes before finds its handler unknown, and the client registers it again.
        """
        tasks = [
            asyncio.ensure_future(self._to(shard, method, body, timeout)) for shard in range(self.shards)
        ]
        done, late = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if late and any(task.exception() is None for task in done):
            more, late = await asyncio.wait(late, timeout=_LATE)
            done |= more
        elif late:
            more, late = await asyncio.wait(late)
            done |= more
        for task in late:
            self._late.add(task)
            task.add_done_callback(self._forget)
        answers = [p.decode(task.result()) for task in done if task.exception() is None]
        refused = [error for task in done if (error := task.exception()) is not None]
        refused = [error for error in refused if not (isinstance(error, Unavailable) and answers)]
        if refused:
            raise refused[0]
        return p.encode(merging.merge(method, answers, body))

    def _forget(self, task: asyncio.Task[bytes]) -> None:
        self._late.discard(task)
        if not task.cancelled():
            task.exception()  # it is registered again when it is needed

    # ---------------------------------------------------------------------------------- queues, schedules

    async def _queue(self, method: str, body: bytes, timeout: float | None) -> bytes:
        request = msgspec.msgpack.decode(body)
        name = request["policy"]["name"] if method == "queue_set" else request["name"]
        return await self._to(shard_of_queue(name, self.shards), method, body, timeout)

    async def _schedule_set(self, method: str, body: bytes, timeout: float | None) -> bytes:
        wanted = msgspec.msgpack.decode(body, type=_Scheduled)
        shard = self._shard_for(wanted.task)
        name = p.encode(p.NameRequest(wanted.name))
        for other in range(self.shards):
            if other != shard and wanted.task.queue is not None:
                with contextlib.suppress(NotFound):
                    queue = p.decode(await self._to(other, "schedule", name, timeout))["queue"]
                    msg = f"schedule {wanted.name!r} is for queue {queue!r}, which another shard keeps"
                    hint = f"remove it first: omnimind schedule remove {wanted.name}"
                    raise Conflict(msg, field="queue", hint=hint)
        return await self._to(shard, method, body, timeout)

    # --------------------------------------------------------------------------------------------- tasks

    async def _locate(self, ids: list[str], timeout: float | None) -> dict[int, list[str]]:
        """Return ids by the shard that has them; those that are nowhere by one that says so."""
        found: dict[int, list[str]] = {}
        unknown: list[str] = []
        for task_id in ids:
            shards = shards_of_id(task_id, self.shards)
            shard = shards[0] if len(shards) == 1 else self._located.get(task_id)
            if shard is None:
                unknown.append(task_id)
            else:
                found.setdefault(shard, []).append(task_id)
        if unknown:
            body = p.encode(p.IdsRequest(unknown))
            where: dict[str, int] = {}
            for shard, states in enumerate(await self._all("states", body, timeout)):
                where |= {task_id: shard for task_id, _, _ in states}
            for task_id in unknown:
                found.setdefault(where.get(task_id, 0), []).append(task_id)
            if len(self._located) > _LOCATED_MAX:
                self._located.clear()
            self._located |= where
        return found

    async def _of_task(self, method: str, body: bytes, timeout: float | None) -> bytes:
        request = msgspec.msgpack.decode(body)
        task_id = request["task_id"] if method == "logs" else request["name"]
        [shard] = await self._locate([task_id], timeout)
        return await self._to(shard, method, body, timeout)

    async def _explain(self, method: str, body: bytes, timeout: float | None) -> bytes:
        name = msgspec.msgpack.decode(body, type=p.NameRequest).name
        if name.startswith("tsk_"):
            return await self._of_task(method, body, timeout)
        return p.encode(merging.merge(method, await self._where_known(method, body, timeout), body))

    async def _of_tasks(self, method: str, body: bytes, timeout: float | None) -> bytes:
        request = msgspec.msgpack.decode(body, type=p.IdsRequest)
        groups = await self._locate(request.ids, timeout)
        if len(groups) <= 1:
            return await self._to(next(iter(groups), 0), method, body, timeout)
        if method != "tasks" and not request.plan:
            # All or nothing, as far as that can be: what one shard would refuse is not begun in another.
            plan = msgspec.structs.replace(request, plan=True)
            await self._grouped(method, groups, plan, timeout)
        return p.encode(merging.merge(method, await self._grouped(method, groups, request, timeout), body))

    async def _grouped(
        self, method: str, groups: dict[int, list[str]], request: p.IdsRequest, timeout: float | None
    ) -> list[Any]:
        asked = (
            self._to(shard, method, p.encode(msgspec.structs.replace(request, ids=ids)), timeout)
            for shard, ids in groups.items()
        )
        return [p.decode(answer) for answer in await asyncio.gather(*asked)]

    async def _watch(self, method: str, body: bytes, timeout: float | None) -> bytes:
        request = msgspec.msgpack.decode(body, type=p.WatchRequest)
        groups = await self._locate(request.ids, timeout)
        if len(groups) == 1:
            return await self._to(next(iter(groups)), method, body, timeout)
        tasks = [
            asyncio.ensure_future(
                self._to(shard, method, p.encode(msgspec.structs.replace(request, ids=ids)), timeout)
            )
            for shard, ids in groups.items()
        ]
        results: list[Any] = []
        try:
            open_: set[asyncio.Future[bytes]] = set(tasks)
            while open_ and not results:
                done, open_ = await asyncio.wait(open_, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    results += p.decode(task.result())["results"]
            if open_:
                done, open_ = await asyncio.wait(open_, timeout=request.linger)
                for task in done:
                    with contextlib.suppress(OmniMindError):  # who is away is asked again
                        results += p.decode(task.result())["results"]
        finally:
            for task in tasks:
                task.cancel()
        return p.encode({"results": results})

    async def _list(self, method: str, body: bytes, timeout: float | None) -> bytes:
        request = msgspec.msgpack.decode(body, type=p.ListRequest)
        numbered = request.numbered
        cursors = merging.cursors_of(request.cursor, self.shards)
        open_ = [shard for shard in range(self.shards) if cursors[shard] != merging.DONE]
        asked = (
            self._to(
                shard,
                method,
                p.encode(msgspec.structs.replace(request, cursor=cursors[shard], numbered=True)),
                timeout,
            )
            for shard in open_
        )
        pages = dict(zip(open_, [p.decode(a) for a in await asyncio.gather(*asked)], strict=True))
        return p.encode(merging.page(pages, cursors, request.limit, numbered=numbered))
