"""A real Ray autoscaler on one machine, for tests: its nodes are raylets here, its process is Ray's own.

Ray ships a provider that "starts a machine" by starting one more raylet. What stands here makes the
configuration for it; `ray.cluster_utils.AutoscalingCluster` does the same, but wants a file that is not in
Ray's wheel, and stops every Ray of the machine.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_HEAD = "ray.head.default"
ENVIRONMENT = {"RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1"}
"""What the environment of the instance must hold."""


_EMPTY = (
    "initialization_commands", "setup_commands", "head_setup_commands", "worker_setup_commands",
    "head_start_ray_commands", "worker_start_ray_commands", "rsync_exclude", "rsync_filter",
    "cluster_synced_files",
)  # fmt: skip


def free_port(host: str) -> int:
    """Return a port of a host that nobody has now."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


def configuration(
    path: Path,
    address: str,
    provider: str,
    kinds: Mapping[str, dict[str, Any]],
    *,
    idle_seconds: float,
    most: int = 8,
) -> Path:
    """Write the configuration of an autoscaler and return its path.

    address: of the GCS, ``host:port``. provider: ``module.Class``, loaded by Ray's process.
    kinds: by name, each with ``resources`` and perhaps ``labels``,
    ``min_workers`` and ``max_workers``. idle_seconds: after which the autoscaler ends an idle node.
    """
    empty: dict[str, Any] = {name: [] for name in _EMPTY}
    config = {
        "cluster_name": "omnimind-test",
        "max_workers": most,
        "upscaling_speed": 1.0,
        "idle_timeout_minutes": idle_seconds / 60,
        "provider": {
            "type": "external",
            "module": provider,
            "disable_node_updaters": True,
            "use_node_id_as_ip": True,
            "launch_multiple": True,
            "gcs_address": address,
        },
        "available_node_types": {
            _HEAD: {"resources": {"CPU": 1}, "node_config": {}, "max_workers": 0},
            **{
                name: {"node_config": {}, "min_workers": 0, "max_workers": most, **kind}
                for name, kind in kinds.items()
            },
        },
        "head_node_type": _HEAD,
        "auth": {},
        "docker": {},
        "file_mounts": {},
        "file_mounts_sync_continuously": False,
        **empty,
    }
    path.write_text(json.dumps(config, indent=1), encoding="utf-8")
    return path
