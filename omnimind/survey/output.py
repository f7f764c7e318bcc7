"""Write the report's files whole or not at all."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from omnimind.errors import InvalidInput, OmniMindError

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def prepare_folder(out: Path) -> None:
    """Make the folder and show that it can be written to, before the work begins.

    Raises InvalidInput (field `out`), or OmniMindError when there is no room.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out) as file:
            file.write(b" ")
            file.flush()
    except OSError as error:
        raise _refusal(out, error) from error


def write_files(out: Path, files: Mapping[str, str]) -> list[Path]:
    """Write texts (name -> text, as UTF-8) into `out` and return their paths.

    Each is written beside its place, synced, and then renamed into it: a reader, a crash or a full disk sees
    the old file or the new one. None is renamed before all are written. Errors as in `prepare_folder`.
    """
    ready: list[tuple[Path, Path]] = []
    try:
        for name, text in files.items():
            ready.append((_write_aside(out, name, text), out / name))
        for aside, place in ready:
            aside.replace(place)
        _sync_folder(out)
    except OSError as error:
        for aside, _ in ready:
            with suppress(OSError):
                aside.unlink(missing_ok=True)
        raise _refusal(out, error) from error
    return [place for _, place in ready]


def _write_aside(out: Path, name: str, text: str) -> Path:
    descriptor, path = tempfile.mkstemp(prefix=f".{name}.", dir=out)
    aside = Path(path)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        aside.chmod(0o644)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    return aside


def _sync_folder(out: Path) -> None:
    descriptor = os.open(out, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _refusal(out: Path, error: OSError) -> OmniMindError:
    why = error.strerror or str(error)
    if error.errno in _NO_ROOM:
        hint = "free some space and start again: what is done stands in the ledger"
        return OmniMindError(f"no room to write into {out}: {why}", field="out", hint=hint)
    return InvalidInput(
        f"cannot write into {out}: {why}", field="out", hint="give another folder with --out DIR"
    )
