"""The file of `ray up` and the autoscaler's rows: read, and changed so that Ray's own code takes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from omnimind import rayfile
from omnimind.errors import InvalidInput

TEXT = """
cluster_name: c
provider: {type: local, head_ip: 10.0.0.1, worker_ips: [10.0.0.2, 10.0.0.3, 10.0.0.2]}
auth: {ssh_user: me, ssh_private_key: ~/.ssh/k}
max_workers: 2
available_node_types: {local.cluster.node: {min_workers: 2, max_workers: 2, resources: {}}}
"""
UP = {"tags": {"ray-node-type": "worker", "ray-node-status": "up-to-date"}, "state": "running"}
HEAD = {"tags": {"ray-node-type": "head"}, "state": "running"}


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> rayfile.Cluster:
    monkeypatch.setattr(rayfile, "_STATES", tmp_path)
    path = tmp_path / "cluster.yaml"
    path.write_text(TEXT, encoding="utf-8")
    return rayfile.read(path)


def rows(cluster: rayfile.Cluster) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(cluster.state.read_text(encoding="utf-8"))
    return found


def test_what_it_says(cluster: rayfile.Cluster) -> None:
    assert cluster.name == "c"
    assert cluster.head == "10.0.0.1"
    assert cluster.workers == ["10.0.0.2", "10.0.0.3"]
    assert (cluster.user, cluster.key) == ("me", str(Path("~/.ssh/k").expanduser()))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[1, 2]", "names no provider"),
        ("provider: aws", "names no provider"),
        ("provider: {type: local, head_ip: a}\nx: {", "cannot read"),
        ("provider: {type: local}", "head_ip"),
        ("provider: {type: local, head_ip: a, worker_ips: b}", "worker_ips"),
    ],
)
def test_a_file_that_will_not_do_is_named(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "f.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InvalidInput, match=says):
        rayfile.read(path)
    with pytest.raises(InvalidInput, match="cannot read"):
        rayfile.read(tmp_path / "absent.yaml")


def test_rows_follow_the_workers_and_what_runs_is_left_as_it_is() -> None:
    state = {"10.0.0.1": HEAD, "10.0.0.2": UP, "10.0.0.3": UP}
    changed = rayfile.with_rows(state, "10.0.0.1", ["10.0.0.2", "10.0.0.4"])
    assert changed == {
        "10.0.0.1": HEAD,
        "10.0.0.2": UP,
        "10.0.0.4": {"tags": {"ray-node-type": "worker"}, "state": "terminated"},
    }


def test_hosts_are_added_and_removed(cluster: rayfile.Cluster) -> None:
    cluster.state.write_text(json.dumps({"10.0.0.1": HEAD, "10.0.0.2": UP, "10.0.0.3": UP}), encoding="utf-8")
    more = rayfile.change_workers(cluster, add=["10.0.0.4", "10.0.0.2"], remove=[])
    assert rayfile.read(cluster.path) == more
    assert more.workers == ["10.0.0.2", "10.0.0.3", "10.0.0.4"]
    assert sorted(rayfile.known(more)) == more.workers
    fewer = rayfile.change_workers(more, add=[], remove=["10.0.0.2"])
    assert fewer.workers == ["10.0.0.3", "10.0.0.4"]
    assert set(rows(fewer)) == {"10.0.0.1", *fewer.workers}
    config = json.loads(cluster.path.read_text(encoding="utf-8"))
    assert config["max_workers"] == 2
    assert config["available_node_types"]["local.cluster.node"]["min_workers"] == 2


def test_without_an_autoscaler_there_are_no_rows_to_change(cluster: rayfile.Cluster) -> None:
    rayfile.sync(cluster)
    assert not cluster.state.exists()
    cluster.state.write_text("{}", encoding="utf-8")
    rayfile.forget(cluster)
    rayfile.forget(cluster)
    assert rayfile.known(cluster) == []
