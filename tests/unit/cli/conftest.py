"""The command line on a fake coordinator.

Faked: the coordinator's answers (`FakeCoordinator`, whose state a test reads back), and the link to it. Every
request and answer goes through the real encoding. Left alone: click, the commands, the rendering.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result

from omnimind.cli.main import cli
from omnimind.cli.session import Session
from omnimind.client import protocol
from omnimind.cluster.node import NodeInfo
from omnimind.cluster.policies import QueuePolicy, to_builtins
from omnimind.cluster.states import NodeStatus, TaskStatus
from omnimind.cluster.task import DistributedTask
from omnimind.errors import (
    Conflict,
    NotFound,
    OmniMindError,
    Unavailable,
    UnknownQueue,
    UnknownTaskType,
    from_problem,
)
from omnimind.ids import task_id

NOW = time.time()
SLAB = "tsk_019abcde00007000800000000000"
IDS = {
    name: task_id(f"tsk_019abcde{i:04x}70008000000000{i:02x}"[:32], 0)
    for i, name in enumerate(("pending", "running", "completed", "failed", "cancelled", "dead"), start=1)
}
TERMINAL = {"completed", "failed", "cancelled", "expired", "dead"}


def make_task(name: str, status: str, **more: Any) -> DistributedTask:
    return DistributedTask(
        IDS[name],
        "shop.resize",
        b'{"path": "a.png", "width": 200}',
        created_at=NOW - 3600,
        status=TaskStatus(status),
        **more,
    )


def _token(token_id: str, name: str, role: str) -> dict[str, Any]:
    return {
        "token_id": token_id,
        "name": name,
        "role": role,
        "digest": "secret-digest",
        "created_at": NOW - 100,
        "created_by": "cli:me",
        "expires_at": None,
        "revoked_at": None,
        "last_used_at": None,
    }


class FakeCoordinator:
    """A coordinator of plain dicts. `calls` holds each (method, request) it was asked, in order."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []
        self.tasks = {
            t.task_id: t
            for t in (
                make_task("pending", "pending", queue="mail"),
                make_task("running", "running", started_at=NOW - 10, assigned_node="nod_a"),
                make_task(
                    "completed",
                    "completed",
                    started_at=NOW - 60,
                    completed_at=NOW - 58,
                    result=b'{"ok": true}',
                ),
                make_task(
                    "failed",
                    "failed",
                    completed_at=NOW - 50,
                    cause="retries used up",
                    error={
                        "type": "ValueError",
                        "message": "no such width",
                        "traceback": "Traceback …\nValueError",
                    },
                ),
                make_task("cancelled", "cancelled", completed_at=NOW - 40, cause="cancelled"),
                make_task("dead", "dead", completed_at=NOW - 30, deaths=3, cause="killed 3 workers"),
            )
        }
        self.nodes = {
            n.node_id: n
            for n in (
                NodeInfo(
                    "nod_a", "alpha", "10.0.0.1", 1, current_tasks=1, last_heartbeat=NOW, pids={"Node": 11}
                ),
                NodeInfo("nod_b", "beta", "10.0.0.2", 1, NodeStatus.CORDONED, last_heartbeat=NOW - 2),
            )
        }
        self.queues = {q.name: q for q in (QueuePolicy("default"), QueuePolicy("mail", concurrency=2))}
        self.schedules: dict[str, dict[str, Any]] = {
            "nightly": {
                "name": "nightly",
                "task_type": "shop.resize",
                "queue": "default",
                "cron": "0 2 * * *",
                "interval": None,
                "timezone": "UTC",
                "paused": False,
                "next_run": NOW + 3600,
                "last_run": None,
                "runs": 0,
            }
        }
        self.tokens = [
            _token("tok_1", "ci", "submitter"),
            _token("tok_2", "old", "viewer") | {"revoked_at": NOW - 5},
        ]
        self.logs: list[list[Any]] = [[n, NOW - 10 + n, "info", f"line {n}"] for n in range(1, 4)]
        self.unreachable = False
        self.truncated_before: float | None = None
        self.hello: dict[str, Any] = {"omnimind": "0", "epoch": 3, "pid": 42, "version": 1}

    # The link.

    def call(self, method: str, request: msgspec.Struct, timeout: float | None = None) -> Any:
        if self.unreachable:
            raise Unavailable("no coordinator answers on the socket")
        assert type(request) is protocol.METHODS[method]
        sent = msgspec.msgpack.decode(protocol.encode(request), type=type(request))
        self.calls.append((method, sent))
        try:
            answer = getattr(self, f"on_{method}")(sent)
        except OmniMindError as error:
            raise from_problem(json.loads(json.dumps(error.to_problem()))) from None
        return protocol.decode(protocol.encode(answer))

    def close(self) -> None:
        pass

    def asked(self, method: str) -> list[Any]:
        return [request for name, request in self.calls if name == method]

    def state(self) -> str:
        """Return everything that a write could change, to compare."""
        parts = (
            list(self.tasks.values()),
            list(self.nodes.values()),
            list(self.queues.values()),
            list(self.schedules.items()),
            self.tokens,
        )
        return repr(parts)

    # Methods.

    def _task(self, wanted: str) -> DistributedTask:
        if wanted not in self.tasks:
            raise NotFound(f"there is no task {wanted}")
        return self.tasks[wanted]

    @staticmethod
    def _dict(task: DistributedTask) -> dict[str, Any]:
        return {**task.to_dict(), "payload_encoding": task.encoding, "result_encoding": task.result_encoding}

    def on_status(self, _: Any) -> Any:
        by_status: dict[str, int] = {}
        for t in self.tasks.values():
            by_status[t.status.value] = by_status.get(t.status.value, 0) + 1
        return {
            "coordinator_node_id": "nod_a",
            "total_nodes": 2,
            "active_nodes": 1,
            "offline_nodes": 0,
            "total_capacity": 8,
            "current_load": 1,
            "load_percentage": 12.5,
            "pending_tasks": by_status.get("pending", 0),
            "running_tasks": by_status.get("running", 0),
            "nodes": {k: n.to_dict() for k, n in self.nodes.items()},
            "coordinator": {"pid": 42, "node_id": "nod_a", "epoch": 3, "started_at": NOW - 7200},
            "tasks": by_status,
        }

    def on_ping(self, _: Any) -> Any:
        return {"now": time.time()}

    def on_check(self, _: Any) -> Any:
        return []

    def on_usage(self, _: Any) -> Any:
        return {
            "by_status": self.on_status(None)["tasks"],
            "by_queue": {},
            "bytes": 4096,
            "pruned": 0,
            "pruned_before": None,
        }

    def on_find(self, request: protocol.NameRequest) -> Any:
        return [t for t in self.tasks if t.startswith(request.name)][: request.limit]

    def on_tasks(self, request: protocol.IdsRequest) -> Any:
        return [self._dict(self.tasks[t]) for t in request.ids if t in self.tasks]

    def on_list(self, request: protocol.ListRequest) -> Any:
        found = [
            t
            for t in self.tasks.values()
            if (not request.status or t.status in request.status)
            and request.queue in (None, t.queue)
            and request.task_type in (None, t.task_type)
            and request.node in (None, t.assigned_node)
        ]
        start = int(request.cursor or 0)
        items = [
            {**self._dict(t), "payload": None, "result": None} for t in found[start : start + request.limit]
        ]
        more = start + request.limit if len(found) > start + request.limit else None
        return {"items": items, "next": more, "truncated_before": self.truncated_before}

    def on_attempts(self, request: protocol.NameRequest) -> Any:
        if self._task(request.name).status is not TaskStatus.FAILED:
            return []
        error = {"type": "ValueError", "message": "no such width"}
        return [
            {
                "task_id": request.name,
                "attempt": 0,
                "fence": 7,
                "node": "nod_a",
                "outcome": "error",
                "cause": "the handler raised",
                "error": error,
                "ended_at": NOW - 50,
                "seconds": 0.25,
            }
        ]

    def on_logs(self, request: protocol.LogsRequest) -> Any:
        self._task(request.task_id)
        return [line for line in self.logs if line[0] > request.after][: request.limit]

    def on_progress(self, request: protocol.NameRequest) -> Any:
        return {
            "status": self._task(request.name).status.value,
            "progress": {"done": 3, "total": 9, "message": "cutting", "at": NOW - 1},
            "at": NOW - 1,
        }

    def on_explain(self, request: protocol.NameRequest) -> Any:
        kind = "task" if request.name in self.tasks else "node"
        check = {"node": "nod_b", "check": "takes work", "ok": False, "detail": "it is cordoned"}
        return {
            "kind": kind,
            "id": request.name,
            "status": "pending",
            "verdict": "no node is free",
            "facts": {"queue": "mail", "created_at": NOW - 3600},
            "checks": [check],
            "story": [{"at": NOW - 3600, "what": "submitted by cli:me"}],
        }

    def on_watch(self, request: protocol.WatchRequest) -> Any:
        ended = [self._task(t) for t in request.ids]
        return {
            "results": [
                [t.task_id, t.status.value, t.result, t.result_encoding, t.error, t.cause]
                for t in ended
                if t.status.value in TERMINAL
            ]
        }

    def on_submit(self, request: protocol.SubmitRequest) -> Any:
        if request.task_type != "shop.resize":
            raise UnknownTaskType(f"no handler for {request.task_type}", field="task_type")
        if request.queue not in (None, *self.queues):
            raise UnknownQueue(f"no queue {request.queue}", field="queue")
        for i, payload in enumerate(request.payloads):
            t = DistributedTask(
                task_id(request.slab, i),
                request.task_type,
                payload,
                status=TaskStatus.COMPLETED,
                created_at=NOW,
                completed_at=NOW,
                result=b"7",
            )
            self.tasks[t.task_id] = t
        return {"count": len(request.payloads), "existing": {0: IDS["completed"]} if request.keys else {}}

    def on_cancel(self, request: protocol.IdsRequest) -> Any:
        done = {}
        for t in map(self._task, request.ids):
            done[t.task_id] = {"pending": "cancelled", "running": "cancelling"}.get(
                t.status.value, t.status.value
            )
            if not request.plan and t.status.value not in TERMINAL:
                t.status = TaskStatus.CANCELLED
        return done

    def on_retry(self, request: protocol.IdsRequest) -> Any:
        done = {}
        for i, t in enumerate(map(self._task, request.ids)):
            if t.status.value not in TERMINAL:
                raise Conflict(f"task {t.task_id} is {t.status.value}")
            done[t.task_id] = task_id(SLAB, i)
            if not request.plan:
                new = msgspec.structs.replace(t, task_id=done[t.task_id], status=TaskStatus.PENDING)
                self.tasks[new.task_id] = new
        return done

    on_replay = on_retry

    def on_discard(self, request: protocol.IdsRequest) -> Any:
        for t in map(self._task, request.ids):
            if not request.plan:
                del self.tasks[t.task_id]
        return dict.fromkeys(request.ids, "discarded")

    def on_nodes(self, _: Any) -> Any:
        return [n.to_dict() for n in self.nodes.values()]

    def on_node(self, request: protocol.NameRequest) -> Any:
        n = self.nodes[request.name]
        attempts = [{"task_id": IDS["running"], "task_type": "shop.resize", "started_at": NOW - 10}]
        return {**n.to_dict(), "attempts": attempts[: n.current_tasks]}

    def on_node_control(self, request: protocol.NodeRequest) -> Any:
        n = self.nodes[request.node_id]
        attempts = self.on_node(protocol.NameRequest(name=n.node_id))["attempts"]
        if not request.plan:
            n.status = NodeStatus(
                {"cordon": "cordoned", "drain": "draining", "uncordon": "active"}[request.verb]
            )
            n.current_tasks = 0
        return {"node": n.node_id, "attempts": len(attempts), "status": n.status.value}

    def _queue(self, q: QueuePolicy) -> dict[str, Any]:
        return {**to_builtins(q), "ready": 1, "delayed": 0, "waiting": 0, "running": 0, "oldest": NOW - 60}

    def on_queues(self, _: Any) -> Any:
        return [self._queue(q) for q in self.queues.values()]

    def on_queue_set(self, request: protocol.QueueRequest) -> Any:
        if not request.plan:
            self.queues[request.policy.name] = request.policy
        return self._queue(request.policy)

    def on_queue_remove(self, request: protocol.NameRequest) -> Any:
        answer = self._queue(self.queues[request.name])
        if not request.plan:
            del self.queues[request.name]
        return answer

    def on_schedules(self, _: Any) -> Any:
        return list(self.schedules.values())

    def on_schedule_set(self, request: protocol.ScheduleRequest) -> Any:
        made = {
            "name": request.name,
            "task_type": request.task.task_type,
            "queue": "default",
            "cron": request.cron,
            "interval": request.interval,
            "timezone": request.timezone,
            "paused": request.paused,
            "next_run": NOW + 60,
            "last_run": None,
            "runs": 0,
        }
        if not request.plan:
            self.schedules[request.name] = made
        return made

    def _turned(self, request: protocol.NameRequest, *, paused: bool) -> Any:
        if not request.plan:
            self.schedules[request.name]["paused"] = paused
        return self.schedules[request.name]

    def on_schedule_pause(self, request: protocol.NameRequest) -> Any:
        return self._turned(request, paused=True)

    def on_schedule_resume(self, request: protocol.NameRequest) -> Any:
        return self._turned(request, paused=False)

    def on_schedule_run(self, request: protocol.NameRequest) -> Any:
        if not request.plan:
            self.schedules[request.name]["runs"] += 1
        return {"task_id": IDS["completed"]}

    def on_schedule_remove(self, request: protocol.NameRequest) -> Any:
        found = self.schedules[request.name]
        if not request.plan:
            del self.schedules[request.name]
        return found

    def on_tokens(self, _: Any) -> Any:
        return self.tokens

    def on_token_create(self, request: protocol.TokenRequest) -> Any:
        made = _token("tok_3", request.name, request.role)
        if not request.plan:
            self.tokens = [*self.tokens, made]
        return made | ({} if request.plan else {"secret": "omt_fresh"})

    def on_token_revoke(self, request: protocol.NameRequest) -> Any:
        self.tokens = [t | {"revoked_at": NOW} if t["token_id"] == request.name else t for t in self.tokens]
        return next(t for t in self.tokens if t["token_id"] == request.name)

    def on_handlers(self, _: Any) -> Any:
        return [
            {
                "task_type": "shop.resize",
                "kind": "sync",
                "by": "name",
                "module": "shop",
                "qualname": "resize",
                "blob": None,
                "package": None,
                "doc": "Resize a picture.",
                "defaults": {"max_retries": 1},
                "digest": "ab",
            }
        ]

    def on_audit(self, _: Any) -> Any:
        return [{"at": NOW, "actor": "cli:me", "verb": "cancel", "subject": IDS["pending"], "detail": ""}]

    def on_metrics(self, _: Any) -> Any:
        return {"tasks_completed_total": 1.0}


@pytest.fixture
def fake() -> FakeCoordinator:
    return FakeCoordinator()


Run = Callable[..., Result]


@pytest.fixture
def run(fake: FakeCoordinator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command line against the fake; returns its result with stdout and stderr apart."""
    monkeypatch.setenv("OMNIMIND_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("NO_COLOR", raising=False)

    def invoke(*words: str, stdin: str | None = None, **extra: Any) -> Result:
        session = Session(connect=lambda _: fake)
        return CliRunner().invoke(cli, list(words), input=stdin, obj=session, catch_exceptions=False, **extra)

    return invoke


@pytest.fixture
def ids() -> dict[str, str]:
    return IDS
