"""The handlers of one client: packed once, registered once, and again when the coordinator forgot."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from omnimind.client.calls import Parameters
from omnimind.client.code import DEFAULT_QUEUE, Code, Folder, as_task, dumps, pack
from omnimind.client.options import check_name
from omnimind.client.protocol import BlobRequest, Empty, HandlerRequest

Ask = Callable[[str, msgspec.Struct], Awaitable[Any]]
_KEPT = 1024


class Known:
    """A handler that may be submitted to: its type, its record's digest, its parameters.

    queue: where its tasks stand unless they are given another; None: only the coordinator knows.
    """

    __slots__ = ("code", "digest", "parameters", "queue", "task_type")

    def __init__(self, task_type: str, code: Code | None, digest: str | None) -> None:
        self.task_type = task_type
        self.code = code
        self.digest = digest
        self.parameters = Parameters(task_type, None if code is None else code.fn)
        self.queue: str | None = None if code is None else code.queue


def queue_of(handlers: list[dict[str, Any]], task_type: str) -> str | None:
    """Return the queue in which tasks of a type stand unless they are given another one."""
    defaults = [h["defaults"] for h in handlers if h["task_type"] == task_type]
    return str(defaults[0].get("queue", DEFAULT_QUEUE)) if defaults else None


class Handlers:
    """Resolves what users call a task: a `Task`, a function, or a registered type's name."""

    def __init__(
        self, ask: Ask, folder: Callable[[], Folder | None], sharded: Callable[[], bool] = lambda: False
    ) -> None:
        self._ask = ask
        self._sharded = sharded
        self._folder = folder
        self._known: dict[Any, Known] = {}

    async def resolve(self, handler: Any) -> Known:
        """Return the handler, registered with the coordinator."""
        if isinstance(handler, str):
            known = self._known.get(handler)
            if known is None:
                known = self._keep(handler, Known(check_name(handler, "task"), None, None))
            if known.queue is None and self._sharded():
                # Its ids have to say where it goes.
                await self.look_up_queue(known)
            return known
        place = handler
        try:
            known = self._known.get(place)
        except TypeError:  # a callable object that does not hash
            known, place = None, id(handler)
        if known is None or known.code is None or not known.code.fresh:
            code = pack(as_task(handler), self._folder())
            known = self._keep(place, Known(code.task_type, code, await self._register(code)))
        return known

    async def look_up_queue(self, known: Known) -> None:
        """Ask again where a type's tasks stand: somebody may have registered it anew."""
        known.queue = queue_of(await self._ask("handlers", Empty()), known.task_type)

    async def renew(self, known: Known) -> bool:
        """Register a handler again that the coordinator does not know any more; False if it cannot be."""
        if known.code is None:
            return False
        known.digest = await self._register(known.code)
        return True

    def dumps(self, value: Any) -> bytes:
        """Pickle a payload, with the user's own classes inside."""
        return dumps(value, self._folder())

    async def _register(self, code: Code) -> str:
        answer = await self._ask("register", HandlerRequest(spec=code.spec))
        for digest in answer["missing"]:
            await self._ask("blob_put", BlobRequest(digest=digest, data=code.blobs[digest]))
        registered: str = answer["digest"]
        return registered

    def _keep(self, place: Any, known: Known) -> Known:
        if len(self._known) >= _KEPT:
            self._known.pop(next(iter(self._known)))
        self._known[place] = known
        return known
