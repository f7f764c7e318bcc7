"""`AsyncHandle`: a submitted task, as seen from the program that waits for it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from omnimind.client.results import error_of, value_of
from omnimind.cluster.states import TaskStatus
from omnimind.errors import TaskFailed

if TYPE_CHECKING:
    from omnimind.client.protocol import Result
    from omnimind.client.tasks import TaskVerbs

R = TypeVar("R")


class LogLine(NamedTuple):
    """A line that a handler logged: its number, Unix seconds, level (``info``, …) and text."""

    number: int
    time: float
    level: str
    text: str


class AsyncHandle(Generic[R]):
    """A task. ``await handle`` is ``await handle.result()``. Equal to any handle of the same task."""

    __slots__ = ("_client", "_ended", "id")

    def __init__(self, client: TaskVerbs, task_id: str) -> None:
        self.id = task_id
        self._client = client
        self._ended: Result | None = None

    def __await__(self) -> Generator[Any, None, R]:
        return self.result().__await__()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AsyncHandle) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id}>"

    async def ended(self, timeout: float | None = None) -> Result:
        """Return how the task ended, raw. Raises WaitTimeout after `timeout` seconds."""
        if self._ended is None:
            self._ended = await self._client.watcher.result(self.id, timeout)
        return self._ended

    def learn(self, ended: Result) -> None:
        """Keep what somebody else found out about the end."""
        self._ended = ended

    async def result(self, timeout: float | None = None) -> R:
        """Return the handler's value. Raises TaskFailed and its kinds, or WaitTimeout after `timeout` s."""
        value: R = value_of(await self.ended(timeout))
        return value

    async def exception(self, timeout: float | None = None) -> TaskFailed | None:
        """Wait for the end; return the error that `result` would raise, or None."""
        ended = await self.ended(timeout)
        return None if ended.status == "completed" else error_of(ended)

    async def wait(self, timeout: float | None = None) -> TaskStatus:
        """Wait for the end, whatever it is, and return it. Raises WaitTimeout after `timeout` seconds."""
        return TaskStatus((await self.ended(timeout)).status)

    async def status(self) -> TaskStatus:
        """Return where the task is now."""
        if self._ended is not None:
            return TaskStatus(self._ended.status)
        return TaskStatus((await self.info())["status"])

    async def info(self) -> dict[str, Any]:
        """Return all that is known of the task, as `omnimind task show` prints it."""
        return await self._client.task(self.id)

    async def cancel(self, reason: str = "") -> str:
        """Ask for its end, and return what was done: see `TaskVerbs.cancel`."""
        return await self._client.cancel(self.id, reason=reason)

    async def explain(self) -> dict[str, Any]:
        """Return why it is where it is: facts, rules, verdicts, and its attempts."""
        return await self._client.explain(self.id)

    async def progress(self) -> dict[str, Any]:
        """Return the handler's last word about its progress."""
        return await self._client.progress(self.id)

    async def retry(self) -> AsyncHandle[R]:
        """Submit it again as a new task, once it has ended, and return that."""
        return await self._client.retry(self.id)

    def logs(self, *, follow: bool = False) -> AsyncIterator[LogLine]:
        """Yield the lines that it logged; with `follow`, those to come too, until it has ended."""
        return self._client.logs(self.id, follow=follow)
