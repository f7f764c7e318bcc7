"""A cluster on several hosts under load, and the hands that break it: for the tests of random faults.

Real everything: `omnimind up` on the head, a node on each other host, clients on several. What a fault does
is done to real processes and real (namespaced) links; every fault can be undone, and `heal` undoes all.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from omnimind.testing.fault_plan import Planned
from omnimind.testing.history import Fault, Journal, Record, Run, now, read
from omnimind.testing.history_check import Verdict, check
from omnimind.testing.postgres import PostgresServer
from tests.hosts.harness import HOME, Host, Hosts

PORT = 6390
INSTANCE = HOME / "instance"
FAKETIME = Path("/usr/lib") / f"{os.uname().machine}-linux-gnu" / "faketime" / "libfaketimeMT.so.1"
_NOBODY = "there was none"
_LAST_WORDS = 6.0
_UNDER_WAY = 4_000
"""Bytes of the handlers' journal: some twenty attempts."""


def skewed(seconds: float) -> dict[str, str]:
    """Return the environment in which all clocks of a process are off by so many seconds.

    A kernel has one wall clock for all its namespaces, so the C library is made to lie (libfaketime), to
    Ray's own daemons as to Python. Its monotonic clocks are shifted too, by the same, which changes nothing:
    their zero means nothing. Raises AssertionError where the library is missing.
    """
    if not seconds:
        return {}
    assert FAKETIME.exists(), "install libfaketime"
    return {"LD_PRELOAD": str(FAKETIME), "FAKETIME": f"{seconds:+.0f}"}


