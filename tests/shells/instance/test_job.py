from __future__ import annotations

from actors import job
from actors.bootstrap import settings_for
from omnimind.config import Settings
from omnimind.instance import Paths

PATHS = Paths("/srv/om")


def test_without_settings_the_coordinator_gets_its_own_defaults() -> None:
    assert job.wanted(PATHS, Settings()) == settings_for(PATHS.home, PATHS.socket, PATHS.token)


def test_settings_reach_the_coordinator() -> None:
    settings = Settings().changed(
        {"coordinator.strategy": "random", "coordinator.slots": "7", "coordinator.batch_max": "9"}
        | {"retention.age": "1h", "retention.tasks": "5000"}
    )
    wanted = job.wanted(PATHS, settings)
    assert (wanted.strategy, wanted.slots, wanted.limits.batch_max) == ("random", 7, 9)
    assert (wanted.keep_seconds, wanted.keep_tasks) == (3600.0, 5000)
    assert wanted.socket == "/srv/om/run/coordinator.sock"
