"""One peer, started once, through all workloads (runs in a child process)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks import work, workloads
from benchmarks.child import Emit, Message
from benchmarks.peers import Peer, by_name
from benchmarks.workloads import Workload

_LATENCY_WARM_UP = 50
_GROWTH = 16
_MOST_TASKS = 200_000
_MOST_BYTES = 200 * 2**20


def measure(request: Message, emit: Emit) -> Message:
    """Return {"throughput": {workload: {"count", "seconds", "cpu", "wall"}}, "latency": [seconds, …]}.

    `cpu` and `wall` are sums over the handlers of the 1 ms workload, as the handlers measured them; null
    elsewhere, and for peers that store no results.
    """
    entry = by_name(request["peer"])
    folder = Path(request["folder"]) / "p"
    folder.mkdir()
    folder.parent.chmod(0o711)
    folder.chmod(0o711)  # PostgreSQL's own user must be able to pass through
    emit({"step": "start"})
    peer = entry.load()(folder)
    try:
        peer.start()
        throughput = {}
        for name in request["workloads"]:
            emit({"step": name})
            throughput[name] = _throughput(peer, workloads.by_name(name), request["seconds"], request["seed"])
        latency: list[float] = []
        if request["calls"]:
            emit({"step": "latency"})
            peer.run_latency(_LATENCY_WARM_UP)
            latency = peer.run_latency(request["calls"])
        emit({"step": "stop"})
    finally:
        peer.stop()
    return {"throughput": throughput, "latency": latency}


def _throughput(peer: Peer, workload: Workload, seconds: float, seed: int) -> dict[str, Any]:
    """Warm up until a run takes half of `seconds`, then measure as many tasks as take about `seconds`.

    A system may grow faster while it warms up, so the number is found by steps, not from the first few tasks.
    """
    size = work.PAYLOAD_BYTES if workload.function == "take" else 1
    most = min(_MOST_TASKS, _MOST_BYTES // size)
    count = 4 if workload.function == "nap" else 64
    while True:
        spent = _run(peer, workload, count, seed)["seconds"]
        fits = min(most, max(1, round(count * seconds / spent)))
        if spent >= seconds / 2 or count >= most:
            return _run(peer, workload, fits, seed)
        count = min(fits, _GROWTH * count)


def _run(peer: Peer, workload: Workload, count: int, seed: int) -> dict[str, Any]:
    payloads = workload.payloads(count, seed)
    run = peer.run_throughput(workload, payloads)
    answer: dict[str, Any] = {"count": count, "seconds": run.seconds, "cpu": None, "wall": None}
    if run.results is not None:
        workload.check(payloads, run.results)
        if workload.function == "burn":
            answer |= {"cpu": sum(r[1] for r in run.results), "wall": sum(r[2] for r in run.results)}
    return answer
