"""`ClusterCoordinator` as one process uses it: its own nodes, no disk, no Ray."""

from __future__ import annotations

import asyncio

import pytest

from omnimind import DistributedTask, NodeInfo, NodeStatus, TaskPriority, TaskStatus
from omnimind.clock import ManualClock
from omnimind.cluster.placement import LoadBalancer
from omnimind.cluster.task import TaskOptions
from omnimind.coordinator import ClusterCoordinator
from omnimind.errors import CyclicDependency, InvalidInput, KeyConflict, NotFound, UnknownQueue


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def one(clock: ManualClock) -> ClusterCoordinator:
    return ClusterCoordinator("me", clock=clock.now)


def node(node_id: str, slots: int = 4, *caps: str) -> NodeInfo:
    return NodeInfo(node_id, node_id, "127.0.0.1", 1, max_concurrent_tasks=slots, capabilities=set(caps))


def test_defaults_are_those_of_the_design() -> None:
    info = NodeInfo("n", "h", "1.2.3.4", 7)
    assert (info.status, info.cpu_cores, info.memory_gb, info.max_concurrent_tasks) == (
        NodeStatus.ACTIVE,
        1,
        1.0,
        4,
    )
    assert info.get_load_factor() == 0.0
    assert info.can_accept_task()
    assert NodeInfo("n", "h", "", 0, max_concurrent_tasks=0).get_load_factor() == 1.0
    task = DistributedTask("t", "kind", {"a": 1})
    assert (task.status, task.priority, task.max_retries, task.retry_count) == ("pending", 5, 3, 0)
    assert task.to_dict()["priority_class"] == "medium"
    assert int(TaskPriority.MEDIUM) == 5


@pytest.mark.parametrize(("given", "number"), [("critical", 1), ("HIGH", 3), (TaskPriority.LOW, 7), (10, 10)])
def test_priorities_are_classes_names_or_numbers(given: object, number: int) -> None:
    assert DistributedTask("t", "kind", priority=given).priority == number  # type: ignore[arg-type]


@pytest.mark.parametrize("bad", [0, 11, "urgent", True, 1.5, None])
def test_what_is_no_priority_is_refused(bad: object) -> None:
    with pytest.raises(ValueError, match="no priority"):
        DistributedTask("t", "kind", priority=bad)  # type: ignore[arg-type]


def test_a_task_is_placed_at_once_when_a_node_has_room(one: ClusterCoordinator) -> None:
    one.register_node(node("a"))
    task = DistributedTask("t", "kind")
    assert one.submit_task(task) is True
    assert (task.status, task.assigned_node) == (TaskStatus.RUNNING, "a")
    assert one.nodes["a"].current_tasks == 1
    assert one.complete_task("t", {"ok": True})
    assert (one.tasks["t"].status, one.tasks["t"].result) == ("completed", {"ok": True})
    assert one.nodes["a"].current_tasks == 0
    assert one.nodes["a"].total_tasks_completed == 1
    assert one.complete_task("t", "again") is False
    assert one.tasks["t"].result == {"ok": True}
    one.validate()


def test_it_waits_when_there_is_no_room_and_goes_on_when_there_is(one: ClusterCoordinator) -> None:
    assert one.submit_task(DistributedTask("t1", "kind")) is False
    one.register_node(node("a", 1))
    assert one.tasks["t1"].status == "running"
    assert one.submit_task(DistributedTask("t2", "kind")) is False
    assert one.nodes["a"].status is NodeStatus.BUSY
    one.complete_task("t1")
    assert one.tasks["t2"].status == "running"
    one.validate()


def test_a_node_never_gets_more_than_its_slots_however_fast_it_is(one: ClusterCoordinator) -> None:
    one.register_node(node("a", 2))
    for i in range(20):
        one.submit_task(DistributedTask(f"t{i}", "kind"))
    for i in range(20):
        assert sum(t.status == "running" for t in one.tasks.values()) <= 2
        one.complete_task(f"t{i}")
    assert all(t.status == "completed" for t in one.tasks.values())


def test_needs_are_strict_and_a_listed_type_is_preferred(one: ClusterCoordinator) -> None:
    one.register_node(node("plain"))
    assert one.submit_task(DistributedTask("g", "kind", needs={"gpu"})) is False  # type: ignore[arg-type]
    one.register_node(node("expert", 4, "resize"))
    assert one.submit_task(DistributedTask("r", "resize"))
    assert one.tasks["r"].assigned_node == "expert"
    one.register_node(node("gpu", 4, "gpu"))
    assert one.tasks["g"].assigned_node == "gpu"
    one.validate()


