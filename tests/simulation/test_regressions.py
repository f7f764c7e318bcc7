"""Seeds that failed once, with what was wrong. They stay for ever.

The bugs themselves stay too, as plants (`omnimind/testing/plants/once_real.py`): a seed's history changes
when the simulator does, a plant must be caught by any.
"""

from __future__ import annotations

from typing import Any

import pytest

from omnimind.testing.campaign import story
from omnimind.testing.options import draw_options
from omnimind.testing.simulation import run

FAILED: list[tuple[int, dict[str, Any], str]] = [
    (5, {}, "a schedule submitted beyond the bound of its queue"),
    (14, {}, "an ended task came into memory when a node reported it"),
    (15, {}, "a resend was answered as if none of its keys had stood before"),
    (15, {"window": 2}, "a row was taken for out of date because of an earlier fetch, and lost"),
    (28, {}, "a delayed task that was due rang all the time during recovery"),
    (58, {}, "an adopted task that was requeued since was requeued again at the end of the recovery"),
    (110, {}, "an acknowledged cancel of a running task was forgotten at a restart"),
    (154, {}, "the same"),
    (184, {}, "delayed tasks on disk did not count as pending after a restart"),
    (267, {}, "an acknowledged cancel of a running task was forgotten at a restart"),
    (397, {}, "a task came after one of its own submission that stood under a key already"),
    (412, {}, "a task waited for one of its own submission that had failed at once"),
    (529, {}, "a left-over entry of a heap counted as a task in line"),
    (814, {}, "what went to disk was not saved when it stood in the same line before"),
    (198, {}, "a resend was answered as if none of its keys had stood before"),
    (6, {}, "a delayed task that was due rang all the time during recovery"),
    (22, {}, "a schedule submitted beyond the bound of its queue"),
    (38, {}, "a schedule submitted beyond the bound of its queue"),
    (3395, {}, "an attempt of two coordinators ago was taken for the newest one"),
    (9776, {}, "the same"),
    (12294, {}, "the same"),
    (557, {}, "a queue with several signatures lost its turn for one of them"),
    (661, {}, "the same"),
    (1062, {}, "the same"),
    (101336, {}, "the same, found when a task never started"),
    (113466, {}, "the same"),
    (47416, {}, "a task that came after another one twice ended twice with it"),
    (2242, {}, "a cordoned node was forgotten when the clock was set forward, and got work when it was back"),
]


@pytest.mark.parametrize(("seed", "fixed", "what"), FAILED)
def test_stays_mended(seed: int, fixed: dict[str, Any], what: str) -> None:
    result = run(draw_options(seed, fixed))
    if result.failure is not None:
        pytest.fail(f"again? {what}\n{story(result, fixed)}", pytrace=False)
