from __future__ import annotations

from pathlib import Path

import pytest

from actors import preflight, ray_instance
from actors.gcs_storage import GcsStorage, kind_of
from omnimind import instance
from omnimind.config import Settings
from omnimind.errors import HomeUnusable
from omnimind.instance import Paths

OWN = "127.0.0.1"


def settings(**values: str) -> Settings:
    return Settings().changed({f"ray.{name}": value for name, value in values.items()})


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    paths = Paths(tmp_path)
    instance.prepare(paths)
    return paths


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        ({}, "memory"),
        ({"node_ip": "10.0.0.7"}, "rocksdb"),
        ({"node_ip": "10.0.0.7", "gcs_storage": "memory"}, "memory"),
        ({"gcs_storage": "rocksdb"}, "rocksdb"),
    ],
)
def test_a_head_that_others_reach_keeps_its_state_by_default(given: dict[str, str], kind: str) -> None:
    assert kind_of(settings(**given)) == kind


def test_in_memory_nothing_is_written_and_the_port_is_rays_choice(paths: Paths) -> None:
    storage = GcsStorage(paths, settings())
    storage.prepare()
    storage.taken()
    assert not (paths.home / "gcs").exists()
    assert (storage.kept, storage.port, storage.environment()) == (False, 0, {})


def test_the_next_start_takes_it_up_at_the_same_port(paths: Paths) -> None:
    wanted = settings(gcs_storage="rocksdb")
    first = GcsStorage(paths, wanted)
    first.prepare()
    assert first.port > 0
    assert not first.kept
    (paths.home / "gcs" / "db" / "tables").touch()
    again = GcsStorage(paths, wanted)
    again.prepare()
    assert again.kept
    assert again.port == first.port
    assert (paths.home / "gcs" / "db" / "tables").exists()
    assert f"--port={first.port}" in ray_instance.command(paths, wanted, again.port)
    assert again.environment() == {
        "RAY_gcs_storage": "rocksdb",
        "RAY_gcs_storage_path": str(paths.home / "gcs" / "db"),
    }


@pytest.mark.parametrize(
    "other",
    [
        {"gcs_storage": "rocksdb", "node_ip": "127.0.0.2"},
        {"gcs_storage": "redis", "gcs_redis": "h:1"},
        {"gcs_storage": "rocksdb", "port": "7077"},
        {"gcs_storage": "memory"},
    ],
)
def test_what_belongs_to_another_head_is_not_taken_up(paths: Paths, other: dict[str, str]) -> None:
    GcsStorage(paths, settings(gcs_storage="rocksdb")).prepare()
    (paths.home / "gcs" / "db" / "tables").touch()
    storage = GcsStorage(paths, settings(**other))
    storage.prepare()
    assert not storage.kept
    assert not (paths.home / "gcs" / "db" / "tables").exists()


def test_another_version_does_not_read_it(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = settings(gcs_storage="rocksdb")
    GcsStorage(paths, wanted).prepare()
    monkeypatch.setattr(preflight, "versions", lambda: {"ray": "2.99"})
    assert not GcsStorage(paths, wanted).kept


def test_each_cluster_has_its_own_namespace_in_redis(paths: Paths) -> None:
    wanted = settings(gcs_storage="redis", gcs_redis="10.0.0.9:6379")
    first = GcsStorage(paths, wanted)
    first.prepare()
    assert first.environment()["RAY_REDIS_ADDRESS"] == "10.0.0.9:6379"
    assert GcsStorage(paths, wanted).environment() == first.environment()
    again = GcsStorage(paths, wanted)
    again.reset()
    again.prepare()
    assert again.environment() != first.environment()


def test_a_note_that_cannot_be_read_counts_as_none(paths: Paths) -> None:
    wanted = settings(gcs_storage="rocksdb")
    GcsStorage(paths, wanted).prepare()
    (paths.home / "gcs" / "kept.json").write_bytes(b"{")
    assert not GcsStorage(paths, wanted).kept


def test_a_folder_that_cannot_be_made_is_named(paths: Paths) -> None:
    (paths.home / "gcs").write_text("a file is in the way")
    with pytest.raises(HomeUnusable, match="gcs"):
        GcsStorage(paths, settings(gcs_storage="rocksdb")).prepare()
