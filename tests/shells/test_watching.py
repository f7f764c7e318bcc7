"""`Watchers`: who waits hears of it, once, and no answer outgrows a frame."""

from __future__ import annotations

import asyncio

import pytest

from actors import watching
from actors.watching import Watch, Watchers
from omnimind.cluster.sends import Ended
from omnimind.cluster.states import TaskStatus
from omnimind.cluster.task import DistributedTask


def ended(*names: str, size: int = 1) -> list[DistributedTask]:
    return [DistributedTask(n, "t", status=TaskStatus.COMPLETED, result=b"x" * size) for n in names]


def open_watch(watchers: Watchers, *names: str) -> Watch:
    ids = list(names)
    return watchers.open(ids, watchers.take(ids))


async def test_what_ends_while_somebody_waits_is_handed_over() -> None:
    watchers = Watchers()
    watch = open_watch(watchers, "a", "b")
    waiting = asyncio.ensure_future(watch.wait(5, 5))
    watchers.ended(Ended(ended("b", "a")))
    await waiting
    assert list(watch.results) == ["b", "a"]


async def test_what_was_expected_is_kept_for_one_answer() -> None:
    watchers = Watchers()
    watchers.expect(["a", "b"])
    watchers.ended(Ended(ended("a", "b", "c")))
    assert watchers.take(["a", "c"]).keys() == {"a"}
    assert watchers.take(["a", "b"]).keys() == {"b"}


async def test_an_answer_ends_with_the_first_result_beyond_its_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "ANSWER_BYTES", 250)
    names = list("abcdef")
    watchers = Watchers()
    watch = open_watch(watchers, *names)
    watchers.ended(Ended(ended(*names, size=100)))
    await watch.wait(60, 60)
    assert list(watch.results) == ["a", "b", "c"]
    watchers.close(watch)

    watchers = Watchers()
    watchers.expect(names)
    watchers.ended(Ended(ended(*names, size=100)))
    watch = open_watch(watchers, *names)
    await watch.wait(60, 60)
    assert list(watch.results) == ["a", "b", "c"]
    watchers.close(watch)
    watch = open_watch(watchers, *names[3:])
    await watch.wait(60, 60)
    assert list(watch.results) == ["d", "e", "f"]


async def test_who_stops_waiting_finds_the_result_later() -> None:
    watchers = Watchers()
    watch = open_watch(watchers, "a")
    await watch.wait(0, 0)
    watchers.close(watch)
    watchers.ended(Ended(ended("a")))
    assert watchers.take(["a"]).keys() == {"a"}