def test_amounts_that_no_node_has_are_waited_for(one: ClusterCoordinator) -> None:
    """Ray would take such a batch and keep it, unsaid."""
    one.register_node(NodeInfo("small", capabilities={"gpu"}, resources={"GPU": 1.0}, memory_gb=2.0))
    options = TaskOptions(num_gpus=2.0, memory=3 << 30)
    assert options.amounts == {"gpu", "gpu>=2", f"memory>={3 << 30}"}
    wide = DistributedTask("w", "kind", needs=options.amounts, options=options)
    assert one.submit_task(wide) is False
    assert one.nodes["small"].lacking(wide.needs) == ["gpu>=2", f"memory>={3 << 30}"]
    one.register_node(NodeInfo("rich", capabilities={"gpu"}, resources={"GPU": 4.0}, memory_gb=1.0))
    assert wide.status == "pending", "enough GPUs, too little memory"
    one.register_node(NodeInfo("big", capabilities={"gpu"}, resources={"GPU": 2.0}, memory_gb=3.0))
    assert wide.assigned_node == "big"
    assert TaskOptions(num_gpus=1.0).amounts == {"gpu"}
    one.validate()


def test_urgent_tasks_go_first_and_nothing_waits_for_ever(
    one: ClusterCoordinator, clock: ManualClock
) -> None:
    for name in ("background", "low", "medium", "high", "critical"):
        one.submit_task(DistributedTask(name, "kind", priority=name))  # type: ignore[arg-type]
    one.register_node(node("a", 1))
    order = []
    for _ in range(5):
        [running] = [t for t in one.tasks.values() if t.status == "running"]
        order.append(running.task_id)
        one.complete_task(running.task_id)
    assert order == ["critical", "high", "medium", "low", "background"]
    one.submit_task(DistributedTask("busy", "kind"))
    one.submit_task(DistributedTask("old", "kind", priority="background"))  # type: ignore[arg-type]
    clock.advance(4 * 300 + 1)
    one.update_node_heartbeat("a")
    one.submit_task(DistributedTask("new", "kind", priority="critical"))  # type: ignore[arg-type]
    one.complete_task("busy")
    assert one.tasks["old"].status == "running"


def test_a_silent_node_goes_offline_and_its_tasks_go_elsewhere(
    one: ClusterCoordinator, clock: ManualClock
) -> None:
    one.register_node(node("a"))
    one.submit_task(DistributedTask("t", "kind"))
    clock.advance(20)
    one.register_node(node("b"))
    clock.advance(15)
    one.update_node_heartbeat("b")
    one.tick()
    assert one.nodes["a"].status is NodeStatus.OFFLINE
    assert one.tasks["t"].assigned_node == "b"
    status = one.get_cluster_status()
    assert (status["total_nodes"], status["active_nodes"], status["offline_nodes"]) == (2, 1, 1)
    assert status["running_tasks"] == 1
    assert one.update_node_heartbeat("a")
    assert one.get_node_status("a")["status"] == "active"  # type: ignore[index]
    one.validate()


def test_the_loop_of_start_does_the_same() -> None:
    async def scenario() -> None:
        one = ClusterCoordinator("me", heartbeat_interval=0.01, heartbeat_timeout=0.05)
        one.register_node(node("a"))
        one.submit_task(DistributedTask("t", "kind"))
        await one.start()
        await one.start()
        for _ in range(500):
            await asyncio.sleep(0.01)
            if one.nodes["a"].status is NodeStatus.OFFLINE:
                break
        assert one.nodes["a"].status is NodeStatus.OFFLINE
        assert one.tasks["t"].status == "pending"
        await one.stop()
        await one.stop()
        assert one.running is False

    asyncio.run(scenario())


def test_an_error_is_retried_after_a_while_and_in_the_end_fails(
    one: ClusterCoordinator, clock: ManualClock
) -> None:
    one.register_node(node("a"))
    one.submit_task(DistributedTask("t", "kind", max_retries=2))
    for retry in (1, 2):
        one.complete_task("t", None, error=RuntimeError("boom"))
        assert (one.tasks["t"].status, one.tasks["t"].retry_count) == ("pending", retry)
        assert "boom" in one.tasks["t"].cause
        clock.advance(5)
        one.update_node_heartbeat("a")
        one.tick()
        assert one.tasks["t"].status == "running"
    one.complete_task("t", None, error="boom")
    task = one.tasks["t"]
    assert task.status == "failed"
    assert task.error is not None
    assert task.error["message"] == "boom"
    assert "retries used up" in task.cause


