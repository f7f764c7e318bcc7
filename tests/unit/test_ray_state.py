"""What an autoscaling configuration says of the kinds of nodes, and what does not count as one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("ray")
from actors import ray_state

HEAD = {"resources": {"CPU": 1}, "max_workers": 0}


def kinds(tmp_path: Path, text: str) -> list[str]:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    return [t.name for t in ray_state.node_types(path)]


def test_kinds_are_read(tmp_path: Path) -> None:
    config = {
        "head_node_type": "head",
        "available_node_types": {
            "head": HEAD,
            "big": {"resources": {"CPU": 8, "GPU": 1}, "labels": {"zone": "a"}, "min_workers": 1},
            "cloud": {"node_config": {}},
            "off": {"resources": {"CPU": 1}, "max_workers": 0},
        },
    }
    path = tmp_path / "c.yaml"
    path.write_text(json.dumps(config))
    big, cloud = ray_state.node_types(path)
    assert (big.name, big.least, big.most, big.labels) == ("big", 1, None, {"zone": "a"})
    assert big.capabilities() == {"gpu", "zone", "zone=a"}
    assert cloud.resources == {}


@pytest.mark.parametrize(
    "text",
    ["", "[]", "available_node_types: 3", "a: [", "provider: {type: local}", "available_node_types: {x: 1}"],
)
def test_what_is_no_list_of_kinds_is_none(tmp_path: Path, text: str) -> None:
    assert kinds(tmp_path, text) == []


def test_a_file_that_is_not_there_is_none(tmp_path: Path) -> None:
    assert ray_state.node_types(tmp_path / "absent") == []
