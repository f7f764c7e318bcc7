"""The status is judged by its 99th percentile against a bare call's."""

from __future__ import annotations

import pytest

from benchmarks.status import evaluate


def test_the_tail_is_compared_with_the_tail() -> None:
    bare = [0.001] * 98 + [0.002] * 2
    status = [0.001] * 98 + [0.0061] * 2
    by = {figure.name: figure for figure in evaluate({"status": status, "bare": bare})}
    assert by["status.p99_ratio"].value == pytest.approx(3.05)
    assert by["status.p99_ratio"].holds is False
    assert by["status.p50.bare"].value == pytest.approx(1.0)
