"""The file of `ray up`, for hosts of one's own (provider ``local``): who belongs to the cluster.

`ray up cluster.yaml` leaves a copy on the head, ``~/ray_bootstrap_config.yaml`` (JSON in spite of its name).
Ray's autoscaler there reads it again every few seconds, and keeps a row for each host in a state file. Ray
itself fills in that file only when the autoscaler starts; `sync` brings both in line while it runs, so that
hosts are added and removed without a restart of the others.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from omnimind import instance
from omnimind.errors import InvalidInput

BOOTSTRAP = Path("~/ray_bootstrap_config.yaml")
KEY = Path("~/ray_bootstrap_key.pem")
"""Where `ray up` puts the key on the head, by which the head reaches the other hosts."""

_NODE_TYPE = "local.cluster.node"
_STATES = Path("/tmp/ray")  # noqa: S108 (Ray's own place for it)


class Cluster(msgspec.Struct, frozen=True):
    """What a file says. provider: ``local`` for hosts of one's own. key: empty for ssh's own choice."""

    path: Path
    name: str
    provider: str
    head: str
    workers: list[str]
    user: str
    key: str

    @property
    def state(self) -> Path:
        """Return the file in which Ray's autoscaler keeps its rows."""
        return _STATES / f"cluster-{self.name}.state"


def read(path: Path) -> Cluster:
    """Return what a file says. Raises InvalidInput, naming what is wrong with it."""
    config = _load(path)
    provider, auth = config.get("provider") or {}, config.get("auth") or {}
    kind = str(provider.get("type", ""))
    head, workers = provider.get("head_ip", ""), provider.get("worker_ips") or []
    if kind == "local" and (not head or not isinstance(workers, list)):
        msg = f"{path} names no provider.head_ip and provider.worker_ips"
        raise InvalidInput(msg, field="config")
    key = KEY if KEY.expanduser().exists() and path == BOOTSTRAP.expanduser() else auth.get("ssh_private_key")
    return Cluster(
        path=path,
        name=str(config.get("cluster_name", "")),
        provider=kind,
        head=str(head),
        workers=list(dict.fromkeys(map(str, workers))),
        user=str(auth.get("ssh_user") or ""),
        key=str(Path(key).expanduser()) if key else "",
    )


def with_workers(config: dict[str, Any], workers: list[str]) -> dict[str, Any]:
    """Return the head's copy of a file with other workers: all of them wanted, and no more than these."""
    bounds = {"min_workers": len(workers), "max_workers": len(workers)}
    types = dict(config.get("available_node_types") or {})
    if _NODE_TYPE in types:
        types[_NODE_TYPE] = {**types[_NODE_TYPE], **bounds}
    return {
        **config,
        "provider": {**config["provider"], "worker_ips": workers},
        "max_workers": len(workers),
        **({"available_node_types": types} if types else {}),
    }


def with_rows(state: dict[str, Any], head: str, workers: list[str]) -> dict[str, Any]:
    """Return the autoscaler's rows for these hosts: those that it has, new ones to be started, no others."""
    rows = {
        ip: state.get(ip) or {"tags": {"ray-node-type": "worker"}, "state": "terminated"} for ip in workers
    }
    own = state.get(head) or {"tags": {"ray-node-type": "head"}, "state": "terminated"}
    return {**rows, head: own}


def known(cluster: Cluster) -> list[str]:
    """Return the workers for which the autoscaler has rows."""
    return [ip for ip in _state(cluster) if ip != cluster.head]


def change_workers(cluster: Cluster, add: list[str], remove: list[str]) -> Cluster:
    """Write other workers into the head's copy and the autoscaler's rows; return what it says then."""
    workers = [ip for ip in cluster.workers if ip not in remove]
    workers += [ip for ip in add if ip not in workers]
    config = with_workers(_load(cluster.path), workers)
    # The rows first: with the file first, the autoscaler could find no row for a host that it should start.
    changed = msgspec.structs.replace(cluster, workers=workers)
    sync(changed)
    instance.write_atomically(cluster.path, json.dumps(config).encode())
    return changed


def sync(cluster: Cluster) -> None:
    """Bring the autoscaler's rows in line with the file, where an autoscaler has made any."""
    with _locked(cluster):
        state = _state(cluster)
        if state:
            rows = with_rows(state, cluster.head, cluster.workers)
            # In place, as Ray does it: it opens the file anew for each look, and both hold the lock.
            cluster.state.write_text(json.dumps(rows), encoding="utf-8")


def forget(cluster: Cluster) -> None:
    """Remove the autoscaler's rows: they speak of hosts that an earlier Ray has started."""
    with contextlib.suppress(OSError):
        cluster.state.unlink(missing_ok=True)


@contextlib.contextmanager
def _locked(cluster: Cluster) -> Iterator[None]:
    """Hold the lock by which Ray guards its rows (of the package filelock: flock on this very file)."""
    _STATES.mkdir(exist_ok=True)
    fd = os.open(cluster.state.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _state(cluster: Cluster) -> dict[str, Any]:
    try:
        found = json.loads(cluster.state.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _load(path: Path) -> dict[str, Any]:
    import yaml  # noqa: PLC0415 (most commands do without)

    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InvalidInput(f"cannot read {path}: {error}", field="config") from error
    if not isinstance(config, dict) or not isinstance(config.get("provider"), dict):
        raise InvalidInput(f"{path} is no file of `ray up`: it names no provider", field="config")
    return config