class Site:
    """A running cluster. skews: host -> seconds by which its clocks are off. settings: of the head.

    database: a PostgreSQL that runs and that the hosts can reach, for the ledger; None: SQLite on the head.
    """

    def __init__(
        self,
        hosts: Hosts,
        seed: str,
        *,
        skews: dict[str, float] | None = None,
        settings: dict[str, str] | None = None,
        cpus: int = 2,
        database: PostgresServer | None = None,
    ) -> None:
        self.hosts = hosts
        self.database = database
        self.head, *self.others = list(hosts)
        self.seed = seed
        self.skews = skews or {}
        self.cpus = cpus
        self.folder = hosts.folder / "history"
        self.folder.mkdir()
        self.work = self.folder / "work"
        Journal(self.work)
        self.journal = Journal(self.folder / "faults")
        self.began = now()
        self._undo: list[Callable[[], None]] = []
        self._lock = threading.Lock()
        self._keepers: list[threading.Thread] = []
        self._lives = 0
        self._until = 0.0
        self._closing = threading.Event()
        self._keepers_of_nodes: list[threading.Thread] = []
        self._nodes: dict[str, subprocess.Popen[Any]] = {}
        self._start_head(settings or {})
        for host in self.others:
            keeper = threading.Thread(target=self._keep_node, args=(host,), daemon=True)
            keeper.start()
            self._keepers_of_nodes.append(keeper)
        self.wait_for_nodes(len(hosts))

    # --- start and stop -----------------------------------------------------------------------------

    def _environment(self, host: Host) -> dict[str, str]:
        return skewed(self.skews.get(host.name, 0.0))

    def _start_head(self, settings: dict[str, str]) -> None:
        chosen = {
            "ray.node_ip": self.head.ip,
            "ray.port": str(PORT),
            "ray.num_cpus": "1",
            "ray.dashboard": "false",
            "ray.object_store_memory": str(80 << 20),
            "instance.start_timeout": "180",
            **settings,
        }
        if self.database is not None:
            chosen["ledger.url"] = self.database.url(host=self.hosts.gateway)
        words = {f"OMNIMIND_{key.replace('.', '_').upper()}": value for key, value in chosen.items()}
        self.head.run(
            ["omnimind", "up", "--detach", "--home", INSTANCE],
            env={**words, **self._environment(self.head)},
            timeout=240,
        )

    def _keep_node(self, host: Host) -> None:
        """Let a host be one of the cluster, and start that again when it ends, as systemd does."""
        while not self._closing.is_set():
            self._start_node(host)
            while self._nodes[host.name].poll() is None and not self._closing.is_set():
                time.sleep(0.2)
            self._closing.wait(1.0)

    def _start_node(self, host: Host) -> None:
        words = ["omnimind", "node", "run", "--address", f"{self.head.ip}:{PORT}", "--home", INSTANCE]
        words += ["--token-file", self._secret(), "--num-cpus", self.cpus, "--set", f"ray.node_ip={host.ip}"]
        words += ["--set", f"ray.object_store_memory={80 << 20}"]
        with (self.folder.parent / f"{host.name}-node.log").open("ab") as log:
            self._nodes[host.name] = host.popen(words, env=self._environment(host), stdout=log, stderr=log)

    def _secret(self) -> Path:
        """Return the file with the cluster's token, where every host can read it."""
        found = self.hosts.folder / "ray-token"
        if not found.exists():
            found.touch(0o600)
            found.write_text((self.head.home / "instance" / "ray-token").read_text())
        return found

    def ask_head(self, *words: object, timeout: float = 60.0, check: bool = True) -> Any:
        """Run a command of OmniMind's on the head and return what it prints as JSON."""
        argv = ["omnimind", *words, "--home", INSTANCE, "-o", "json"]
        done = self.head.run(argv, timeout=timeout, check=check)
        return msgspec.json.decode(done.stdout)

    def wait_for_nodes(self, count: int, seconds: float = 120.0) -> None:
        """Wait until so many nodes take work."""
        give_up = now() + seconds
        while True:
            with contextlib.suppress(AssertionError, subprocess.TimeoutExpired):
                found = self.ask_head("node", "list")
                if sum(node["status"] in {"active", "busy"} for node in found["items"]) >= count:
                    return
            assert now() < give_up, f"waited {seconds:g} s in vain for {count} nodes"
            time.sleep(0.5)

    # --- clients ------------------------------------------------------------------------------------

    def start_clients(self, places: Sequence[Host], seconds: float, rate: float, bulk: int = 0) -> None:
        """Start a client on each of these hosts; one that dies early is started again, as a new one.

        rate, bulk: as the client takes them.
        """
        self._until = now() + seconds
        for host in places:
            thread = threading.Thread(target=self._keep_client, args=(host, rate, bulk), daemon=True)
            thread.start()
            self._keepers.append(thread)

    def _keep_client(self, host: Host, rate: float, bulk: int) -> None:
        while (left := self._until - now()) > 1 and not self._closing.is_set():
            with self._lock:
                self._lives += 1
                name = f"{host.name}.{self._lives}"
            words = [sys.executable, "-m", "omnimind.testing.witness_client"]
            if host is self.head:
                words += ["--home", str(INSTANCE)]
            else:
                words += ["--address", f"{self.head.ip}:{PORT}"]
            words += ["--name", name, "--seed", self.seed, "--work", str(self.work)]
            words += ["--journal", str(self.folder / f"client-{name}")]
            words += ["--seconds", str(left), "--rate", str(rate), "--bulk", str(bulk)]
            with (self.folder.parent / f"client-{name}.log").open("wb") as log:
                environment = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(self._secret())}
                environment |= self._environment(host)
                child = host.popen(words, env=environment, stdout=log, stderr=log)
            # What hangs (a driver whose raylet is gone) must not hold up the run's end.
            while child.poll() is None and now() < self._until:
                time.sleep(0.2)
            for number in (signal.SIGTERM, signal.SIGKILL):
                with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
                    os.killpg(child.pid, number)
                    child.wait(_LAST_WORDS)
            time.sleep(0.5)

    def wait_for_work(self, seconds: float = 120.0) -> None:
        """Wait until work is under way."""
        give_up = now() + seconds
        while self.work.stat().st_size < _UNDER_WAY:
            assert now() < give_up, f"waited {seconds:g} s in vain for work"
            time.sleep(0.2)

    def end_clients(self) -> None:
        """Wait until no client says anything any more."""
        self._until = min(self._until, now())
        for thread in self._keepers:
            thread.join()

    # --- faults -------------------------------------------------------------------------------------

    def carry_out(self, plan: Sequence[Planned]) -> None:
        """Break what the plan says, when it says; returns when the last fault is over."""
        zero = now()
        threads = []
        for fault in plan:
            time.sleep(max(0.0, zero + fault.at - now()))
            thread = threading.Thread(target=self.make, args=(fault,))
            thread.start()
            threads.append(thread)
        for thread in threads:
            thread.join()

    def make(self, fault: Planned) -> bool:
        """Make one fault, undo it in time, and write it down; False when there was no victim."""
        host = self.hosts[fault.where]
        begun = now()
        try:
            undo = self._begin(fault, host)
        except LookupError as error:
            self.journal.write(Fault(fault.what, fault.where, begun, begun, str(error)))
            return False
        if undo is not None:
            with self._lock:
                self._undo.append(undo)
            time.sleep(fault.seconds)
            undo()
            with self._lock:
                self._undo.remove(undo)
        self.journal.write(Fault(fault.what, fault.where, begun, now()))
        return True

    def _begin(self, fault: Planned, host: Host) -> Callable[[], None] | None:
        match fault.what:
            case "cut":
                host.cut()
                return host.heal
            case "drop incoming":
                host.drop_incoming()
                return host.heal
            case "drop outgoing":
                host.drop_outgoing()
                return host.heal
            case "slow":
                host.slow(delay=0.2, jitter=0.02, loss=0.05, seed=1)
                return host.heal
            case "full disk":
                return fill(host.home)
            case "database":
                assert self.database is not None
                self.database.kill()
                return self.database.start
            case "pause coordinator":
                return self._pause("ray::Coordinator", [*self.hosts])
            case "pause node actor":
                return self._pause("ray::Node", [host])
            case _:
                self._kill(fault.what, host)
                return None

    def _kill(self, what: str, host: Host) -> None:
        everywhere = [*self.hosts]
        match what:
            case "coordinator":
                victims = find("ray::Coordinator", everywhere)
            case "node actor":
                victims = find("ray::Node", [host])
            case "worker":
                victims = working(host)[:1]
            case "raylet":
                victims = named("raylet", host)
            case "head":
                victims = named("gcs_server", host) + named("raylet", host)
            case "client":
                victims = [(host, pid) for pid in host.pids("omnimind.testing.witness_client")]
            case "node supervisor":
                victims = [(host, pid) for pid in host.pids("actors.supervisor")]
                victims += [(host, pid) for pid in host.pids("omnimind node run")]
            case _:
                raise AssertionError(what)
        if not victims:
            raise LookupError(_NOBODY)
        for where, pid in victims:
            with contextlib.suppress(ProcessLookupError):
                where.kill(pid)

    def _pause(self, title: str, where: list[Host]) -> Callable[[], None]:
        victims = find(title, where)
        if not victims:
            raise LookupError(_NOBODY)
        host, pid = victims[0]
        host.kill(pid, signal.SIGSTOP)

        def go_on() -> None:
            # It may have been killed meanwhile, by another fault or as dead.
            with contextlib.suppress(ProcessLookupError, AssertionError):
                host.kill(pid, signal.SIGCONT)

        return go_on

    def heal(self) -> None:
        """Undo whatever is still broken."""
        with self._lock:
            left, self._undo = self._undo, []
        for undo in left:
            undo()
        self.hosts.heal()

    # --- the end ------------------------------------------------------------------------------------

    def finish(self, command: str, bound: float) -> Verdict:
        """Heal, let everything end within `bound` seconds, read it all and judge."""
        self.heal()
        healed = now()
        self.end_clients()
        end = self.folder / "end"
        words = [sys.executable, "-m", "omnimind.testing.witness_end", "--home", INSTANCE, "--journal", end]
        done = self.head.run(
            [*words, "--work", self.work, "--until", healed + bound + 5.0], timeout=bound + 240
        )
        said = done.stdout.split()[-1]
        settled = None if said == "never" else float(said)
        self.journal.write(Run(command, self.began, healed, settled, bound))
        return check(self.records())

    def records(self) -> list[Record]:
        """Return all that was written down."""
        return list(read(sorted(self.folder.iterdir())))

    def close(self) -> None:
        """Stop starting things, and end what was started."""
        self._closing.set()
        self.end_clients()
        for keeper in self._keepers_of_nodes:
            keeper.join()
        for node in self._nodes.values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(node.pid, signal.SIGKILL)
            node.wait()


