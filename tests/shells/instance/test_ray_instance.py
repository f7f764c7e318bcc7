from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from actors import ray_instance
from omnimind.config import Settings
from omnimind.errors import PortInUse
from omnimind.instance import Paths
from omnimind.processes import MARKER


def test_ports_are_free_ones_and_addresses_loopback_unless_set() -> None:
    words = ray_instance.command(Paths("/srv/om"), Settings())
    assert "--port=0" in words
    assert "--dashboard-port=0" in words
    assert "--dashboard-agent-listen-port=0" in words
    assert "--node-ip-address=127.0.0.1" in words
    assert "--temp-dir=/srv/om/ray" in words
    assert not any(word.startswith(("--num-cpus", "--num-gpus", "--labels")) for word in words)
    assert words[words.index("actors.ray_main") + 1] == str(os.getpid())


def test_settings_reach_ray() -> None:
    settings = Settings().changed(
        {"ray.num_cpus": "3", "ray.num_gpus": "0", "ray.labels": "zone=a,disk=ssd", "ray.port": "7001"}
        | {"ray.dashboard": "off", "ray.object_store_memory": "100MB", "ray.node_ip": "10.0.0.7"}
    )
    words = ray_instance.command(Paths("/srv/om"), settings)
    for word in (
        "--num-cpus=3 --num-gpus=0 --labels=zone=a,disk=ssd --port=7001 --include-dashboard=false "
        "--object-store-memory=100000000 --node-ip-address=10.0.0.7"
    ).split():
        assert word in words


def test_the_environment_has_the_token_the_marker_and_nothing_of_another_ray() -> None:
    base = {"RAY_ADDRESS": "elsewhere:1", "RAY_JOB_ID": "01", "PATH": "/bin", "RAY_AUTH_MODE": "disabled"}
    paths = Paths("/srv/om")
    env = ray_instance.environment(paths, Settings(), base)
    assert env["RAY_AUTH_MODE"] == "token"
    assert env["RAY_AUTH_TOKEN_PATH"] == "/srv/om/ray-token"
    assert env[MARKER] == paths.marker
    assert env["PATH"] == "/bin"
    assert "RAY_ADDRESS" not in env
    assert "RAY_JOB_ID" not in env
    assert env["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] == "0"


def test_what_the_operator_tuned_stands() -> None:
    base = {"RAY_health_check_period_ms": "9000"}
    env = ray_instance.environment(Paths("/srv/om"), Settings(), base)
    assert env["RAY_health_check_period_ms"] == "9000"
    assert env["RAY_health_check_failure_threshold"] == "3"


def test_idle_workers_are_kept_by_the_cores_or_by_setting() -> None:
    paths = Paths("/srv/om")
    by_cores = ray_instance.environment(paths, Settings().changed({"ray.num_cpus": 3}), {})
    assert by_cores["RAY_num_workers_soft_limit"] == "6"
    wanted = {"ray.idle_workers": 1, "ray.idle_worker_seconds": "1.5"}
    by_setting = ray_instance.environment(paths, Settings().changed(wanted), {})
    assert by_setting["RAY_num_workers_soft_limit"] == "1"
    assert by_setting["RAY_idle_worker_killing_time_threshold_ms"] == "1500"


def test_an_address_that_others_reach_is_left_to_ray() -> None:
    settings = Settings().changed({"ray.node_ip": "10.0.0.7"})
    env = ray_instance.environment(Paths("/srv/om"), settings, {})
    assert "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER" not in env


@pytest.mark.parametrize("key", ["ray.port", "ray.dashboard_port"])
def test_a_taken_port_is_named_by_its_setting(key: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        settings = Settings().changed({key: taken.getsockname()[1]})
        with pytest.raises(PortInUse) as caught:
            ray_instance.check_ports(settings)
        assert caught.value.field == key
    ray_instance.check_ports(settings)


def test_a_dashboard_that_does_not_run_needs_no_port() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ray_instance.check_ports(Settings().changed({"ray.dashboard_port": port, "ray.dashboard": False}))


def test_an_address_that_is_not_this_machines_is_refused() -> None:
    with pytest.raises(PortInUse, match=r"203\.0\.113\.9"):
        ray_instance.check_ports(Settings().changed({"ray.node_ip": "203.0.113.9", "ray.port": 7001}))


def test_old_sessions_go_and_the_last_ones_stay(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    names = [f"session_2026-11-2{day}_10-00-00_000000_1" for day in range(6)]
    for name in names:
        (paths.ray / name / "logs").mkdir(parents=True)
    (paths.ray / "session_latest").symlink_to(paths.ray / names[-1])
    (paths.ray / "other").mkdir()
    ray_instance.remove_old_sessions(paths)
    left = sorted(p.name for p in paths.ray.iterdir())
    # With the one that is about to be made, there are SESSIONS_KEPT.
    assert left == ["other", *names[-ray_instance.SESSIONS_KEPT + 1 :], "session_latest"]


def test_the_address_is_empty_until_ray_is_up(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    assert ray_instance.address(paths) == ""
    paths.ray.mkdir()
    (paths.ray / "ray_current_cluster").write_text("127.0.0.1:7000\n", encoding="utf-8")
    assert ray_instance.address(paths) == "127.0.0.1:7000"
