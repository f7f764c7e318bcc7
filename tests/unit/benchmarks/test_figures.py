"""What a figure must reach, and whether it does."""

from __future__ import annotations

import pytest

from benchmarks.figures import Figure, holds, percentile


@pytest.mark.parametrize(
    ("value", "must", "verdict"),
    [
        (8.0, ">= 8", True),
        (7.99, ">= 8", False),
        (2.5, "<= 2.5", True),
        (2.51, "<= 2.5", False),
        (600.0, "< 600", False),
        (1_000_000, "== 1000000", True),
        (float("nan"), ">= 0", False),
        (float("nan"), "<= 0", False),
        (1.0, None, None),
    ],
)
def test_holds_compares_as_written(value: float, must: str | None, verdict: bool | None) -> None:
    assert holds(value, must) is verdict


@pytest.mark.parametrize("must", ["8", "=> 8", ">=8", ">= eight", ""])
def test_a_mistyped_must_is_an_error_and_never_holds(must: str) -> None:
    with pytest.raises(ValueError, match=r"must is|could not convert"):
        holds(10.0, must)


def test_the_written_figure_has_the_keys_of_the_design() -> None:
    figure = Figure(name="core.decisions", value=51_234.567891, unit="1/s", must=">= 50000", note="why")
    assert figure.to_dict() == {
        "name": "core.decisions",
        "value": 51_234.6,
        "unit": "1/s",
        "must": ">= 50000",
        "holds": True,
        "note": "why",
    }


def test_rounding_never_makes_a_file_disagree_with_itself() -> None:
    figure = Figure(name="a.b", value=7.9999999, unit="x", must=">= 8")
    assert Figure.from_dict(figure.to_dict()).holds == figure.holds


def test_percentiles_are_values_that_occurred() -> None:
    spans = [float(value) for value in range(100, 0, -1)]
    assert percentile(spans, 0.50) == 50.0
    assert percentile(spans, 0.99) == 99.0
    assert percentile(spans, 1.0) == 100.0
    assert percentile([3.0], 0.01) == 3.0
    with pytest.raises(ValueError, match="no values"):
        percentile([], 0.5)
