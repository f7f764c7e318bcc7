"""`PostgresServer`: a real PostgreSQL of a test's own, from Debian's package, to be killed and restarted.

It listens on a free port of loopback and on a socket in its own folder, keeps its data there too, and runs as
the package's own user when the test is root, which PostgreSQL refuses to be.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg

USER = "omni"
PASSWORD = "secret of the tests"  # noqa: S105 (it guards what a test made a moment ago)
_PACKAGE_USER = "postgres"
_PLACES = "/usr/lib/postgresql/*/bin"


def find(name: str) -> str | None:
    """Return the path of one of PostgreSQL's programs, the newest version's; None when it is not there."""
    found = sorted(Path("/").glob(f"{_PLACES[1:]}/{name}"), key=lambda p: float(p.parts[4]))
    return str(found[-1]) if found else shutil.which(name)


class PostgresServer:
    """A server in `folder`, not started yet. settings: as on its command line.

    password: whether connections over TCP must give `PASSWORD`; those over the socket need none.
    Raises FileNotFoundError when PostgreSQL is not installed (Debian package: postgresql).
    """

    def __init__(self, folder: Path, *, password: bool = False, **settings: Any) -> None:
        self.folder = folder
        self.settings: dict[str, Any] = {"fsync": "on", "max_connections": 40, **settings}
        self.port = _free_port()
        self.log = folder / "log"
        self._process: subprocess.Popen[bytes] | None = None
        self._user = _PACKAGE_USER if os.geteuid() == 0 else None
        initdb, server = find("initdb"), find("postgres")
        if initdb is None or server is None:
            msg = "PostgreSQL is not installed (Debian package: postgresql)"
            raise FileNotFoundError(msg)
        self._server = server
        folder.mkdir(parents=True, exist_ok=True)
        if self._user is not None:
            shutil.chown(folder, self._user)
        words = [initdb, "--pgdata", str(self.data), "--username", USER, "--encoding", "UTF8"]
        words += ["--locale", "C.UTF-8", "--no-sync", "--auth-local", "trust"]
        if password:
            secret = folder / "secret"
            secret.write_text(PASSWORD)
            secret.chmod(0o644)
            words += ["--auth-host", "scram-sha-256", "--pwfile", str(secret)]
        else:
            words += ["--auth-host", "trust"]
        self._run(words)
        if "listen_addresses" in self.settings:
            # Whoever is on one of this machine's networks, as a cluster's hosts are.
            with (self.data / "pg_hba.conf").open("a") as rules:
                rules.write(f"host all all samenet {'scram-sha-256' if password else 'trust'}\n")

    @property
    def data(self) -> Path:
        """Return the folder of the database's files."""
        return self.folder / "data"

    @property
    def pid(self) -> int:
        """Return the process id of the postmaster."""
        assert self._process is not None
        return self._process.pid

    def url(self, database: str = "postgres", host: str = "127.0.0.1", user: str = USER) -> str:
        """Return a url without a password, as `ledger.url` takes it."""
        return f"postgresql://{user}@{host}:{self.port}/{database}"

    def _run(self, words: list[str]) -> None:
        made = subprocess.run(  # noqa: S603
            words, check=False, capture_output=True, user=self._user, group=self._user, cwd="/"
        )
        if made.returncode != 0:
            msg = f"{words[0]} ended with {made.returncode}: {made.stderr.decode(errors='replace')}"
            raise RuntimeError(msg)

    def start(self, seconds: float = 60.0) -> None:
        """Start it, and wait until it takes connections."""
        words = [self._server, "-D", str(self.data), "-k", str(self.folder), "-p", str(self.port)]
        words += [
            "-c",
            "listen_addresses=127.0.0.1",
        ]  # unless the settings say otherwise: the last one counts
        for name, value in self.settings.items():
            words += ["-c", f"{name}={value}"]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603
                words,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                user=self._user,
                group=self._user,
                cwd="/",
                start_new_session=True,
            )
        give_up = time.monotonic() + seconds
        while True:
            try:
                self.admin().close()
            except psycopg.OperationalError:
                if self._process.poll() is not None or time.monotonic() > give_up:
                    msg = f"PostgreSQL did not start: {self.log.read_text(errors='replace')[-2000:]}"
                    raise RuntimeError(msg) from None
                time.sleep(0.05)
            else:
                return

    def admin(self, database: str = "postgres") -> psycopg.Connection[Any]:
        """Return a connection of the superuser over the socket."""
        return psycopg.connect(
            host=str(self.folder), port=self.port, user=USER, dbname=database, autocommit=True
        )

    def execute(self, statement: str, database: str = "postgres") -> list[Any]:
        """Run a statement as the superuser; return its rows."""
        with contextlib.closing(self.admin(database)) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def create(self, database: str) -> str:
        """Make a database and return its url."""
        self.execute(f'CREATE DATABASE "{database}"')
        return self.url(database)

    def everyone(self) -> list[int]:
        """Return the process ids of the postmaster and its children."""
        return [self.pid, *(int(p) for p in _children(self.pid))]

    def signal(self, number: int) -> None:
        """Send a signal to each of its processes."""
        for pid in self.everyone():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def kill(self) -> None:
        """End it as a power cut ends a process: SIGKILL to each of its processes at once."""
        assert self._process is not None
        self.signal(signal.SIGKILL)
        self._process.wait(30)
        # The next postmaster refuses to start while it thinks that this one lives.
        give_up = time.monotonic() + 30
        while (self.data / "postmaster.pid").exists() and time.monotonic() < give_up:
            (self.data / "postmaster.pid").unlink()

    def stop(self) -> None:
        """End it in order, whatever is connected; a second call does nothing."""
        if self._process is None:
            return
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, signal.SIGCONT)
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(60)
            except subprocess.TimeoutExpired:
                self.kill()
        self._process = None

    @classmethod
    @contextlib.contextmanager
    def made(cls, **settings: Any) -> Iterator[PostgresServer]:
        """Make one in a temporary folder that its user can reach; stopped and removed at the end."""
        folder = Path(tempfile.mkdtemp(prefix="omnimind-postgres-"))
        folder.chmod(0o711)
        try:
            server = cls(folder / "server", **settings)
            try:
                yield server
            finally:
                server.stop()
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    @contextlib.contextmanager
    def running(self) -> Iterator[PostgresServer]:
        """Start it for a while."""
        self.start()
        try:
            yield self
        finally:
            self.stop()


def _children(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    except OSError:
        return []


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
