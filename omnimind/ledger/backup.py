"""Copies of a ledger that is at work, and which of them to keep.

A backup is a folder ``20261124T103000Z-e7`` that gets its name when it is whole, checked and on disk::

    manifest.json      what is in it, with the SHA-256 of each file and of itself
    ledger.db …        of SQLite: the database, of each shard one
    ledger.omnimind    of PostgreSQL: an export (`dump.py`)

SQLite is copied page by page inside one read transaction: one moment, however many commits go on meanwhile,
none of which waits. (Copied outside of a transaction, SQLite begins again after each commit of another
process.) PostgreSQL is exported from one REPEATABLE READ transaction, not by pg_dump: that has to be of the
server's version and on this host, and its file could neither be checked row by row nor be restored into
SQLite. Handlers, and code that was sent along with tasks, are rows of the ledger, and so in every backup.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import msgspec

from omnimind.config.sections import LedgerSettings
from omnimind.errors import BackupDamaged, Conflict, LedgerCorrupt, LedgerVersion, NotFound
from omnimind.failpoints import failpoint
from omnimind.ledger import stores_sqlite
from omnimind.ledger.sqlite_files import sync_folder
from omnimind.ledger.stores import Progress, counts, epoch_of, revision_of, version_here
from omnimind.ledger.stores_sqlite import SqliteStore
from omnimind.ledger.transfer import digest_of_file, export, need_ledger, no_space, stamp, store_of

FORMAT, VERSION = "omnimind-backup", 1
MANIFEST = "manifest.json"
DUMP = "ledger.omnimind"

PAGES = 2_000
"""Pages copied at a time: 8 MB, after which other threads and the progress have their turn."""

_NAME = re.compile(r"\d{8}T\d{6}Z-e\d+(-\d+)?")
_MAKING = ".making-"
_GOING = ".going-"


class File(msgspec.Struct, frozen=True):
    """A file of a backup."""

    bytes: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a backup is. kind: of the ledger. made_at: Unix seconds of the moment that it holds.

    epoch: the highest one of its shards. counts: rows by shard and table. files: by their names.
    """

    format: str = FORMAT
    version: int = VERSION
    omnimind: str
    kind: str
    revision: str
    epoch: int
    made_at: float
    shards: list[int]
    counts: dict[str, dict[str, int]]
    files: dict[str, File]
    sha256: str = ""

    @property
    def bytes(self) -> int:
        """Return how large it is."""
        return sum(file.bytes for file in self.files.values())

    @property
    def rows(self) -> int:
        """Return its rows, over all shards and tables."""
        return sum(sum(tables.values()) for tables in self.counts.values())

    def tasks(self) -> int:
        """Return its tasks, over all shards."""
        return sum(tables.get("tasks", 0) for tables in self.counts.values())


class Backup(msgspec.Struct, frozen=True):
    """A backup that is there."""

    path: Path
    manifest: Manifest

    @property
    def name(self) -> str:
        """Return its name in its folder."""
        return self.path.name


# ---------------------------------------------------------------------------------------------- making


def make(settings: LedgerSettings, home: Path, folder: Path, progress: Progress) -> Backup:
    """Make a backup in `folder`. Raises NotFound, LedgerFull, LedgerCorrupt, Conflict for two at once."""
    with no_space(folder), closing(store_of(settings, home)) as store:
        need_ledger(store)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _alone(folder):
            making = folder / f"{_MAKING}{os.getpid()}"
            making.mkdir(mode=0o700)
            try:
                manifest = _fill(store, making, progress)
                manifest = msgspec.structs.replace(manifest, sha256=_seal(manifest))
                _write_manifest(making, manifest)
                failpoint("backup.before_rename")
                path = _free_name(folder, manifest)
                making.rename(path)
                failpoint("backup.after_rename")
            finally:
                shutil.rmtree(making, ignore_errors=True)
            sync_folder(folder)
            sync_folder(folder.parent)
    return Backup(path, manifest)


def _fill(store: object, making: Path, progress: Progress) -> Manifest:
    made_at = time.time()
    epoch, revision = epoch_of(store), revision_of(store)  # type: ignore[arg-type]
    if isinstance(store, SqliteStore):
        for shard in store.shards:
            target = making / store.path(shard).name
            failpoint("backup.before_copy")
            stores_sqlite.copy(store.connection(shard), target, PAGES, _in_pages(progress))
        with closing(SqliteStore(stores_sqlite.files_in(making), still=True)) as copied:
            _must_be_whole(copied, progress)
            found = counts(copied)
    else:
        export(store, making / DUMP, progress)  # type: ignore[arg-type]
        found = counts(store)  # type: ignore[arg-type]
    names = sorted(path.name for path in making.iterdir())
    return Manifest(
        omnimind=version_here(),
        kind=store.kind,  # type: ignore[attr-defined]
        revision=revision,
        epoch=epoch,
        made_at=made_at,
        shards=list(store.shards),  # type: ignore[attr-defined]
        counts={str(shard): tables for shard, tables in found.items()},
        files={
            name: File((making / name).stat().st_size, digest_of_file(making / name, progress))
            for name in names
        },
    )


def _in_pages(progress: Progress) -> object:
    def tell(_status: int, remaining: int, total: int) -> None:
        failpoint("backup.after_pages")
        progress("copying", total - remaining, total)

    return tell


