from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from omnimind.cluster.policies import CoreLimits
from omnimind.config import CoordinatorSettings, Settings, dump, effective, load, specs
from omnimind.errors import ConfigError, from_problem


def from_toml(home: Path, text: str) -> Settings:
    (home / "omnimind.toml").write_text(text, encoding="utf-8")
    return load(home, {}, {})


def refused(home: Path, *, toml: str = "", env: dict[str, str] | None = None, **flags: str) -> ConfigError:
    if toml:
        (home / "omnimind.toml").write_text(toml, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load(home, {key.replace("__", "."): value for key, value in flags.items()}, env or {})
    return caught.value


def test_each_setting_has_a_sentence_a_default_within_its_bounds_and_a_variable_of_its_own() -> None:
    seen = set()
    for spec in specs():
        assert spec.doc.endswith("."), spec.key
        assert spec.read(spec.write(spec.default), "test") == spec.default
        assert spec.variable not in seen
        seen.add(spec.variable)
        if spec.kind in {int, float}:
            assert spec.low is not None, spec.key
            assert spec.high is not None, spec.key
            for beyond in (spec.low - 1, spec.high + 1):
                with pytest.raises(ConfigError, match=spec.key):
                    spec.read(spec.kind(beyond), "test")


def test_the_coordinators_settings_are_the_cores_with_the_same_defaults() -> None:
    core = msgspec.structs.asdict(CoreLimits())
    ours = msgspec.structs.asdict(CoordinatorSettings())
    for name in ours.keys() & core.keys():
        assert core[name] == ours[name], name
    assert len(ours.keys() & core.keys()) >= 8


def test_flags_beat_the_environment_which_beats_the_file_which_beats_the_default(tmp_path: Path) -> None:
    (tmp_path / "omnimind.toml").write_text(
        "[ray]\nnum_cpus = 1\nport = 7001\ndashboard_port = 7002\n[instance]\nstop_timeout = 3\n",
        encoding="utf-8",
    )
    env = {"OMNIMIND_RAY_NUM_CPUS": "2", "OMNIMIND_RAY_PORT": "7003", "OMNIMIND_HOME": "x", "HOME": "y"}
    settings = load(tmp_path, {"ray.num_cpus": "3"}, env)
    assert (settings.ray.num_cpus, settings.ray.port, settings.ray.dashboard_port) == (3, 7003, 7002)
    assert settings.instance.stop_timeout == 3.0
    assert settings.instance.start_timeout == Settings().instance.start_timeout
    assert settings.origins == {
        "ray.num_cpus": "flag",
        "ray.port": "OMNIMIND_RAY_PORT",
        "ray.dashboard_port": f"{tmp_path}/omnimind.toml:4",
        "instance.stop_timeout": f"{tmp_path}/omnimind.toml:6",
    }


def test_the_file_may_be_elsewhere(tmp_path: Path) -> None:
    other = tmp_path / "other.toml"
    other.write_text("ray.port = 7000\n", encoding="utf-8")
    settings = load(tmp_path / "home", {}, {"OMNIMIND_CONFIG": str(other)})
    assert settings.ray.port == 7000
    assert settings.origins["ray.port"] == f"{other}:1"


def test_a_file_that_was_named_must_exist(tmp_path: Path) -> None:
    error = refused(tmp_path, env={"OMNIMIND_CONFIG": str(tmp_path / "gone.toml")})
    assert error.field == "OMNIMIND_CONFIG"


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("ray.object_store_memory", "256MiB", 256 << 20),
        ("ray.object_store_memory", "0.5 GB", 500_000_000),
        ("ray.object_store_memory", "100000000", 100_000_000),
        ("retention.age", "7d", 604_800.0),
        ("retention.age", "1.5h", 5400.0),
        ("coordinator.batch_seconds", "20ms", 0.02),
        ("instance.stop_timeout", " 4 ", 4.0),
        ("ray.dashboard", "No", False),
        ("ray.dashboard", "on", True),
        ("ray.num_cpus", "", None),
        ("ray.labels", "zone=a, disk = ssd", {"zone": "a", "disk": "ssd"}),
        ("ray.node_ip", "10.0.0.7", "10.0.0.7"),
    ],
)
def test_text_is_read_as_people_write_it(key: str, text: str, value: object) -> None:
    assert Settings().changed({key: text}).get(key) == value


