from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omnimind.cli import times


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("1.5s", 1.5),
        ("250ms", 0.25),
        ("1h30m", 5400),
        ("7d", 604800),
        ("2w", 1209600),
        ("1h 5m", 3900),
        ("0", 0),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert times.parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text", ["", "soon", "5 parsecs", "-3", "nan", "inf", "1e400", "m5", "5m3", "5m-3s", "0x10"]
)
def test_no_durations(text: str) -> None:
    with pytest.raises(ValueError, match="is no duration"):
        times.parse_duration(text)


@given(st.text(max_size=12))
def test_a_duration_is_finite_or_refused(text: str) -> None:
    try:
        seconds = times.parse_duration(text)
    except ValueError:
        return
    assert 0 <= seconds < float("inf")


def test_moments() -> None:
    assert times.parse_moment("2026-01-31T18:00:00Z") == 1769882400.0
    assert times.parse_moment("2026-01-31T19:00:00+01:00") == 1769882400.0
    with pytest.raises(ValueError, match="is no time"):
        times.parse_moment("tomorrow")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.012, "12ms"),
        (4.24, "4.2s"),
        (45.6, "45s"),
        (119, "119s"),
        (180, "3m"),
        (7300, "2h"),
        (200000, "2d"),
        (-3.0, "-3.0s"),
    ],
)
def test_spans(seconds: float, text: str) -> None:
    assert times.span(seconds) == text


@pytest.mark.parametrize(
    ("away", "text"), [(0.2, "now"), (-75, "75s ago"), (300, "in 5m"), (-1e6, "11d ago")]
)
def test_relative(away: float, text: str) -> None:
    assert times.relative(1000 + away, now=1000) == text


@given(st.floats(0, 4e9))
def test_public_moments_come_back(seconds: float) -> None:
    assert times.parse_moment(times.rfc3339(seconds)) == pytest.approx(seconds, abs=0.002)


def test_public_changes_moments_only_at_any_depth() -> None:
    given_ = {
        "created_at": 0.5,
        "n": 5,
        "nodes": {"a": {"last_heartbeat": 1}},
        "story": [{"at": 2.0, "what": "x"}],
    }
    assert times.public(given_) == {
        "created_at": "1970-01-01T00:00:00.500Z",
        "n": 5,
        "nodes": {"a": {"last_heartbeat": "1970-01-01T00:00:01.000Z"}},
        "story": [{"at": "1970-01-01T00:00:02.000Z", "what": "x"}],
    }


def test_local_time_names_its_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    try:
        assert times.local(1769882400.0, now=1769882400.0) == "2026-01-31 19:00:00 CET (now)"
    finally:
        monkeypatch.undo()
        time.tzset()
