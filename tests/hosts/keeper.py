"""Keeps the hosts of one `Hosts`: ``unshare --net --mount … python -I -S keeper.py CONFIG OWNER``.

It lives in a network namespace of its own, which is the switch that the hosts are plugged into, and in a
mount namespace of its own, which holds their disks. So the kernel takes everything away when it ends. It ends
when its standard input ends or its owner does, however that came about; hosts end with it in the same way.

It takes one JSON object a line on its standard input, and answers each with one on its standard output.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

_HERE = Path(__file__).resolve().parent
_SET_PARENT_DEATH_SIGNAL = 1
_LIBC = ctypes.CDLL(None, use_errno=True)


class Keeper:
    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config
        self.folder = Path(config["folder"])
        self.running: dict[str, tuple[subprocess.Popen[bytes], int]] = {}
        self.relays: dict[str, subprocess.Popen[bytes]] = {}

    def set_up(self) -> None:
        config = self.config
        disks = self.folder / "disks"
        disks.mkdir()
        ip("link", "add", "name", "switch", "type", "bridge")
        ip("link", "set", "switch", "up")
        ip("link", "set", "lo", "up")
        if config["uplink"]:
            owner = str(config["owner"])
            ip(
                "link",
                "add",
                "name",
                "uplink",
                "type",
                "veth",
                "peer",
                "name",
                config["uplink"],
                "netns",
                owner,
            )
            ip("link", "set", "uplink", "master", "switch")
            ip("link", "set", "uplink", "up")
        for name in config["hosts"]:
            (disks / name).mkdir()
            run("mount", "-t", "tmpfs", "-o", f"size={config['disk_size']}", "tmpfs", str(disks / name))

    def boot(self, host: str) -> dict[str, Any]:
        if host in self.running:
            raise RuntimeError(f"{host} runs already")
        port = self.port(host)
        ip("link", "del", port, check=False)
        own = {**self.config["hosts"][host], "disk": str(self.folder / "disks" / host)}
        own["sshd_log"] = str(self.folder / f"{host}-sshd.log")
        ready_read, ready_write = os.pipe()
        go_read, go_write = os.pipe()
        words = ["unshare", "--net", "--mount", "--pid", "--uts", "--ipc", "--fork", "--kill-child=SIGKILL"]
        words += ["--mount-proc", "--", sys.executable, "-I", "-S", str(_HERE / "machine.py")]
        words += [json.dumps({**self.config["common"], **own, "name": host}), str(ready_write), str(go_read)]
        with (self.folder / f"{host}-console.log").open("ab") as log:
            outer = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[ready_write, go_read],
                start_new_session=True,
                preexec_fn=die_with_parent,  # noqa: PLW1509 (there are no threads here)
            )
        os.close(ready_write)
        os.close(go_read)
        try:
            self.expect(ready_read, b"1", host)
            pid = int(Path(f"/proc/{outer.pid}/task/{outer.pid}/children").read_text().split()[0])
            self.running[host] = outer, pid
            # The same one after a reboot, as of a real card: the others remember it for minutes.
            address = f"02:00:00:00:01:{self.number(host):02x}"
            ip(
                "link",
                "add",
                "name",
                port,
                "type",
                "veth",
                "peer",
                "name",
                "eth0",
                "address",
                address,
                "netns",
                str(pid),
            )
            ip("link", "set", port, "master", "switch")
            ip("link", "set", port, "up")
            os.write(go_write, b"1")
            self.expect(ready_read, b"2", host)
        except BaseException:
            self.running.pop(host, None)
            outer.kill()
            outer.wait()
            raise
        finally:
            os.close(ready_read)
            os.close(go_write)
        return {"pid": pid}

    def expect(self, fd: int, word: bytes, host: str) -> None:
        if not select.select([fd], [], [], 60.0)[0] or os.read(fd, 1) != word:
            log = (self.folder / f"{host}-console.log").read_text(errors="replace")
            raise RuntimeError(f"{host} did not come up:\n{log[-2000:]}")

    def power_off(self, host: str) -> dict[str, Any]:
        if host in self.running:
            # First the wire: a machine without power sends no farewell, but processes that are killed do.
            self.drop(host, incoming=True, outgoing=True)
            outer, pid = self.running.pop(host)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            outer.wait()  # it waits for pid 1, whose end is the end of all processes of the host
            self.end_relay(host)
            ip("link", "del", self.port(host), check=False)
        return {}

    def drop(self, host: str, *, incoming: bool = False, outgoing: bool = False) -> dict[str, Any]:
        """Lose what goes to a host, or what it sends, without a word to anybody."""
        if incoming:
            run("tc", "qdisc", "replace", "dev", self.port(host), "root", "blackhole")
        if outgoing:
            run(*self.inside(host), "tc", "qdisc", "replace", "dev", "eth0", "root", "blackhole")
        return {}

    def block(self, host: str, other: str) -> dict[str, Any]:
        """Lose what a host sends to one other: it goes to an address that nobody has."""
        address, nobody = self.config["hosts"][other]["ip"], "02:00:00:00:00:01"
        inside = self.inside(host)
        run(
            *inside,
            "ip",
            "neighbour",
            "replace",
            address,
            "lladdr",
            nobody,
            "dev",
            "eth0",
            "nud",
            "permanent",
        )
        return {}

    def slow(self, host: str, delay: float, jitter: float, loss: float, seed: int) -> dict[str, Any]:
        self.end_relay(host)
        port, near, far = self.port(host), f"n{self.number(host)}", f"f{self.number(host)}"
        ip("link", "add", "name", near, "type", "veth", "peer", "name", far)
        for device in (near, far):
            ip("link", "set", device, "up")
        ip("link", "set", port, "nomaster")
        ip("link", "set", near, "master", "switch")
        # Frames of one packet each: else a lost one is a burst of forty.
        run(*self.inside(host), "ip", "link", "set", "dev", "eth0", "gso_max_segs", "1")
        words = [sys.executable, "-I", "-S", str(_HERE / "relay.py"), port, far]
        words += [str(delay), str(jitter), str(loss), str(seed)]
        relay = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            preexec_fn=die_with_parent,  # noqa: PLW1509 (there are no threads here)
        )
        self.relays[host] = relay
        assert relay.stdout is not None
        if relay.stdout.readline() != b"ready\n":
            raise RuntimeError(f"the slow wire of {host} did not start")
        return {}

    def end_relay(self, host: str) -> None:
        relay = self.relays.pop(host, None)
        if relay is not None:
            relay.kill()
            relay.communicate()
            ip("link", "del", f"n{self.number(host)}", check=False)
            ip("link", "set", self.port(host), "master", "switch", check=False)

    def heal(self, host: str) -> dict[str, Any]:
        self.end_relay(host)
        run("tc", "qdisc", "del", "dev", self.port(host), "root", check=False)
        inside = self.inside(host)
        run(*inside, "tc", "qdisc", "del", "dev", "eth0", "root", check=False)
        run(*inside, "ip", "neighbour", "flush", "nud", "permanent", "dev", "eth0", check=False)
        return {}

    def end(self) -> None:
        for host in list(self.running):
            with contextlib.suppress(OSError, subprocess.SubprocessError):
                self.power_off(host)
        for host in list(self.relays):
            self.end_relay(host)
        if self.config["uplink"]:
            ip("link", "del", "uplink", check=False)

    def number(self, host: str) -> int:
        return list(self.config["hosts"]).index(host)

    def port(self, host: str) -> str:
        return f"port{self.number(host)}"

    def inside(self, host: str) -> list[str]:
        return ["nsenter", f"--net=/proc/{self.running[host][1]}/ns/net", "--"]


def die_with_parent() -> None:
    _LIBC.prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)


def run(*words: str, check: bool = True) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise RuntimeError(f"{' '.join(words)}: {done.stderr.strip()}")


def ip(*words: str, check: bool = True) -> None:
    run("ip", *words, check=check)


def serve(keeper: Keeper, owner: int) -> None:
    """Do what standard input says, until it or the owner ends."""
    poll = select.poll()
    poll.register(0, select.POLLIN)
    poll.register(owner, select.POLLIN)
    rest = b""
    while all(fd != owner for fd, _ in poll.poll()):
        data = os.read(0, 65536)
        if not data:
            return
        *lines, rest = (rest + data).split(b"\n")
        for text in lines:
            message = json.loads(text)
            if message["do"] == "end":
                return
            try:
                answer = getattr(keeper, message.pop("do"))(**message)
            except Exception as error:  # noqa: BLE001 (the answer says it)
                answer = {"error": f"{type(error).__name__}: {error}"}
            say(answer)


def say(answer: dict[str, Any]) -> None:
    with contextlib.suppress(BrokenPipeError):
        os.write(1, json.dumps(answer).encode() + b"\n")


def stop(*_: object) -> None:
    sys.exit(1)


def main() -> None:
    config, owner_pid = json.loads(sys.argv[1]), int(sys.argv[2])
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, stop)
    keeper = Keeper({**config, "owner": owner_pid})
    try:
        owner = os.pidfd_open(owner_pid)
        keeper.set_up()
        say({})
        serve(keeper, owner)
    except Exception as error:  # noqa: BLE001 (the answer says it)
        say({"error": f"{type(error).__name__}: {error}"})
    finally:
        keeper.end()


if __name__ == "__main__":
    main()
