"""Several hosts on one machine, from Linux namespaces: each with its own network, processes, home and /tmp.

::

    with Hosts(["head", "w1", "w2"], tmp_path, sshd=True) as hosts:
        hosts["w1"].run(["hostname"]).stdout        # w1
        hosts["w1"].cut()                           # silence, both ways; heal() ends it
        hosts["w2"].power_off(); hosts["w2"].boot() # its home stays, /tmp and all processes go

A host sees the file system of the machine, but has its own home of root (empty at first, kept over a reboot,
of bounded size), /tmp, /run and /dev/shm. The folder given, the Python that runs the test and this repository
are to be seen in all of them, at the same paths; `share` names more.

Hosts hang on a switch in a namespace of its own, so two runs never meet; the test reaches them through a
device of its own name. It needs root. Everything ends with the test process, also when that is killed.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import pwd
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

_HERE = Path(__file__).resolve().parent
_REPOSITORY = _HERE.parent.parent
_TOOLS = ("unshare", "nsenter", "ip", "tc", "mount")
_SSH_TOOLS = ("ssh", "ssh-keygen", "rsync", "/usr/sbin/sshd")
_ANSWER = 120.0
HOME = Path(pwd.getpwuid(0).pw_dir)


@functools.cache
def missing(*, sshd: bool = False) -> str:
    """Return why hosts cannot be made here, or nothing."""
    tools = (*_TOOLS, *(_SSH_TOOLS if sshd else ()))
    absent = [
        tool for tool in tools if shutil.which(tool, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is None
    ]
    if absent:
        return (
            f"{', '.join(absent)} not found: install openssh-server openssh-client rsync iproute2 util-linux"
        )
    if os.geteuid() != 0:
        return "hosts are made from namespaces, which needs root"
    script = (
        "set -e; ip link add name b type bridge; ip link add name p type veth peer name e; "
        "ip link set p master b; tc qdisc add dev p root blackhole; mount -t tmpfs tmpfs /mnt"
    )
    words = [
        "unshare",
        "--net",
        "--mount",
        "--pid",
        "--uts",
        "--ipc",
        "--fork",
        "--mount-proc",
        "sh",
        "-c",
        script,
    ]
    tried = subprocess.run(words, capture_output=True, text=True, check=False)
    return "" if tried.returncode == 0 else f"no namespaces are permitted here: {tried.stderr.strip()}"


class Host:
    """One host. name, ip: of this host. All paths in it are absolute."""

    def __init__(self, hosts: Hosts, name: str, ip: str) -> None:
        self._hosts = hosts
        self.name = name
        self.ip = ip
        self.pid = 0
        """Its first process, as the test sees it; 0 while it is off."""

    def __repr__(self) -> str:
        return f"Host({self.name}, {self.ip})"

    @property
    def home(self) -> Path:
        """Return root's home on this host, at a path where the test can read and write it; on or off."""
        return self._hosts.disks / self.name / "home"

    @property
    def root(self) -> Path:
        """Return the root of this host's file system, at a path where the test can use it, while it is on."""
        return Path(f"/proc/{self.pid}/root")

    def run(
        self,
        argv: Sequence[object],
        *,
        env: Mapping[str, str] | None = None,
        timeout: float = 120.0,
        check: bool = True,
        text: str | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on this host in root's home. text: its standard input.

        Raises AssertionError with what it wrote when it fails, TimeoutExpired after having killed it.
        """
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        pipes["stdin"] = subprocess.DEVNULL if text is None else subprocess.PIPE
        child = self.popen(argv, env=env, **pipes)
        try:
            out, err = child.communicate(text, timeout)
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.communicate()
            raise
        if check and child.returncode:
            raise AssertionError(f"{self.name}: {_words(argv)} ended with {child.returncode}\n{out}{err}")
        return subprocess.CompletedProcess(_words(argv), child.returncode, out, err)

    def popen(
        self, argv: Sequence[object], *, env: Mapping[str, str] | None = None, **more: Any
    ) -> subprocess.Popen[Any]:
        """Start a command on this host, in root's home; it ends with the host. more: for `Popen`.

        Its environment is this host's and `env`, nothing of the test's own.
        """
        if not self.pid:
            raise AssertionError(f"{self.name} is off")
        words = ["nsenter", "-t", str(self.pid), "-n", "-m", "-p", "-u", "-i", "--"]
        words += ["sh", "-c", 'cd && exec "$@"', "sh", *_words(argv)]
        more = {"stdin": subprocess.DEVNULL, "start_new_session": True, **more}
        return subprocess.Popen(words, env={**self.environment(), **(env or {})}, **more)

    def environment(self) -> dict[str, str]:
        """Return the environment of commands on this host."""
        path = f"{Path(sys.executable).parent}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        return {"PATH": path, "HOME": str(HOME), "USER": "root", "LOGNAME": "root", "LANG": "C.UTF-8"}

    def processes(self) -> dict[int, list[str]]:
        """Return the command line of each process of this host, by the pid that the test sees; no zombies."""
        if not self.pid:
            return {}
        found: dict[int, list[str]] = {}
        mine = _namespace(self.pid)
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and _namespace(int(entry.name)) == mine and mine:
                with contextlib.suppress(OSError):
                    line = (entry / "cmdline").read_bytes()
                    if line:
                        found[int(entry.name)] = [w.decode(errors="replace") for w in line.split(b"\0") if w]
        return found

    def pids(self, text: str = "") -> list[int]:
        """Return the pids of the processes with `text` in their command lines, but not the host's first."""
        found = self.processes().items()
        return sorted(pid for pid, words in found if pid != self.pid and text in " ".join(words))

    def kill(self, pid: int, sig: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to a process of this host, by the pid that the test sees."""
        if _namespace(pid) != _namespace(self.pid):
            raise AssertionError(f"process {pid} is none of {self.name}")
        os.kill(pid, sig)

    def cut(self) -> None:
        """Lose what goes to and comes from this host, silently; everything goes on running."""
        self._hosts.ask("drop", host=self.name, incoming=True, outgoing=True)

    def drop_incoming(self, *senders: str) -> None:
        """Lose what goes to this host, or what these hosts send it."""
        if not senders:
            self._hosts.ask("drop", host=self.name, incoming=True)
        for sender in senders:
            self._hosts.ask("block", host=sender, other=self.name)

    def drop_outgoing(self, *receivers: str) -> None:
        """Lose what this host sends, or what it sends to these hosts."""
        if not receivers:
            self._hosts.ask("drop", host=self.name, outgoing=True)
        for receiver in receivers:
            self._hosts.ask("block", host=self.name, other=receiver)

    def slow(self, *, delay: float = 0.0, jitter: float = 0.0, loss: float = 0.0, seed: int = 0) -> None:
        """Delay each packet, both ways, by so many seconds, and lose this share of them."""
        self._hosts.ask("slow", host=self.name, delay=delay, jitter=jitter, loss=loss, seed=seed)

    def heal(self) -> None:
        """Make the host's wire whole again, and forget what this host is kept from sending to others."""
        self._hosts.ask("heal", host=self.name)

    def power_off(self) -> None:
        """End the host without a word: no process hears of it, and its wire is silent at once."""
        self._hosts.ask("power_off", host=self.name)
        self.pid = 0

    def boot(self) -> None:
        """Start the host: its home is as it was, nothing else; only sshd runs, where it was wanted."""
        self.pid = self._hosts.ask("boot", host=self.name)["pid"]


class Hosts:
    """Hosts with these names, all on; see the module. tmp: folder for logs and keys, seen in all hosts.

    sshd: whether each runs one; `key` is the private key that opens root's account on all. disk, tmp_size:
    sizes of a host's home and of its /tmp, as tmpfs takes them. share: more folders below /tmp or root's home
    that all hosts shall see. uplink: whether the test's own network reaches them. Raises RuntimeError with
    the reason when they cannot be made.
    """

    def __init__(
        self,
        names: Iterable[str],
        tmp: Path,
        *,
        sshd: bool = False,
        disk: str = "4g",
        tmp_size: str = "2g",
        share: Iterable[Path] = (),
        uplink: bool = True,
    ) -> None:
        reason = missing(sshd=sshd)
        if reason:
            raise RuntimeError(reason)
        self._lock = threading.Lock()
        self._rest = b""
        self.folder = _fresh(tmp)
        self.key = self.folder / "key"
        if sshd:
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.key)], check=True)
        mark = _base36(os.getpid() * 64 + _count())
        self.uplink = f"om{mark}" if uplink else ""
        self.subnet = _subnet()
        self.gateway = f"{self.subnet}.1"
        """The test's own address on the hosts' network."""
        names = list(names)
        addresses = {name: f"{self.subnet}.{10 + i}" for i, name in enumerate(names)}
        shared = {tmp, _REPOSITORY, Path(sys.prefix), Path(sys.base_prefix), *map(Path, share)}
        config = {
            "folder": str(self.folder),
            "uplink": self.uplink,
            "disk_size": disk,
            "hosts": {name: {"ip": address} for name, address in addresses.items()},
            "common": {
                "sshd": sshd,
                "public_key": f"{self.key}.pub",
                "user_home": str(HOME),
                "shared": sorted(str(path.resolve()) for path in shared),
                "tmp_size": tmp_size,
                "names": addresses,
                "gateway": self.gateway,
            },
        }
        words = ["unshare", "--net", "--mount", "--propagation", "private", "--"]
        words += [sys.executable, "-I", "-S", str(_HERE / "keeper.py"), json.dumps(config), str(os.getpid())]
        with (self.folder / "keeper.log").open("ab") as log:
            self._keeper = subprocess.Popen(
                words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, start_new_session=True
            )
        self.disks = Path(f"/proc/{self._keeper.pid}/root") / str(self.folder / "disks").lstrip("/")
        self._hosts = {name: Host(self, name, address) for name, address in addresses.items()}
        try:
            self._answer("set up")
            if uplink:
                for rest in (["address", "add", f"{self.gateway}/24", "dev"], ["link", "set", "up", "dev"]):
                    subprocess.run(["ip", *rest, self.uplink], check=True)
            for host in self:
                host.boot()
        except BaseException:
            self.close()
            raise

    def __getitem__(self, name: str) -> Host:
        return self._hosts[name]

    def __iter__(self) -> Iterator[Host]:
        return iter(self._hosts.values())

    def __len__(self) -> int:
        return len(self._hosts)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def proxy(self, name: str, *, delay: float = 0.2, jitter: float = 0.0, loss: float = 0.05) -> Host:
        """Slow down the wire of a host and return the host; `Host.heal` ends it."""
        host = self[name]
        host.slow(delay=delay, jitter=jitter, loss=loss)
        return host

    def heal(self) -> None:
        """Heal all hosts that are on."""
        for host in self:
            if host.pid:
                host.heal()

    def ask(self, what: str, **arguments: Any) -> dict[str, Any]:
        """Let the keeper do something. Raises AssertionError when it cannot."""
        with self._lock:
            assert self._keeper.stdin is not None
            try:
                self._keeper.stdin.write(json.dumps({"do": what, **arguments}).encode() + b"\n")
                self._keeper.stdin.flush()
            except BrokenPipeError as error:
                raise AssertionError("the keeper of the hosts has ended") from error
            return self._answer(what)

    def _answer(self, what: str) -> dict[str, Any]:
        assert self._keeper.stdout is not None
        fd = self._keeper.stdout.fileno()
        give_up = time.monotonic() + _ANSWER
        while b"\n" not in self._rest:
            ready, _, _ = select.select([fd], [], [], max(0.0, give_up - time.monotonic()))
            data = os.read(fd, 65536) if ready else b""
            if not data:
                log = (self.folder / "keeper.log").read_text(errors="replace")
                raise AssertionError(f"the keeper of the hosts does not answer to {what}:\n{log[-2000:]}")
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise AssertionError(f"{what}: {answer['error']}")
        return answer

    def close(self) -> None:
        """End all hosts, and what runs on them."""
        assert self._keeper.stdin is not None
        assert self._keeper.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._keeper.stdin.close()
        try:
            self._keeper.wait(60.0)
        except subprocess.TimeoutExpired:
            self._keeper.kill()  # the kernel does the rest
            self._keeper.wait()
        self._keeper.stdout.close()
        for host in self:
            host.pid = 0


def _words(argv: Sequence[object]) -> list[str]:
    return [str(word) for word in argv]


def _namespace(pid: int) -> str:
    try:
        return str(Path(f"/proc/{pid}/ns/pid").readlink())
    except OSError:
        return ""


def _fresh(tmp: Path) -> Path:
    number = 0
    while True:
        folder = tmp.resolve() / (f"hosts-{number}" if number else "hosts")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            number += 1
        else:
            return folder


_made = 0


def _count() -> int:
    global _made  # noqa: PLW0603
    _made += 1
    return _made % 64


def _base36(number: int) -> str:
    digits = "0123456789abcdefghijklmnopqrstuvwxyz"
    text = ""
    while number:
        number, digit = divmod(number, 36)
        text = digits[digit] + text
    return text


def _subnet() -> str:
    """Return the first three numbers of a network that this machine does not know: of 10.64.0.0/10."""
    known = subprocess.run(["ip", "-4", "route"], capture_output=True, text=True, check=True).stdout
    number = os.getpid() * 7 + _made
    while True:
        net = f"10.{64 + (number >> 8) % 64}.{number % 256}"
        if f"{net}." not in known:
            return net
        number += 1
