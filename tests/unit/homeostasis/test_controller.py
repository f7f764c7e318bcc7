from __future__ import annotations

import asyncio
import threading
import time

import pytest

from omnimind import HomeostaticController, InvalidInput, ResourceMetrics, ResourceState
from omnimind.clock import ManualClock
from omnimind.homeostasis.pressure import MemorySample
from omnimind.homeostasis.reader import Reading


class FakeReader:
    """A machine of one core and 100 bytes of memory, whose load is set by hand."""

    def __init__(self, cpu: float = 10.0, memory: int = 10, disk: int = 10) -> None:
        self.cpu, self.memory, self.disk = cpu, memory, disk
        self.moment = self.used = 0.0
        self.reads = 0
        self.broken: Exception | None = None
        self.gate: threading.Event | None = None

    def read(self) -> Reading:
        self.reads += 1
        if self.gate is not None:
            self.gate.wait(20)
        if self.broken is not None:
            raise self.broken
        self.moment += 1.0
        self.used += self.cpu / 100
        return Reading(
            self.moment, self.moment, self.used, 1.0, MemorySample(100, self.memory), (self.disk, 100)
        )


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def reader() -> FakeReader:
    return FakeReader()


@pytest.fixture
def controller(reader: FakeReader, clock: ManualClock) -> HomeostaticController:
    return HomeostaticController(reader=reader, clock=clock)


def metrics(percent: float) -> ResourceMetrics:
    return ResourceMetrics(10.0, percent, 1.0, 10.0, 1.0)


async def test_it_follows_the_machine(
    controller: HomeostaticController, reader: FakeReader, clock: ManualClock
) -> None:
    await controller.sample()
    assert controller.state.value == "optimal"
    assert controller.should_execute_task("background")
    assert controller.get_recommended_batch_size(100) == 100
    reader.memory = 93
    clock.advance(5)
    sample = await controller.sample()
    assert sample is not None
    assert sample.memory_percent == 93.0
    assert sample.cpu_percent == pytest.approx(10.0)
    assert controller.state.value == "critical"
    assert not controller.is_throttled()
    assert not controller.should_execute_task("medium")
    assert controller.should_execute_task("high")
    assert controller.get_recommended_batch_size(100) == 50
    reader.memory = 99
    clock.advance(5)
    await controller.sample()
    assert controller.is_throttled()
    assert not controller.should_execute_task("high")


async def test_thresholds_are_its_own(reader: FakeReader, clock: ManualClock) -> None:
    controller = HomeostaticController(
        cpu_threshold_warning=20, cpu_threshold_critical=30, reader=reader, clock=clock
    )
    reader.cpu = 25.0
    await controller.sample()
    assert controller.state.value == "warning"


async def test_callbacks_hear_of_each_switch_and_cannot_stop_it(
    controller: HomeostaticController, clock: ManualClock
) -> None:
    heard: list[tuple[str, float]] = []

    def broken(state: ResourceState, _: ResourceMetrics) -> None:
        raise RuntimeError(state)

    async def slow(state: ResourceState, sample: ResourceMetrics) -> None:
        heard.append((state.value, sample.memory_percent))

    controller.register_state_callback(broken)
    controller.register_state_callback(slow)
    controller.register_state_callback(lambda state, _: heard.append((state.value, 0.0)))
    await controller.take(metrics(85))
    await controller.take(metrics(86))
    clock.advance(60)
    await controller.take(metrics(10))
    assert heard == [("warning", 85.0), ("warning", 0.0), ("good", 10.0), ("good", 0.0)]
    assert controller.get_stats()["switches"] == 2
    assert controller.get_stats()["seconds_in_state"]["warning"] == 60.0


async def test_a_machine_that_cannot_be_read_keeps_the_last_state(
    controller: HomeostaticController, reader: FakeReader, clock: ManualClock
) -> None:
    reader.memory = 85
    await controller.sample()
    reader.broken = OSError("no such disk")
    clock.advance(100)
    assert await controller.sample() is None
    assert controller.state.value == "warning"
    stats = controller.get_stats()
    assert (stats["failures"], stats["last_error"]) == (1, "no such disk")
    reader.broken, reader.memory = None, 10
    assert await controller.sample() is not None
    assert controller.state.value == "good"


