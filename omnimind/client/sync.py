"""`Client`: the same verbs for programs without an event loop.

All logic is `AsyncClient`'s, which runs on one background thread for all clients of the process. A verb
here is that verb, waited for. A client may be used from several threads.
"""

from __future__ import annotations

import os
import queue
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from functools import wraps
from types import TracebackType
from typing import Any, Concatenate, Generic, Literal, ParamSpec, Protocol, Self, TypeVar, overload

from omnimind.client.admin import AsyncDeadLetters, AsyncNodes, AsyncQueues, AsyncSchedules
from omnimind.client.client import TIMEOUT, AsyncClient
from omnimind.client.handle import AsyncHandle
from omnimind.client.kinds import Plain, Steps
from omnimind.client.loop import LoopThread, background
from omnimind.client.mapping import WINDOW, Delivery, Gauge, Run
from omnimind.client.options import HasId
from omnimind.client.results import TaskResult
from omnimind.client.slabs import Cutter, Keys
from omnimind.client.submitting import bucket_for
from omnimind.client.tasks import ReturnWhen, Waited
from omnimind.client.transport import Transport

R = TypeVar("R")
H = TypeVar("H", bound="str | HasId")
P = ParamSpec("P")
A = TypeVar("A")


class _Front(Protocol):
    """An object here that stands for an async one."""

    @property
    def inner(self) -> Any:
        """Return the async object."""

    @property
    def loop(self) -> LoopThread:
        """Return the thread that runs it."""


def blocking(
    verb: Callable[Concatenate[A, P], Coroutine[Any, Any, R]],
) -> Callable[Concatenate[Any, P], R]:
    """Return an async verb as one that waits for the answer."""

    @wraps(verb)
    def wait(front: _Front, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return front.loop.run(verb(front.inner, *args, **kwargs))

    return wait


def handing(
    verb: Callable[Concatenate[A, P], Coroutine[Any, Any, AsyncHandle[Any]]],
) -> Callable[Concatenate[Any, P], Handle[Any]]:
    """Return an async verb that answers with a handle as one that waits for it."""

    @wraps(verb)
    def wait(front: _Front, /, *args: P.args, **kwargs: P.kwargs) -> Handle[Any]:
        return Handle(front.loop, front.loop.run(verb(front.inner, *args, **kwargs)))

    return wait


def iterating(
    verb: Callable[Concatenate[A, P], AsyncIterator[R]],
) -> Callable[Concatenate[Any, P], Iterator[R]]:
    """Return an async generator as an iterator that waits for each item."""

    @wraps(verb)
    def iterate(front: _Front, /, *args: P.args, **kwargs: P.kwargs) -> Iterator[R]:
        items: Any = verb(front.inner, *args, **kwargs)
        try:
            while True:
                try:
                    yield front.loop.run(anext(items))
                except StopAsyncIteration:
                    return
        finally:
            front.loop.run(items.aclose())

    return iterate


class Handle(Generic[R]):
    """A submitted task. Equal to any handle of the same task."""

    __slots__ = ("inner", "loop")

    def __init__(self, loop: LoopThread, inner: AsyncHandle[R]) -> None:
        self.loop = loop
        self.inner = inner

    @property
    def id(self) -> str:
        """Return the task's id."""
        return self.inner.id

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Handle) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id}>"

    def result(self, timeout: float | None = None) -> R:
        """Return the handler's value. Raises TaskFailed and its kinds, or WaitTimeout after `timeout` s."""
        return self.loop.run(self.inner.result(timeout))

    def retry(self) -> Handle[R]:
        """Submit it again as a new task, once it has ended, and return that."""
        return Handle(self.loop, self.loop.run(self.inner.retry()))

    exception = blocking(AsyncHandle.exception)
    wait = blocking(AsyncHandle.wait)
    status = blocking(AsyncHandle.status)
    info = blocking(AsyncHandle.info)
    cancel = blocking(AsyncHandle.cancel)
    explain = blocking(AsyncHandle.explain)
    progress = blocking(AsyncHandle.progress)
    logs = iterating(AsyncHandle.logs)


class _Group:
    """A group of verbs on one noun."""

    def __init__(self, loop: LoopThread, inner: Any) -> None:
        self.loop = loop
        self.inner = inner


class Queues(_Group):
    """Queues: see `AsyncQueues`."""

    get = blocking(AsyncQueues.get)
    set = blocking(AsyncQueues.set)
    pause = blocking(AsyncQueues.pause)
    resume = blocking(AsyncQueues.resume)
    remove = blocking(AsyncQueues.remove)
    list = blocking(AsyncQueues.list)


