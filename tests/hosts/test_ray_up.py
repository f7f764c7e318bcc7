"""The real `ray up cluster.yaml` and `ray down` on hosts with sshd, and hosts that come, go and reboot.

One cluster for all tests of this file, which go on from one another in this order: a start takes long.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.hosts.harness import Host, Hosts
from tests.hosts.rayup import RayUp, sections, shell

PATIENCE = 180.0
BACK = 60.0
"""Seconds within which a host that reboots must take work again."""

_WORK = """
import json, socket, sys, time
import omnimind

@omnimind.task
def where(number: int, seconds: float) -> str:
    time.sleep(seconds)
    return socket.gethostname()

with omnimind.connect() as om:
    found = list(om.map(where, [(n, float(sys.argv[2])) for n in range(int(sys.argv[1]))]))
print(json.dumps({name: found.count(name) for name in set(found)}))
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayUp]:
    folder = tmp_path_factory.mktemp("up")
    with Hosts(["launcher", "head", "w1", "w2", "w3"], folder, sshd=True) as hosts:
        made = RayUp(hosts, "launcher", "head", ["w1", "w2"], folder)
        (made.head.home / "work.py").write_text(_WORK, encoding="utf-8")
        made.up()
        made.on_head(f"omnimind cluster wait --nodes 3 --timeout {PATIENCE:.0f}s", timeout=PATIENCE + 30)
        yield made


def until(true: Callable[[], bool], what: str, patience: float = PATIENCE) -> float:
    began = time.monotonic()
    while not true():
        assert time.monotonic() - began < patience, f"waited {patience:g} s until {what}"
        time.sleep(0.5)
    return time.monotonic() - began


def work(cluster: RayUp, count: int = 60, seconds: float = 0.2) -> dict[str, int]:
    """Return how many tasks ended on each host."""
    line = f"~/omnimind/.venv/bin/python work.py {count} {seconds}"
    found: dict[str, int] = json.loads(cluster.on_head(line, timeout=PATIENCE).splitlines()[-1])
    return found


def status(cluster: RayUp, node_id: str) -> str:
    return next(str(n["status"]) for n in cluster.nodes() if n["node_id"] == node_id)


def raylets(host: Host) -> list[int]:
    return host.pids("/raylet/raylet")


def running(host: Host) -> list[str]:
    """Return all processes of a host but its first and those of ssh."""
    found = (words for pid, words in host.processes().items() if pid != host.pid)
    return [" ".join(words) for words in found if not words[0].startswith(("sshd:", "ssh:"))]


def test_all_hosts_do_real_work(cluster: RayUp) -> None:
    done = work(cluster)
    assert sum(done.values()) == 60
    assert set(done) == {"head", "w1", "w2"}


def test_labels_are_capabilities_of_their_nodes(cluster: RayUp) -> None:
    labelled = {n["hostname"]: n["capabilities"] for n in cluster.nodes()}
    for name in ("head", "w1", "w2"):
        assert f"omnimind/host={name}" in labelled[name]


def test_rays_own_commands_work(cluster: RayUp) -> None:
    said = cluster.ray("exec", str(cluster.file), "ray status").stdout
    assert said.count("local.cluster.node") >= 1
    assert "omnimind" not in cluster.ray("get-head-ip", str(cluster.file)).stdout
    address = cluster.on_head("ray list nodes --format json 2>/dev/null")
    assert {n["state"] for n in json.loads(address)} == {"ALIVE"}
    forward = cluster.launcher.popen(["ray", "dashboard", cluster.file], stdout=-1, stderr=-1)
    try:
        until(lambda: dashboard(cluster) == 200, "the dashboard is reached from the launcher")
    finally:
        for pid in cluster.launcher.pids("ray dashboard") + cluster.launcher.pids("8265"):
            cluster.launcher.kill(pid)
        forward.communicate()
    attached = cluster.launcher.popen(
        ["script", "-qec", f"ray attach {cluster.file}", "/dev/null"], stdin=-1, stdout=-1, text=True
    )
    out, _ = attached.communicate("hostname; exit\n", 120)
    assert "head" in out


def dashboard(cluster: RayUp) -> int:
    """Return the status with which the dashboard answers on the launcher's own port, 0 for no answer."""
    token = (cluster.head.home / ".local/state/omnimind/ray-token").read_text(encoding="ascii").strip()
    code = (
        "import sys, urllib.request as r\n"
        "shown = {'Authorization': 'Bearer ' + sys.argv[1]}\n"
        "q = r.Request('http://127.0.0.1:8265/api/version', headers=shown)\n"
        "print(r.urlopen(q, timeout=5).status)"
    )
    done = cluster.launcher.run([sys.executable, "-I", "-c", code, token], check=False)
    return int(done.stdout) if done.returncode == 0 else 0


def test_without_the_token_ray_lets_nobody_in(cluster: RayUp) -> None:
    token = cluster.head.home / ".local/state/omnimind/ray-token"
    assert token.stat().st_mode & 0o077 == 0
    join = f"omnimind node run --address {cluster.head.ip}:6379 --token-file - --patience 5s --detach"
    w3 = cluster.hosts["w3"]
    done = w3.run(["sh", "-c", join], text="0" * 64, check=False)
    assert done.returncode != 0
    assert "refuses this host's token" in done.stderr
    assert running(w3) == []


