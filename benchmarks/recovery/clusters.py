"""OmniMind and plain Ray, each in four hosts of one machine: `head`, `w1` and `w2` run work, `drv` submits.

Both have the same hosts, slots and tasks. On both each host's Ray is started again when it ends, at once on
the head and after a second elsewhere; OmniMind's own supervisors do that, a loop of a shell does it for Ray.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

from omnimind.testing.postgres import PostgresServer
from tests.hosts.harness import HOME, Host, Hosts

WORK_HOSTS = ("head", "w1", "w2")
_ROOT = Path(__file__).resolve().parent.parent.parent
_PORT = 6390
_SLOTS = 2
_START = 240.0
_STORE = 100_000_000

TUNED: Mapping[str, str] = {
    "RAY_health_check_initial_delay_ms": "500",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "3",
    "RAY_grpc_client_keepalive_time_ms": "2000",
    "RAY_grpc_client_keepalive_timeout_ms": "2000",
    "RAY_grpc_keepalive_time_ms": "2000",
    "RAY_grpc_keepalive_timeout_ms": "2000",
}
"""The settings with which plain Ray recovered fastest when they were tried: health checks and keep-alives."""


class ClusterFailedError(RuntimeError):
    """A cluster did not come up, or not back, in time."""


class Driver:
    """The submitting process, which answers line by line."""

    def __init__(self, host: Host, words: list[str], env: Mapping[str, str], log: Path) -> None:
        with log.open("ab") as errors:
            self._process = host.popen(
                [sys.executable, "-m", "benchmarks.recovery.driver", *words],
                env={"PYTHONPATH": str(_ROOT), **env},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
            )
        self._log = log
        self._rest = b""
        self._read(_START)

    def ask(self, *words: object, seconds: float = 60.0) -> str:
        """Give a command and return the answer. Raises ClusterFailedError when none comes."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write((" ".join(map(str, words)) + "\n").encode())
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise ClusterFailedError(f"the driver has ended: {self._tail()}") from error
        return self._read(seconds)

    def _read(self, seconds: float) -> str:
        assert self._process.stdout is not None
        fd, give_up = self._process.stdout.fileno(), time.monotonic() + seconds
        while b"\n" not in self._rest:
            ready, _, _ = select.select([fd], [], [], max(0.0, give_up - time.monotonic()))
            data = os.read(fd, 65536) if ready else b""
            if not data:
                raise ClusterFailedError(f"the driver does not answer: {self._tail()}")
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode()

    def _tail(self) -> str:
        return self._log.read_text(errors="replace")[-1500:]

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()


class Cluster:
    """What both sides share. A context: made on entering, gone on leaving."""

    title = ""
    restarts_head = True

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.hosts = Hosts(("head", "w1", "w2", "drv"), folder)
        self.shared = self.hosts.folder
        self._children: list[subprocess.Popen[Any]] = []
        self._driver: Driver | None = None

    def __enter__(self) -> Self:
        try:
            self.start()
            self.wait_for(WORK_HOSTS)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        raise NotImplementedError

    def spawn(self, host: Host, words: list[str], env: Mapping[str, str], name: str) -> None:
        with (self.shared / f"{name}.log").open("ab") as log:
            self._children.append(host.popen(words, env=env, stdout=log, stderr=log))

    @property
    def driver(self) -> Driver:
        assert self._driver is not None
        return self._driver

    def submit(self, name: str, delay: float = 0.0) -> None:
        self.driver.ask("submit", name, delay, seconds=150.0)

    def nodes(self) -> set[str]:
        """Return the hosts that take work now."""
        return set(self.driver.ask("nodes", seconds=90.0).split())

    def wait_for(self, names: tuple[str, ...], seconds: float = _START) -> None:
        """Return when these hosts take work."""
        give_up = time.monotonic() + seconds
        while not set(names) <= self.nodes():
            if time.monotonic() > give_up:
                raise ClusterFailedError(f"{self.title}: {names} do not all take work: {self.nodes()}")
            time.sleep(0.1)

    def kill_head(self) -> None:
        """End all of Ray's processes on the head at once."""
        head = self.hosts["head"]
        for pid, words in head.processes().items():
            if _of_ray(words):
                # One that has ended with another is no process of the head any more.
                with contextlib.suppress(ProcessLookupError, AssertionError):
                    head.kill(pid)

    def close(self) -> None:
        if self._driver is not None:
            self._driver.close()
        self.hosts.close()
        for child in self._children:
            child.wait()


