from __future__ import annotations

from actors import job
from actors.bootstrap import settings_for
from omnimind.cluster.policies import CoreLimits
from omnimind.config import Settings
from omnimind.instance import Paths

PATHS = Paths("/srv/om")


def test_without_settings_the_coordinator_gets_its_own_defaults() -> None:
    wanted = job.wanted(PATHS, Settings())
    limits = CoreLimits(recovery_grace=CoreLimits().heartbeat_timeout)
    assert wanted == settings_for(PATHS.home, PATHS.socket, PATHS.token, limits=limits)


def test_settings_reach_the_coordinator() -> None:
    settings = Settings().changed(
        {"coordinator.strategy": "random", "coordinator.slots": "7", "coordinator.batch_max": "9"}
        | {"retention.age": "1h", "retention.tasks": "5000"}
    )
    wanted = job.wanted(PATHS, settings)
    assert (wanted.strategy, wanted.slots, wanted.limits.batch_max) == ("random", 7, 9)
    assert (wanted.keep_seconds, wanted.keep_tasks) == (3600.0, 5000)
    assert wanted.socket == "/srv/om/run/coordinator.sock"
