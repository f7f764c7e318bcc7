"""The files of `ray up` by the very checks that Ray's launcher and autoscaler make."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from omnimind import rayfile

ROOT = Path(__file__).parents[2]
OWN = ROOT / "cluster.yaml"
CLOUDS = sorted((ROOT / "deploy" / "ray").glob("*.yaml"))
FILES = [OWN, *CLOUDS]


def load(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return found


def check(config: dict[str, Any]) -> dict[str, Any]:
    """Check a file as `ray up` does: as it is, and filled in with the provider's defaults."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    filled: dict[str, Any] = prepare_config(copy.deepcopy(config))
    validate_config(filled)
    return filled


def test_there_is_a_file_for_each_place() -> None:
    assert [path.stem for path in CLOUDS] == ["aws", "azure", "gcp"]


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_ray_takes_the_file(path: Path) -> None:
    config = load(path)
    filled = check(config)
    # What the file says is what is done: no default of Ray stands in the place of a command.
    for key in ("head_start_ray_commands", "worker_start_ray_commands", "setup_commands", "file_mounts"):
        assert filled[key] == config[key]
    for key in ("head_start_ray_commands", "worker_start_ray_commands"):
        assert not any("ray start" in line or "ray stop" in line for line in filled[key])


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_ray_refuses_the_file_with_a_fault_in_it(path: Path) -> None:
    for key, fault in (("max_wrokers", 3), ("rsync_exclude", "omnimind"), ("idle_timeout_minutes", "ten")):
        with pytest.raises(jsonschema.ValidationError):
            check({**load(path), key: fault})


@pytest.mark.parametrize("path", CLOUDS, ids=lambda p: p.stem)
def test_clouds_differ_from_hosts_of_ones_own_in_their_machines_alone(path: Path) -> None:
    own, cloud = load(OWN), load(path)
    for key in ("file_mounts", "cluster_synced_files", "setup_commands", "worker_start_ray_commands"):
        assert cloud[key] == own[key]


def test_every_folder_that_the_file_copies_is_there() -> None:
    for path in FILES:
        assert all((ROOT / local).exists() for local in load(path)["file_mounts"].values())


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Ray leaves files open
def test_rays_own_provider_takes_the_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.autoscaler._private.local import node_provider

    monkeypatch.setattr(rayfile, "_STATES", tmp_path)
    path = tmp_path / "cluster.yaml"
    own = load(OWN)
    path.write_text(
        yaml.safe_dump({**own, "provider": {**own["provider"], "worker_ips": ["10.0.0.2", "10.0.0.3"]}})
    )
    cluster = rayfile.read(path)
    monkeypatch.setattr(node_provider, "get_state_path", lambda _: str(cluster.state))
    monkeypatch.setattr(node_provider, "get_lock_path", lambda _: str(cluster.state.with_suffix(".lock")))
    config = {"head_ip": cluster.head, "worker_ips": cluster.workers}
    make: Any = node_provider.LocalNodeProvider
    provider = make(config, "c")
    kind = {"ray-node-type": "worker"}
    provider.create_node({}, {**kind, "ray-node-status": "up-to-date"}, 2)
    assert sorted(provider.non_terminated_nodes(kind)) == cluster.workers
    rayfile.change_workers(cluster, add=["10.0.0.4"], remove=["10.0.0.3"])
    assert provider.non_terminated_nodes(kind) == ["10.0.0.2"]
    provider.create_node({}, kind, 1)
    assert sorted(provider.non_terminated_nodes(kind)) == ["10.0.0.2", "10.0.0.4"]
