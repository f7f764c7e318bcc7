"""Find the files of a survey: each Python file once, in a stable order."""

from __future__ import annotations

import os
import stat
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote_from_bytes

from omnimind.errors import InvalidInput

_SITE = frozenset({"site-packages", "dist-packages"})


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class SourceFile:
    """One file. `path` and `root` are portable (see `portable_path`), `size` is in bytes."""

    path: str
    root: str
    size: int
    mtime_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """What is to be surveyed: files by path, the folders searched, and what could not be read."""

    files: tuple[SourceFile, ...]
    roots: tuple[str, ...]
    problems: tuple[str, ...] = ()


def find_files(path: str | os.PathLike[str] | None = None) -> Tree:
    """Return every `.py` file below `path`, or those of the running interpreter's library and packages.

    A file that is reached by several names counts once: links to folders are not followed, a link to a file
    counts unless the file itself is in the tree. Hidden folders count, compiled files do not, and what is
    neither a file nor a link to one (a pipe named `x.py`) is left out.

    Raises InvalidInput (field `path`) when the folder is missing, is none, cannot be read, or holds no Python
    file.
    """
    if path is None:
        return _collect(interpreter_roots(), "this interpreter")
    folder = Path(path).expanduser()
    try:
        folder = folder.resolve(strict=True)
        names = os.scandir(folder)
    except FileNotFoundError:
        raise InvalidInput(f"there is no folder {folder}", field="path") from None
    except NotADirectoryError:
        hint = f"give the folder that holds it: {folder.parent}"
        raise InvalidInput(f"{folder} is not a folder", field="path", hint=hint) from None
    except (OSError, RuntimeError, ValueError) as error:  # no right, a loop of links, a null byte
        raise InvalidInput(f"cannot look into {str(folder)!r}: {error}", field="path") from None
    names.close()
    return _collect([str(folder)], str(folder))


def interpreter_roots() -> list[str]:
    """Return the folders of the standard library and of the installed packages, without links."""
    known = sysconfig.get_paths()
    wanted = [known[name] for name in ("stdlib", "purelib", "platlib")]
    wanted += [entry for entry in sys.path if Path(entry).name in _SITE]
    return sorted({os.path.realpath(entry) for entry in wanted if Path(entry).is_dir()})


def portable_path(path: str) -> str:
    """Return the path as text that any encoding takes: a name that is not Unicode becomes a `file://` URI."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return "file://" + quote_from_bytes(os.fsencode(path))
    return path


def _collect(roots: Iterable[str], where: str) -> Tree:
    roots = list(roots)
    found: dict[str, SourceFile] = {}
    links: list[tuple[str, str]] = []
    problems: list[str] = []
    for root in roots:
        others = {other for other in roots if other != root and other.startswith(root + os.sep)}
        for entry in _walk(root, others, problems):
            if entry.is_symlink():
                links.append((entry.path, root))
            elif entry.path not in found:
                _add(found, entry.path, entry.path, root)
    for link, root in sorted(links):
        _add(found, os.path.realpath(link), link, root)
    if not found:
        raise InvalidInput(
            f"no Python file (*.py) below {where}", field="path", hint="; ".join(problems[:3]) or None
        )
    files = tuple(sorted(found.values()))
    return Tree(files=files, roots=tuple(map(portable_path, roots)), problems=tuple(sorted(problems)))


def _walk(root: str, others: set[str], problems: list[str]) -> Iterator[os.DirEntry[str]]:
    """Yield the entries named `*.py` below `root`, without those below `others` and foreign site folders."""
    waiting = [root]
    while waiting:
        folder = waiting.pop()
        try:
            with os.scandir(folder) as entries:
                listed = list(entries)
        except OSError as error:
            problems.append(f"{portable_path(folder)}: {error.strerror}")
            continue
        for entry in listed:
            if entry.is_dir(follow_symlinks=False):
                skipped = entry.name == "__pycache__" or entry.path in others
                if not skipped and not (folder == root and _is_foreign_site(entry, root)):
                    waiting.append(entry.path)
            elif entry.name.endswith(".py"):
                yield entry


def _is_foreign_site(entry: os.DirEntry[str], root: str) -> bool:
    """Tell whether this is the library's own package folder, which a virtual environment does not see."""
    return entry.name in _SITE and root == os.path.realpath(sysconfig.get_path("stdlib"))


def _add(found: dict[str, SourceFile], real: str, path: str, root: str) -> None:
    if real in found:
        return
    try:
        status = Path(path).stat()
    except OSError:  # a link to nowhere, or gone since it was listed
        return
    if stat.S_ISREG(status.st_mode):
        found[real] = SourceFile(
            path=portable_path(path),
            root=portable_path(root),
            size=status.st_size,
            mtime_ns=status.st_mtime_ns,
        )
