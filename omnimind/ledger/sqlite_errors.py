"""The one border where SQLite's errors become ours, with what to do about them."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from sqlalchemy.exc import DBAPIError

from omnimind.errors import LedgerCorrupt, LedgerError, LedgerFull, LedgerUnavailable, OmniMindError

_PRIMARY = 0xFF
_CANNOT = {
    sqlite3.SQLITE_CANTOPEN: "cannot be opened",
    sqlite3.SQLITE_READONLY: "cannot be written to",
    sqlite3.SQLITE_PERM: "may not be used by this user",
    sqlite3.SQLITE_AUTH: "may not be used by this user",
}
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_HELD = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}


def code_of(error: BaseException) -> int:
    """Return SQLite's primary result code, 0 when the error is none of SQLite's."""
    code: int = getattr(error, "sqlite_errorcode", 0) or 0
    return code & _PRIMARY


def outcome_unknown(error: BaseException) -> bool:
    """Return whether a write that ended so may or may not be on disk."""
    return code_of(error) in {sqlite3.SQLITE_IOERR, *_DAMAGED} or isinstance(error, OSError)


def as_ours(error: BaseException, path: Path) -> OmniMindError:
    """Return the error to raise instead of one that SQLite, its driver or SQLAlchemy raised."""
    if isinstance(error, OmniMindError):
        return error
    if isinstance(error, DBAPIError) and error.orig is not None:
        error = error.orig
    code = code_of(error)
    if code == sqlite3.SQLITE_FULL:
        return LedgerFull(f"no space is left for {path}", path=str(path), retry_after=10.0)
    if code in _HELD:
        return LedgerUnavailable(
            f"another process holds the lock of {path}", hint=_holders(path), path=str(path), retry_after=1.0
        )
    if code in _CANNOT:
        hint = f"make it and its folder writable for this user: ls -ld {path.parent} {path}"
        return LedgerUnavailable(
            f"{path} {_CANNOT[code]}: {error}", hint=hint, path=str(path), retry_after=10.0
        )
    if code in _DAMAGED:
        hint = (
            f"stop OmniMind, keep a copy of {path}*, then save what can be read:"
            f" sqlite3 {path} .recover | sqlite3 new.db; mv new.db {path}; rm -f {path}-wal {path}-shm"
        )
        return LedgerCorrupt(f"{path} is damaged: {error}", hint=hint, path=str(path))
    name = getattr(error, "sqlite_errorname", type(error).__name__)
    hint = "look for errors of the disk: dmesg, smartctl" if code == sqlite3.SQLITE_IOERR else ""
    return LedgerError(f"{path}: {error} ({name})", hint=hint, path=str(path))


def _holders(path: Path) -> str:
    """Say who holds locks on the ledger's files, as far as this user may know (Linux)."""
    found = sorted(_lock_pids(path))
    if not found:
        return "end the process that uses it, such as a backup or an open sqlite3 shell"
    names = ", ".join(f"{pid} ({_name_of(pid)})" for pid in found)
    return f"end the process that holds it, or wait for it: {names}"


def _lock_pids(path: Path) -> set[int]:
    inodes: set[int] = set()
    for suffix in ("", "-wal", "-shm"):
        try:
            inodes.add(Path(f"{path}{suffix}").stat().st_ino)
        except OSError:
            continue
    try:
        lines = Path("/proc/locks").read_text(encoding="ascii").splitlines()
    except OSError:
        return set()
    # 12: POSIX  ADVISORY  WRITE 4711 08:01:131 0 EOF
    found: set[int] = set()
    for line in lines:
        words = line.split()
        if "->" in words or len(words) < 8:  # noqa: PLR2004
            continue
        pid, place, start = int(words[4]), words[5], words[6]
        # In the -shm file every reader holds a lock, too; the writer's is byte 120 (WAL_WRITE_LOCK).
        if int(place.rpartition(":")[2]) in inodes and pid > 0 and words[3] == "WRITE" and start != "128":
            found.add(pid)
    return found


def _name_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return "?"
