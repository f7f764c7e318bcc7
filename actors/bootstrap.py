"""Find the instance's detached Coordinator, or start it. Runs in OmniMind's own Ray job."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import msgspec
import ray

from actors.coordinator import Coordinator
from actors.membership import job_of
from actors.names import COORDINATOR, NAMESPACE
from actors.settings import CoordinatorSettings

_CONCURRENCY = 10_000
_FIRST_NODE = 10.0
"""Seconds for which the start waits for a first node; without one, tasks are accepted and wait."""
_NAME_PATIENCE, _NAME_LOOK = 10.0, 0.05
_HEAD = "node:__internal_head__"
"""A resource that Ray gives to the head and to no other node."""


def ensure_coordinator(
    settings: CoordinatorSettings, *, timeout: float = 60.0, name: str = COORDINATOR
) -> dict[str, Any]:
    """Start the coordinator unless it runs, wait until it is ready and return who it is.

    It has no `working_dir` and no code of users in it, and it is found by name, so a second call finds
    the first one's. One that an earlier job has made is ended and made anew: what runs goes on and is
    adopted, and Node actors that it makes from then on belong to a job that lives. Raises what its start
    raises (a ledger that cannot be opened, for one).
    """
    _end_former(name)
    remote: Any = ray.remote(Coordinator)
    actor = remote.options(
        name=name,
        namespace=NAMESPACE,
        lifetime="detached",
        get_if_exists=True,
        max_restarts=-1,
        max_concurrency=_CONCURRENCY,
        num_cpus=0,
        **placement(settings),
    ).remote(msgspec.json.encode(settings))
    found: dict[str, Any] = dict(ray.get(actor.ready.remote(), timeout=timeout))
    ray.get(actor.takes_work.remote(_FIRST_NODE), timeout=timeout)
    return found


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
