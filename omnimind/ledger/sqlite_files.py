"""The files beside the database: who may read them, and space kept back for a full disk."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

PRIVATE = 0o600


def make_private(path: Path) -> None:
    """Create the database file when there is none, and let only its owner read it and its companions."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, PRIVATE))
        # SQLite makes sure of the bytes of a database, not of its name.
        sync_folder(path.parent)
        sync_folder(path.parent.parent)
    for file in (path, *(Path(f"{path}{suffix}") for suffix in ("-wal", "-shm"))):
        # SQLite gives new companions the mode of the database.
        with contextlib.suppress(FileNotFoundError, PermissionError, OSError):
            if file.stat().st_mode & 0o077:
                file.chmod(PRIVATE)


def sync_folder(folder: Path) -> None:
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except PermissionError:  # It may be entered, but not read: then it was there before us.
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def size_of(path: Path) -> int:
    """Return bytes of a file, 0 when there is none."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


class Reserve:
    """Space beside the database that is given back when the disk is full.

    So work in flight can still end, and the log be carried into the database; only new work is refused
    until there is room for the reserve and half as much again (so that it does not flutter).
    """

    def __init__(self, path: Path, size: int) -> None:
        self.path = path
        self.size = size

    @property
    def held(self) -> bool:
        """Return whether the space is kept back now."""
        return self.size == 0 or size_of(self.path) >= self.size

    def take(self) -> bool:
        """Keep the space back, if there is that and some more; return whether there is."""
        needed = self.size // 2 if self.held else self.size + self.size // 2
        try:
            free = os.statvfs(self.path.parent)
            if free.f_bavail * free.f_frsize < needed:
                return False
            if self.held:
                return True
            handle = os.open(self.path, os.O_CREAT | os.O_RDWR, PRIVATE)
        except OSError:
            return False
        try:
            os.posix_fallocate(handle, 0, self.size)
        except OSError:
            self.release()
            return False
        finally:
            os.close(handle)
        return True

    def release(self) -> bool:
        """Give the space back; return whether there was any."""
        if size_of(self.path) == 0:
            return False
        with contextlib.suppress(OSError):
            self.path.unlink()
            return True
        return False
