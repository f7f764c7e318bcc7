"""The hosts of the tests are what they are taken for: apart, cut and healed for real, and gone afterwards."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.hosts.harness import Host, Hosts

PATIENCE = 60.0
DEVICES = Path("/sys/class/net")
_GREET = (
    "import socket, sys, time; began = time.monotonic()\n"
    "s = socket.create_connection((sys.argv[1], 22), 1.5); s.settimeout(1.5); s.recv(8)\n"
    "print(time.monotonic() - began)"
)


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    with Hosts(["a", "b", "c"], tmp_path_factory.mktemp("net"), sshd=True, disk="64m") as made:
        yield made


@pytest.fixture(autouse=True)
def _whole(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "hosts" in request.fixturenames:
        request.getfixturevalue("hosts").heal()


def until(true: Callable[[], bool], what: str) -> None:
    give_up = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < give_up, f"waited {PATIENCE:g} s until {what}"
        time.sleep(0.05)


def seconds(one: Host, other: Host) -> float | None:
    """Return how long one host takes to be greeted by the other's sshd, None when it never is."""
    done = one.run([sys.executable, "-I", "-c", _GREET, other.ip], check=False)
    return float(done.stdout) if done.returncode == 0 else None


def reaches(one: Host, other: Host) -> bool:
    return seconds(one, other) is not None


def test_each_host_is_a_machine_of_its_own(hosts: Hosts) -> None:
    a, b = hosts["a"], hosts["b"]
    assert a.run(["hostname"]).stdout == "a\n"
    a.run(["sh", "-c", "echo 1 > ~/mine; echo 1 > /tmp/mine; echo 1 > /dev/shm/mine; echo 1 > /run/mine"])
    assert (a.home / "mine").read_text() == "1\n"
    assert (a.root / "tmp/mine").read_text() == "1\n"
    found = b.run(["sh", "-c", "ls -d ~/mine /tmp/mine /dev/shm/mine /run/mine"], check=False)
    assert found.stdout == ""
    sleeper = a.popen(["sleep", "987"])
    until(lambda: len(a.pids("sleep 987")) == 1, "it runs there")
    assert b.pids("sleep 987") == []
    assert "sleep 987" not in b.run(["ps", "ax"]).stdout
    with pytest.raises(AssertionError, match="none of b"):
        b.kill(a.pids("sleep 987")[0])
    a.kill(a.pids("sleep 987")[0])
    sleeper.wait(PATIENCE)


def test_a_failed_command_says_what_it_wrote_and_one_that_hangs_is_ended(hosts: Hosts) -> None:
    with pytest.raises(AssertionError, match="no such luck"):
        hosts["a"].run(["sh", "-c", "echo no such luck >&2; exit 3"])
    with pytest.raises(subprocess.TimeoutExpired):
        hosts["a"].run(["sleep", "986"], timeout=0.3)
    until(lambda: hosts["a"].pids("sleep 986") == [], "it was ended on the host too")


def test_ssh_opens_all_hosts(hosts: Hosts) -> None:
    options = ["-i", hosts.key, "-o", "StrictHostKeyChecking=no", "-o", "BatchMode=yes"]
    assert hosts["a"].run(["ssh", *options, "root@c", "hostname"]).stdout == "c\n"


def test_a_cut_is_silent_both_ways_touches_no_other_and_heals(hosts: Hosts) -> None:
    a, b, c = hosts
    a.cut()
    assert not reaches(a, b)
    assert not reaches(b, a)
    assert reaches(b, c)
    a.heal()
    assert reaches(a, b)
    assert reaches(b, a)


def test_one_way(hosts: Hosts) -> None:
    a, b, c = hosts
    # A datagram needs no answer, so that each direction can be told.
    assert heard(b, a)
    assert heard(a, b)
    a.drop_outgoing()
    assert not heard(b, a)
    assert heard(a, b)
    a.heal()
    a.drop_incoming()
    assert heard(b, a)
    assert not heard(a, b)
    a.heal()
    a.drop_outgoing("b")
    assert not heard(b, a)
    assert heard(c, a)
    assert heard(a, b)
    a.heal()
    assert heard(b, a)