def _of_ray(words: list[str]) -> bool:
    name = Path(words[0]).name
    if name in {"raylet", "gcs_server"} or name.startswith("ray::"):
        return True
    return any(mark in " ".join(words) for mark in ("/ray/_private/", "/ray/dashboard/", "actors.ray_main"))


def until(true: Callable[[], Any], what: str, seconds: float = _START) -> Any:
    """Return the first true value; raises ClusterFailedError when none comes in time."""
    give_up = time.monotonic() + seconds
    while not (found := true()):
        if time.monotonic() > give_up:
            raise ClusterFailedError(f"waited {seconds:g} s in vain for {what}")
        time.sleep(0.05)
    return found


class OmniMind(Cluster):
    """OmniMind as it comes, with its default settings. settings: more of them, by key."""

    title = "OmniMind"

    def __init__(self, folder: Path, settings: Mapping[str, str] | None = None) -> None:
        super().__init__(folder)
        self._settings = dict(settings or {})
        self.home = HOME / "om"

    def start(self) -> None:
        head = self.hosts["head"]
        env = {"OMNIMIND_HOME": str(self.home), "PYTHONPATH": str(_ROOT)}
        self.spawn_head()
        token = head.home / "om" / "ray-token"
        until(lambda: token.exists() and token.read_text().strip(), "the head's token")
        for name in ("w1", "w2"):
            host = self.hosts[name]
            own = host.home / "om"
            own.mkdir(mode=0o700)
            (own / "ray-token").write_text(token.read_text())
            (own / "ray-token").chmod(0o600)
            joins = {"ray.object_store_memory": str(_STORE), "ray.node_ip": host.ip}
            words = ["omnimind", "node", "run", "--address", f"{head.ip}:{_PORT}"]
            words += ["--labels", "lane=1,worker=1", "--num-cpus", str(_SLOTS)]
            words += [w for k, v in joins.items() for w in ("--set", f"{k}={v}")]
            self.spawn(host, words, env, name)
        self.await_head()
        words = ["omnimind", str(self.home), str(self.shared)]
        self._driver = Driver(head, words, {}, self.shared / "driver.log")

    def spawn_head(self) -> None:
        """Start OmniMind on the head, at first or after a boot of it; `await_head` waits for it."""
        head = self.hosts["head"]
        env = {"OMNIMIND_HOME": str(self.home), "PYTHONPATH": str(_ROOT)}
        record = head.home / "om" / "run" / "instance.json"
        record.unlink(missing_ok=True)
        settings = {
            "ray.node_ip": head.ip,
            "ray.port": str(_PORT),
            "ray.num_cpus": str(_SLOTS),
            "ray.dashboard": "false",
            "ray.labels": "lane=1",
            "instance.start_timeout": str(_START),  # a busy machine is slow to start Ray
            "ray.object_store_memory": str(_STORE),
            **self._settings,
        }
        words = ["omnimind", "up", *(w for k, v in settings.items() for w in ("--set", f"{k}={v}"))]
        self.spawn(head, words, env, "head")
        self._head = self._children[-1]

    def await_head(self) -> None:
        """Return when the head is ready."""
        child, record = self._head, self.hosts["head"].home / "om" / "run" / "instance.json"
        until(lambda: child.poll() is not None or _ready(record), "OmniMind to start")
        if child.poll() is not None:
            log = (self.shared / "head.log").read_text(errors="replace")
            raise ClusterFailedError(f"OmniMind does not start:\n{log[-2000:]}")

    def renew_driver(self) -> None:
        """Start the submitting process again, after its host has been off."""
        self.driver.close()
        words = ["omnimind", str(self.home), str(self.shared)]
        self._driver = Driver(self.hosts["head"], words, {}, self.shared / "driver.log")

    def coordinator(self) -> dict[str, Any]:
        """Return who coordinates: pid, node_id, epoch and more."""
        found: dict[str, Any] = json.loads(self.driver.ask("coordinator", seconds=90.0))
        return found

    def kill_coordinator(self) -> None:
        """End the coordinator's process."""
        self.hosts["head"].run(["kill", "-9", self.coordinator()["pid"]])


