"""Hosts without `ray up`: a host's supervisor joins, waits, joins again, leaves, and nothing stays."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.hosts.harness import Host, Hosts

PATIENCE = 180.0
SETTINGS = {
    "ray.port": "6379",
    "ray.num_cpus": "1",
    "ray.dashboard": "false",
    "ray.object_store_memory": "80MiB",
    "instance.start_timeout": "150",
}
_OTHER_VERSION = """
import json, sys, ray
from ray.experimental.internal_kv import _internal_kv_put
ray.init(logging_level=40)
_internal_kv_put("versions", json.dumps({"omnimind": sys.argv[1]}), overwrite=True, namespace="omnimind")
"""


_WORK = """
import sys, time
import omnimind

@omnimind.task
def write(seconds: float) -> None:
    until = time.time() + seconds
    while time.time() < until:
        with open("/root/witness", "a") as file:
            file.write("x")
        time.sleep(0.1)

with omnimind.connect() as om:
    om.submit(write, 600.0, needs=["zone=a"])
"""


class Cluster:
    def __init__(self, hosts: Hosts) -> None:
        self.hosts = hosts
        self.head, self.w1, self.w2 = hosts

    def omnimind(
        self,
        host: Host,
        *words: str,
        check: bool = True,
        text: str | None = None,
        env: dict[str, str] | None = None,
    ) -> Any:
        return host.run(["omnimind", *words], check=check, text=text, env=env, timeout=PATIENCE * 2)

    def up(self) -> None:
        given = [f"--set={key}={value}" for key, value in SETTINGS.items()]
        self.omnimind(self.head, "up", "--detach", f"--set=ray.node_ip={self.head.ip}", *given)

    @property
    def address(self) -> str:
        return f"{self.head.ip}:6379"

    def token(self) -> str:
        path = self.head.home / ".local/state/omnimind/ray-token"
        return path.read_text(encoding="ascii")

    def nodes(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.omnimind(self.head, "node", "list", "--json").stdout)[
            "items"
        ]
        return found

    def active(self, host: Host) -> dict[str, Any] | None:
        at = [n for n in self.nodes() if n["ip_address"] == host.ip and n["status"] in {"active", "busy"}]
        return at[0] if at else None


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Hosts(["head", "w1", "w2"], tmp_path_factory.mktemp("nodes"), sshd=True) as hosts:
        made = Cluster(hosts)
        ssh = made.head.home / ".ssh"
        (ssh / "config").write_text(f"IdentityFile {hosts.key}\nStrictHostKeyChecking accept-new\n")
        made.up()
        yield made


def until(true: Callable[[], bool], what: str) -> None:
    give_up = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < give_up, f"waited {PATIENCE:g} s until {what}"
        time.sleep(0.3)


def running(host: Host) -> list[str]:
    found = (words for pid, words in host.processes().items() if pid != host.pid)
    return [" ".join(words) for words in found if not words[0].startswith("sshd:")]


def said(host: Host) -> str:
    return (host.home / ".local/state/omnimind/logs/supervisor.log").read_text(encoding="utf-8")


def test_a_host_is_added_by_ssh_with_labels(cluster: Cluster) -> None:
    done = cluster.omnimind(
        cluster.head, "node", "add", "w1", "--labels", "zone=a", "--num-cpus", "3", "--json"
    )
    (added,) = json.loads(done.stdout)["items"]
    assert added["ip_address"] == cluster.w1.ip
    assert added["cpu_cores"] == 3
    assert {"zone", "zone=a"} <= set(added["capabilities"])
    again = cluster.omnimind(cluster.head, "node", "add", "w1")
    assert "is a node already" in again.stderr
    token = cluster.w1.home / ".local/state/omnimind/ray-token"
    assert token.stat().st_mode & 0o077 == 0


def test_ssh_that_does_not_get_there_says_so(cluster: Cluster) -> None:
    done = cluster.omnimind(cluster.head, "node", "add", "nobody@w1", check=False)
    assert done.returncode == 1
    assert "ssh does not get to w1" in done.stderr
    assert "ssh nobody@w1 true" in done.stderr


def test_a_supervisor_that_is_killed_takes_everything_with_it_and_can_start_again(cluster: Cluster) -> None:
    w1 = cluster.w1
    before = cluster.active(w1)
    assert before is not None
    (supervisor,) = w1.pids("actors.supervisor")
    w1.kill(supervisor)
    until(lambda: running(w1) == [], "all that it had started has ended")
    cluster.omnimind(w1, "node", "run", "--detach", "--address", cluster.address, "--labels", "zone=a")
    until(
        lambda: (now := cluster.active(w1)) is not None and now["node_id"] != before["node_id"], "it is back"
    )


def test_a_head_that_was_stopped_and_started_finds_its_hosts(cluster: Cluster) -> None:
    cluster.omnimind(cluster.head, "down")
    cluster.up()
    until(lambda: cluster.active(cluster.w1) is not None, "it has joined again by itself")


def test_what_runs_on_other_hosts_ends_with_the_cluster(cluster: Cluster) -> None:
    witness = cluster.w1.home / "witness"
    (cluster.head.home / "work.py").write_text(_WORK, encoding="utf-8")
    cluster.head.run([sys.executable, "work.py"])
    until(witness.exists, "it runs on w1")
    cluster.omnimind(cluster.head, "down")

    def still() -> bool:
        before = witness.stat().st_size
        time.sleep(2.0)
        return witness.stat().st_size == before

    until(still, "it has ended")
    assert cluster.w1.pids("/raylet/raylet"), "not because Ray has ended there"
    cluster.up()
    before = witness.stat().st_size
    until(lambda: witness.stat().st_size > before, "it runs again after the next start")
    cluster.omnimind(cluster.head, "task", "cancel", "--all", "--status", "running", "--yes")


def test_a_head_that_is_away_is_waited_for(cluster: Cluster) -> None:
    w1 = cluster.w1
    cluster.omnimind(cluster.head, "down")
    for raylet in w1.pids("/raylet/raylet"):
        w1.kill(raylet)
    until(lambda: "Connection refused; waiting for it" in said(w1), "it waits")
    cluster.up()
    until(lambda: cluster.active(w1) is not None, "it has joined again by itself")


def test_a_head_that_is_off_and_comes_back_finds_its_hosts(cluster: Cluster) -> None:
    cluster.head.power_off()
    cluster.head.boot()
    cluster.up()
    until(lambda: cluster.active(cluster.w1) is not None, "it takes work again")


def test_an_orderly_end_is_told_to_the_head_and_leaves_nothing(cluster: Cluster) -> None:
    w1 = cluster.w1
    # After the head's return it may get a new actor, and be away for a moment.
    until(lambda: cluster.active(w1) is not None, "it takes work")
    (supervisor,) = w1.pids("actors.supervisor")
    w1.kill(supervisor, signal.SIGTERM)
    until(lambda: running(w1) == [], "nothing runs there")
    until(lambda: cluster.active(w1) is None, "the head knows")
    assert "leaving the cluster" in said(w1)


def test_what_keeps_a_host_from_joining_is_said(cluster: Cluster) -> None:
    w2 = cluster.w2
    run = ("node", "run", "--detach", "--address")
    no_token = cluster.omnimind(w2, *run, cluster.address, check=False)
    assert "there is no token of the cluster here" in no_token.stderr
    away = cluster.omnimind(
        w2,
        *run,
        f"{cluster.head.ip}:6380",
        "--token-file",
        "-",
        "--patience",
        "1s",
        check=False,
        text=cluster.token(),
    )
    assert "cannot be reached: Connection refused" in away.stderr
    cut = cluster.omnimind(w2, *run, "10.255.255.1:6379", "--patience", "1s", check=False)
    assert "cannot be reached" in cut.stderr
    other = "from a driver of the head"
    script = cluster.head.home / "other_version.py"
    script.write_text(_OTHER_VERSION, encoding="utf-8")
    env = {
        "RAY_ADDRESS": cluster.address,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": "/root/.local/state/omnimind/ray-token",
    }
    cluster.head.run([sys.executable, script.name, other], env=env)
    skew = cluster.omnimind(w2, *run, cluster.address, check=False)
    assert "runs other versions" in skew.stderr
    assert other in skew.stderr
    for done in (no_token, away, cut, skew):
        assert done.returncode != 0
    assert running(w2) == []


def test_a_loopback_head_is_told_apart(cluster: Cluster) -> None:
    given = [f"--set={key}={value}" for key, value in SETTINGS.items() if key != "ray.port"]
    cluster.omnimind(cluster.w2, "up", "--detach", *given)
    done = cluster.omnimind(cluster.w2, "node", "add", "w1", check=False)
    assert "no other host reaches it" in done.stderr
    assert done.returncode == 4
    cluster.omnimind(cluster.w2, "down")
    assert running(cluster.w2) == []
