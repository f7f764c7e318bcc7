from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

import pytest

from omnimind import AsyncClient, Client, InvalidInput, NotFound, task
from omnimind.client.protocol import LogsRequest
from omnimind.context import TaskContext
from omnimind.errors import Conflict
from omnimind.testing.fake import FakeCoordinator


@task
def double(x: int) -> int:
    return 2 * x


@task
def wordy(context: TaskContext, n: int) -> None:
    for i in range(n):
        context.log(f"line {i}")
    context.progress(n, n, "done")


def test_queues(om: Client, fake: FakeCoordinator) -> None:
    assert [queue["name"] for queue in om.queues.list()] == ["default"]
    made = om.queues.set("mail", weight=2.5, concurrency=3)
    assert (made["weight"], made["concurrency"], made["rate"], made["paused"]) == (2.5, 3, None, False)
    changed = om.queues.set("mail", rate=10, concurrency=None)
    assert (changed["weight"], changed["concurrency"], changed["rate"]) == (2.5, None, 10.0)
    assert om.queues.pause("mail")["paused"]
    assert om.queues.get("mail")["paused"]
    assert not om.queues.resume("mail")["paused"]
    assert om.queues.get("mail")["weight"] == 2.5
    assert om.queues.remove("mail")["name"] == "mail"
    assert {request.actor for request in fake.called("queue_set")} == {"test"}


@pytest.mark.parametrize("verb", ["get", "pause", "resume"])
def test_a_queue_that_is_not_there(om: Client, verb: str) -> None:
    with pytest.raises(NotFound, match="queue list"):
        getattr(om.queues, verb)("nowhere")


