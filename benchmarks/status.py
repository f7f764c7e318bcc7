"""`get_cluster_status` through the coordinator's actor, beside a call of an actor that does nothing."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import omnimind
from benchmarks import handlers
from benchmarks.child import Emit, MeasurementFailedError, Message, run
from benchmarks.figures import Figure, percentile
from benchmarks.peers import SLOTS
from benchmarks.settings import Settings, Step, Suite, SuiteFailedError
from omnimind.client import protocol
from omnimind.client.via_ray import ACTOR, NAMESPACE
from omnimind.instance import Paths, ray_environment, running

_TASKS = 10_000
_WARM_UP = 100
_CALLS = 3_000


class _Bare:
    def call(self) -> None:
        """Do nothing."""


def measure(request: Message, emit: Emit) -> Message:
    """Return {"status": [seconds, …], "bare": [seconds, …]}, calls that took turns."""
    home = Path(request["folder"]) / "home"
    emit({"step": "start"})
    with omnimind.local(SLOTS, home=home) as om:
        done = sum(1 for _ in om.map(handlers.noop, ({"value": index} for index in range(_TASKS))))
        assert done == _TASKS
        paths = Paths(home)
        os.environ.update(ray_environment(paths, running(paths)))
        import ray  # noqa: PLC0415  it reads the environment when it is imported

        ray.init(address=os.environ["RAY_ADDRESS"], log_to_driver=False)
        coordinator: Any = ray.get_actor(ACTOR, namespace=NAMESPACE)
        bare: Any = ray.remote(_Bare).options(num_cpus=0).remote()
        body = protocol.encode(protocol.Empty())

        def ask_status() -> None:
            good, answer = ray.get(coordinator.call_ray.remote("status", body))
            assert good, answer

        def ask_nothing() -> None:
            ray.get(bare.call.remote())

        emit({"step": f"{_CALLS:,} calls of each"})
        for _ in range(_WARM_UP):
            ask_status()
            ask_nothing()
        spans: dict[str, list[float]] = {"status": [], "bare": []}
        for _ in range(_CALLS):
            spans["status"].append(_seconds(ask_status))
            spans["bare"].append(_seconds(ask_nothing))
        ray.shutdown()
    return spans


def _seconds(call: Callable[[], None]) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def evaluate(answer: Message) -> list[Figure]:
    tails = {kind: percentile(answer[kind], 0.99) for kind in ("status", "bare")}
    middles = {kind: percentile(answer[kind], 0.50) for kind in ("status", "bare")}
    note = f"{len(answer['bare']):,} calls of each, in turns, from one driver"
    names = {"status": "get_cluster_status", "bare": "an actor call that does nothing"}
    return [
        Figure(
            name="status.p99_ratio",
            value=tails["status"] / tails["bare"],
            unit="x",
            must="<= 3",
            note=f"get_cluster_status divided by a bare actor call; {note}",
        ),
        *(
            Figure(name=f"status.{label}.{kind}", value=1e3 * seconds, unit="ms", note=names[kind])
            for label, found in (("p50", middles), ("p99", tails))
            for kind, seconds in found.items()
        ),
    ]


def _run(settings: Settings, step: Step) -> list[Figure]:
    try:
        answer = run(
            "benchmarks.status",
            {},
            folder=settings.folder / "status",
            watch=lambda message: step(message["step"]),
        )
    except MeasurementFailedError as error:
        raise SuiteFailedError(str(error)) from error
    return evaluate(answer)


def _steps(settings: Settings) -> int:
    del settings
    return 2


SUITE = Suite(name="status", title="The status", steps=_steps, run=_run)
