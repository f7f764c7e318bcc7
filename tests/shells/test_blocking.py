"""A call that hangs holds up its own kind of call, and nobody else."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from actors.blocking import Lane


async def test_an_answer_comes_back_and_an_error_too() -> None:
    lane = Lane("test", 5.0)
    assert await lane.call(divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        await lane.call(divmod, 7, 0)
    assert not lane.stuck


async def test_who_waits_for_a_call_that_hangs_goes_on_and_no_second_one_hangs_behind_it() -> None:
    hangs = threading.Event()
    lane, other = Lane("hangs", 0.1), Lane("other", 5.0)
    asked: list[int] = []
    try:
        with pytest.raises(TimeoutError):
            await lane.call(hangs.wait)
        assert lane.stuck
        for _ in range(50):
            with pytest.raises(TimeoutError):
                await lane.call(asked.append, 1)
        assert asked == []
        assert await other.call(divmod, 7, 2) == (3, 1), "another kind of call is not held up"
        assert sum(t.name.startswith("omnimind-hangs") for t in threading.enumerate()) == 1
    finally:
        hangs.set()
    give_up = time.monotonic() + 10
    while lane.stuck and time.monotonic() < give_up:  # noqa: ASYNC110 (it is the lane that is looked at)
        await asyncio.sleep(0.01)
    await lane.call(asked.append, 2)
    assert asked == [2]


async def test_callers_take_turns() -> None:
    lane = Lane("test", 5.0)
    running: list[int] = []
    most: list[int] = []

    def work() -> None:
        running.append(1)
        most.append(len(running))
        time.sleep(0.01)
        running.pop()

    await asyncio.gather(*(lane.call(work) for _ in range(5)))
    assert most == [1] * 5
