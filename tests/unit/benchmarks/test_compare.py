"""From the answers of the rounds to figures."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks import work
from benchmarks.compare import MUST_RATIO, evaluate
from benchmarks.peers import PEERS, Entry
from benchmarks.workloads import WORKLOADS, Workload, by_name


def an_answer(rate: float, latency_ms: float, *, stored: bool = True) -> dict[str, Any]:
    """Return a round of 10 s for each workload at this rate; 1 ms of CPU and 2 ms of wall a task."""
    count = round(10 * rate)
    part = {"count": count, "seconds": 10.0, "cpu": None, "wall": None}
    burn = {**part, "cpu": count * 0.001, "wall": count * 0.002} if stored else part
    throughput = {workload.name: burn if workload.function == "burn" else part for workload in WORKLOADS}
    return {"throughput": throughput, "latency": [latency_ms / 1e3] * 200}


def test_ratios_are_of_medians_and_the_asked_ones_are_judged() -> None:
    figures = evaluate(
        {
            "omnimind": [an_answer(rate, 2.0) for rate in (900.0, 1_000.0, 9_000.0)],
            "raw_ray": [an_answer(rate, 1.0) for rate in (100.0, 200.0, 10.0)],
        }
    )
    by = {figure.name: figure for figure in figures}
    assert by["peers.throughput.noop.omnimind"].value == 1_000
    assert by["peers.throughput.noop.omnimind"].note.startswith("median of 3 rounds (900 to 9,000)")
    assert by["peers.ratio.noop.raw_ray"].value == 10
    assert by["peers.ratio.noop.raw_ray"].holds is True
    assert by["peers.ratio.payload_4k.raw_ray"].holds is None
    assert by["peers.latency_ratio.p50.raw_ray"].value == pytest.approx(2.0)
    assert by["peers.latency_ratio.p50.raw_ray"].must == "<= 2.5"
    assert by["peers.latency_ratio.p99.raw_ray"].must == "<= 3"
    assert "peers.ratio.noop.omnimind" not in by


def test_the_share_of_the_cores_counts_cpu_time_and_is_asked_of_us_alone() -> None:
    figures = evaluate(
        {
            "omnimind": [an_answer(1_700.0, 1.0)],
            "raw_ray": [an_answer(900.0, 1.0)],
            "procrastinate": [an_answer(300.0, 1.0, stored=False)],
        }
    )
    by = {figure.name: figure for figure in figures}
    assert by["peers.handlers_cpu.omnimind"].value == pytest.approx(0.85)
    assert by["peers.handlers_cpu.omnimind"].holds is True
    assert by["peers.handlers_wall.omnimind"].value == pytest.approx(1.7)
    assert by["peers.handlers_cpu.raw_ray"].holds is None
    assert "peers.handlers_cpu.procrastinate" not in by


def test_without_us_there_are_no_ratios() -> None:
    figures = evaluate({"raw_ray": [an_answer(100.0, 1.0)]})
    assert figures
    assert not [figure for figure in figures if "ratio" in figure.name]


def test_every_peer_that_must_be_beaten_is_measured() -> None:
    assert set(MUST_RATIO) < {entry.name for entry in PEERS}


@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda workload: workload.name)
def test_a_wrong_a_missing_and_a_misplaced_result_are_noticed(
    workload: Workload, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work, "NAP_SECONDS", 0)
    payloads = workload.payloads(3, seed=1)
    assert payloads == workload.payloads(3, seed=1)
    results = [getattr(work, workload.function)(payload) for payload in payloads]
    workload.check(payloads, results)
    with pytest.raises(AssertionError, match="3 tasks, 2 results"):
        workload.check(payloads, results[:2])
    if workload.name != "payload_4k":
        with pytest.raises(AssertionError, match="task 0 answered"):
            workload.check(payloads, results[::-1])


def test_payloads_have_the_size_they_are_named_for_and_differ() -> None:
    first, second = by_name("payload_4k").payloads(2, seed=7)
    assert len(first) == len(second) == 4096
    assert first != second


def test_a_peer_says_which_package_is_missing() -> None:
    entry = Entry(
        name="x",
        title="x",
        place="x:X",
        modules=("no_such_module_here",),
        programs=(("no-such-server", "no-such-package"), ("sh", "dash")),
    )
    assert entry.missing() == ["pip install 'omnimind-runtime[bench]'", "apt-get install no-such-package"]
