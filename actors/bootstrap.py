"""Find the instance's detached Coordinator, or start it. Runs in OmniMind's own Ray job."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import ray

from actors.coordinator import Coordinator
from actors.names import COORDINATOR, NAMESPACE
from actors.settings import CoordinatorSettings

_CONCURRENCY = 10_000
_FIRST_NODE = 10.0
"""Seconds for which the start waits for a first node; without one, tasks are accepted and wait."""


def ensure_coordinator(settings: CoordinatorSettings, *, timeout: float = 60.0) -> dict[str, Any]:
    """Start the coordinator unless it runs, wait until it is ready and return who it is.

    It has no `working_dir` and no code of users in it, and it is found by name, so a second call finds
    the first one's. Raises what its start raises (a ledger that cannot be opened, for one).
    """
    remote: Any = ray.remote(Coordinator)
    actor = remote.options(
        name=COORDINATOR,
        namespace=NAMESPACE,
        lifetime="detached",
        get_if_exists=True,
        max_restarts=-1,
        max_concurrency=_CONCURRENCY,
        num_cpus=0,
    ).remote(msgspec.json.encode(settings))
    found: dict[str, Any] = dict(ray.get(actor.ready.remote(), timeout=timeout))
    ray.get(actor.takes_work.remote(_FIRST_NODE))
    return found


def settings_for(home: Path, socket: Path, token_file: Path, **more: Any) -> CoordinatorSettings:
    """Return the settings of a home's coordinator."""
    return CoordinatorSettings(str(home), str(socket), str(token_file), **more)
