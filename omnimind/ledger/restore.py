"""A backup becomes the ledger again: in an empty place, or in the place of one that is moved aside."""

from __future__ import annotations

import hashlib
import os
import time
from contextlib import closing
from pathlib import Path

from omnimind.config.sections import LedgerSettings
from omnimind.errors import BackupDamaged
from omnimind.failpoints import failpoint
from omnimind.ledger.backup import DUMP, Backup, verify
from omnimind.ledger.custody import custody
from omnimind.ledger.dump import Reader
from omnimind.ledger.migrate import revisions
from omnimind.ledger.sqlite_files import PRIVATE
from omnimind.ledger.stores import EPOCH_LEAP, Progress, counts, epoch_of, items_of
from omnimind.ledger.stores_sqlite import SqliteSink, SqliteStore, files_in
from omnimind.ledger.transfer import Moved, fill, no_space, refuse_work, stamp, store_of


def restore(
    backup: Backup, settings: LedgerSettings, home: Path, *, replace: bool, progress: Progress
) -> Moved:
    """Restore a backup. replace: move a ledger with work aside, instead of refusing.

    Its epoch is above the backup's and above that of the ledger that was there. Raises BackupDamaged
    (nothing was written), Conflict, AlreadyRunning, LedgerVersion, LedgerFull.
    """
    verify(backup, progress)
    note = f"from backup {backup.name}"
    if backup.manifest.kind == "postgresql":
        items = Reader(backup.path / DUMP).items()
        return fill(items, settings, home, note, replace=replace, progress=progress)
    if settings.url:
        with closing(_copied(backup)) as store:
            items = items_of(store, progress)
            return fill(items, settings, home, note, replace=replace, progress=progress)
    return _files(backup, settings, home, note, replace=replace, progress=progress)


def _copied(backup: Backup) -> SqliteStore:
    return SqliteStore(files_in(backup.path), str(backup.path), still=True)


def _files(
    backup: Backup, settings: LedgerSettings, home: Path, note: str, *, replace: bool, progress: Progress
) -> Moved:
    """Restore files as files: no row is read, and no index built anew."""
    now = time.time()
    manifest = backup.manifest
    with custody(settings, home):
        if not replace:
            refuse_work(settings, home)
        with closing(store_of(settings, home)) as store:
            before = epoch_of(store)
        aside = stamp(now) if files_in(home) else None
        epoch = max(before, manifest.epoch) + EPOCH_LEAP
        with no_space(home):
            sink = SqliteSink(home, None if aside is None else home / "replaced" / aside)
            try:
                for shard, path in files_in(backup.path).items():
                    _copy(path, sink.incoming(shard), manifest.files[path.name].sha256, progress)
                    sink.adopt(shard)
                with closing(sink.written()) as written:
                    found = counts(written)
                if {str(shard): tables for shard, tables in found.items()} != manifest.counts:
                    msg = f"{backup.path} holds other rows than its manifest says"
                    raise BackupDamaged(msg, path=str(backup.path))
                for shard in found:
                    sink.finish(shard, epoch, (now, "cli", "ledger.restore", str(home), note))
                sink.publish()
            finally:
                sink.abandon()
    total: dict[str, int] = {}
    for tables in found.values():
        for table, count in tables.items():
            total[table] = total.get(table, 0) + count
    return Moved(
        str(home),
        revisions()[-1],
        epoch,
        list(found),
        total,
        manifest.bytes,
        aside="" if aside is None else f"replaced/{aside}",
    )


def _copy(source: Path, target: Path, sha256: str, progress: Progress) -> None:
    """Copy a file; what was copied must be what was checked a moment ago."""
    found = hashlib.sha256()
    size, done = source.stat().st_size, 0
    handle = os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, PRIVATE)
    with source.open("rb") as reading, os.fdopen(handle, "wb") as writing:
        while data := reading.read(1 << 20):
            found.update(data)
            writing.write(data)
            done += len(data)
            progress("writing", done, max(size, done))
            failpoint("restore.after_portion")
        writing.flush()
        os.fsync(writing.fileno())
    if found.hexdigest() != sha256:
        raise BackupDamaged(f"{source} changed while it was read", path=str(source))
