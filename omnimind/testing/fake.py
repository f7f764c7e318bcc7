"""`FakeCoordinator`: the client's protocol in memory, for tests of clients and of programs that use them.

Handlers really run, by the runner that workers use, one task at a time on one thread; ``run=False`` leaves
that to the test (`end`). Retries come without a pause. Queues, priorities, delays, dependencies, schedules
and nodes are written down but decide nothing: what needs a scheduler is tested against the real one.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from typing import Any

import msgspec

from omnimind.client import protocol as p
from omnimind.cluster.node import NodeInfo
from omnimind.cluster.policies import to_builtins
from omnimind.cluster.states import NodeStatus, TaskStatus
from omnimind.cluster.task import DistributedTask
from omnimind.errors import Conflict, InvalidInput, NotFound, OmniMindError, UnknownQueue
from omnimind.ids import new_slab, task_id
from omnimind.testing.fake_work import FakeWork
from omnimind.tokens import Token, digest_of, new_secret, role_named

_VERBS = {
    "cordon": NodeStatus.CORDONED,
    "drain": NodeStatus.DRAINING,
    "uncordon": NodeStatus.ACTIVE,
}


class FakeCoordinator(FakeWork):
    """Answers every method of the protocol. Use it through `FakeTransport` or `FakeServer`.

    run: whether submitted tasks are run. now: the time in Unix seconds that it goes by.
    """

    def __init__(self, *, run: bool = True, now: Callable[[], float] = time.time) -> None:
        super().__init__(run=run, now=now)
        self.schedules: dict[str, dict[str, Any]] = {}
        self.nodes = {"nod_1": NodeInfo("nod_1", hostname="fake", cpu_cores=2, capabilities={"cpu"})}
        self.calls: list[tuple[str, Any]] = []
        """Every call that came in, with its request, for tests to look at."""
        self.faults: dict[str, list[OmniMindError]] = {}
        """Errors that the next calls of a method get, in this order; nothing is done for those."""
        self._templates: dict[str, p.SubmitRequest] = {}
        self.tokens: dict[str, Token] = {}
        self._audit: list[dict[str, Any]] = []
        self._discarded: set[str] = set()

    async def call(self, method: str, body: bytes) -> bytes:
        """Answer a call. Raises the error that the caller should get."""
        kind = p.METHODS.get(method)
        if kind is None:
            raise NotFound(f"there is no method {method!r}")
        request: Any = msgspec.msgpack.decode(body, type=kind)
        self.calls.append((method, request))
        if self.faults.get(method):
            raise self.faults[method].pop(0)
        if method == "watch":
            return p.encode(await self.do_watch(request))
        return p.encode(getattr(self, f"do_{method}")(request))

    def called(self, method: str) -> list[Any]:
        """Return the requests of one method so far."""
        return [request for name, request in self.calls if name == method]

    # Reads.

    async def do_watch(self, request: p.WatchRequest) -> p.WatchAnswer:
        tasks = [self.find_task(name) for name in request.ids]
        until = time.monotonic() + request.timeout
        lingering = False
        while True:
            ended = [task for task in tasks if task.terminal]
            if ended and not lingering:
                lingering, until = True, min(until, time.monotonic() + request.linger)
            left = until - time.monotonic()
            if len(ended) == len(tasks) or left <= 0:
                break
            try:
                async with asyncio.timeout(left):
                    await self.changed.wait()
            except TimeoutError:
                continue
        return p.WatchAnswer(
            [
                p.Result(t.task_id, t.status.value, t.result, t.result_encoding, t.error, t.cause)
                for t in sorted(ended, key=lambda task: task.completed_at or 0.0)
            ]
        )

    def do_hello(self, _request: p.Hello) -> dict[str, Any]:
        return {"version": p.VERSION, "omnimind": "fake", "epoch": 1, "pid": os.getpid()}

    def do_tasks(self, request: p.IdsRequest) -> list[dict[str, Any]]:
        return [_view(self.find_task(name)) for name in request.ids]

    def do_list(self, request: p.ListRequest) -> dict[str, Any]:
        def wanted(task: DistributedTask) -> bool:
            return (
                (not request.status or task.status.value in request.status)
                and request.queue in (None, task.queue)
                and request.task_type in (None, task.task_type)
                and request.node in (None, task.assigned_node)
                and (request.since or 0.0) <= task.created_at <= (request.until or float("inf"))
                and task.seq < int(request.cursor or 1 << 60)
                and task.task_id not in self._discarded
            )

        found = sorted(filter(wanted, self.tasks.values()), key=lambda task: -task.seq)
        page = found[: request.limit]
        items = [_view(task) | {"payload": None, "result": None} for task in page]
        more = len(found) > len(page)
        return {"items": items, "next": page[-1].seq if more else None, "truncated_before": None}

    def do_attempts(self, request: p.NameRequest) -> list[dict[str, Any]]:
        self.find_task(request.name)
        return self.failures.get(request.name, [])

    def do_progress(self, request: p.NameRequest) -> dict[str, Any]:
        task, value = self.find_task(request.name), self.said.get(request.name)
        return {"status": task.status.value, "progress": value, "at": value["at"] if value else None}

    def do_explain(self, request: p.NameRequest) -> dict[str, Any]:
        node = self.nodes.get(request.name)
        kind = "node" if node else "task"
        status = node.status.value if node else self.find_task(request.name).status.value
        told = {"kind": kind, "id": request.name, "status": status, "verdict": f"The {kind} is {status}."}
        return told | {"facts": {}, "checks": [], "story": []}

    def do_logs(self, request: p.LogsRequest) -> list[tuple[int, float, str, str]]:
        self.find_task(request.task_id)
        lines = [line for line in self.lines.get(request.task_id, []) if line[0] > request.after]
        return lines[: request.limit]

    def do_find(self, request: p.NameRequest) -> list[str]:
        return [name for name in self.tasks if name.startswith(request.name)][: request.limit]

    # Changes.

    def do_cancel(self, request: p.IdsRequest) -> dict[str, str]:
        done: dict[str, str] = {}
        for name in request.ids:
            task = self.find_task(name)
            running = task.status is TaskStatus.RUNNING
            done[name] = task.status.value if task.terminal else "cancelling" if running else "cancelled"
            if not request.plan and not task.terminal:
                self.end(name, status="cancelled")
        self._note(request, "task.cancel", *request.ids)
        return done

    def do_retry(self, request: p.IdsRequest) -> dict[str, str]:
        return self._again(request, "task.retry", dead=False)

    def do_replay(self, request: p.IdsRequest) -> dict[str, str]:
        return self._again(request, "deadletter.replay", dead=True)

    def _again(self, request: p.IdsRequest, verb: str, *, dead: bool) -> dict[str, str]:
        old = [self.find_task(name) for name in request.ids]
        for task in old:
            if not task.terminal or (dead and task.status is not TaskStatus.DEAD):
                raise Conflict(f"{task.task_id} is {task.status.value}", field="ids")
        if request.plan:
            return dict.fromkeys(request.ids, "")
        done: dict[str, str] = {}
        for task in old:
            fresh = DistributedTask(
                task_id(new_slab()), task.task_type, task.payload, origin=f"retry_of:{task.task_id}"
            )
            fresh.options, fresh.encoding, fresh.max_retries = task.options, task.encoding, task.max_retries
            self.add(fresh)
            done[task.task_id] = fresh.task_id
        self._note(request, verb, *request.ids)
        return done

    def do_discard(self, request: p.IdsRequest) -> dict[str, str]:
        for name in request.ids:
            if self.find_task(name).status is not TaskStatus.DEAD:
                raise Conflict(f"{name} is not a dead letter", field="ids")
        if not request.plan:
            self._discarded.update(request.ids)
        self._note(request, "deadletter.discard", *request.ids)
        return dict.fromkeys(request.ids, "discarded")

    def _note(self, request: Any, verb: str, *subjects: str) -> None:
        if not request.plan:
            subject = ", ".join(subjects)
            entry = {"at": self.now(), "actor": request.actor, "verb": verb, "subject": subject, "detail": ""}
            self._audit.insert(0, entry)

    # Queues, schedules, nodes.

    def do_queues(self, _request: p.Empty) -> list[dict[str, Any]]:
        held = {"ready": 0, "delayed": 0, "waiting": 0, "running": 0, "oldest": None}
        return [to_builtins(policy) | held for policy in self.queue_policies.values()]

    def do_queue_set(self, request: p.QueueRequest) -> dict[str, Any]:
        if not request.plan:
            self.queue_policies[request.policy.name] = request.policy
        self._note(request, "queue.set", request.policy.name)
        return to_builtins(request.policy)

    def do_queue_remove(self, request: p.NameRequest) -> dict[str, Any]:
        policy = self.queue_policies.get(request.name)
        if policy is None:
            raise UnknownQueue(f"there is no queue {request.name!r}", field="name")
        if not request.plan:
            del self.queue_policies[request.name]
        self._note(request, "queue.remove", request.name)
        return to_builtins(policy)

    def do_schedules(self, _request: p.Empty) -> list[dict[str, Any]]:
        return [self.schedules[name] for name in sorted(self.schedules)]

    def do_schedule(self, request: p.NameRequest) -> dict[str, Any]:
        if request.name not in self.schedules:
            raise NotFound(f"there is no schedule {request.name!r}", field="name")
        return self.schedules[request.name]

    def do_schedule_set(self, request: p.ScheduleRequest) -> dict[str, Any]:
        template = msgspec.structs.replace(request.task, slab=new_slab())
        [task] = self.tasks_of(template)
        next_run = None if request.paused else self.now() + (request.interval or 60.0)
        schedule = {
            "name": request.name,
            "task_type": task.task_type,
            "queue": task.queue,
            "cron": request.cron,
            "interval": request.interval,
            "timezone": request.timezone,
            "paused": request.paused,
            "next_run": next_run,
            "last_run": None,
            "runs": 0,
        }
        if not request.plan:
            self.schedules[request.name] = schedule
            self._templates[request.name] = template
        self._note(request, "schedule.set", request.name)
        return schedule

    def do_schedule_run(self, request: p.NameRequest) -> dict[str, str]:
        schedule = self.do_schedule(request)
        template = self._templates[request.name]
        template.slab = new_slab()
        [task] = self.tasks_of(template)
        if not request.plan:
            task.origin = f"schedule:{request.name}"
            self.add(task)
            schedule["runs"] += 1
            schedule["last_run"] = self.now()
        self._note(request, "schedule.run", request.name)
        return {"task_id": task.task_id}

    def do_schedule_pause(self, request: p.NameRequest) -> dict[str, Any]:
        return self._pause(request, paused=True)

    def do_schedule_resume(self, request: p.NameRequest) -> dict[str, Any]:
        return self._pause(request, paused=False)

    def _pause(self, request: p.NameRequest, *, paused: bool) -> dict[str, Any]:
        schedule = self.do_schedule(request) | {"paused": paused}
        if not request.plan:
            self.schedules[request.name] = schedule
        self._note(request, "schedule.pause" if paused else "schedule.resume", request.name)
        return schedule

    def do_schedule_remove(self, request: p.NameRequest) -> dict[str, Any]:
        schedule = self.do_schedule(request)
        if not request.plan:
            del self.schedules[request.name]
        self._note(request, "schedule.remove", request.name)
        return schedule

    def do_nodes(self, _request: p.Empty) -> list[dict[str, Any]]:
        return [node.to_dict() for node in self.nodes.values()]

    def do_node(self, request: p.NameRequest) -> dict[str, Any]:
        if request.name not in self.nodes:
            raise NotFound(f"there is no node {request.name!r}", field="name")
        running = [t for t in self.tasks.values() if t.status is TaskStatus.RUNNING]
        attempts = [
            {"task_id": t.task_id, "task_type": t.task_type, "started_at": t.started_at} for t in running
        ]
        return self.nodes[request.name].to_dict() | {"attempts": attempts}

    def do_node_control(self, request: p.NodeRequest) -> dict[str, Any]:
        node = self.do_node(p.NameRequest(request.node_id))
        if request.verb not in _VERBS:
            raise InvalidInput(f"{request.verb!r} is none of {', '.join(_VERBS)}", field="verb")
        if not request.plan:
            self.nodes[request.node_id].status = _VERBS[request.verb]
        self._note(request, f"node.{request.verb}", request.node_id)
        return {
            "node": self.nodes[request.node_id].to_dict(),
            "attempts": node["attempts"],
            "status": _VERBS[request.verb].value,
        }

    # Tokens of the API.

    def do_tokens(self, _request: p.Empty) -> list[dict[str, Any]]:
        return [token.view() | {"digest": token.digest} for token in self.tokens.values()]

    def do_token_create(self, request: p.TokenRequest) -> dict[str, Any]:
        secret, now = new_secret(), self.now()
        if any(token.name == request.name and token.valid(now) for token in self.tokens.values()):
            raise Conflict(f"a token called {request.name!r} is in force", field="name")
        expires = None if request.expires_in is None else now + request.expires_in
        name = f"tok_{len(self.tokens) + 1}"
        token = Token(
            name, request.name, role_named(request.role), digest_of(secret), now, request.actor, expires
        )
        if request.plan:
            return token.view()
        self.tokens[name] = token
        self._note(request, "token.create", request.name)
        return token.view() | {"secret": secret}

    def do_token_revoke(self, request: p.NameRequest) -> dict[str, Any]:
        found = [t for t in self.tokens.values() if request.name in {t.token_id, t.name}]
        if not found:
            raise NotFound(f"there is no token {request.name!r}")
        token = found[-1]
        if not request.plan:
            token = self.tokens[token.token_id] = msgspec.structs.replace(token, revoked_at=self.now())
        self._note(request, "token.revoke", token.name)
        return token.view()

    def do_tokens_used(self, request: p.TokensUsed) -> None:
        for name, at in request.used.items():
            if name in self.tokens:
                self.tokens[name] = msgspec.structs.replace(self.tokens[name], last_used_at=at)

    # The coordinator itself.

    def do_ping(self, _request: p.Empty) -> dict[str, float]:
        return {"now": self.now()}

    def do_status(self, _request: p.Empty) -> dict[str, Any]:
        counts: dict[str, int] = {}
        for task in self.tasks.values():
            counts[task.status.value] = counts.get(task.status.value, 0) + 1
        coordinator = {"pid": os.getpid(), "node_id": "nod_1", "epoch": 1, "started_at": 0.0}
        capacity = sum(node.max_concurrent_tasks for node in self.nodes.values())
        running = counts.get("running", 0)
        return {
            "coordinator_node_id": "nod_1",
            "total_nodes": len(self.nodes),
            "active_nodes": sum(n.status is NodeStatus.ACTIVE for n in self.nodes.values()),
            "offline_nodes": sum(n.status is NodeStatus.OFFLINE for n in self.nodes.values()),
            "total_capacity": capacity,
            "current_load": running,
            "load_percentage": 100.0 * running / capacity if capacity else 0.0,
            "pending_tasks": counts.get("pending", 0),
            "running_tasks": running,
            "nodes": [node.to_dict() for node in self.nodes.values()],
            "coordinator": coordinator,
            "tasks": counts,
        }

    def do_usage(self, _request: p.Empty) -> dict[str, Any]:
        return {"tasks": len(self.tasks)}

    def do_check(self, _request: p.Empty) -> list[str]:
        return []

    def do_audit(self, _request: p.Empty) -> list[dict[str, Any]]:
        return self._audit

    def do_metrics(self, _request: p.Empty) -> dict[str, float]:
        return {"tasks_in_memory": float(len(self.tasks))}

    def do_shutdown(self, _request: p.Empty) -> None:
        self.close()


def _view(task: DistributedTask) -> dict[str, Any]:
    return task.to_dict() | {"payload_encoding": task.encoding, "result_encoding": task.result_encoding}
