"""The verbs on queues, schedules, nodes and dead letters, grouped by their noun as in the CLI."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from datetime import timedelta
from typing import Any

import msgspec

from omnimind.client.handle import AsyncHandle
from omnimind.client.options import check_name, seconds_of
from omnimind.client.protocol import NameRequest, NodeRequest, QueueRequest, ScheduleRequest
from omnimind.client.submitting import Submitting
from omnimind.client.tasks import Task
from omnimind.cluster.policies import QueuePolicy
from omnimind.errors import InvalidInput, NotFound

Info = dict[str, Any]
Infos = list[Info]

_POLICY = frozenset(QueuePolicy.__struct_fields__)


class Noun:
    """What the groups share: the client that asks."""

    def __init__(self, client: Submitting) -> None:
        self._client = client

    async def _named(self, method: str, name: str, *, plan: bool = False, reason: str = "") -> Any:
        request = NameRequest(
            name=check_name(name, "name"), plan=plan, actor=self._client.actor, reason=reason
        )
        return await self._client.ask(method, request)


class AsyncQueues(Noun):
    """Queues: lines of tasks with a weight and limits. ``default`` always exists."""

    async def get(self, name: str) -> Info:
        """Return one queue, as in `list`. Raises NotFound."""
        for queue in await self.list():
            if queue["name"] == name:
                return queue
        raise NotFound(f"there is no queue {name!r}", hint="see: omnimind queue list")

    async def set(self, name: str, /, **policy: Any) -> Info:
        """Create a queue, or change what is given of it and leave the rest.

        weight: its share of handler time against other queues with work (1.0). concurrency: most attempts at
        one time. rate: most starts a second. max_pending: a submission beyond it is refused with QueueFull.
        paused: starts nothing. None takes a limit away.
        """
        for field in policy.keys() - _POLICY | policy.keys() & {"name"}:
            known = ", ".join(sorted(_POLICY - {"name"}))
            raise InvalidInput(f"a queue has no {field!r}", field=field, hint=f"it has: {known}")
        try:
            now = await self.get(check_name(name, "name"))
        except NotFound:
            now = {"name": name}
        try:
            wanted = msgspec.convert(
                {k: v for k, v in {**now, **policy}.items() if k in _POLICY}, QueuePolicy
            )
        except msgspec.ValidationError as error:
            raise InvalidInput(str(error), field="queue") from None
        answer: Info = await self._client.ask(
            "queue_set", QueueRequest(policy=wanted, actor=self._client.actor)
        )
        return answer

    async def pause(self, name: str) -> Info:
        """Start none of its tasks until `resume`; what runs goes on."""
        await self.get(name)
        return await self.set(name, paused=True)

    async def resume(self, name: str) -> Info:
        """Start its tasks again."""
        await self.get(name)
        return await self.set(name, paused=False)

    async def remove(self, name: str) -> Info:
        """Remove an empty queue, and return what it was. Raises NotFound, Conflict."""
        removed: Info = await self._named("queue_remove", name)
        return removed

    async def list(self) -> Infos:
        """Return all queues, with their limits and how many tasks stand in them."""
        answer: Infos = await self._client.ask("queues")
        return answer


class AsyncSchedules(Noun):
    """Schedules: submissions that recur by cron expression or interval."""

    async def set(
        self,
        name: str,
        task: Any,
        /,
        *args: Any,
        cron: str | None = None,
        interval: float | timedelta | None = None,
        timezone: str = "UTC",
        paused: bool = False,
        **payload: Any,
    ) -> Info:
        """Create or replace a schedule: submit `task` with this payload at each time.

        cron: five fields, in `timezone` (an IANA name). interval: seconds (or a timedelta) between two
        runs. Exactly one of them. Runs that were missed are made up for by one. payload: keywords of the
        handler and options, as for `submit`; parameters that are called cron, interval, timezone or paused
        go into `payload={…}`.
        """
        if (cron is None) == (interval is None):
            hint = "cron='30 2 * * *' or interval=3600"
            raise InvalidInput("give a cron expression or an interval, one of them", field="cron", hint=hint)
        for option in ("key", "not_before", "delay", "after"):
            if option in payload:
                raise InvalidInput(f"`{option}` makes no sense for runs that recur", field=option)
        known = await self._client.handlers.resolve(task)
        request = self._client.request(known, args, payload)
        request.slab = ""
        request.handler = known.digest
        answer: Info = await self._client.ask(
            "schedule_set",
            ScheduleRequest(
                name=check_name(name, "name"),
                task=request,
                cron=cron,
                interval=None if interval is None else seconds_of(interval, "interval", zero=False),
                timezone=timezone,
                paused=paused,
                actor=self._client.actor,
            ),
        )
        return answer

    async def get(self, name: str) -> Info:
        """Return one schedule. Raises NotFound."""
        schedule: Info = await self._named("schedule", name)
        return schedule

    async def run(self, name: str) -> AsyncHandle[Any]:
        """Submit its task now, besides its times, and return the handle."""
        return AsyncHandle(self._client, (await self._named("schedule_run", name))["task_id"])

    async def pause(self, name: str) -> Info:
        """Let no more times submit until `resume`."""
        schedule: Info = await self._named("schedule_pause", name)
        return schedule

    async def resume(self, name: str) -> Info:
        """Go on from the next time; what was missed while it paused is not made up for."""
        schedule: Info = await self._named("schedule_resume", name)
        return schedule

    async def remove(self, name: str) -> Info:
        """Remove a schedule, and return what it was. Tasks that it submitted stay."""
        removed: Info = await self._named("schedule_remove", name)
        return removed

    async def list(self) -> Infos:
        """Return all schedules."""
        answer: Infos = await self._client.ask("schedules")
        return answer


class AsyncNodes(Noun):
    """Nodes: the machines that run attempts."""

    async def get(self, node_id: str) -> Info:
        """Return one node with its running attempts. Raises NotFound."""
        node: Info = await self._named("node", node_id)
        return node

    async def cordon(self, node_id: str, *, reason: str = "", plan: bool = False) -> Info:
        """Give it nothing new; what runs there goes on. plan: say what is affected, do nothing."""
        return await self._control("cordon", node_id, None, reason, plan=plan)

    async def drain(
        self,
        node_id: str,
        *,
        deadline: float | timedelta | None = None,
        reason: str = "",
        plan: bool = False,
    ) -> Info:
        """Give it nothing new, and requeue what still runs after `deadline` seconds (None: wait for it)."""
        seconds = None if deadline is None else seconds_of(deadline, "deadline")
        return await self._control("drain", node_id, seconds, reason, plan=plan)

    async def uncordon(self, node_id: str, *, reason: str = "", plan: bool = False) -> Info:
        """Give it work again."""
        return await self._control("uncordon", node_id, None, reason, plan=plan)

    async def list(self) -> Infos:
        """Return all nodes."""
        answer: Infos = await self._client.ask("nodes")
        return answer

    async def _control(
        self, verb: str, node_id: str, deadline: float | None, reason: str, *, plan: bool
    ) -> Info:
        request = NodeRequest(
            node_id=check_name(node_id, "node_id"),
            verb=verb,
            deadline=deadline,
            plan=plan,
            actor=self._client.actor,
            reason=reason,
        )
        answer: Info = await self._client.ask("node_control", request)
        return answer


class AsyncDeadLetters(Noun):
    """Dead letters: tasks that were parked because they kept killing their workers."""

    async def show(self, task: Task) -> Info:
        """Return a parked task with its payload, and its failed attempts under ``attempts``."""
        info = await self._client.task(task)
        return {**info, "attempts": await self._client.attempts(task)}

    async def replay(self, task: Task, *, reason: str = "") -> AsyncHandle[Any]:
        """Submit it again as a new task. Raises NotFound, Conflict when it is no dead letter."""
        [new] = (await self.replay_many([task], reason=reason)).values()
        return AsyncHandle(self._client, new)

    async def replay_many(self, tasks: Iterable[Task], *, reason: str = "") -> dict[str, str]:
        """Submit several again; return the new id of each."""
        return await self._client.on_ids("replay", tasks, reason=reason)

    async def discard(self, task: Task, *, reason: str = "") -> str:
        """Take it off the list for good, and return what was done."""
        [done] = (await self.discard_many([task], reason=reason)).values()
        return done

    async def discard_many(self, tasks: Iterable[Task], *, reason: str = "") -> dict[str, str]:
        """Take several off the list for good; return what was done, by id."""
        return await self._client.on_ids("discard", tasks, reason=reason)

    def pages(self, /, **filters: Any) -> AsyncIterator[Infos]:
        """Yield what `list` yields, by the page."""
        return self._client.pages(status="dead", **filters)

    async def list(self, /, **filters: Any) -> AsyncIterator[Info]:
        """Yield the parked tasks, newest first. filters: as of the client's `list`, but for status."""
        async for page in self.pages(**filters):
            for task in page:
                yield task
