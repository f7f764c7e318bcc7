"""How Ray is started for one home: its command line, its environment, its folder."""

from __future__ import annotations

import os
import shutil
import socket
import sys
from collections.abc import Mapping
from pathlib import Path

from omnimind import instance, processes
from omnimind.config import Settings
from omnimind.errors import PortInUse
from omnimind.instance import Paths
from omnimind.processes import Process

SESSIONS_KEPT = 3
_LOOPBACK = "127.0.0.1"
_DAEMONS = frozenset({"gcs_server", "raylet"})

_FOREIGN = (
    "RAY_ADDRESS",
    "RAY_API_SERVER_ADDRESS",
    "RAY_AUTH_TOKEN",
    "RAY_CLIENT_MODE",
    "RAY_JOB_CONFIG_JSON_ENV_VAR",
    "RAY_JOB_ID",
    "RAY_NODE_ID",
    "RAY_OVERRIDE_NODE_ID_FOR_TESTING",
    "RAY_RAYLET_PID",
    "RAY_REDIS_ADDRESS",
    "RAY_RUNTIME_ENV_HOOK",
    "RAY_START_HOOK",
    "RAY_TMPDIR",
)
"""Variables that speak of another Ray: the one whose worker or shell started this instance."""

_TUNING = {
    # A killed raylet refuses connections, and is given up after 3 of these; one that is merely slow has
    # 2 s for each answer. The keep-alives let waiting calls notice a link that was cut without a word.
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "3",
    "RAY_grpc_client_keepalive_time_ms": "2000",
    "RAY_grpc_client_keepalive_timeout_ms": "2000",
    "RAY_grpc_keepalive_time_ms": "2000",
    "RAY_grpc_keepalive_timeout_ms": "2000",
    # How long raylets and workers wait for a head that is away; then they end, and join again as new.
    "RAY_gcs_rpc_server_reconnect_timeout_s": "600",
    # On SIGTERM Ray would wait up to 30 s for its actors to move elsewhere; ours end with it.
    "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
    # Logs are bounded: Ray's own default is 3 GB a process.
    "RAY_ROTATION_MAX_BYTES": str(16 << 20),
    "RAY_ROTATION_BACKUP_COUNT": "2",
    # The dashboard's own metrics want a fixed port, which the second instance of a machine finds taken.
    "DASHBOARD_METRIC_PORT": "0",
}


def command(paths: Paths, settings: Settings, port: int | None = None) -> list[str]:
    """Return the command that runs Ray's head in the foreground, as a child of this process.

    port: the GCS's, where it is another than the settings say.
    """
    ray = settings.ray
    words = [*_start(paths, settings), "--head"]
    scaling = ray.autoscaling_config
    words.append(f"--autoscaling-config={Path(scaling).expanduser()}" if scaling else "--no-monitor")
    words += [
        f"--port={ray.port if port is None else port}",
        f"--include-dashboard={str(ray.dashboard).lower()}",
        f"--dashboard-host={_LOOPBACK}",
        f"--dashboard-port={ray.dashboard_port}",
    ]
    return words


def join_command(paths: Paths, settings: Settings, address: str) -> list[str]:
    """Return the command that runs a raylet of the head at `address`, as a child of this process."""
    return [*_start(paths, settings), f"--address={address}"]


def _start(paths: Paths, settings: Settings) -> list[str]:
    """Return what is the same for the head and for other hosts."""
    ray = settings.ray
    words = [sys.executable, "-P", "-m", "actors.ray_main", str(os.getpid())]
    words += ["start", "--block", "--disable-usage-stats", "--log-color=false"]
    words += [
        f"--temp-dir={paths.ray_temp}",
        f"--node-ip-address={ray.node_ip}",
        "--dashboard-agent-listen-port=0",
        "--min-worker-port=0",
        "--max-worker-port=0",
        # It copies workers' output to drivers' terminals; tasks have logs of their own.
        "--include-log-monitor=false",
        f"--object-store-memory={ray.object_store_memory}",
    ]
    if ray.num_cpus is not None:
        words.append(f"--num-cpus={ray.num_cpus}")
    if ray.num_gpus is not None:
        words.append(f"--num-gpus={ray.num_gpus}")
    if ray.labels:
        words.append("--labels=" + ",".join(f"{k}={v}" for k, v in ray.labels.items()))
    return words


def environment(paths: Paths, settings: Settings, base: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the environment of Ray and of OmniMind's job; what the operator set for Ray stands."""
    ray = settings.ray
    inherited = {name: value for name, value in base.items() if name not in _FOREIGN}
    cores = ray.num_cpus or os.cpu_count() or 1
    idle = {
        "RAY_num_workers_soft_limit": str(2 * cores if ray.idle_workers is None else ray.idle_workers),
        "RAY_idle_worker_killing_time_threshold_ms": str(round(ray.idle_worker_seconds * 1000)),
    }
    access = instance.ray_environment(paths)
    if not is_loopback(ray.node_ip):
        del access["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"]
    return {**_TUNING, **idle, **inherited, **access, processes.MARKER: paths.marker}


def address(paths: Paths) -> str:
    """Return the address of this home's GCS, empty until Ray is up."""
    try:
        return (paths.ray / "ray_current_cluster").read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def daemons(ray: Process) -> dict[str, Process]:
    """Return the two processes without which Ray is dead, by name; those that are there."""
    found = {}
    for child in processes.tree(ray):
        name = Path((processes.command(child.pid) or [""])[0]).name
        if name in _DAEMONS:
            found[name] = child
    return found


def check_ports(settings: Settings) -> None:
    """Raise PortInUse when a port that the settings ask for by number is taken."""
    ray = settings.ray
    wanted = {"ray.port": (ray.node_ip, ray.port)}
    if ray.dashboard:
        wanted["ray.dashboard_port"] = (_LOOPBACK, ray.dashboard_port)
    for key, (host, port) in wanted.items():
        if port:
            with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind((host, port))
                except OSError as error:
                    msg = f"{host}:{port} cannot be used: {error.strerror}"
                    raise PortInUse(msg, field=key) from error


def remove_old_sessions(paths: Paths) -> None:
    """Keep the folders of Ray's last sessions, for their logs, and remove the others."""
    sessions = sorted(p for p in paths.ray.glob("session_2*") if p.is_dir() and not p.is_symlink())
    for session in sessions[: -SESSIONS_KEPT + 1]:
        shutil.rmtree(session, ignore_errors=True)


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine's own."""
    return host in {_LOOPBACK, "localhost", "::1"}