class Schedules(_Group):
    """Schedules: see `AsyncSchedules`."""

    get = blocking(AsyncSchedules.get)
    set = blocking(AsyncSchedules.set)
    run = handing(AsyncSchedules.run)
    pause = blocking(AsyncSchedules.pause)
    resume = blocking(AsyncSchedules.resume)
    remove = blocking(AsyncSchedules.remove)
    list = blocking(AsyncSchedules.list)


class Nodes(_Group):
    """Nodes: see `AsyncNodes`."""

    get = blocking(AsyncNodes.get)
    cordon = blocking(AsyncNodes.cordon)
    drain = blocking(AsyncNodes.drain)
    uncordon = blocking(AsyncNodes.uncordon)
    list = blocking(AsyncNodes.list)


class DeadLetters(_Group):
    """Dead letters: see `AsyncDeadLetters`."""

    show = blocking(AsyncDeadLetters.show)
    replay = handing(AsyncDeadLetters.replay)
    replay_many = blocking(AsyncDeadLetters.replay_many)
    discard = blocking(AsyncDeadLetters.discard)
    discard_many = blocking(AsyncDeadLetters.discard_many)

    def list(self, **filters: Any) -> Iterator[dict[str, Any]]:
        """Yield the parked tasks, newest first: see `AsyncDeadLetters.list`."""
        for page in self._pages(**filters):
            yield from page

    _pages = iterating(AsyncDeadLetters.pages)


