"""`Admin`: the methods of the protocol about queues, schedules, nodes and the coordinator itself."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from typing import Any

import msgspec

from actors.elastic import Scaling
from actors.engine import Engine
from actors.service import Service
from actors.sharded import Sharded
from omnimind.client import protocol as p
from omnimind.cluster import drains
from omnimind.cluster import events as ev
from omnimind.cluster.lines import bad_policy, cannot_remove
from omnimind.cluster.policies import Schedule
from omnimind.cluster.records import task_from_row, task_row
from omnimind.cluster.schedules import next_run
from omnimind.cluster.states import TERMINAL
from omnimind.cluster.status import attempts_on, cluster_status, queue_status
from omnimind.errors import Conflict, InvalidInput, NotFound, UnknownQueue
from omnimind.ids import new_slab


class Admin:
    """Carries out the protocol's methods that do not concern single tasks."""

    def __init__(
        self,
        engine: Engine,
        service: Service,
        *,
        started_at: float,
        stop: Callable[[], None],
        api_url: str = "",
    ) -> None:
        self.engine = engine
        self.service = service
        self._started_at = started_at
        self._stop = stop
        self._api_url = api_url
        self.scaling: Scaling | None = None
        """Keeps Ray's drains and ours together; None where nobody does."""

    # --- the coordinator --------------------------------------------------------------------------

    async def ping(self, _request: p.Empty) -> dict[str, float]:
        """Answer, with the coordinator's time; raises the ledger's trouble while there is one."""
        if self.engine.trouble is not None:
            raise self.engine.trouble
        return {"now": self.engine.clock.now()}

    async def status(self, _request: p.Empty) -> dict[str, Any]:
        """Return the cluster at a glance."""
        core = self.engine.core
        found = cluster_status(core)
        found["coordinator"] = {
            "pid": os.getpid(),
            "node_id": core.node_id,
            "epoch": core.epoch,
            "started_at": self._started_at,
            "recovering": core.recovering,
        }
        found["ledger"] = msgspec.to_builtins(self.engine.ledger.about())
        found["trouble"] = self.engine.trouble.to_problem() if self.engine.trouble else None
        ended = {status.value: core.counts.get(status.value, 0) for status in TERMINAL}
        found["tasks"] = {"pending": found["pending_tasks"], "running": found["running_tasks"], **ended}
        if self._api_url:
            found["api"] = {"url": self._api_url}
        return found

    async def usage(self, _request: p.Empty) -> dict[str, Any]:
        """Return figures about the ledger."""
        found: dict[str, Any] = msgspec.to_builtins(await self.engine.read(self.engine.ledger.usage))
        return found

    async def check(self, _request: p.Empty) -> list[str]:
        """Return what is wrong with the ledger."""
        wrong: list[str] = await self.engine.read(self.engine.ledger.check)
        return wrong

    async def audit(self, _request: p.Empty) -> list[dict[str, Any]]:
        """Return the newest changes."""
        names = ("at", "actor", "verb", "subject", "detail")
        rows = await self.engine.read(self.engine.ledger.audit, 500)
        return [dict(zip(names, row, strict=True)) for row in rows]

    async def metrics(self, _request: p.Empty) -> dict[str, float]:
        """Return counters and gauges of this coordinator."""
        core = self.engine.core
        found: dict[str, float] = {f"tasks_{name}_total": n for name, n in sorted(core.counts.items())}
        found |= {
            "tasks_in_memory": len(core.tasks),
            "tasks_ready": sum(q.ready + q.tail for q in core.book.queues.values()),
            "batches_running": len(core.batches),
            "commits_waiting": self.engine.gate.backlog,
            "epoch": core.epoch,
        }
        for name, value in self.engine.ledger.statistics().items():
            if isinstance(value, int | float):
                found[f"ledger_{name}"] = value
        return found

    async def shutdown(self, _request: p.Empty) -> None:
        """Commit what waits and end, for good."""
        self._stop()

    @property
    def _sharded(self) -> Sharded | None:
        return self.service.sharded

    def _check_queue(self, name: str) -> None:
        if self._sharded is not None:
            self._sharded.check_queue(name)

    # --- queues -----------------------------------------------------------------------------------

    async def queues(self, _request: p.Empty) -> list[dict[str, Any]]:
        """Return all queues with what they hold."""
        # Every core has a default queue, but only one shard keeps it.
        return [
            queue_status(self.engine.core, name)
            for name in sorted(self.engine.core.book.queues)
            if self._sharded is None or self._sharded.mine(name)
        ]

    async def queue_set(self, request: p.QueueRequest) -> dict[str, Any]:
        """Create or change a queue."""
        name = request.policy.name
        self._check_queue(name)
        if request.plan:
            wrong = bad_policy(request.policy)
            if wrong is not None:
                raise wrong
            return msgspec.to_builtins(request.policy)  # type: ignore[no-any-return]
        await self.engine.ask(lambda n: ev.QueueSet(n, request.policy))
        await self.service.audit(request.actor, "queue.set", [name], repr(request.policy))
        return queue_status(self.engine.core, name)

    async def queue_remove(self, request: p.NameRequest) -> dict[str, Any]:
        """Remove an empty queue."""
        self._check_queue(request.name)
        wrong = cannot_remove(self.engine.core, request.name)
        if wrong is not None:
            raise wrong
        was = queue_status(self.engine.core, request.name)
        if not request.plan:
            await self.engine.ask(lambda n: ev.QueueRemove(n, request.name))
            await self.service.audit(request.actor, "queue.remove", [request.name], request.reason)
        return was

    # --- schedules --------------------------------------------------------------------------------

    def _schedule(self, name: str) -> Schedule:
        schedule = self.engine.core.schedules.get(name)
        if schedule is None:
            raise NotFound(f"there is no schedule {name!r}", field="name")
        return schedule

    def _schedule_view(self, schedule: Schedule) -> dict[str, Any]:
        task = task_from_row(tuple(msgspec.msgpack.decode(schedule.task)))
        return {
            "name": schedule.name,
            "task_type": task.task_type,
            "queue": task.queue,
            "cron": schedule.cron,
            "interval": schedule.interval,
            "timezone": schedule.timezone,
            "paused": schedule.paused,
            "next_run": None if schedule.paused else schedule.next_run,
            "last_run": schedule.last_run,
            "runs": schedule.runs,
        }

    async def schedules(self, _request: p.Empty) -> list[dict[str, Any]]:
        """Return all schedules."""
        return [self._schedule_view(s) for _, s in sorted(self.engine.core.schedules.items())]

    async def schedule(self, request: p.NameRequest) -> dict[str, Any]:
        """Return one schedule."""
        return self._schedule_view(self._schedule(request.name))

    async def schedule_set(self, request: p.ScheduleRequest) -> dict[str, Any]:
        """Create or replace a schedule."""
        request.task.slab = request.task.slab or new_slab()
        if len(request.task.payloads) != 1:
            raise InvalidInput("a schedule submits one task", field="task.payloads")
        if request.task.keys and request.task.keys[0]:
            raise InvalidInput("the runs of a schedule cannot share a key", field="task.keys")
        if request.task.deadline is not None:
            raise InvalidInput(
                "the deadline of a schedule's tasks must move with them",
                field="task.deadline",
                hint="use ttl",
            )
        # With 0 as the time, a ttl becomes a deadline in seconds from each run.
        [template] = await self.service.code.tasks_of(request.task, 0.0)
        self._check_queue(template.queue)
        if template.queue not in self.engine.core.book.queues:
            raise UnknownQueue(f"there is no queue {template.queue!r}", field="task.queue")
        schedule = Schedule(
            request.name,
            msgspec.msgpack.encode(task_row(template)),
            request.cron,
            request.interval,
            request.timezone,
            request.paused,
        )
        if request.plan:
            return self._schedule_view(
                msgspec.structs.replace(schedule, next_run=next_run(schedule, self.engine.clock.now()))
            )
        saved = await self.engine.ask(lambda n: ev.ScheduleSet(n, schedule))
        await self.service.audit(request.actor, "schedule.set", [request.name])
        return self._schedule_view(saved)

    async def schedule_pause(self, request: p.NameRequest) -> dict[str, Any]:
        """Stop a schedule's runs until it is resumed."""
        return await self._pause(request, paused=True)

    async def schedule_resume(self, request: p.NameRequest) -> dict[str, Any]:
        """Let a schedule run again, from its next time on."""
        return await self._pause(request, paused=False)

    async def _pause(self, request: p.NameRequest, *, paused: bool) -> dict[str, Any]:
        schedule = msgspec.structs.replace(self._schedule(request.name), paused=paused)
        if request.plan:
            return self._schedule_view(schedule)
        saved = await self.engine.ask(lambda n: ev.ScheduleSet(n, schedule))
        verb = "schedule.pause" if paused else "schedule.resume"
        await self.service.audit(request.actor, verb, [request.name], request.reason)
        return self._schedule_view(saved)

    async def schedule_remove(self, request: p.NameRequest) -> dict[str, Any]:
        """Remove a schedule."""
        was = self._schedule_view(self._schedule(request.name))
        if not request.plan:
            await self.engine.ask(lambda n: ev.ScheduleRemove(n, request.name))
            await self.service.audit(request.actor, "schedule.remove", [request.name], request.reason)
        return was

    async def schedule_run(self, request: p.NameRequest) -> dict[str, Any]:
        """Run a schedule now."""
        self._schedule(request.name)
        if request.plan:
            return {"task_id": None}
        task_id = await self.engine.ask(lambda n: ev.ScheduleRun(n, request.name))
        await self.service.audit(request.actor, "schedule.run", [request.name], request.reason)
        return {"task_id": task_id}

    # --- nodes ------------------------------------------------------------------------------------

    def _node_id(self, name: str) -> str:
        core = self.engine.core
        if name in core.nodes:
            return name
        found = [n.node_id for n in core.nodes.values() if n.node_id.startswith(name) or n.hostname == name]
        if len(found) > 1:
            raise Conflict(f"{name!r} fits {len(found)} nodes", field="node_id", hint="give more of the id")
        if not found:
            raise NotFound(f"there is no node {name!r}", field="node_id")
        return found[0]

    async def nodes(self, _request: p.Empty) -> list[dict[str, Any]]:
        """Return all nodes."""
        return [n.to_dict() for n in self.engine.core.nodes.values()]

    async def node(self, request: p.NameRequest) -> dict[str, Any]:
        """Return one node with what runs there, how far its drain is, and what Ray says of it."""
        core = self.engine.core
        node = core.nodes[self._node_id(request.name)]
        return (
            node.to_dict()
            | {"attempts": attempts_on(core, node.node_id)}
            | {"drain": drains.progress(core, node, self.engine.clock.now())}
            | ({} if self.scaling is None else self.scaling.of_node(node.node_id))
        )

    async def node_control(self, request: p.NodeRequest) -> dict[str, Any]:
        """Cordon, drain or uncordon a node."""
        core = self.engine.core
        node_id = self._node_id(request.node_id)
        node = core.nodes[node_id]
        leaves = request.verb == "uncordon" and self.scaling is not None and self.scaling.ray_drains(node_id)
        if request.plan:
            running = len(attempts_on(core, node_id))
            found = {"node": node_id, "attempts": running, "status": node.status.value, "leaves": leaves}
            if request.verb == "drain":
                found["drain"] = drains.plan(core, node, self.engine.clock.now())
            return found
        now = self.engine.clock.now()
        deadline = None if request.deadline is None else now + request.deadline
        done = await self.engine.ask(
            lambda n: ev.NodeControl(n, node_id, request.verb, deadline, "person", request.reason)
        )
        await self.service.audit(request.actor, f"node.{request.verb}", [node_id], request.reason)
        if leaves and self.scaling is not None:
            await self.scaling.leave(self.engine, node_id)
            return {"node": node_id, **done.detail, "status": node.status.value, "leaves": True}
        return {"node": node_id, **done.detail}

    def methods(self) -> dict[str, Callable[[Any], Awaitable[Any]]]:
        """Return this object's part of the protocol, by method name."""
        return {
            "ping": self.ping,
            "status": self.status,
            "usage": self.usage,
            "check": self.check,
            "audit": self.audit,
            "metrics": self.metrics,
            "shutdown": self.shutdown,
            "queues": self.queues,
            "queue_set": self.queue_set,
            "queue_remove": self.queue_remove,
            "schedules": self.schedules,
            "schedule": self.schedule,
            "schedule_set": self.schedule_set,
            "schedule_pause": self.schedule_pause,
            "schedule_resume": self.schedule_resume,
            "schedule_remove": self.schedule_remove,
            "schedule_run": self.schedule_run,
            "nodes": self.nodes,
            "node": self.node,
            "node_control": self.node_control,
        }

    def hello(self) -> dict[str, Any]:
        """Return who this is."""
        return {
            "version": p.VERSION,
            "omnimind": version("omnimind-runtime"),
            "epoch": self.engine.core.epoch,
            "pid": os.getpid(),
            "shard": self.engine.core.shard,
            "shards": self.engine.core.shards,
        }
