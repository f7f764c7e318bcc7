"""Moving a whole ledger: from a database to a file, from a file into an empty database.

What arrives is proven to be what left, table by table, before anybody can see it; nothing is mended on the
way, left out or made up. Only two things are different afterwards: the epoch, which leaps so that no
coordinator and no attempt of the former ledger can write to this one, and one entry of the audit.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import BinaryIO

import msgspec

from omnimind.config.sections import LedgerSettings
from omnimind.errors import BackupDamaged, ConfigError, Conflict, LedgerError, LedgerFull, NotFound
from omnimind.failpoints import failpoint
from omnimind.ledger.custody import custody
from omnimind.ledger.dump import Head, Item, Reader, Writer
from omnimind.ledger.migrate import revisions
from omnimind.ledger.sqlite_files import PRIVATE, sync_folder
from omnimind.ledger.stores import (
    EPOCH_LEAP,
    Poured,
    Progress,
    Sink,
    Store,
    epoch_of,
    items_of,
    pour,
    work_in,
)
from omnimind.ledger.stores_sqlite import SqliteSink, SqliteStore, files_in

_NO_SPACE = {errno.ENOSPC, errno.EDQUOT}


class Moved(msgspec.Struct, frozen=True):
    """What an export, an import or a restore has done. counts: rows by table. aside: where the old one is."""

    where: str
    revision: str
    epoch: int
    shards: list[int]
    counts: dict[str, int]
    bytes: int = 0
    sha256: str = ""
    aside: str = ""


def store_of(settings: LedgerSettings, home: Path) -> Store:
    """Return the ledger that the settings name, to read from; it has no shards where there is none."""
    if not settings.url:
        files = files_in(home)
        return SqliteStore(files, "" if files else str(home))
    _need_psycopg()
    from omnimind.ledger.stores_postgres import PostgresStore  # noqa: PLC0415

    return PostgresStore(settings)


def sink_of(settings: LedgerSettings, home: Path, aside: str | None) -> Sink:
    """Return the place that the settings name, to write to. aside: a name for what is there, if it may be."""
    if not settings.url:
        return SqliteSink(home, None if aside is None else home / "replaced" / aside)
    _need_psycopg()
    from omnimind.ledger.stores_postgres import PostgresSink  # noqa: PLC0415

    return PostgresSink(settings, None if aside is None else f"replaced_{aside.lower()}")


def _need_psycopg() -> None:
    try:
        import psycopg  # noqa: F401, PLC0415
    except ImportError as error:
        msg = f"PostgreSQL needs the package psycopg: {error}"
        hint = "pip install 'omnimind-runtime[postgres]'"
        raise ConfigError(msg, field="ledger.url", hint=hint) from error


def stamp(now: float) -> str:
    """Return a moment as part of a name: 20261124T103000Z."""
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))


# ------------------------------------------------------------------------------------------------ files


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """Give a file that gets its name when it is whole and on disk; an error leaves nothing of it."""
    spare = path.with_name(f".{path.name}.{os.getpid()}.part")
    with no_space(path):
        try:
            with os.fdopen(os.open(spare, os.O_CREAT | os.O_EXCL | os.O_WRONLY, PRIVATE), "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            failpoint("transfer.before_rename")
            try:
                os.link(spare, path)  # A rename would replace what somebody else has just put there.
            except FileExistsError:
                raise _exists(path) from None
        finally:
            spare.unlink(missing_ok=True)
        sync_folder(path.parent)


@contextlib.contextmanager
def no_space(path: Path) -> Iterator[None]:
    """Raise LedgerFull for a full disk, LedgerError for a path that cannot be written to."""
    try:
        yield
    except LedgerFull as error:
        error.hint = _full_hint(path)
        raise
    except OSError as error:
        if error.errno in _NO_SPACE:
            raise LedgerFull(f"no space is left for {path}", hint=_full_hint(path), path=str(path)) from error
        msg = f"{error.filename or path}: {error.strerror or error}"
        raise LedgerError(msg, hint="name a place that this user can write to", path=str(path)) from error


def _full_hint(path: Path) -> str:
    return f"free space on the disk of {path.parent}, or name another place; nothing was left of it"


def _exists(path: Path) -> Conflict:
    return Conflict(f"{path} exists already", hint="name another file, or remove this one")


def digest_of_file(path: Path, progress: Progress, total: int = 0) -> str:
    """Return the SHA-256 of a file."""
    found = hashlib.sha256()
    done = 0
    with path.open("rb") as file:
        while data := file.read(1 << 20):
            found.update(data)
            done += len(data)
            progress("checking", done, max(total, done))
    return found.hexdigest()


# ---------------------------------------------------------------------------------------------- moving


class _Digesting:
    """A file that digests what is written to it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.sum = hashlib.sha256()
        self.bytes = 0

    def write(self, data: bytes) -> int:
        self.sum.update(data)
        self.bytes += len(data)
        return self._file.write(data)