def _ready(record: Path) -> bool:
    return record.exists() and '"ready"' in record.read_text()


class OmniMindOnPostgres(OmniMind):
    """The same with its ledger in a PostgreSQL of this machine, outside the hosts."""

    title = "OmniMind on PostgreSQL"

    def __init__(self, folder: Path, settings: Mapping[str, str] | None = None) -> None:
        # Below no folder that PostgreSQL's own user may not pass through.
        self._files = Path(tempfile.mkdtemp(prefix="omr-pg-"))
        self._files.chmod(0o711)
        self._database = PostgresServer(self._files / "pg", listen_addresses="*")
        super().__init__(folder, settings)

    def start(self) -> None:
        with (self._database.data / "pg_hba.conf").open("a") as rules:
            rules.write(f"host all all {self.hosts.subnet}.0/24 trust\n")
        self._database.start()
        self._settings |= {"ledger.url": self._database.url(host=self.hosts.gateway)}
        super().start()

    def kill_database(self) -> None:
        """Kill all of its processes and start it again."""
        self._database.kill()
        self._database.start()

    def close(self) -> None:
        super().close()
        self._database.stop()
        shutil.rmtree(self._files, ignore_errors=True)


class PlainRay(Cluster):
    """Ray tasks with `max_retries=-1`. env: its settings. lasting: whether its GCS outlives the head."""

    def __init__(self, folder: Path, title: str, env: Mapping[str, str], *, lasting: bool) -> None:
        super().__init__(folder)
        self.title = title
        self._env = {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", **env}
        self._lasting = lasting

    def start(self) -> None:
        head = self.hosts["head"]
        storage = (
            {"RAY_gcs_storage": "rocksdb", "RAY_gcs_storage_path": str(HOME / "gcs")} if self._lasting else {}
        )
        self._loop(head, f"--head --port={_PORT} --include-dashboard=false --num-cpus={_SLOTS}", 0, storage)
        for name, cpus in (("w1", _SLOTS), ("w2", _SLOTS), ("drv", 0)):
            self._loop(self.hosts[name], f"--address={head.ip}:{_PORT} --num-cpus={cpus}", 1, {})
        until(lambda: self.hosts["drv"].pids("raylet/raylet"), "Ray to start")
        time.sleep(2)
        words = ["ray", f"{head.ip}:{_PORT}", str(self.shared)]
        self._driver = Driver(self.hosts["drv"], words, self._env, self.shared / "driver.log")

    def _loop(self, host: Host, options: str, pause: float, more: Mapping[str, str]) -> None:
        lane = "" if host.name == "drv" else """--resources='{"lane": 1000}' """
        command = (
            f"ray start {options} {lane}--node-ip-address={host.ip} --object-store-memory={_STORE} "
            "--disable-usage-stats --include-log-monitor=false --block"
        )
        script = (
            f"while true; do {command}; pkill -9 -f default_worke[r]; pkill -9 -x raylet; sleep {pause}; done"
        )
        self.spawn(host, ["bash", "-c", script], {**self._env, **more}, host.name)
