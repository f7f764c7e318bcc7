"""The command line on the real coordinator: core, ledger, methods and socket, in this process, without Ray.

Faked: the node, which "runs" a task as its payload says (``ok``, ``fail``, ``crash``, ``hang``). Each command
is a process of its own, as people run it.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from actors.admin import Admin
from actors.engine import Engine
from actors.service import Service
from actors.socket_server import SocketServer
from actors.tokens import Tokens
from actors.watching import Watchers
from omnimind.client import protocol
from omnimind.clock import SystemClock
from omnimind.cluster import events as ev
from omnimind.cluster.core import CoordinatorCore
from omnimind.cluster.node import NodeInfo
from omnimind.cluster.sends import Dispatch, Send, StopAttempts
from omnimind.instance import Paths, prepare
from omnimind.ledger.sqlite import SqliteLedger
from omnimind.registry import HandlerSpec

OUTCOMES = {
    "ok": ("ok", b'{"done": true}', None),
    "fail": (
        "error",
        None,
        {"type": "ValueError", "message": "no such width", "traceback": "Traceback\nValueError"},
    ),
    "crash": ("crashed", None, {"type": "WorkerDied", "message": "signal 9"}),
}


class Instance:
    """A coordinator of one home, on a thread of its own."""

    def __init__(self, home: Path) -> None:
        self.paths = Paths(home)
        prepare(self.paths)
        self.loop = asyncio.new_event_loop()
        self.running: dict[int, Any] = {}
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self.loop).result(30)

    async def _start(self) -> None:
        watchers = Watchers()
        self.engine = Engine(
            lambda: CoordinatorCore("nod_head", seed=1),
            SqliteLedger(self.paths.ledger),
            SystemClock(),
            outside=self._outside,
            ended=watchers.ended,
            fenced=lambda: None,
        )
        service = Service(self.engine, watchers)
        admin = Admin(self.engine, service, started_at=time.time(), stop=lambda: None)
        methods = service.methods() | admin.methods() | Tokens(self.engine).methods()
        await self.engine.start()

        async def call(method: str, body: bytes, _push: Any) -> bytes:
            if method == "hello":
                return protocol.encode(admin.hello())
            request = msgspec.msgpack.decode(body, type=protocol.METHODS[method])
            return protocol.encode(await methods[method](request))

        self.server = SocketServer(
            self.paths.socket, self.paths.token.read_text().strip(), call, lambda _: None
        )
        await self.server.start()
        spec = HandlerSpec("shop.resize", "sync", "name", "shop", "resize", doc="Resize a picture.")
        await service.code.register(protocol.HandlerRequest(spec=msgspec.json.encode(spec)))
        node = NodeInfo("nod_0123456789", "alpha", "127.0.0.1", max_concurrent_tasks=2, incarnation="life-1")
        await self.engine.ask(lambda n: ev.NodeJoined(node, request=n))
        self.beating = asyncio.create_task(self._beat())

    async def _beat(self) -> None:
        while True:
            held = tuple((fence, None, None) for fence in self.running)
            self.engine.feed(ev.Heartbeat("nod_0123456789", "life-1", held))
            await asyncio.sleep(0.2)

    def _outside(self, send: Send) -> None:
        match send:
            case Dispatch(_, _, batch):
                outcomes = []
                for index, item in enumerate(batch.items):
                    wanted = json.loads(item.payload).get("do", "ok")
                    if wanted in OUTCOMES:
                        status, value, error = OUTCOMES[wanted]
                        outcomes.append(ev.Outcome(index, status, value, error=error, seconds=0.01))
                final = len(outcomes) == len(batch.items)
                if not final:
                    self.running[batch.fence] = batch
                self._report(batch.fence, outcomes, final=final)
            case StopAttempts(_, _, fence, indexes):
                batch = self.running.pop(fence, None)
                if batch is not None:
                    gone = [ev.Outcome(i, "cancelled") for i in indexes or range(len(batch.items))]
                    self._report(fence, gone, final=True)
            case _:
                pass

    def _report(self, fence: int, outcomes: list[ev.Outcome], *, final: bool) -> None:
        async def report() -> None:
            await self.engine.ask(
                lambda n: ev.Outcomes(n, "nod_0123456789", "life-1", fence, outcomes, final=final)
            )

        asyncio.run_coroutine_threadsafe(report(), self.loop)

    def stop(self) -> None:
        async def end() -> None:
            self.beating.cancel()
            await self.server.stop()
            await self.engine.stop()

        asyncio.run_coroutine_threadsafe(end(), self.loop).result(30)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)
        self.loop.close()


@pytest.fixture(scope="module")
def instance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Instance]:
    made = Instance(tmp_path_factory.mktemp("home"))
    yield made
    made.stop()


Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run(instance: Instance) -> Run:
    def command(*words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        env = {**os.environ, "OMNIMIND_HOME": str(instance.paths.home)}
        return subprocess.run(
            [sys.executable, "-m", "omnimind", *words],
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            env=env,
            timeout=60,
        )

    return command


def document(done: subprocess.CompletedProcess[str], code: int = 0) -> Any:
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout)


def submit(run: Run, do: str, *more: str) -> str:
    return document(run("submit", "shop.resize", json.dumps({"do": do}), *more, "--json"))["task_id"]  # type: ignore[no-any-return]


def test_a_task_from_submission_to_result(run: Run) -> None:
    done = run("submit", "shop.resize", '{"do": "ok"}', "--wait")
    assert (done.returncode, json.loads(done.stdout)) == (0, {"done": True})
    task_id = submit(run, "ok", "--key", "k1")
    assert submit(run, "ok", "--key", "k1") == task_id
    again = run("submit", "shop.resize", '{"do": "fail"}', "--key", "k1")
    assert again.returncode == 4
    assert document(run("task", "wait", task_id, "--json"))["status"] == "completed"
    shown = document(run("task", "show", task_id, "--json"))
    assert shown["payload"] == {"do": "ok"}
    assert shown["result"] == {"done": True}


def test_failures_by_exit_code(run: Run) -> None:
    failed = run("submit", "shop.resize", '{"do": "fail"}', "--retries", "0", "--wait")
    assert failed.returncode == 5
    assert "no such width" in failed.stderr
    unknown = run("submit", "shop.rezise", "{}")
    assert unknown.returncode == 3
    assert "did you mean shop.resize?" in unknown.stderr
    assert run("submit", "shop.resize", "{}", "--queue", "none-such").returncode == 3
    assert run("task", "show", "tsk_" + "0" * 32).returncode == 3
    assert run("submit", "shop.resize", "{}", "--after", "tsk_" + "0" * 32).returncode in {2, 3}


def test_running_work_is_explained_waited_for_and_cancelled(run: Run) -> None:
    task_id = submit(run, "hang")
    assert run("task", "wait", task_id, "--timeout", "300ms").returncode == 7
    assert document(run("explain", task_id, "--json"))["status"] == "running"
    assert "runs on" in run("explain", task_id).stdout
    assert document(run("node", "show", "alpha", "--json"))["attempts"][0]["task_id"] == task_id
    plan = run("task", "cancel", task_id, "--plan", "--json")
    assert plan.returncode == 10
    done = run("task", "cancel", task_id, "--plan-id", json.loads(plan.stdout)["plan_id"])
    assert done.returncode == 0, done.stderr
    assert run("task", "wait", task_id).returncode == 6
    retried = document(run("task", "retry", task_id, "--json"))["items"][0]
    assert retried["retry_of"] == task_id
    assert run("task", "cancel", retried["task_id"]).returncode == 0


def test_running_tasks_are_listed_without_reading_what_waits(
    run: Run, instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("queue", "set", "full").returncode == 0
    assert run("queue", "pause", "full").returncode == 0
    first, second = submit(run, "hang"), submit(run, "hang")
    lines = "\n".join('{"do": "hang"}' for _ in range(600))
    assert run("submit", "shop.resize", "-", "--each", "--queue", "full", stdin=lines).returncode == 0
    reads: list[Any] = []
    ledger = instance.engine.ledger
    monkeypatch.setattr(ledger, "list", lambda *args: reads.append(args))
    listed = document(run("task", "list", "-s", "running", "--json"))["items"]
    assert [t["task_id"] for t in listed] == [second, first]
    page = document(run("task", "list", "-s", "running", "-n", "1", "--json"))
    rest = document(run("task", "list", "-s", "running", "--json", "--cursor", str(page["next_cursor"])))
    assert [t["task_id"] for t in rest["items"]] == [first]
    assert not reads
    monkeypatch.undo()
    for limit in (7, 500):
        assert (
            len(document(run("task", "list", "-s", "pending", "-n", str(limit), "--json"))["items"]) == limit
        )
    cancelled = run("task", "cancel", "--all", "--type", "shop.resize", "--yes", "--json")
    assert len(document(cancelled)["items"]) == 602
    assert run("queue", "remove", "full", "--yes").returncode == 0


def test_dead_letters(run: Run) -> None:
    task_id = submit(run, "crash")
    assert run("task", "wait", task_id).returncode == 5
    listed = document(run("deadletter", "list", "--json"))["items"]
    assert [t["task_id"] for t in listed] == [task_id]
    assert len(document(run("deadletter", "show", task_id, "--json"))["attempts"]) == 3
    assert run("deadletter", "replay", task_id, "--plan").returncode == 10
    assert run("deadletter", "discard", task_id).returncode == 4
    assert run("deadletter", "discard", task_id, "--yes").returncode == 0


def test_queues(run: Run) -> None:
    assert run("queue", "set", "mail", "--weight", "2", "--plan").returncode == 10
    assert run("queue", "show", "mail").returncode == 3
    assert document(run("queue", "set", "mail", "--weight", "2", "--json"))["weight"] == 2
    assert run("queue", "set", "mail", "--weight", "2", "--plan").returncode == 0
    assert document(run("queue", "pause", "mail", "--json"))["paused"] is True
    waiting = submit(run, "ok", "--queue", "mail")
    assert "is paused" in run("explain", waiting).stdout
    assert run("queue", "remove", "mail", "--yes").returncode == 4, "it is not empty"
    assert run("queue", "resume", "mail").returncode == 0
    assert run("task", "wait", waiting).returncode == 0
    assert run("queue", "remove", "mail", "--yes").returncode == 0
    assert "mail" not in run("queue", "list", "-o", "name").stdout.split()


def test_schedules(run: Run) -> None:
    line = ["schedule", "set", "hourly", "shop.resize", '{"do": "ok"}', "--every", "1h"]
    assert run(*line, "--plan").returncode == 10
    assert document(run(*line, "--json"))["interval"] == 3600
    assert document(run("schedule", "pause", "hourly", "--json"))["paused"] is True
    assert document(run("schedule", "resume", "hourly", "--json"))["paused"] is False
    task_id = run("schedule", "run", "hourly", "-o", "name").stdout.strip()
    assert run("task", "wait", task_id).returncode == 0
    assert document(run("schedule", "show", "hourly", "--json"))["next_run"].endswith("Z")
    assert run("schedule", "set", "bad", "shop.resize", "--cron", "61 * * * *").returncode == 2
    assert run("schedule", "remove", "hourly", "--yes").returncode == 0
    assert run("schedule", "show", "hourly").returncode == 3


def test_nodes(run: Run) -> None:
    assert run("node", "cordon", "alpha", "--plan").returncode == 10
    assert document(run("node", "cordon", "nod_0", "--json"))["items"][0]["status"] == "cordoned"
    waiting = submit(run, "ok")
    assert "cordoned" in run("explain", waiting).stdout
    assert document(run("explain", "alpha", "--json"))["kind"] == "node"
    assert run("node", "uncordon", "alpha").returncode == 0
    assert run("task", "wait", waiting).returncode == 0
    drained = run("node", "drain", "alpha", "--deadline", "5s", "--wait")
    assert drained.returncode == 0, drained.stderr
    assert run("node", "uncordon", "alpha").returncode == 0


@pytest.mark.parametrize(
    "line",
    [
        "status",
        "top --once",
        "task list",
        "node list",
        "queue list",
        "schedule list",
        "deadletter list",
        "handler list",
        "config list",
    ],
)
def test_every_list_for_people_and_programs(line: str, run: Run) -> None:
    done = run(*line.split())
    assert done.returncode == 0, done.stderr
    assert isinstance(document(run(*line.split(), "--json")), dict)


def test_status_has_the_keys_of_the_cluster_status(run: Run) -> None:
    found = document(run("status", "--json"))
    assert set(found) >= {
        "coordinator_node_id",
        "total_nodes",
        "active_nodes",
        "offline_nodes",
        "total_capacity",
        "current_load",
        "load_percentage",
        "pending_tasks",
        "running_tasks",
        "nodes",
        "coordinator",
        "tasks",
    }
    assert found["coordinator"]["pid"] == os.getpid()
    assert found["coordinator"]["epoch"] >= 1


def test_pages_of_tasks_join(run: Run) -> None:
    lines = "\n".join('{"do": "ok"}' for _ in range(7))
    made = document(run("submit", "shop.resize", "-", "--each", "--wait", "--json", stdin=lines))["items"]
    assert len(made) == 7
    seen: list[str] = []
    cursor: list[str] = []
    while True:
        page = document(run("task", "list", "-n", "5", "--json", *cursor))
        seen += [t["task_id"] for t in page["items"]]
        if page["next_cursor"] is None:
            break
        cursor = ["--cursor", str(page["next_cursor"])]
    assert len(seen) == len(set(seen)) == page["total"]
    assert {t["task_id"] for t in made} <= set(seen)


def test_doctor_finds_a_working_coordinator_and_loose_modes(run: Run, instance: Instance) -> None:
    instance.paths.token.chmod(0o644)
    done = run("doctor", "--json")
    states = {f["check"]: f["state"] for f in json.loads(done.stdout)["items"]}
    assert done.returncode == 1
    assert (states["coordinator"], states["ledger"], states["permissions"]) == ("ok", "ok", "error")
    assert run("doctor", "--fix", "--plan").returncode == 10
    fixed = run("doctor", "--fix", "--json")
    assert {f["check"]: f["state"] for f in json.loads(fixed.stdout)["items"]}["permissions"] == "ok"
    assert instance.paths.token.stat().st_mode & 0o077 == 0
    assert run("status").returncode == 0, "the socket of a coordinator that answers is not left over"


def test_a_wrong_token_is_refused(run: Run, instance: Instance) -> None:
    right = instance.paths.token.read_text()
    instance.paths.token.write_text("wrong\n")
    try:
        done = run("status", "--json")
        assert done.returncode == 4
        assert "token" in json.loads(done.stderr)["detail"]
    finally:
        instance.paths.token.write_text(right)


def test_completion_offers_live_ids(instance: Instance, run: Run) -> None:
    task_id = submit(run, "ok")
    env = {
        **os.environ,
        "OMNIMIND_HOME": str(instance.paths.home),
        "_OMNIMIND_COMPLETE": "bash_complete",
        "COMP_WORDS": "omnimind task show ",
        "COMP_CWORD": "3",
    }
    done = subprocess.run(
        [sys.executable, "-m", "omnimind"], capture_output=True, text=True, check=True, env=env
    )
    assert f"plain,{task_id}" in done.stdout.splitlines()
    assert done.stderr == ""


def test_a_token_is_made_listed_and_revoked(run: Run, instance: Instance) -> None:
    secret = run("token", "create", "ci", "--role", "viewer", "--expires", "1h").stdout.strip()
    assert secret.startswith("omt_")
    assert run("token", "create", "ci").returncode == 4, "one name, one token in force"
    for file in instance.paths.home.rglob("*"):
        if file.is_file():
            assert secret.encode() not in file.read_bytes(), file
    [row] = json.loads(run("token", "list", "--json").stdout)["items"]
    assert (row["name"], row["role"]) == ("ci", "viewer")
    assert run("token", "revoke", "ci", "--yes", "--reason", "over").returncode == 0
    [row] = json.loads(run("token", "list", "--json").stdout)["items"]
    assert row["revoked_at"] is not None
    assert run("token", "create", "ci").stdout.startswith("omt_"), "its name is free again"
    assert run("token", "revoke", "nobody", "--yes").returncode == 3
