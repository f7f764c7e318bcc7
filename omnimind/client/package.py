"""A working folder as one blob: a zip that is the same for the same files, whoever packs it and when."""

from __future__ import annotations

import fnmatch
import io
import os
import stat
import zipfile
from collections.abc import Iterator
from pathlib import Path

from omnimind.client.code import BLOB_MAX, Folder
from omnimind.errors import InvalidInput
from omnimind.ids import digest_of

SOURCE_MAX = 256 << 20
FILES_MAX = 20_000
IGNORE_FILES = (".gitignore", ".omnimindignore")
ALWAYS_IGNORED = (
    ".git/",
    ".hg/",
    ".svn/",
    ".venv/",
    "venv/",
    "__pycache__/",
    "*.pyc",
    ".mypy_cache/",
    ".pytest_cache/",
    ".ruff_cache/",
    ".tox/",
    ".nox/",
    ".ipynb_checkpoints/",
    "node_modules/",
    "*.egg-info/",
    ".DS_Store",
)
_EPOCH = (1980, 1, 1, 0, 0, 0)


def pack_folder(path: Path) -> Folder:
    """Return a folder's files as a packed blob with its digest.

    Left out: what its `.gitignore` and `.omnimindignore` files name (their common forms), version control,
    caches and virtual environments. Links to files are followed, links to folders are not.
    Raises InvalidInput when it is no folder or too large, naming the largest files.
    """
    root = path.expanduser().resolve()
    if not root.is_dir():
        raise InvalidInput(f"{path} is no folder", field="working_dir")
    files = sorted(_files(root, root, []))
    sizes = {file: file.stat().st_size for file in files}
    if len(files) > FILES_MAX or sum(sizes.values()) > SOURCE_MAX:
        raise _too_large(root, sizes, sum(sizes.values()), SOURCE_MAX)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as packed:
        for file in files:
            info = zipfile.ZipInfo(file.relative_to(root).as_posix(), _EPOCH)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.create_system = 3  # unix, whatever packs it
            runnable = file.stat().st_mode & stat.S_IXUSR
            info.external_attr = (stat.S_IFREG | (0o755 if runnable else 0o644)) << 16
            packed.writestr(info, file.read_bytes())
    data = buffer.getvalue()
    if len(data) > BLOB_MAX:
        raise _too_large(root, sizes, len(data), BLOB_MAX)
    return Folder(path=root, data=data, digest=digest_of(data))


class _Rule:
    """One line of an ignore file that lies in `base`."""

    def __init__(self, base: Path, line: str) -> None:
        self.keep = line.startswith("!")
        pattern = line.removeprefix("!")
        self._folders_only = pattern.endswith("/")
        pattern = pattern.rstrip("/")
        self._rooted = "/" in pattern
        self._pattern = pattern.lstrip("/")
        self._base = base

    def matches(self, path: Path, *, is_folder: bool) -> bool:
        if self._folders_only and not is_folder:
            return False
        if not self._rooted:
            return fnmatch.fnmatchcase(path.name, self._pattern)
        relative = path.relative_to(self._base).as_posix()
        return fnmatch.fnmatchcase(relative, self._pattern) or (
            self._pattern.startswith("**/") and fnmatch.fnmatchcase(relative, self._pattern[3:])
        )


def _files(root: Path, folder: Path, rules: list[_Rule]) -> Iterator[Path]:
    if folder == root:
        rules = [_Rule(root, pattern) for pattern in ALWAYS_IGNORED]
    for name in IGNORE_FILES:
        ignore = folder / name
        if ignore.is_file():
            lines = ignore.read_text(encoding="utf-8", errors="replace").splitlines()
            rules = rules + [_Rule(folder, s) for line in lines if (s := line.strip()) and s[0] != "#"]
    with os.scandir(folder) as entries:
        for entry in entries:
            path = Path(entry.path)
            is_folder = entry.is_dir(follow_symlinks=False)
            if _ignored(path, rules, is_folder=is_folder):
                continue
            if is_folder:
                yield from _files(root, path, rules)
            elif path.is_file():
                yield path


def _ignored(path: Path, rules: list[_Rule], *, is_folder: bool) -> bool:
    """Return what the last rule that matches says."""
    for rule in reversed(rules):
        if rule.matches(path, is_folder=is_folder):
            return not rule.keep
    return False


def _too_large(root: Path, sizes: dict[Path, int], size: int, limit: int) -> InvalidInput:
    largest = sorted(sizes, key=lambda file: sizes[file], reverse=True)[:3]
    named = ", ".join(f"{file.relative_to(root)} ({sizes[file] >> 10:,} KiB)" for file in largest)
    message = (
        f"{root} is too large to travel: {len(sizes):,} files, {size >> 20} MiB "
        f"(limits: {FILES_MAX:,} files, {limit >> 20} MiB); the largest: {named}"
    )
    hint = f"name what the handlers do not need in {root / IGNORE_FILES[1]}"
    return InvalidInput(message, field="working_dir", hint=hint)