@pytest.mark.parametrize(
    ("policy", "field"),
    [
        ({"wait": 1}, "wait"),
        ({"weight": "heavy"}, "queue"),
        ({"concurrency": 1.5}, "queue"),
    ],
)
def test_a_bad_policy_is_named(om: Client, policy: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        om.queues.set("a", **policy)
    assert caught.value.field == field


def test_schedules(om: Client, fake: FakeCoordinator) -> None:
    made = om.schedules.set(
        "nightly", double, x=21, cron="30 2 * * *", timezone="Europe/Berlin", priority="low"
    )
    assert (made["cron"], made["timezone"], made["task_type"]) == ("30 2 * * *", "Europe/Berlin", double.name)
    [request] = fake.called("schedule_set")
    assert (request.task.slab, request.task.payloads, request.task.priority) == ("", [b'{"x":21}'], 7)
    handle = om.schedules.run("nightly")
    assert handle.result(5) == 42
    assert handle.info()["origin"] == "schedule:nightly"
    assert om.schedules.get("nightly")["runs"] == 1
    assert om.schedules.pause("nightly")["paused"]
    assert not om.schedules.resume("nightly")["paused"]
    assert om.schedules.set("often", double, 1, interval=timedelta(minutes=5))["interval"] == 300.0
    assert [schedule["name"] for schedule in om.schedules.list()] == ["nightly", "often"]
    om.schedules.remove("nightly")
    with pytest.raises(NotFound):
        om.schedules.get("nightly")


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({}, "cron"),
        ({"cron": "* * * * *", "interval": 5}, "cron"),
        ({"interval": 0}, "interval"),
        ({"interval": -5}, "interval"),
        ({"interval": 5, "key": "k"}, "key"),
        ({"interval": 5, "delay": 1}, "delay"),
        ({"interval": 5, "y": 1}, "y"),
    ],
)
def test_a_bad_schedule_is_named(om: Client, options: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        om.schedules.set("s", double, x=1, **options)
    assert caught.value.field == field


def test_nodes(om: Client, fake: FakeCoordinator) -> None:
    [node] = om.nodes.list()
    name = node["node_id"]
    assert om.nodes.get(name)["attempts"] == []
    assert (
        om.nodes.drain(name, deadline=timedelta(minutes=1), reason="disk", plan=True)["status"] == "draining"
    )
    assert om.nodes.get(name)["status"] == "active"
    om.nodes.cordon(name)
    assert om.nodes.get(name)["status"] == "cordoned"
    om.nodes.uncordon(name)
    assert om.nodes.get(name)["status"] == "active"
    drain = fake.called("node_control")[0]
    assert (drain.verb, drain.deadline, drain.reason, drain.plan) == ("drain", 60.0, "disk", True)
    with pytest.raises(InvalidInput) as caught:
        om.nodes.drain(name, deadline=-1)
    assert caught.value.field == "deadline"
    with pytest.raises(NotFound):
        om.nodes.get("nod_x")


async def test_dead_letters(idle_om: AsyncClient, idle: FakeCoordinator) -> None:
    handles = await idle_om.submit_many(double, range(4))
    for handle in handles[:3]:
        idle.end(handle.id, status="dead")
    parked = [task["task_id"] async for task in idle_om.deadletters.list()]
    assert sorted(parked) == sorted(handle.id for handle in handles[:3])
    shown = await idle_om.deadletters.show(handles[1])
    assert (shown["payload"], shown["attempts"]) == ({"x": 1}, [])
    again = await idle_om.deadletters.replay(handles[0])
    idle.end(again.id, 0)
    assert await again == 0
    assert await idle_om.deadletters.replay_many([handles[1].id]) != {}
    assert await idle_om.deadletters.discard(handles[2]) == "discarded"
    assert await idle_om.deadletters.discard_many([]) == {}
    assert handles[2].id not in [task["task_id"] async for task in idle_om.deadletters.list(limit=10)]
    with pytest.raises(Conflict):
        _ = await idle_om.deadletters.replay(handles[3])


def test_dead_letters_of_a_sync_client(om: Client, fake: FakeCoordinator) -> None:
    assert list(om.deadletters.list()) == []


def test_lists_go_on_over_pages(om: Client, fake: FakeCoordinator) -> None:
    handles = om.submit_many(double, range(450))
    om.wait(handles)
    listed = [task["task_id"] for task in om.list()]
    assert listed == [handle.id for handle in reversed(handles)]
    assert len(fake.called("list")) == 3
    assert [task["task_id"] for task in om.list(limit=3, status="completed")] == listed[:3]
    assert list(om.list(status=["pending", "running"])) == []
    assert list(om.list(task_type="other")) == list(om.list(queue="other")) == []
    assert list(om.list(since=time.time() + 10)) == []


def test_a_status_that_is_none(om: Client) -> None:
    with pytest.raises(InvalidInput, match="they are: pending") as caught:
        list(om.list(status="ok"))
    assert caught.value.field == "status"


def test_logs_and_progress(om: Client, fake: FakeCoordinator) -> None:
    handle = om.submit(wordy, n=700)
    handle.result(5)
    lines = list(handle.logs())
    assert [line.text for line in lines] == [f"line {i}" for i in range(700)]
    assert (lines[0].level, lines[0].number) == ("info", 1)
    assert handle.progress()["progress"]["message"] == "done"
    assert list(handle.logs(follow=True)) == lines


async def test_following_logs_ends_with_the_task(idle_om: AsyncClient, idle: FakeCoordinator) -> None:
    handle = await idle_om.submit(double, 1)
    idle.lines[handle.id] = [(1, 0.0, "info", "first")]
    lines = handle.logs(follow=True)
    assert (await anext(lines)).text == "first"
    idle.lines[handle.id].append((2, 0.0, "info", "second"))
    idle.end(handle.id, 2)
    assert [line.text async for line in lines] == ["second"]


async def test_following_hears_lines_that_come_after_the_end(
    idle_om: AsyncClient, idle: FakeCoordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = await idle_om.submit(double, 1)
    idle.end(handle.id, 2)
    assert await handle.result(5) == 2
    look = idle.do_logs
    looks = 0

    def late(request: LogsRequest) -> list[tuple[int, float, str, str]]:
        nonlocal looks
        looks += 1
        found = look(request)
        # The first look comes before the client knows of the end, the second one after it.
        if looks == 2:
            idle.lines[handle.id] = [(1, 0.0, "info", "late")]
        return found

    monkeypatch.setattr(idle, "do_logs", late)
    monkeypatch.setattr("omnimind.client.tasks._LOG_PAUSE", 0.05)
    assert [line.text async for line in handle.logs(follow=True)] == ["late"]


def test_the_cluster_at_a_glance(om: Client) -> None:
    handle = om.submit(double, 1)
    handle.result(5)
    assert om.cluster_status()["tasks"] == {"completed": 1}
    assert om.status(handle) == "completed"
    assert om.explain(handle)["kind"] == "task"
    assert om.explain("nod_1")["kind"] == "node"
    assert handle.explain()["id"] == handle.id
    assert om.find(handle.id[:10]) == [handle.id]
    assert [found["task_type"] for found in om.list_handlers()] == [double.name]
    assert om.ping() == pytest.approx(time.time(), abs=60)


def test_attempts_that_failed_are_told(om: Client) -> None:
    @task(retries=2)
    def fails() -> None:
        raise ValueError

    handle = om.submit(fails)
    handle.wait(5)
    assert [attempt["attempt"] for attempt in om.attempts(handle)] == [0, 1, 2]