def heard(receiver: Host, sender: Host) -> bool:
    """Return whether a datagram of one host comes to the other, of five."""
    code = (
        "import socket; s = socket.socket(type=socket.SOCK_DGRAM); s.bind(('', 4242)); s.settimeout(2.0);"
        "print('bound', flush=True); print(s.recv(9).decode())"
    )
    with receiver.popen(
        [sys.executable, "-I", "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as ear:
        assert ear.stdout is not None
        assert ear.stdout.readline() == "bound\n"
        send = (
            "import socket, sys, time; s = socket.socket(type=socket.SOCK_DGRAM)\n"
            "for _ in range(5): s.sendto(b'word', (sys.argv[1], 4242)); time.sleep(0.1)"
        )
        sender.run([sys.executable, "-I", "-c", send, receiver.ip])
        return bool(ear.stdout.readline() == "word\n")


def test_a_slow_wire_delays_and_loses(hosts: Hosts) -> None:
    a, b, c = hosts
    quick = seconds(a, b)
    a.slow(delay=0.2)
    slow = seconds(a, b)
    assert quick is not None
    assert slow is not None
    # Two round trips, each way delayed.
    assert slow > 0.8 > quick
    assert reaches(b, c)
    hosts.proxy("a", delay=0.0, loss=1.0)
    assert not reaches(a, b)
    a.slow(loss=0.05, delay=0.01, seed=1)
    code = (
        "import socket; s = socket.create_server(('', 4243)); print('bound', flush=True); c, _ = s.accept()\n"
        "n = 0\nwhile d := c.recv(65536): n += len(d)\nprint(n)"
    )
    with b.popen([sys.executable, "-I", "-c", code], stdout=subprocess.PIPE, text=True) as sink:
        assert sink.stdout is not None
        assert sink.stdout.readline() == "bound\n"
        send = "import socket, sys; socket.create_connection((sys.argv[1], 4243), 9).sendall(bytes(1000000))"
        a.run([sys.executable, "-I", "-c", send, b.ip])
        assert sink.stdout.readline() == "1000000\n"
    a.heal()
    assert reaches(a, b)


def test_power_off_says_no_farewell_and_a_boot_keeps_the_home_alone(hosts: Hosts) -> None:
    a, b, _ = hosts
    listen = (
        "import socket; s = socket.create_server(('', 4244)); print('bound', flush=True); c, _ = s.accept();"
        "print('in', flush=True); c.settimeout(3.0); print(c.recv(9))"
    )
    call = "import socket, sys, time; s = socket.create_connection((sys.argv[1], 4244)); time.sleep(999)"
    words = [sys.executable, "-I", "-c", listen]
    with a.popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as ear:
        assert ear.stdout is not None
        assert ear.stdout.readline() == "bound\n"
        caller = b.popen([sys.executable, "-I", "-c", call, a.ip])
        assert ear.stdout.readline() == "in\n"
        b.run(["sh", "-c", "echo 1 > ~/kept; echo 1 > /tmp/lost"])
        inside = list(b.processes())
        b.power_off()
        caller.wait(PATIENCE)
        out, err = ear.communicate()
        assert out == ""
        assert "TimeoutError" in err, "the peer hears nothing at all: neither an end nor a reset"
    assert not any(Path(f"/proc/{pid}").exists() for pid in inside)
    assert (b.home / "kept").read_text() == "1\n"
    with pytest.raises(AssertionError, match="b is off"):
        b.run(["true"])
    b.boot()
    assert b.run(["sh", "-c", "ls -d ~/kept /tmp/lost"], check=False).stdout == "/root/kept\n"
    assert reaches(a, b)


def test_a_disk_of_bounded_size_fills_alone(hosts: Hosts) -> None:
    a, b, _ = hosts
    filled = a.run(["dd", "if=/dev/zero", "of=full", "bs=1M", "count=100"], check=False)
    assert "No space left" in filled.stderr
    b.run(["dd", "if=/dev/zero", "of=some", "bs=1M", "count=8"])
    a.run(["rm", "full"])


def test_two_at_once_do_not_meet_and_nothing_is_left(tmp_path: Path) -> None:
    with Hosts(["a"], tmp_path) as one, Hosts(["a"], tmp_path) as two:
        assert one.subnet != two.subnet
        assert one["a"].run(["hostname"]).stdout == two["a"].run(["hostname"]).stdout == "a\n"
        running = [one["a"].pid, two["a"].pid]
        devices = [DEVICES / one.uplink, DEVICES / two.uplink]
        assert all(d.exists() for d in devices)
    assert not any(Path(f"/proc/{pid}").exists() for pid in running)
    until(lambda: not any(d.exists() for d in devices), "the devices are gone")
    assert mounts_below(tmp_path) == []


@pytest.mark.parametrize("victim", ["test", "keeper"])
def test_nothing_is_left_when_the_test_or_the_keeper_is_killed(tmp_path: Path, victim: str) -> None:
    code = (
        "import sys, time; from pathlib import Path; from tests.hosts.harness import Hosts\n"
        "hosts = Hosts(['a', 'b'], Path(sys.argv[1]))\n"
        "hosts['a'].popen(['sleep', '985'])\n"
        "while not hosts['a'].pids('sleep 985'): time.sleep(0.05)\n"
        "print(hosts.uplink, hosts._keeper.pid, *[p for h in hosts for p in h.processes()], flush=True)\n"
        "time.sleep(999)"
    )
    words = [sys.executable, "-c", code, str(tmp_path)]
    root = Path(__file__).parents[2]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=root) as owner:
        assert owner.stdout is not None
        uplink, *pids = owner.stdout.readline().split()
        keeper, *inside = map(int, pids)
        assert (DEVICES / uplink).exists()
        assert len(inside) >= 3
        os.kill(owner.pid if victim == "test" else keeper, signal.SIGKILL)
        until(lambda: not any(map(lives, [keeper, *inside])), "all processes have ended")
        owner.kill()
    until(lambda: not (DEVICES / uplink).exists(), "the device is gone")
    assert mounts_below(tmp_path) == []


def lives(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False


def mounts_below(folder: Path) -> list[str]:
    return [line for line in Path("/proc/mounts").read_text().splitlines() if str(folder) in line]