def _must_be_whole(store: SqliteStore, progress: Progress) -> None:
    """Raise LedgerCorrupt when the copy is damaged: then the ledger is."""
    for shard in store.shards:
        progress("verifying", shard, len(store.shards))
        wrong = [row[0] for row in store.ask(shard, "PRAGMA quick_check(3)") if row[0] != "ok"]
        if wrong:
            msg = f"the ledger is damaged, so that its copy is of no use: {'; '.join(map(str, wrong))}"
            raise LedgerCorrupt(msg, hint="see: omnimind ledger check; restore an older backup")


def _write_manifest(making: Path, manifest: Manifest) -> None:
    path = making / MANIFEST
    with path.open("xb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n")
        file.flush()
        os.fsync(file.fileno())
    sync_folder(making)


def _seal(manifest: Manifest) -> str:
    """Return the SHA-256 of a manifest without its own."""
    return hashlib.sha256(msgspec.json.encode(msgspec.structs.replace(manifest, sha256=""))).hexdigest()


def _free_name(folder: Path, manifest: Manifest) -> Path:
    name = f"{stamp(manifest.made_at)}-e{manifest.epoch}"
    path, n = folder / name, 2
    while path.exists():
        path, n = folder / f"{name}-{n}", n + 1
    return path


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep others from making or removing backups here, and clear away what one that was killed has left."""
    handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            msg = f"another backup is being made in {folder}"
            raise Conflict(msg, hint="wait for it, or name another folder: --to DIR") from None
        for path in folder.iterdir():
            if path.name.startswith((_MAKING, _GOING)):
                shutil.rmtree(path, ignore_errors=True)
        yield
    finally:
        os.close(handle)


# --------------------------------------------------------------------------------------------- reading


def load(path: Path) -> Backup:
    """Return a backup by its folder, its manifest checked. Raises NotFound, BackupDamaged, LedgerVersion."""
    try:
        data = (path / MANIFEST).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound(f"there is no backup in {path}") from None
    except OSError as error:
        raise BackupDamaged(f"{path / MANIFEST}: {error.strerror}", path=str(path)) from error
    try:
        known = msgspec.json.decode(data, type=dict)
        if (
            known.get("format") == FORMAT
            and isinstance(known.get("version"), int)
            and known["version"] > VERSION
        ):
            msg = f"{path} has format {known['version']}; this OmniMind reads {VERSION}"
            raise LedgerVersion(msg, hint="upgrade OmniMind: pip install --upgrade omnimind-runtime")
        manifest = msgspec.json.decode(data, type=Manifest)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BackupDamaged(f"{path / MANIFEST} is no manifest: {error}", path=str(path)) from None
    # Byte by byte, so that nothing in it can be altered unseen, be it a space.
    if msgspec.json.format(
        msgspec.json.encode(manifest), indent=2
    ) + b"\n" != data or manifest.sha256 != _seal(manifest):
        raise BackupDamaged(f"{path / MANIFEST} was altered: its checksum is another", path=str(path))
    return Backup(path, manifest)


def verify(backup: Backup, progress: Progress) -> None:
    """Raise BackupDamaged unless each file is what was written, and no other is there."""
    there = {path.name for path in backup.path.iterdir()} - {MANIFEST}
    missing = sorted(backup.manifest.files.keys() - there)
    if missing:
        raise BackupDamaged(f"{backup.path}: {', '.join(missing)} is missing", path=str(backup.path))
    for name, file in backup.manifest.files.items():
        path = backup.path / name
        size = path.stat().st_size
        if size != file.bytes:
            msg = f"{path} has {size:,} bytes instead of {file.bytes:,}: it was cut or added to"
            raise BackupDamaged(msg, path=str(path))
        if digest_of_file(path, progress, size) != file.sha256:
            raise BackupDamaged(f"{path} was altered: its checksum is another", path=str(path))


def listed(folder: Path) -> list[Backup]:
    """Return the backups in a folder, the newest first; what is none is passed over."""
    found = []
    if folder.is_dir():
        for path in folder.iterdir():
            if _NAME.fullmatch(path.name):
                try:
                    found.append(load(path))
                except (BackupDamaged, LedgerVersion, NotFound):
                    continue
    return sorted(found, key=lambda b: (b.manifest.made_at, b.name), reverse=True)


# ------------------------------------------------------------------------------------------- retention


def surplus(backups: Sequence[Backup], keep: int | None, age: float | None, now: float) -> list[Backup]:
    """Return which backups may go: those beyond the newest `keep`, and those older than `age` seconds.

    The newest one always stays. backups: the newest first.
    """
    return [
        backup
        for n, backup in enumerate(backups)
        if n > 0
        and ((keep is not None and n >= keep) or (age is not None and now - backup.manifest.made_at > age))
    ]


def remove(folder: Path, backups: Sequence[Backup]) -> None:
    """Remove backups of a folder: each loses its name at once, so that none is there by half."""
    if not backups:
        return
    with _alone(folder):
        for backup in backups:
            going = folder / f"{_GOING}{backup.name}"
            backup.path.rename(going)
            failpoint("backup.after_unname")
            shutil.rmtree(going)
        sync_folder(folder)
