"""The files of one OMNIMIND_HOME: where they lie, and who may read them. Starts and stops nothing.

::

    HOME/                0700
      omnimind.toml      settings (optional)
      ledger.db          the durable record
      token  ray-token   0600, made at the first start
      packages/          code that tasks need
      ray/               Ray's temporary folder: one folder a session
      logs/              supervisor.log ray.log job.log
      run/               what is true only while it runs
        lock             held by the supervisor (flock)
        instance.json    `Record`: who runs, and where it can be reached
        settings.json    the settings in effect
        coordinator.sock the coordinator's socket, 0600; of shard n: coordinator-n.sock
        ended            left by `omnimind down`: the next start takes nothing of Ray's up again

A unix socket's path has at most 107 bytes. Where HOME is too long for that, its sockets are reached by
an *alias*: a symlink to HOME in a private folder below /tmp. The files themselves still lie below HOME.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path

import msgspec
import platformdirs

from omnimind import processes
from omnimind.errors import HomeUnusable

SOCKET_PATH_MAX = 107
_RAY_SOCKET = len("/ray/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store.1")
_ALIASES = Path("/tmp")  # noqa: S108 - the folder made below it is private, and its owner is verified


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """What a running instance says of itself, in ``run/instance.json``.

    state: ``starting``, ``ready``, ``restarting`` (Ray or the coordinator died and comes back) or
    ``stopping``. supervisor: the process that owns the instance. children: its processes by name (``ray``,
    ``gcs_server``, ``raylet``, ``job``), as last seen. versions: of ``omnimind``, ``ray`` and ``python``.
    started_at: Unix seconds of the supervisor's start. restarts: how often Ray had to be started again.
    """

    home: str
    versions: dict[str, str]
    supervisor: processes.Process
    started_at: float
    state: str = "starting"
    children: dict[str, processes.Process] = {}
    ray_address: str = ""
    session_dir: str = ""
    dashboard_url: str = ""
    api_url: str = ""
    restarts: int = 0


class Paths:
    """The files of one home. Making one touches nothing."""

    def __init__(self, home: str | os.PathLike[str]) -> None:
        self.home = Path(home)
        self.config = self.home / "omnimind.toml"
        self.ledger = self.home / "ledger.db"
        self.token = self.home / "token"
        self.ray_token = self.home / "ray-token"
        self.session_key = self.home / "session-key"
        self.packages = self.home / "packages"
        self.ray = self.home / "ray"
        self.logs = self.home / "logs"
        self.run = self.home / "run"
        self.lock = self.run / "lock"
        self.record = self.run / "instance.json"
        self.settings = self.run / "settings.json"
        self.ended = self.run / "ended"

    @property
    def marker(self) -> str:
        """Return the name of this home among all homes: a digest of its path."""
        return hashlib.sha256(os.fsencode(self.home)).hexdigest()[:12]

    @property
    def alias(self) -> Path:
        """Return the short name of HOME, which `make_alias` makes."""
        return _ALIASES / f"omnimind-{_owner(self.home)}" / self.marker

    @property
    def socket(self) -> Path:
        """Return the path by which to bind and connect the coordinator's socket.

        Raises HomeUnusable when it goes by an alias that somebody else could have laid: who connects
        shows the token.
        """
        path = self.run / "coordinator.sock"
        if _fits(path):
            return path
        check_alias(self)
        return self.alias / "run" / path.name

    @property
    def ray_temp(self) -> Path:
        """Return the path of Ray's temporary folder as Ray is told it."""
        return (
            self.ray if len(os.fsencode(self.home)) + _RAY_SOCKET <= SOCKET_PATH_MAX else self.alias / "ray"
        )

    @property
    def needs_alias(self) -> bool:
        """Return whether a socket of this instance is reached by the alias."""
        return self.ray_temp != self.ray or not _fits(self.run / "coordinator.sock")


def shard_socket(socket: Path, shard: int) -> Path:
    """Return the socket of a shard's coordinator, given that of shard 0: both lie side by side."""
    return socket.with_name(f"{socket.stem}-{shard}{socket.suffix}") if shard else socket


def home_path(given: str | os.PathLike[str] | None, environ: Mapping[str, str] = os.environ) -> Path:
    """Return the home to use, resolved: `given`, else OMNIMIND_HOME, else the XDG state folder."""
    chosen = given or environ.get("OMNIMIND_HOME") or platformdirs.user_state_path("omnimind")
    return Path(chosen).expanduser().resolve()


