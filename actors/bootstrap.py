"""Find the instance's detached Coordinator, or start it. Runs in OmniMind's own Ray job."""

from __future__ import annotations

import contextlib
import logging
import time
from pathlib import Path
from typing import Any

import msgspec
import ray

from actors.coordinator import Coordinator
from actors.membership import job_of
from actors.names import NAMESPACE, NODE_PREFIX, coordinator_actor
from actors.settings import CoordinatorSettings
from omnimind.ids import SHARDS_MAX
from omnimind.ledger.rebalance import arrange

log = logging.getLogger("omnimind.job")

_CONCURRENCY = 10_000
_FIRST_NODE = 10.0
"""Seconds for which the start waits for a first node; without one, tasks are accepted and wait."""
_NAME_PATIENCE, _NAME_LOOK = 10.0, 0.05
_HEAD = "node:__internal_head__"
"""A resource that Ray gives to the head and to no other node."""


def ensure_coordinators(settings: CoordinatorSettings, *, timeout: float = 60.0) -> dict[str, Any]:
    """Start the coordinator of each shard, wait until all are ready and return who shard 0's is.

    They have no `working_dir` and no code of users in them, and are found by name, so a second call finds
    the first one's. Those that an earlier job has made are ended and made anew: what runs goes on and is
    adopted, and Node actors that they make from then on belong to a job that lives. When the number of
    shards has changed, queues are moved first, while nothing runs. Raises what the start of one raises (a
    ledger that cannot be opened, for one).
    """
    deadline = time.monotonic() + timeout
    for shard in range(SHARDS_MAX):
        _end_former(coordinator_actor(shard))
    if arrange(settings.ledger, Path(settings.home), settings.shards, begin=_end_nodes):
        log.warning("there are %d shards now", settings.shards)
    actors = [_start(msgspec.structs.replace(settings, shard=n)) for n in range(settings.shards)]
    ready = [actor.ready.remote() for actor in actors]
    found: list[dict[str, Any]] = ray.get(ready, timeout=max(0.0, deadline - time.monotonic()))
    working = [actor.takes_work.remote(_FIRST_NODE) for actor in actors]
    ray.get(working, timeout=max(0.0, deadline - time.monotonic()))
    return dict(found[0])


def _start(settings: CoordinatorSettings) -> Any:
    remote: Any = ray.remote(Coordinator)
    return remote.options(
        name=coordinator_actor(settings.shard),
        namespace=NAMESPACE,
        lifetime="detached",
        get_if_exists=True,
        max_restarts=-1,
        max_concurrency=_CONCURRENCY,
        num_cpus=0,
        **placement(settings),
    ).remote(msgspec.json.encode(settings))


def _end_nodes() -> None:
    """End all Node actors, and with them what runs: they know how many shards there were."""
    for name in ray.util.list_named_actors():
        if name.startswith(NODE_PREFIX):
            with contextlib.suppress(ValueError):
                ray.kill(ray.get_actor(name, namespace=NAMESPACE))


def end_coordinators(shards: int) -> None:
    """End the coordinators, wherever they are."""
    for shard in range(shards):
        if (found := _find(coordinator_actor(shard))) is not None:
            ray.kill(found)


def placement(settings: CoordinatorSettings) -> dict[str, Any]:
    """Return the Ray options that say on which nodes the coordinator may run, now and after a restart.

    A ledger of one file is on the head's disk: anywhere else the coordinator would begin with an empty
    one. Ray restarts the actor by the same rule, when the node that it was on is dead.
    """
    if settings.nodes:
        return {"label_selector": dict(settings.nodes)}
    return {"resources": {_HEAD: 0.001}}


def _end_former(name: str) -> None:
    """End a coordinator that an earlier job has made, and wait until its name is free."""
    mine = ray.get_runtime_context().get_job_id()
    give_up = time.monotonic() + _NAME_PATIENCE
    while (found := _find(name)) is not None and job_of(found) != mine:
        ray.kill(found)
        if time.monotonic() > give_up:
            break
        time.sleep(_NAME_LOOK)


def _find(name: str) -> Any:
    try:
        return ray.get_actor(name, namespace=NAMESPACE)
    except ValueError:
        return None


def settings_for(home: Path, socket: Path, token_file: Path, **more: Any) -> CoordinatorSettings:
    """Return the settings of a home's coordinator."""
    return CoordinatorSettings(str(home), str(socket), str(token_file), **more)