class Client:
    """A client for programs without an event loop: ``with omnimind.connect() as om``.

    Made by `omnimind.connect`, which explains the arguments.
    """

    def __init__(
        self,
        home: str | os.PathLike[str] | None = None,
        *,
        address: str | None = None,
        token: str | None = None,
        working_dir: str | os.PathLike[str] | None = None,
        timeout: float = TIMEOUT,
        actor: str | None = None,
        transport: Transport | None = None,
    ) -> None:
        self.loop = background()
        self.inner = self.loop.run(
            _make(
                home=home,
                address=address,
                token=token,
                working_dir=working_dir,
                timeout=timeout,
                actor=actor,
                transport=transport,
            )
        )
        self.queues = Queues(self.loop, self.inner.queues)
        self.schedules = Schedules(self.loop, self.inner.schedules)
        self.nodes = Nodes(self.loop, self.inner.nodes)
        self.deadletters = DeadLetters(self.loop, self.inner.deadletters)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Drop the connection; tasks go on."""
        self.loop.run(self.inner.close())

    @overload
    def submit(self, task: Steps[R], /, *args: Any, **payload: Any) -> Handle[R]: ...
    @overload
    def submit(self, task: str, /, *args: Any, **payload: Any) -> Handle[Any]: ...
    @overload
    def submit(self, task: Plain[R], /, *args: Any, **payload: Any) -> Handle[R]: ...
    def submit(self, task: Any, /, *args: Any, **payload: Any) -> Handle[Any]:
        """Submit one task: see `AsyncClient.submit`."""
        return Handle(self.loop, self.loop.run(self.inner.submit(task, *args, **payload)))

    def submit_many(
        self, task: Any, payloads: Iterable[Any], /, *, keys: Keys = None, **options: Any
    ) -> list[Handle[Any]]:
        """Submit a task for each payload: see `AsyncClient.submit_many`."""
        handles = self.loop.run(self.inner.submit_many(task, payloads, keys=keys, **options))
        return [Handle(self.loop, handle) for handle in handles]

    @overload
    def map(
        self, task: Steps[R], payloads: Iterable[Any], /, *, return_exceptions: Literal[True], **options: Any
    ) -> Iterator[TaskResult[R]]: ...
    @overload
    def map(
        self, task: str, payloads: Iterable[Any], /, *, return_exceptions: Literal[True], **options: Any
    ) -> Iterator[TaskResult[Any]]: ...
    @overload
    def map(
        self, task: Plain[R], payloads: Iterable[Any], /, *, return_exceptions: Literal[True], **options: Any
    ) -> Iterator[TaskResult[R]]: ...
    @overload
    def map(self, task: Steps[R], payloads: Iterable[Any], /, **options: Any) -> Iterator[R]: ...
    @overload
    def map(self, task: str, payloads: Iterable[Any], /, **options: Any) -> Iterator[Any]: ...
    @overload
    def map(self, task: Plain[R], payloads: Iterable[Any], /, **options: Any) -> Iterator[R]: ...
    def map(
        self,
        task: Any,
        payloads: Iterable[Any],
        /,
        *,
        ordered: bool = False,
        window: int = WINDOW,
        keys: Keys = None,
        return_exceptions: bool = False,
        **options: Any,
    ) -> Iterator[Any]:
        """Run a task for each payload and yield the results as they come: see `AsyncClient.map`.

        The payloads are read in the thread that iterates, between results.
        """
        gauge = Gauge(window, ordered=ordered, whole=return_exceptions)
        known, template = self.loop.run(self.inner.prepare(task, options))
        bucket = bucket_for(known, template)
        cutter = Cutter(known.parameters, self.inner.handlers.dumps, keys, gauge.slab_tasks, bucket)
        return self._map(
            iter(payloads), cutter, gauge, lambda deliver: self.inner.run(known, template, deliver)
        )

    def _map(
        self,
        items: Iterator[Any],
        cutter: Cutter,
        gauge: Gauge,
        make: Callable[[Callable[[Delivery], None]], Run],
    ) -> Iterator[Any]:
        arrived: queue.SimpleQueue[Delivery] = queue.SimpleQueue()
        run = make(arrived.put)
        try:
            while True:
                room = gauge.room
                if room:
                    slabs, more = cutter.pull(items, room)
                    gauge.exhausted = not more
                    for slab in slabs:
                        gauge.sent(slab)
                        self.loop.soon(run.add, slab)
                elif gauge.finished:
                    return
                try:
                    delivery = arrived.get(block=not gauge.room and not gauge.finished)
                except queue.Empty:
                    continue
                yield from gauge.took(delivery)
        finally:
            self.loop.soon(run.close)

    def handle(self, task: str | HasId) -> Handle[Any]:
        """Return a handle of a task that was submitted earlier, here or elsewhere; nothing is asked."""
        return Handle(self.loop, self.inner.handle(task))

    def wait(
        self, tasks: Iterable[H], return_when: ReturnWhen = "all", timeout: float | None = None
    ) -> Waited[H]:
        """Wait for several tasks: see `AsyncClient.wait`."""
        return self.loop.run(self.inner.wait(tasks, return_when, timeout))

    def list(self, **filters: Any) -> Iterator[dict[str, Any]]:
        """Yield tasks, newest first: see `AsyncClient.list`."""
        for page in self._pages(**filters):
            yield from page

    _pages = iterating(AsyncClient.pages)
    result = blocking(AsyncClient.result)
    task = blocking(AsyncClient.task)
    status = blocking(AsyncClient.status)
    progress = blocking(AsyncClient.progress)
    attempts = blocking(AsyncClient.attempts)
    explain = blocking(AsyncClient.explain)
    cancel = blocking(AsyncClient.cancel)
    cancel_many = blocking(AsyncClient.cancel_many)
    retry = handing(AsyncClient.retry)
    logs = iterating(AsyncClient.logs)
    cluster_status = blocking(AsyncClient.cluster_status)
    list_handlers = blocking(AsyncClient.list_handlers)
    find = blocking(AsyncClient.find)
    ping = blocking(AsyncClient.ping)


async def _make(**options: Any) -> AsyncClient:
    """Make a connected client on the loop that runs it."""
    client = AsyncClient(**options)
    await client.transport()
    return client


def connect(
    home: str | os.PathLike[str] | None = None,
    *,
    address: str | None = None,
    token: str | None = None,
    working_dir: str | os.PathLike[str] | None = None,
    timeout: float = TIMEOUT,
    actor: str | None = None,
) -> Client:
    """Return a client of the OmniMind that runs here: ``with omnimind.connect() as om``.

    home: folder of an instance (default: OMNIMIND_HOME, else the XDG state folder); its unix socket is
    used when it answers. Without a `home` a process inside a Ray cluster finds the coordinator by Ray. Or
    the address of the HTTP API.
    address: ``https://host:8000`` of the HTTP API (with a token, or OMNIMIND_TOKEN in the environment; no
    code goes that way, so tasks are named by their type); ``ray``, or ``host:port`` of a Ray cluster, to use
    Ray in any case. token: instead of the instance's token file; with an address, Ray's or the API's.
    working_dir: a folder that travels to the workers,
    so that handlers can be imported from it; a Ray job's own is taken by itself. timeout: seconds without
    an answer after which a call fails; a coordinator that restarts is waited for as long. actor: who acts,
    for the audit (default: the user's name).

    Raises Unavailable, which says how to start one.
    """
    return Client(home, address=address, token=token, working_dir=working_dir, timeout=timeout, actor=actor)