def export(store: Store, path: Path, progress: Progress) -> Moved:
    """Write a store to a new file. Raises Conflict when the file exists, NotFound when there is no ledger."""
    need_ledger(store)
    if path.exists():
        raise _exists(path)
    found: dict[str, int] = {}
    epoch, revision = epoch_of(store), ""
    with new_file(path) as file:
        digesting = _Digesting(file)
        writer = Writer(digesting)  # type: ignore[arg-type]
        for item in items_of(store, progress):
            writer.take(item)
            failpoint("transfer.after_item")
            name, count = getattr(item, "end", ""), getattr(item, "count", 0)
            if name:
                found[name] = found.get(name, 0) + count
            revision = revision or getattr(item, "schema", "")
        writer.finish()
    return Moved(
        str(path), revision, epoch, list(store.shards), found, digesting.bytes, digesting.sum.hexdigest()
    )


def need_ledger(store: Store) -> None:
    """Raise NotFound when there is no ledger."""
    if not store.shards:
        raise NotFound(f"there is no ledger in {store.where}", hint="see: omnimind config list")


def refuse_work(settings: LedgerSettings, home: Path) -> None:
    """Raise Conflict when a ledger is there that was worked with."""
    with closing(store_of(settings, home)) as store:
        found = work_in(store)
        if found:
            rows = ", ".join(f"{count:,} rows of {table}" for table, count in sorted(found.items()))
            msg = f"the ledger in {store.where} is not empty: {rows}"
            raise Conflict(msg, hint="name an empty home or database; a restore can also take --replace")


def fill(
    items: Iterator[Item],
    settings: LedgerSettings,
    home: Path,
    note: str,
    *,
    replace: bool,
    progress: Progress,
) -> Moved:
    """Write items to the place that the settings name, prove them, and let them be the ledger there."""
    now = time.time()
    with custody(settings, home):
        if not replace:
            refuse_work(settings, home)
        with closing(store_of(settings, home)) as store:
            before, there = epoch_of(store), bool(store.shards)
        aside = stamp(now) if there else None
        with no_space(home):
            sink = sink_of(settings, home, aside)
            try:
                poured = pour(items, sink, revisions(), progress)
                epoch = max(before, _epoch_in(sink)) + EPOCH_LEAP
                for shard in poured.head.shards:
                    sink.finish(shard, epoch, (now, "cli", "ledger.fill", sink.where, note))
                sink.publish()
            finally:
                sink.abandon()
    return _moved(sink, poured, epoch, aside)


def _epoch_in(sink: Sink) -> int:
    with closing(sink.written()) as store:
        return epoch_of(store)


def _moved(sink: Sink, poured: Poured, epoch: int, aside: str | None) -> Moved:
    return Moved(
        sink.where,
        revisions()[-1],
        epoch,
        poured.head.shards,
        poured.counts,
        aside="" if aside is None else f"replaced/{aside}",
    )


def import_file(path: Path, settings: LedgerSettings, home: Path, progress: Progress) -> Moved:
    """Write an export to an empty place. Raises BackupDamaged, LedgerVersion, Conflict, AlreadyRunning."""
    reader = open_dump(path)
    size = path.stat().st_size

    def tell(what: str, done: int, total: int) -> None:
        # How many rows are to come is known at the end only; how many bytes at once.
        progress(what, done, total)

    def items() -> Iterator[Item]:
        for item in reader.items():
            tell("writing", reader.place, size)
            yield item

    return fill(items(), settings, home, f"from {path.name}", replace=False, progress=progress)


def open_dump(path: Path) -> Reader:
    """Return the reader of an export. Raises NotFound."""
    if not path.is_file():
        raise NotFound(f"there is no file {path}")
    return Reader(path)


def read_through(path: Path, progress: Progress) -> Moved:
    """Read an export to its end, and say what is in it. Raises BackupDamaged with the line."""
    reader = open_dump(path)
    size = path.stat().st_size
    head: Head | None = None
    found: dict[str, int] = {}
    for item in reader.items():
        progress("checking", reader.place, size)
        if isinstance(item, Head):
            head = item
        name, count = getattr(item, "end", ""), getattr(item, "count", 0)
        if name:
            found[name] = found.get(name, 0) + count
    if head is None:
        raise BackupDamaged(f"{path} is empty")
    return Moved(str(path), head.schema, 0, head.shards, found, size)
