"""The one background thread whose event loop runs all sync clients of a process."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from omnimind.errors import OmniMindError, Unavailable

R = TypeVar("R")


class _Errand:
    """Something that another thread waits for. `done` is held until there is a value or an error."""

    __slots__ = ("done", "error", "task", "value", "work")

    def __init__(self, work: Awaitable[Any]) -> None:
        self.work = work
        self.value: Any = None
        self.error: BaseException | None = None
        self.task: asyncio.Task[None] | None = None
        self.done = threading.Lock()
        self.done.acquire()

    def start(self) -> None:
        self.task = asyncio.get_running_loop().create_task(self._carry())

    def drop(self) -> None:
        if self.task is not None:
            self.task.cancel()

    async def _carry(self) -> None:
        try:
            self.value = await self.work
        except BaseException as error:  # noqa: BLE001 (it is raised where somebody waits)
            self.error = error
        finally:
            self.done.release()


class LoopThread:
    """An event loop on a daemon thread; `run` hands it a coroutine and waits."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, name="omnimind-client", daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def run(self, work: Awaitable[R]) -> R:
        """Return what the coroutine returns, or raise what it raises.

        Ctrl-C in the waiting thread cancels it. Half the price of `asyncio.run_coroutine_threadsafe`.
        """
        errand = _Errand(work)
        try:
            self.soon(errand.start)
        except OmniMindError:
            if isinstance(work, Coroutine):
                work.close()  # it will not run: no warning about that
            raise
        try:
            errand.done.acquire()
        except BaseException:
            self._loop.call_soon_threadsafe(errand.drop)
            raise
        if errand.error is None:
            value: R = errand.value
            return value
        try:
            if isinstance(errand.error, asyncio.CancelledError):
                raise Unavailable("this client was closed meanwhile", hint="") from None
            raise errand.error
        finally:
            errand.error = None  # the traceback holds this frame: no circle

    def soon(self, call: Callable[..., Any], *args: Any) -> None:
        """Have something called on the loop, without waiting for it."""
        if threading.get_ident() == self._thread.ident:
            raise OmniMindError(
                "a sync client waits for the very loop it is called on", hint="use AsyncClient"
            )
        if os.getpid() != self._pid:
            raise OmniMindError("this client was made before a fork", hint="connect again in the new process")
        self._loop.call_soon_threadsafe(call, *args)


_background: LoopThread | None = None
_starting = threading.Lock()


def background() -> LoopThread:
    """Return the process's loop thread, started at the first call, and anew in a forked process."""
    global _background  # noqa: PLW0603 (one for the process)
    with _starting:
        if _background is None:
            _background = LoopThread()
        return _background


def _after_fork() -> None:
    global _background, _starting  # noqa: PLW0603
    _background = None
    _starting = threading.Lock()


os.register_at_fork(after_in_child=_after_fork)