def test_dependents_start_when_they_may_and_fail_with_the_cause(one: ClusterCoordinator) -> None:
    one.register_node(node("a"))
    one.submit_task(DistributedTask("first", "kind", max_retries=0))
    assert one.submit_task(DistributedTask("second", "kind", after=("first",))) is False
    one.submit_task(DistributedTask("third", "kind", after=("second",)))
    one.complete_task("first")
    assert one.tasks["second"].status == "running"
    assert one.tasks["third"].status == "pending"
    one.tasks["second"].max_retries = 0
    one.complete_task("second", error="no")
    assert one.tasks["third"].status == "failed"
    assert "second" in one.tasks["third"].cause
    one.submit_task(DistributedTask("late", "kind", after=("third",)))
    assert one.tasks["late"].status == "failed"
    one.validate()


def test_a_key_stands_for_one_task(one: ClusterCoordinator) -> None:
    one.submit_task(DistributedTask("t1", "kind", {"a": 1}, key="k"))
    one.submit_task(DistributedTask("t2", "kind", {"a": 1}, key="k"))
    assert "t2" not in one.tasks
    with pytest.raises(KeyConflict, match="t1"):
        one.submit_task(DistributedTask("t3", "kind", {"a": 2}, key="k"))


def test_wrong_submissions_name_the_field(one: ClusterCoordinator, clock: ManualClock) -> None:
    for error, task in (
        (UnknownQueue, DistributedTask("t", "kind", queue="nope")),
        (InvalidInput, DistributedTask("t", "kind", deadline=clock.now() - 1)),
        (InvalidInput, DistributedTask("t", "kind", timeout=-1)),
        (InvalidInput, DistributedTask("t", "kind", timeout=float("nan"))),
        (InvalidInput, DistributedTask("t", "kind", max_retries=-1)),
        (NotFound, DistributedTask("t", "kind", after=("nobody",))),
        (CyclicDependency, DistributedTask("t", "kind", after=("t",))),
    ):
        with pytest.raises(error) as caught:
            one.submit_task(task)
        assert caught.value.field
        assert "t" not in one.tasks


def test_cancel_unregister_and_callbacks(one: ClusterCoordinator) -> None:
    seen: list[tuple[str, str]] = []
    one.register_task_callback(lambda task: seen.append((task.task_id, task.status.value)))
    one.register_task_callback(lambda task: 1 / 0)
    one.register_node(node("a", 1))
    one.submit_task(DistributedTask("t1", "kind"))
    one.submit_task(DistributedTask("t2", "kind"))
    assert one.cancel_task("t2")
    assert one.cancel_task("t1")
    assert not one.cancel_task("t1")
    one.submit_task(DistributedTask("t3", "kind"))
    assert one.unregister_node("a")
    assert not one.unregister_node("a")
    assert one.tasks["t3"].status == "pending"
    assert seen == [
        ("t1", "running"),
        ("t2", "cancelled"),
        ("t1", "cancelled"),
        ("t3", "running"),
    ]
    assert one.get_node_status("a") is None
    one.validate()


def test_a_deadline_ends_a_task_that_waits(one: ClusterCoordinator, clock: ManualClock) -> None:
    one.submit_task(DistributedTask("t", "kind", deadline=clock.now() + 5))
    clock.advance(6)
    one.tick()
    assert one.tasks["t"].status == "expired"


@pytest.mark.parametrize("strategy", ["least_loaded", "round_robin", "random", "ray"])
def test_every_strategy_takes_only_nodes_that_can(strategy: str) -> None:
    full = node("full", 1)
    full.current_tasks = 1
    away = node("away")
    away.status = NodeStatus.CORDONED
    free = [node("x"), node("y", 4, "gpu")]
    balancer = LoadBalancer(strategy)
    for _ in range(20):
        chosen = balancer.select_node([full, away, *free])
        assert chosen in free
        needing = balancer.select_node([full, away, *free], DistributedTask("t", "k", needs={"gpu"}))  # type: ignore[arg-type]
        assert needing is free[1]
    assert balancer.select_node([full, away]) is None
    assert balancer.select_node([]) is None


def test_least_loaded_and_round_robin_do_what_they_say() -> None:
    a, b = node("a"), node("b")
    a.current_tasks = 2
    assert LoadBalancer().select_node([a, b]) is b
    turn = LoadBalancer("round_robin")
    assert [turn.select_node([a, b]) for _ in range(4)] == [a, b, a, b]


def test_an_unknown_strategy_is_an_error() -> None:
    with pytest.raises(InvalidInput, match="least_loaded"):
        LoadBalancer("fastest")
    with pytest.raises(InvalidInput, match="least_loaded"):
        ClusterCoordinator("me", "fastest")
