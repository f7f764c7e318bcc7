"""`Lane`: calls of Ray that block, kept off the event loop and out of each other's way.

`ray.nodes`, `ray.get_actor` and the making of an actor wait for the GCS, up to a minute when it is away,
and for ever behind a link that was cut without a word. On the loop such a call would stop everything; in
the loop's shared pool a few of them would fill the pool, and everybody else would wait. So each kind of
call has a lane with one thread of its own: a call that hangs holds up its own kind and nobody else, and
whoever waited for it goes on after a time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any


class Lane:
    """One thread for one kind of blocking call. name: what it is called in a stack dump.

    timeout: seconds after which a caller goes on without the answer.
    """

    def __init__(self, name: str, timeout: float) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=f"omnimind-{name}")
        self._timeout = timeout
        self._last: Future[Any] | None = None
        self._turn = asyncio.Lock()

    @property
    def stuck(self) -> bool:
        """Return whether a call is still under way that nobody waits for any more."""
        return self._last is not None and not self._last.done()

    async def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """Return what `function` returns. Raises TimeoutError when that takes too long, waiting included.

        While an earlier call hangs that nobody waits for any more, it raises at once: a second one would
        only wait behind it.
        """
        async with asyncio.timeout(self._timeout), self._turn:
            if self.stuck:
                raise TimeoutError("the call before it still hangs")
            self._last = self._pool.submit(function, *args)
            # Shielded: a thread cannot be interrupted, and `stuck` must know of it until it returns.
            return await asyncio.shield(asyncio.wrap_future(self._last))
