"""The verbs that bring work in: submit, submit_many, map."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Mapping
from typing import Any, Literal, TypeVar, overload

from omnimind.client.handle import AsyncHandle
from omnimind.client.handlers import Known
from omnimind.client.kinds import Items, Plain, Steps
from omnimind.client.mapping import WINDOW, Chunk, Delivery, Gauge, Run
from omnimind.client.options import OPTION_NAMES, check_key, request_fields
from omnimind.client.protocol import SubmitRequest
from omnimind.client.results import TaskResult
from omnimind.client.slabs import SLAB_SECONDS, SLAB_TASKS, Cutter, Keys, Slab, encode_payload
from omnimind.client.tasks import TaskVerbs
from omnimind.cluster.sharding import bucket_of
from omnimind.errors import InvalidInput
from omnimind.ids import new_slab, task_id

R = TypeVar("R")

_SENDING = 8
"""Slabs of `submit_many` that are on the way at one time."""


class Submitting(TaskVerbs):
    """What brings work in. All of it raises InvalidInput (and its kinds) naming the argument."""

    @overload
    async def submit(self, task: Steps[R], /, *args: Any, **payload: Any) -> AsyncHandle[R]: ...
    @overload
    async def submit(self, task: str, /, *args: Any, **payload: Any) -> AsyncHandle[Any]: ...
    @overload
    async def submit(self, task: Plain[R], /, *args: Any, **payload: Any) -> AsyncHandle[R]: ...
    async def submit(self, task: Any, /, *args: Any, **payload: Any) -> AsyncHandle[Any]:
        """Submit one task; when this returns, it is on disk.

        task: what `@task` made, a plain function, or the name of a registered task type. args, payload: what
        the handler is called with. A keyword with the name of an option is the option: key, priority,
        queue, needs, retries, timeout, delay, not_before, deadline, after, at_most_once, retry_base,
        retry_factor, retry_cap, non_retryable, num_cpus, num_gpus, memory (see `options.SubmitOptions`).
        Parameters with such names go into the option `payload`, a dict of further keywords.

        Raises KeyConflict, QueueFull, LedgerFull, Unavailable.
        """
        known = await self.handlers.resolve(task)
        request = self.request(known, args, payload)
        answer = await self.send(known, request)
        return AsyncHandle(self, answer.existing.get(0) or task_id(request.slab))

    def request(self, known: Known, args: tuple[Any, ...], keywords: dict[str, Any]) -> SubmitRequest:
        """Return the submission of one task, checked."""
        options = {name: keywords.pop(name) for name in OPTION_NAMES & keywords.keys()}
        if options:
            keywords = _payload_keywords(known, keywords, options)
        key = options.pop("key", None)
        payload = known.parameters.payload(args, keywords)
        data, tag = encode_payload(known.parameters, payload, self.handlers.dumps)
        fields = request_fields(options) if options else {}
        return SubmitRequest(
            slab=new_slab(bucket_for(known, fields)),
            task_type=known.task_type,
            payloads=[data],
            encoding=tag,
            keys=None if key is None else [check_key(key)],
            actor=self.actor,
            **fields,
        )

    async def submit_many(
        self, task: Any, payloads: Iterable[Any], /, *, keys: Keys = None, **options: Any
    ) -> list[AsyncHandle[Any]]:
        """Submit a task for each payload, as `map` takes them, and return their handles in that order.

        When this returns all are on disk; when it raises, those before the error may be. For more than
        memory holds use `map`, or give slices.
        """
        known, template = await self.prepare(task, options)
        bucket = bucket_for(known, template)
        cutter = Cutter(known.parameters, self.handlers.dumps, keys, bucket=bucket)
        ids: dict[int, str] = {}

        async def send(slab: Slab) -> None:
            answer = await self.send(known, slab.request(template))
            ids.update(zip(slab.indexes, slab.ids(answer.existing), strict=True))

        items, more = iter(payloads), True
        sending: set[asyncio.Task[None]] = set()
        try:
            while more or sending:
                if more:
                    slabs, more = cutter.pull(items, SLAB_TASKS)
                    sending |= {asyncio.create_task(send(slab)) for slab in slabs}
                if sending and (len(sending) >= _SENDING or not more):
                    done, sending = await asyncio.wait(sending, return_when=asyncio.FIRST_COMPLETED)
                    for sent in done:
                        sent.result()
        finally:
            for left in sending:
                left.cancel()
        return [AsyncHandle(self, ids[i]) for i in range(cutter.count)]

    @overload
    def map(
        self, task: Steps[R], payloads: Items, /, *, return_exceptions: Literal[True], **options: Any
    ) -> AsyncIterator[TaskResult[R]]: ...
    @overload
    def map(
        self, task: str, payloads: Items, /, *, return_exceptions: Literal[True], **options: Any
    ) -> AsyncIterator[TaskResult[Any]]: ...
    @overload
    def map(
        self, task: Plain[R], payloads: Items, /, *, return_exceptions: Literal[True], **options: Any
    ) -> AsyncIterator[TaskResult[R]]: ...
    @overload
    def map(self, task: Steps[R], payloads: Items, /, **options: Any) -> AsyncIterator[R]: ...
    @overload
    def map(self, task: str, payloads: Items, /, **options: Any) -> AsyncIterator[Any]: ...
    @overload
    def map(self, task: Plain[R], payloads: Items, /, **options: Any) -> AsyncIterator[R]: ...
    async def map(
        self,
        task: Any,
        payloads: Items,
        /,
        *,
        ordered: bool = False,
        window: int = WINDOW,
        keys: Keys = None,
        return_exceptions: bool = False,
        **options: Any,
    ) -> AsyncIterator[Any]:
        """Run a task for each payload and yield the results as they come.

        payloads: any iterable, also an endless or an async one; it is read only as far as `window` tasks
        are on the way. An item is a dict of keywords, a tuple of positional arguments, or the handler's
        first argument. ordered: yield in the order of the payloads. keys: an idempotency key for each
        payload, or a function of the payload that makes it. return_exceptions: yield a `TaskResult` for
        each task, whatever its end, instead of results. options: as for `submit`.

        Raises TaskFailed (and its kinds) at the first task that did not complete. What was submitted
        before goes on, also when the iteration is left early. A restart of the coordinator is waited for.
        """
        gauge = Gauge(window, ordered=ordered, whole=return_exceptions)
        known, template = await self.prepare(task, options)
        bucket = bucket_for(known, template)
        cutter = Cutter(known.parameters, self.handlers.dumps, keys, gauge.slab_tasks, bucket)
        arrived: deque[Delivery] = deque()
        news, moved = asyncio.Event(), asyncio.Event()

        def deliver(delivery: Delivery) -> None:
            arrived.append(delivery)
            news.set()

        run = self.run(known, template, deliver)
        feeding = asyncio.create_task(_feed(payloads, cutter, gauge, run, deliver, moved))
        try:
            while not gauge.finished:
                if not arrived:
                    news.clear()
                    await news.wait()
                while arrived:
                    for value in gauge.took(arrived.popleft()):
                        yield value
                    moved.set()
        finally:
            feeding.cancel()
            run.close()

    async def prepare(self, task: Any, options: dict[str, Any]) -> tuple[Known, dict[str, Any]]:
        """Return the handler and what all submissions of a `map` share."""
        for name, hint in (("key", "give `keys`, one for each payload"), ("payload", "it is in `payloads`")):
            if name in options:
                msg = f"`{name}` is for a single task"
                raise InvalidInput(msg, field=name, hint=hint)
        fields = request_fields(options)
        known = await self.handlers.resolve(task)
        return known, {"task_type": known.task_type, "actor": self.actor, **fields}

    def run(self, known: Known, template: dict[str, Any], deliver: Callable[[Delivery], None]) -> Run:
        """Return the event loop's half of a `map`."""
        return Run(template, lambda request: self.send(known, request), self.watch, deliver)