async def test_a_brake_holds_for_its_time_and_no_longer(
    controller: HomeostaticController, clock: ManualClock
) -> None:
    controller.throttle(30, "healing")
    controller.throttle(10, "shorter")
    assert controller.is_throttled()
    assert controller.state.value == "critical"
    assert not controller.should_execute_task("low")
    assert controller.get_stats()["throttle_reason"] == "healing"
    clock.advance(30)
    assert not controller.is_throttled()
    assert controller.should_execute_task("low")
    controller.throttle(30)
    controller.release()
    assert not controller.is_throttled()


@pytest.mark.parametrize("seconds", [0, -1, 3601, float("nan"), float("inf"), True])
def test_a_brake_that_would_never_let_go_is_refused(
    controller: HomeostaticController, seconds: float
) -> None:
    with pytest.raises(InvalidInput, match="seconds"):
        controller.throttle(seconds)


async def test_history_is_bounded_and_oldest_first(controller: HomeostaticController) -> None:
    for n in range(1200):
        await controller.take(metrics(n / 100))
    history = controller.get_metrics_history(3)
    assert [m.memory_percent for m in history] == [11.97, 11.98, 11.99]
    assert len(controller.get_metrics_history(5000)) == 1000
    assert controller.get_metrics_history(0) == []
    assert controller.get_current_metrics() is history[-1]
    with pytest.raises(InvalidInput, match="limit"):
        controller.get_metrics_history(-1)


def test_metrics_are_there_before_the_start(controller: HomeostaticController, reader: FakeReader) -> None:
    assert controller.get_current_metrics().memory_percent == 10.0
    assert reader.reads == 2


async def test_it_samples_by_itself_until_it_is_stopped(reader: FakeReader) -> None:
    controller = HomeostaticController(check_interval=0.01, reader=reader)
    third = asyncio.Event()
    take, taken = controller.take, list[ResourceMetrics]()

    async def counted(metrics: ResourceMetrics) -> None:
        await take(metrics)
        taken.append(metrics)
        if len(taken) == 3:
            third.set()

    controller.take = counted  # type: ignore[method-assign]
    await controller.start()
    await controller.start()
    await asyncio.wait_for(third.wait(), 20)
    assert controller.running
    await controller.stop()
    await controller.stop()
    reads = reader.reads
    await asyncio.sleep(0.1)
    assert reader.reads <= reads + 1
    assert not controller.get_stats()["running"]


async def test_a_disk_that_hangs_blocks_neither_the_loop_nor_the_stop(reader: FakeReader) -> None:
    reader.gate = threading.Event()
    controller = HomeostaticController(check_interval=0.01, reader=reader)
    try:
        await controller.start()
        await asyncio.sleep(0.2)
        assert reader.reads == 1
        async with asyncio.timeout(10):
            await controller.stop()
    finally:
        reader.gate.set()


async def test_the_real_machine_is_measured() -> None:
    controller = HomeostaticController(check_interval=0.05)
    await controller.start()
    try:
        deadline = time.monotonic() + 20
        while controller.get_stats()["samples"] < 2:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)
    finally:
        await controller.stop()
    sample = controller.get_current_metrics()
    assert 0 < sample.memory_percent < 100
    assert sample.memory_available_gb > 0
    assert sample.to_dict()["state"] in {s.value for s in ResourceState}


@pytest.mark.parametrize("interval", [0, -1, float("nan"), float("inf"), True])
def test_an_interval_that_makes_no_sense(interval: float) -> None:
    with pytest.raises(InvalidInput, match="check_interval"):
        HomeostaticController(check_interval=interval)


def test_thresholds_that_make_no_sense_name_their_resource() -> None:
    with pytest.raises(InvalidInput, match="memory_threshold"):
        HomeostaticController(memory_threshold_warning=95)


def test_the_overall_state_is_that_of_the_worst() -> None:
    assert ResourceMetrics(10, 20, 1.0, 91, 0.0).get_overall_state() is ResourceState.CRITICAL
    assert ResourceMetrics(96, 20, 1.0, 91, 0.0).to_dict() == {
        "cpu_percent": 96, "memory_percent": 20, "memory_available_gb": 1.0, "disk_percent": 91,
        "timestamp": 0.0, "state": "emergency",
    }  # fmt: skip


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1, "5", True, None])
def test_a_measurement_is_a_number(value: float) -> None:
    with pytest.raises(InvalidInput, match="cpu_percent"):
        ResourceMetrics(value, 1, 1, 1, 1)