@pytest.mark.parametrize(
    ("toml", "field", "place", "mend"),
    [
        ("[ray]\n\nnum_cpu = 4\n", "ray.num_cpu", ":3", "ray.num_cpus"),
        ("[instance]\nx = 1\n", "instance.x", ":2", "omnimind config"),
        ("\n[rey]\nnum_cpus = 4\n", "rey", ":2", "ray"),
        ("ray = 3\n", "ray", ":1", ""),
        ("[ray]\nport = 7\n[instance]\nstart_timeout = 'soon'\n", "instance.start_timeout", ":4", "90s"),
        ("[ray]\nnum_cpus = 0\n", "ray.num_cpus", ":2", "from 1 to 4,096"),
        ("[ray]\nnum_cpus = true\n", "ray.num_cpus", ":2", "whole number"),
        ("[retention]\nage = nan\n", "retention.age", ":2", "seconds"),
        ("[ray]\nlabels = {a = 1}\n", "ray.labels", ":2", "k=v"),
    ],
)
def test_a_bad_file_is_refused_with_key_line_and_mend(
    tmp_path: Path, toml: str, field: str, place: str, mend: str
) -> None:
    error = refused(tmp_path, toml=toml)
    assert error.field == field
    assert f"omnimind.toml{place}" in error.message
    assert mend in error.hint
    assert error.status == 400
    assert str(from_problem(error.to_problem())) == str(error)


@pytest.mark.parametrize(
    ("env", "field"),
    [
        ({"OMNIMIND_RAY_NUMCPUS": "1"}, "OMNIMIND_RAY_NUMCPUS"),
        ({"OMNIMIND_RAY_PORT": "99999"}, "ray.port"),
        ({"OMNIMIND_RAY_DASHBOARD": "maybe"}, "ray.dashboard"),
    ],
)
def test_a_bad_variable_is_refused_by_name(tmp_path: Path, env: dict[str, str], field: str) -> None:
    error = refused(tmp_path, env=env)
    assert error.field == field
    assert next(iter(env)) in str(error) or "environment" in error.message


def test_a_bad_flag_is_refused(tmp_path: Path) -> None:
    assert refused(tmp_path, ray__port="none").field == "ray.port"
    assert "did you mean ray.port?" in refused(tmp_path, ray__prot="1").hint


@pytest.mark.parametrize("text", ["[ray\n", "ray.num_cpus = \n", "\0"])
def test_a_file_that_is_no_toml_is_refused_with_its_line(tmp_path: Path, text: str) -> None:
    error = refused(tmp_path, toml=text)
    assert "omnimind.toml" in error.message
    assert "line 1" in error.message


def test_values_must_fit_together(tmp_path: Path) -> None:
    error = refused(tmp_path, coordinator__suspect_after="5")
    assert error.field == "coordinator.suspect_after"
    assert "heartbeat_timeout" in error.message


def test_the_file_holds_every_setting_that_can_be_written_down(tmp_path: Path) -> None:
    lines: dict[str, list[str]] = {}
    for spec in specs():
        if spec.default is not None:
            value = spec.write(spec.default)
            lines.setdefault(spec.section, []).append(f'{spec.name} = "{value}"')
    text = "".join(f"[{section}]\n" + "\n".join(body) + "\n" for section, body in lines.items())
    settings = from_toml(tmp_path, text)
    for spec in specs():
        assert settings.get(spec.key) == spec.default


def test_the_settings_in_effect_are_read_back_with_their_origins(tmp_path: Path) -> None:
    settings = Settings().changed({"ray.num_cpus": "2", "ray.labels": "a=b"}, "flag")
    path = tmp_path / "settings.json"
    assert effective(path) == Settings()
    path.write_bytes(dump(settings))
    assert effective(path) == settings
    path.write_bytes(b"{")
    with pytest.raises(ConfigError):
        effective(path)


def test_redis_needs_an_address_and_an_address_needs_redis(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no Redis is named"):
        load(tmp_path, {"ray.gcs_storage": "redis"}, {})
    with pytest.raises(ConfigError, match=r"ray.gcs_storage is rocksdb"):
        load(tmp_path, {"ray.gcs_storage": "rocksdb", "ray.gcs_redis": "10.0.0.9:6379"}, {})
    both = {"ray.gcs_storage": "redis", "ray.gcs_redis": "10.0.0.9:6379"}
    assert load(tmp_path, both, {}).ray.gcs_redis == "10.0.0.9:6379"


def test_a_coordinator_that_may_move_needs_a_ledger_that_all_hosts_reach(tmp_path: Path) -> None:
    moving = {"coordinator.nodes": "role=coordinator"}
    with pytest.raises(ConfigError, match=r"coordinator.nodes: a ledger in SQLite is on the head's disk"):
        load(tmp_path, moving, {})
    url = {"ledger.url": "postgresql://omni@10.0.0.9/omni"}
    assert load(tmp_path, moving | url, {}).coordinator.nodes == {"role": "coordinator"}
