"""OmniMind's own Ray job: ``python -P -m actors.job --home HOME --parent PID``, a child of the supervisor.

It starts the Coordinator and then only stays connected. It must stay: when the job that created a
detached actor ends, Ray kills that actor's idle workers at once, and each lone task would pay a third
of a second for a new one.

It tells the supervisor how far it is by one JSON object a line on its standard output: ``connected``
(where Ray is), then ``ready`` (the coordinator), or ``error``.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from actors import api_port, head_probe, preflight, ray_instance
from actors.lifeline import follow
from actors.names import NAMESPACE
from omnimind import config
from omnimind.cluster.policies import CoreLimits
from omnimind.config import Settings
from omnimind.errors import OmniMindError, StartFailed, StartTimeout
from omnimind.instance import Paths

_LOOK_EVERY = 0.02
_END_SECONDS = 3
_PATIENCE = 0.8
"""Part of the start's time that the coordinators get."""
_LIMITS = frozenset(CoreLimits.__struct_fields__)


def main() -> None:
    """Run the job."""
    parser = argparse.ArgumentParser(prog="actors.job")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--parent", type=int, required=True)
    args = parser.parse_args()
    follow(args.parent)
    tell = _own_stdout()
    paths = Paths(args.home)
    try:
        _run(paths, config.effective(paths.settings), tell)
    except OmniMindError as error:
        tell({"error": error.to_problem()})
        sys.exit(1)
    signal.pause()


def _run(paths: Paths, settings: Settings, tell: Callable[[dict[str, Any]], None]) -> None:
    import ray  # noqa: PLC0415 - takes as long as the GCS needs to come up: both at once

    while not (address := ray_instance.address(paths)):
        time.sleep(_LOOK_EVERY)
    context: Any = ray.init(
        address=address,
        namespace=NAMESPACE,
        log_to_driver=False,
        logging_level=logging.WARNING,
        job_config=ray.job_config.JobConfig(metadata={"job_name": "omnimind"}),
    )
    signal.signal(signal.SIGTERM, lambda *_: _end(paths, settings))
    info = context.address_info
    tell(
        {
            "connected": {
                "address": info["gcs_address"],
                "session": info["session_dir"],
                "dashboard": info["webui_url"] or "",
            }
        }
    )
    _tell_hosts_versions()
    found = _start_coordinator(paths, settings)
    own = ray.get_runtime_context().get_node_id()
    tell({"ready": found, "here": found["node_id"] == own})


def _end(paths: Paths, settings: Settings) -> None:
    """End; where a person ends the instance, end coordinators first that may be on other hosts.

    Ray ends at the same time as this process, and an orderly farewell would wait seconds for its answer.
    """
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if settings.coordinator.nodes and paths.ended.exists():
        from actors.bootstrap import end_coordinators  # noqa: PLC0415 - it imports Ray

        signal.alarm(_END_SECONDS)  # by its default this ends the process
        end_coordinators(settings.coordinator.shards)
    os._exit(0)


def _tell_hosts_versions() -> None:
    """Keep OmniMind's version where hosts that want to join can compare it with theirs."""
    from ray.experimental.internal_kv import _internal_kv_put  # noqa: PLC0415

    put: Any = _internal_kv_put
    own = {"omnimind": preflight.versions()["omnimind"]}
    put(head_probe.VERSIONS, msgspec.json.encode(own), overwrite=True, namespace=head_probe.NAMESPACE)


def _start_coordinator(paths: Paths, settings: Settings) -> dict[str, Any]:
    from ray.exceptions import GetTimeoutError, RayError  # noqa: PLC0415

    from actors.bootstrap import ensure_coordinators  # noqa: PLC0415 - it imports Ray

    # Sooner than the supervisor loses patience, who would not know why.
    timeout = _PATIENCE * settings.instance.start_timeout
    try:
        return ensure_coordinators(wanted(paths, settings), timeout=timeout)
    except GetTimeoutError as error:
        msg, hint = f"the coordinator was not ready within {timeout:g} s", None
        if settings.coordinator.nodes:
            labels = ",".join(f"{k}={v}" for k, v in settings.coordinator.nodes.items())
            msg += f"; it runs only on a host with the labels {labels}"
            hint = f"let such a host join: omnimind node run --labels {labels} --address HEAD:PORT"
        raise StartTimeout(msg, hint=hint) from error
    except RayError as error:
        cause = getattr(error, "cause", None)
        if isinstance(cause, OmniMindError):
            raise cause from error
        msg = f"the coordinator did not start: {error}"
        raise StartFailed(msg) from error


def wanted(paths: Paths, settings: Settings) -> Any:
    """Return what the coordinator is started with (`coordinator.CoordinatorSettings`)."""
    from actors.bootstrap import settings_for  # noqa: PLC0415 - it imports Ray

    coordinator = settings.coordinator
    limits = {k: v for k, v in msgspec.structs.asdict(coordinator).items() if k in _LIMITS}
    # A node is given up after that silence, and no sooner because the coordinator was the one that died.
    limits["recovery_grace"] = coordinator.heartbeat_timeout
    return settings_for(
        paths.home,
        paths.socket,
        paths.token,
        strategy=coordinator.strategy,
        slots=coordinator.slots,
        nodes=coordinator.nodes,
        limits=CoreLimits(**limits),
        keep_seconds=settings.retention.age,
        keep_tasks=settings.retention.tasks,
        ledger=settings.ledger,
        elastic=settings.elastic,
        autoscaling_config=settings.ray.autoscaling_config,
        shards=coordinator.shards,
        api_url=api_port.url(settings),
    )


def _own_stdout() -> Callable[[dict[str, Any]], None]:
    """Keep standard output for our lines alone: what Ray prints goes to standard error, which is the log."""
    out = os.dup(1)
    os.dup2(2, 1)

    def tell(message: dict[str, Any]) -> None:
        os.write(out, msgspec.json.encode(message) + b"\n")

    return tell


if __name__ == "__main__":
    main()