def test_a_host_is_added_while_all_others_go_on(cluster: RayUp) -> None:
    before = cluster.active()
    kept = {h.name: raylets(h) for h in cluster.hosts}
    cluster.on_head(f"omnimind node add {cluster.hosts['w3'].ip}", timeout=400)
    after = cluster.active()
    assert set(after) - set(before) == {cluster.hosts["w3"].ip}
    assert {ip: after[ip] for ip in before} == before
    assert all(raylets(cluster.hosts[name]) == pids for name, pids in kept.items() if pids)
    assert "w3" in work(cluster, 80)


def test_a_host_that_reboots_is_back(cluster: RayUp) -> None:
    w1 = cluster.hosts["w1"]
    before = cluster.active()[w1.ip]
    began = time.monotonic()
    w1.power_off()
    w1.boot()
    until(lambda: cluster.active().get(w1.ip, before) != before, "it takes work as a new node")
    assert time.monotonic() - began < BACK
    assert "w1" in work(cluster, 80)


def test_a_killed_raylet_is_back_and_only_its_supervisor_starts_it(cluster: RayUp) -> None:
    w2 = cluster.hosts["w2"]
    before = cluster.active()[w2.ip]
    (victim,) = raylets(w2)
    w2.kill(victim)
    until(lambda: cluster.active().get(w2.ip, before) != before, "it takes work as a new node")
    assert len(raylets(w2)) == 1
    assert len(w2.pids("actors.supervisor")) == 1


def test_a_cut_host_is_given_up_and_joins_as_new_when_the_cut_is_healed(cluster: RayUp) -> None:
    w2 = cluster.hosts["w2"]
    before = cluster.active()[w2.ip]
    w2.cut()
    until(lambda: status(cluster, before) == "offline", "the coordinator gives it up")
    assert raylets(w2), "in a cut it runs on"
    w2.heal()
    until(lambda: cluster.active().get(w2.ip, before) != before, "it takes work as a new node")
    assert status(cluster, before) == "offline"


def test_a_host_is_removed_and_stays_away(cluster: RayUp) -> None:
    w3 = cluster.hosts["w3"]
    before = cluster.active()
    cluster.on_head(f"omnimind node remove {before[w3.ip]} --deadline 30s", timeout=400)
    assert running(w3) == []
    after = cluster.active()
    assert after == {ip: node for ip, node in before.items() if ip != w3.ip}
    time.sleep(20.0)  # longer than the autoscaler takes to miss a host
    assert running(w3) == []
    assert cluster.active() == after


def test_a_second_ray_up_restarts_nothing_and_brings_hosts_in_line_with_the_file(cluster: RayUp) -> None:
    before = cluster.active()
    cluster.write(["w1", "w3"])
    cluster.up()
    w2, w3 = cluster.hosts["w2"], cluster.hosts["w3"]
    until(
        lambda: set(cluster.active()) == {h.ip for h in (cluster.head, cluster.hosts["w1"], w3)}, "w3 is in"
    )
    after = cluster.active()
    assert {ip: after[ip] for ip in before if ip != w2.ip} == {i: n for i, n in before.items() if i != w2.ip}
    assert running(w2) == []


def test_ray_down_names_a_host_that_it_cannot_reach_and_a_second_call_ends_it(cluster: RayUp) -> None:
    w1, others = cluster.hosts["w1"], [h for h in cluster.hosts if h.name != "w1"]
    w1.cut()
    said = cluster.down()
    assert {host.name: running(host) for host in others} == {host.name: [] for host in others}
    assert "unreachable" in said
    assert "Exception occurred when stopping" in said
    w1.heal()
    assert w1.pids("actors.supervisor"), "it waits for its head"
    again = cluster.launcher.run(["omnimind", "cluster", "down", "--config", cluster.file, "--json"])
    assert {row["state"] for row in json.loads(again.stdout)["items"]} == {"stopped"}
    assert running(w1) == []


def test_the_cluster_comes_back_with_all_it_had_accepted_and_ray_down_leaves_nothing(cluster: RayUp) -> None:
    cluster.up()
    cluster.on_head(f"omnimind cluster wait --nodes 3 --timeout {PATIENCE:.0f}s", timeout=PATIENCE + 30)
    assert json.loads(cluster.on_head("omnimind status --json"))["tasks"]["completed"] >= 60
    cluster.down()
    assert {host.name: running(host) for host in cluster.hosts} == {h.name: [] for h in cluster.hosts}
    checked = shell(cluster.head, "omnimind cluster check --stopped --json")
    assert {row["state"] for row in json.loads(checked)["items"]} == {"stopped"}


def test_the_file_has_two_lines_to_edit() -> None:
    text = (Path(__file__).parents[2] / "cluster.yaml").read_text(encoding="utf-8")
    assert text.count("# <-") == 2
    assert sections(Path(__file__).parents[2] / "cluster.yaml")["provider"]["type"] == "local"
