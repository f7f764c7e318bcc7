"""What people are told of a drain: its plan, its progress, and what Ray's own drain means."""

from __future__ import annotations

from typing import Any

import pytest

from omnimind.cli import nodes
from omnimind.cli.changes import Effect, plan_id

DRAIN = {
    "since": 0.0, "by": "person", "reason": "disk", "attempts": 8, "left": 3, "asked_to_stop": False,
    "deadline_in": 70.0, "drained_at": None,
}  # fmt: skip


def attempt(**more: Any) -> dict[str, Any]:
    return {
        "task_id": "tsk_1", "task_type": "resize", "running": 10.0, "usual": 30.0, "at_most_once": False,
        **more,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("drain", "expected"),
    [
        (None, ""),
        (DRAIN, "3 of 8 attempts left, moved in 70s at the latest"),
        (DRAIN | {"asked_to_stop": True, "deadline_in": None}, "3 of 8 attempts left, asked to stop"),
        (DRAIN | {"drained_at": 5.0}, "over: nothing runs there"),
    ],
)
def test_progress(drain: dict[str, Any] | None, expected: str) -> None:
    assert nodes.progress(drain) == expected


def test_a_line_of_progress_is_new_when_fewer_are_left_or_they_are_asked() -> None:
    stages = [
        DRAIN,
        DRAIN | {"deadline_in": 60.0},
        DRAIN | {"left": 2},
        DRAIN | {"left": 2, "asked_to_stop": True},
    ]
    assert len({nodes.stage(s) for s in stages}) == 3


@pytest.mark.parametrize(
    ("more", "deadline", "verb", "says"),
    [
        ({}, 60.0, "finishes", "usually takes 30"),
        ({"usual": 300.0}, 60.0, "moves", "runs again elsewhere"),
        ({"usual": None}, 60.0, "moves", "runs again elsewhere"),
        ({"usual": None}, None, "finishes", "resize"),
        ({"usual": 300.0, "at_most_once": True}, 60.0, "moves", "lost"),
    ],
)
def test_what_a_plan_says_of_an_attempt(
    more: dict[str, Any], deadline: float | None, verb: str, says: str
) -> None:
    (effect,) = nodes.moves({"attempts": [attempt(**more)], "waits": []}, deadline)
    assert effect.verb == verb
    assert says in effect.note
    assert not effect.changes


def test_what_would_wait_is_named() -> None:
    waits = [{"needs": ["gpu"], "slots": 2, "running": 1, "pending": 40}]
    (effect,) = nodes.moves({"attempts": [], "waits": waits}, 5.0)
    assert effect.subject == "needs gpu, 2 CPUs"
    assert "1 running and 40 pending" in effect.note


def test_what_runs_at_the_moment_is_no_part_of_a_plans_name() -> None:
    node = Effect("nod_a", "drain", "active", "draining")
    assert plan_id([node, *nodes.moves({"attempts": [attempt()], "waits": []}, 5.0)]) == plan_id([node])
