"""The first process of a host: ``unshare … python -I -S machine.py CONFIG READY GO`` (both are fds).

It is pid 1 of the host's own pid namespace. It gives the host its own home, /tmp, /run, /dev/shm, name and
address, starts sshd where it is wanted, and then does what the first process has to do: it reaps.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_SKELETON = Path("/etc/skel")


def main() -> None:
    config = json.loads(sys.argv[1])
    ready, go = int(sys.argv[2]), int(sys.argv[3])
    os.environ.clear()
    os.environ["PATH"] = PATH
    os.setsid()
    os.write(ready, b"1")
    if os.read(go, 1) != b"1":  # whoever wanted this host is gone
        return
    mount_own(config)
    network(config)
    if config["sshd"]:
        start_sshd(config)
    signal.signal(signal.SIGCHLD, reap)
    os.write(ready, b"2")
    os.close(ready)
    os.close(go)
    while True:
        signal.pause()


def reap(*_: object) -> None:
    try:
        while os.waitpid(-1, os.WNOHANG) != (0, 0):
            pass
    except ChildProcessError:
        pass


def run(*words: object) -> None:
    subprocess.run([str(w) for w in words], check=True)


def mount_own(config: dict[str, Any]) -> None:
    disk, home, shared = Path(config["disk"]), Path(config["user_home"]), [Path(p) for p in config["shared"]]
    own_home = disk / "home"
    new = not own_home.exists()
    own_home.mkdir(mode=0o700, exist_ok=True)
    if new and _SKELETON.is_dir():
        run("cp", "-rT", _SKELETON, own_home)
    # What lies on the host's disk outlives its power; the rest does not.
    run("mount", "-t", "tmpfs", "-o", "size=2g", "tmpfs", "/dev/shm")
    run("mount", "-t", "tmpfs", "-o", "mode=755,size=64m", "tmpfs", "/run")
    Path("/run/sshd").mkdir()
    Path("/run/lock").mkdir()
    own_tmp = Path("/run/tmp")
    own_tmp.mkdir()
    run("mount", "-t", "tmpfs", "-o", f"mode=1777,size={config['tmp_size']}", "tmpfs", own_tmp)
    cover(own_home, home, shared)
    cover(own_tmp, Path("/tmp"), shared)
    hosts = "127.0.0.1 localhost\n" + "".join(f"{ip} {name}\n" for name, ip in config["names"].items())
    replace_file("/etc/hosts", hosts)
    # A name server that cannot be reached would cost half a minute at each start of Ray.
    replace_file("/etc/resolv.conf", "")


def cover(own: Path, place: Path, shared: list[Path]) -> None:
    """Put the host's own folder in a place, with what it shares with the machine still to be seen in it."""
    for path in shared:
        if path.is_relative_to(place) and path != place:
            spot = own / path.relative_to(place)
            spot.mkdir(parents=True, exist_ok=True)
            run("mount", "--rbind", path, spot)
    run("mount", "--rbind", own, place)


def replace_file(name: str, text: str) -> None:
    target = Path(name).resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    target.touch()
    spare = Path("/run") / f"own-{target.name}"
    spare.write_text(text, encoding="utf-8")
    run("mount", "--bind", spare, target)


def network(config: dict[str, Any]) -> None:
    socket.sethostname(config["name"])
    run("ip", "link", "set", "lo", "up")
    run("ip", "address", "add", f"{config['ip']}/24", "dev", "eth0")
    run("ip", "link", "set", "eth0", "up")
    run("ip", "route", "add", "default", "via", config["gateway"])


def start_sshd(config: dict[str, Any]) -> None:
    disk, ssh = Path(config["disk"]), Path(config["user_home"]) / ".ssh"
    key = disk / "hostkey"
    if not key.exists():
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key)
    ssh.mkdir(mode=0o700, exist_ok=True)
    authorized = ssh / "authorized_keys"
    authorized.write_bytes(Path(config["public_key"]).read_bytes())
    authorized.chmod(0o600)
    options = {
        "PidFile": "none", "StrictModes": "no", "UsePAM": "no", "PasswordAuthentication": "no",
        "PermitRootLogin": "prohibit-password", "MaxSessions": "50", "MaxStartups": "50",
    }  # fmt: skip
    words = ["/usr/sbin/sshd", "-D", "-f", "/dev/null", "-h", str(key), "-E", config["sshd_log"]]
    words += [f"-o{name}={value}" for name, value in options.items()]
    subprocess.Popen(words, stdin=subprocess.DEVNULL, start_new_session=True)
    for _ in range(200):
        with socket.socket() as probe:
            if probe.connect_ex((config["ip"], 22)) == 0:
                return
        ctypes.CDLL(None).usleep(25_000)
    raise RuntimeError("sshd does not listen")


if __name__ == "__main__":
    main()