def bucket_for(known: Known, fields: dict[str, Any]) -> int | None:
    """Return the bucket of the queue that a submission is for, None where only the coordinator knows it."""
    queue = fields.get("queue") or known.queue
    return None if queue is None else bucket_of(queue)


def _payload_keywords(known: Known, keywords: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    """Take `payload` out of the options, and see that no keyword could mean two things."""
    extra = options.pop("payload", None)
    if extra is None:
        for name in options.keys() & known.parameters.names:
            hint = f"payload={{{name!r}: …}} is the parameter; with payload={{}} given, {name}= is the option"
            msg = f"`{name}` is an option of submit and a parameter of {known.task_type}"
            raise InvalidInput(msg, field=name, hint=hint)
        return keywords
    if not isinstance(extra, Mapping):
        msg = f"it is a dict of keywords, not {type(extra).__name__}"
        raise InvalidInput(msg, field="payload")
    for name in extra.keys() & keywords.keys():
        msg = f"{name!r} is given twice, as a keyword and in `payload`"
        raise InvalidInput(msg, field="payload")
    return {**keywords, **extra}


async def _feed(
    payloads: Items,
    cutter: Cutter,
    gauge: Gauge,
    run: Run,
    deliver: Callable[[Delivery], None],
    moved: asyncio.Event,
) -> None:
    """Read the input of a `map` as far as there is room, and send it."""

    def go(slabs: Iterable[Slab]) -> None:
        for slab in slabs:
            gauge.sent(slab)
            run.add(slab)

    async def room() -> int:
        while gauge.room <= cutter.waiting:
            go(cutter.flush())
            moved.clear()
            await moved.wait()
        return gauge.room

    try:
        if isinstance(payloads, AsyncIterable):
            loop = asyncio.get_running_loop()
            async for item in payloads:
                full = cutter.add(item)
                if full is not None:
                    go([full])
                elif cutter.waiting == 1:
                    loop.call_later(SLAB_SECONDS, lambda: go(cutter.flush(SLAB_SECONDS / 2)))
                await room()
        else:
            items, more = iter(payloads), True
            while more:
                slabs, more = cutter.pull(items, await room())
                go(slabs)
                await asyncio.sleep(0)
        go(cutter.flush())
        gauge.exhausted = True
        deliver(Chunk([], 0))
    except Exception as error:  # noqa: BLE001 (whoever iterates must hear of it)
        deliver(error)