def find(title: str, hosts: Sequence[Host]) -> list[tuple[Host, int]]:
    """Return the processes that call themselves so: Ray's actors and workers."""
    return [
        (host, pid)
        for host in hosts
        for pid, words in host.processes().items()
        if words[0] == title or words[0].startswith((f"{title}.", f"{title} "))
    ]


def named(name: str, host: Host) -> list[tuple[Host, int]]:
    """Return the processes of a program."""
    return [(host, pid) for pid, words in host.processes().items() if Path(words[0]).name == name]


def working(host: Host) -> list[tuple[Host, int]]:
    """Return the worker processes that run a batch."""
    return [
        (host, pid)
        for pid, words in host.processes().items()
        if words[0].startswith("ray::") and "witnessed" in words[0]
    ]


def fill(folder: Path) -> Callable[[], None]:
    """Take every free byte of the disk that a folder is on; returns what gives them back."""
    filler = folder / "filler"
    fd = os.open(filler, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    full = threading.Event()

    def write() -> None:
        # Whoever writes beside it may remove something: it must stay full.
        while not full.wait(0.05):
            with contextlib.suppress(OSError):
                while True:
                    os.write(fd, b"\0" * 65_536)
            with contextlib.suppress(OSError):
                while True:
                    os.write(fd, b"\0" * 512)

    thread = threading.Thread(target=write, daemon=True)
    thread.start()

    def give_back() -> None:
        full.set()
        thread.join()
        os.close(fd)
        filler.unlink(missing_ok=True)

    return give_back
