"""A coordinator that is here or elsewhere: the way that answers is taken, nothing unrepeatable goes twice."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from omnimind import config, instance, processes
from omnimind.client import roaming
from omnimind.client.roaming import RoamingTransport
from omnimind.client.via_socket import SocketTransport
from omnimind.config import Settings
from omnimind.errors import Unavailable
from omnimind.instance import Paths, Record


class Way:
    """A transport that is up or not. dies: it does what it is asked, and says that it was lost."""

    def __init__(self, name: str, *, up: bool = True) -> None:
        self.name, self.up, self.dies = name, up, False
        self.done: list[str] = []
        self.info: dict[str, Any] = {"pid": name}

    async def connect(self) -> dict[str, Any]:
        if not self.up:
            raise Unavailable(f"nobody on {self.name}")
        return self.info

    async def call(self, method: str, body: bytes, timeout: float | None = None) -> bytes:
        if not self.up:
            raise Unavailable(f"nobody on {self.name}")
        self.done.append(method)
        if self.dies:
            self.up = False
            raise Unavailable("the connection broke")
        return self.name.encode()

    async def close(self) -> None:
        self.up = False


async def test_near_comes_first_and_far_where_near_does_not_answer() -> None:
    near, far = Way("near"), Way("far")
    way = RoamingTransport(near, far, patience=5)
    assert await way.call("status", b"") == b"near"
    near.up = False
    assert await way.call("status", b"") == b"far"
    assert way.info == {"pid": "far"}
    far.up, near.up = False, True
    assert await way.call("status", b"") == b"near"


async def test_what_may_have_been_done_is_not_sent_again_by_the_other_way() -> None:
    near, far = Way("near"), Way("far")
    way = RoamingTransport(near, far, patience=5)
    near.dies = True
    with pytest.raises(Unavailable):
        await way.call("retry", b"")
    assert far.done == []
    assert await way.call("retry", b"") == b"far"


async def test_a_submission_goes_again_since_it_is_known_by_its_ids() -> None:
    near, far = Way("near"), Way("far")
    near.dies = True
    assert await RoamingTransport(near, far, patience=5).call("submit", b"") == b"far"


async def test_with_nobody_on_either_way_it_gives_up() -> None:
    way = RoamingTransport(Way("near", up=False), Way("far", up=False), patience=0.3)
    with pytest.raises(Unavailable, match="nobody on"):
        await way.call("status", b"")
    with pytest.raises(Unavailable):
        await way.connect()


def test_only_an_instance_whose_coordinator_may_move_is_looked_for_elsewhere(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    instance.prepare(paths)
    assert isinstance(roaming.transport(paths, lambda: "", patience=1), SocketTransport)
    me = processes.identify(os.getpid())
    assert me is not None
    instance.write_record(paths, Record(home=str(tmp_path), versions={}, supervisor=me, started_at=0.0))
    instance.write_atomically(paths.settings, config.dump(Settings()))
    assert not roaming.roams(paths)
    moved = Settings().changed({"coordinator.nodes": "role=coordinator"})
    instance.write_atomically(paths.settings, config.dump(moved))
    assert roaming.roams(paths)
    assert isinstance(roaming.transport(paths, lambda: "", patience=1), RoamingTransport)