def prepare(paths: Paths) -> None:
    """Make the folders and tokens of a home. Raises HomeUnusable, naming what is in the way."""
    try:
        for folder in (paths.home, paths.run, paths.logs, paths.packages, paths.ray):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if stat.S_IMODE(paths.home.stat().st_mode) & 0o077:
            # Ray makes its folders below with modes that let everybody in.
            paths.home.chmod(0o700)
        with tempfile.TemporaryFile(dir=paths.home):
            pass
    except OSError as error:
        msg = f"cannot use {paths.home}: {error.strerror}: {error.filename}"
        raise HomeUnusable(msg, field="OMNIMIND_HOME") from error
    for path in (paths.token, paths.ray_token):
        make_token(path)


def make_token(path: Path) -> str:
    """Return the token in a file; a new one of 256 random bits, mode 0600, where there is none."""
    try:
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            if stat.S_IMODE(path.stat().st_mode) & 0o077:
                path.chmod(0o600)
            token = path.read_text(encoding="ascii").strip()
            if token:
                return token
            fd = os.open(path, os.O_WRONLY)
        token = secrets.token_hex(32)
        with os.fdopen(fd, "w", encoding="ascii") as file:
            file.write(token + "\n")
    except (OSError, UnicodeDecodeError) as error:
        msg = f"cannot make or read the token {path}: {error}"
        raise HomeUnusable(msg, hint="mend or remove this file") from error
    return token


def make_alias(paths: Paths) -> None:
    """Make the alias where one is needed. Raises HomeUnusable when somebody else owns its folder."""
    if not paths.needs_alias:
        return
    folder = paths.alias.parent
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    check_alias(paths)
    folder.chmod(0o700)
    if not _leads_home(paths):
        spare = paths.alias.with_name(f"{paths.alias.name}.{os.getpid()}")
        spare.unlink(missing_ok=True)
        spare.symlink_to(paths.home)
        spare.replace(paths.alias)
    # Cleaners of /tmp go by age.
    os.utime(paths.alias, follow_symlinks=False)
    os.utime(folder)


def check_alias(paths: Paths) -> None:
    """Raise HomeUnusable unless the alias' folder is a real folder of HOME's owner, closed to others."""
    folder = paths.alias.parent
    try:
        facts = folder.lstat()
    except FileNotFoundError:
        return
    owner = _owner(paths.home)
    if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != owner or stat.S_IMODE(facts.st_mode) & 0o022:
        msg = f"{folder} is not a folder that only user {owner} may write to"
        raise HomeUnusable(msg, hint=f"remove it, or use a shorter OMNIMIND_HOME than {paths.home}")


def remove_alias(paths: Paths) -> None:
    """Remove the alias, and its folder when it was the last one."""
    if _leads_home(paths):
        paths.alias.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        paths.alias.parent.rmdir()


def write_record(paths: Paths, record: Record) -> None:
    """Write ``instance.json``: readers see the old or the new one, never a half."""
    write_atomically(paths.record, msgspec.json.format(msgspec.json.encode(record), indent=2))


def write_atomically(path: Path, data: bytes) -> None:
    """Replace a file's content in one step, mode 0600."""
    spare = path.with_name(f".{path.name}.{os.getpid()}")
    fd = os.open(spare, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(data)
    spare.replace(path)


def read_record(paths: Paths) -> Record | None:
    """Return what the last supervisor wrote, or None; whether it still lives is `running`'s question."""
    try:
        return msgspec.json.decode(paths.record.read_bytes(), type=Record)
    except (OSError, msgspec.MsgspecError):
        return None


def running(paths: Paths) -> Record | None:
    """Return the record of the instance that runs in this home, or None when its supervisor is gone."""
    record = read_record(paths)
    return record if record is not None and processes.lives(record.supervisor) else None


def ray_environment(paths: Paths, record: Record | None = None) -> dict[str, str]:
    """Return the environment by which a Ray driver reaches this instance.

    It must be set before Ray is imported, since Ray reads some of it then. With `record` it holds
    RAY_ADDRESS too.
    """
    environment = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(paths.ray_token),
        # Makes Ray take 127.0.0.1 as given; otherwise it puts the machine's public address in its place.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    if record is not None and record.ray_address:
        environment["RAY_ADDRESS"] = record.ray_address
        if not record.ray_address.startswith(("127.", "localhost")):
            del environment["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"]
    return environment


def _fits(path: Path) -> bool:
    return len(os.fsencode(path)) <= SOCKET_PATH_MAX


def _leads_home(paths: Paths) -> bool:
    try:
        return paths.alias.readlink() == paths.home
    except OSError:
        return False


def _owner(home: Path) -> int:
    """Return who owns a home, so that root finds somebody else's alias; who would, if there is none."""
    try:
        return home.stat().st_uid
    except OSError:
        return os.geteuid()
