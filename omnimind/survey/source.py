"""Read, decode and compile one source file that may be anything: huge, broken, binary, a pipe, gone.

Whatever is wrong with a file is raised as an exception of a builtin type whose message names the reason, so
that it is the failure of that file alone, reads the same wherever it ran, and is small enough to travel.
"""

from __future__ import annotations

import ast
import encodings
import errno
import io
import os
import stat
import threading
import tokenize
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote_to_bytes, urlsplit

from omnimind.survey.traps import refuse_before_compiling, refuse_before_parsing

MAX_BYTES = 8 * 1024 * 1024
"""Larger files are refused: a syntax tree takes some hundred times the space of its source."""

UNREADABLE = (SyntaxError, UnicodeError, OSError, ValueError, RecursionError, MemoryError)
"""What `read` and `parse` raise: the file is at fault, and trying again would not help."""

_COMPILED_AS = "<omnimind.survey>"  # tells our file's warnings from those of other threads
_CODECS = str(Path(encodings.__file__).parent)  # `unicode_escape` warns from in there
_WARNINGS_LOCK = threading.Lock()
_TEXT_IN_ERROR = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class CompileWarning:
    """One warning of the compiler, such as an invalid escape sequence; `category` is the class's name."""

    line: int
    category: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Parsed:
    """A file that compiles: its text (lines end in a line feed), its tree, its warnings."""

    text: str
    tree: ast.Module
    size: int
    warnings: tuple[CompileWarning, ...]


def local_path(path: str) -> str:
    """Return the path to open for `path`, which may be a `file://` URI (see `files.portable_path`)."""
    if path.startswith("file://"):
        return os.fsdecode(unquote_to_bytes(urlsplit(path).path))
    return path


def read(path: str) -> bytes:
    """Return the bytes of a regular file; never waits, not even for a pipe without a writer."""
    descriptor = os.open(local_path(path), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", path)
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            data = file.read(MAX_BYTES + 1)
    finally:
        os.close(descriptor)
    if len(data) > MAX_BYTES:
        raise ValueError(
            f"larger than {MAX_BYTES // 1024 // 1024} MiB ({status.st_size} bytes): not analysed"
        )
    return data


def parse(data: bytes, path: str) -> Parsed:
    """Decode (PEP 263) and compile `data`, which was read from `path`; nothing is executed."""
    with _captured_warnings() as caught:
        text = _decode(data, path)
        try:
            refuse_before_parsing(text)
            tree = ast.parse(text, _COMPILED_AS)
            refuse_before_compiling(text, tree)
            compile(tree, _COMPILED_AS, "exec", dont_inherit=True, optimize=0)
        except SyntaxError as error:
            raise _short(error, path) from None
        except UnicodeEncodeError as error:  # an escape-based encoding produced half a character
            line = text.count("\n", 0, error.start) + 1
            raise SyntaxError("a lone surrogate is no character", (path, line, None, None)) from None
        except RecursionError:
            raise RecursionError("nested too deeply for the compiler of this Python") from None
        except MemoryError:
            raise MemoryError("nested too deeply, or too large, for the parser of this Python") from None
    return Parsed(text=text, tree=tree, size=len(data), warnings=tuple(caught))


def _decode(data: bytes, path: str) -> str:
    null = data.find(b"\0")
    if null >= 0:
        line = data.count(b"\n", 0, null) + 1
        raise SyntaxError("source code cannot contain null bytes", (path, line, None, None))
    try:
        encoding = _encoding(data, path)
        return io.TextIOWrapper(io.BytesIO(data), encoding).read()
    except UnicodeDecodeError as error:  # holds the whole file, hence a new one
        line = data.count(b"\n", 0, error.start) + 1
        raise UnicodeError(
            f"line {line}: byte 0x{error.object[error.start]:02x} at offset {error.start} is not "
            f"{error.encoding} ({error.reason})"
        ) from None
    except LookupError as error:
        raise SyntaxError(f"the declared encoding is none for text: {error}", (path, 1, None, None)) from None


def _encoding(data: bytes, path: str) -> str:
    try:
        return tokenize.detect_encoding(io.BytesIO(data).readline)[0]
    except SyntaxError as error:
        if "missing encoding declaration" in str(error):
            return "utf-8"  # which the first lines are not: decoding them tells where
        raise _short(error, path) from None


def _short(error: SyntaxError, path: str) -> SyntaxError:
    """Return the same error under the file's own name, without the line's text when that is a megabyte."""
    text = error.text if error.text and len(error.text) <= _TEXT_IN_ERROR else None
    message = (error.msg or "invalid syntax").replace(_COMPILED_AS, path)
    if message.startswith("encoding problem"):
        message = "the byte order mark says UTF-8, the encoding declaration says otherwise"
    return type(error)(message, (path, error.lineno, error.offset, text))


@contextmanager
def _captured_warnings() -> Iterator[list[CompileWarning]]:
    """Collect what the compiler warns of; leaves the process's warning state as it was.

    `warnings` can only be captured for the whole process, so one thread at a time does it, for the moment of
    one compilation, and what other threads warned of meanwhile is issued again afterwards.
    """
    found: list[CompileWarning] = []
    caught: list[warnings.WarningMessage] = []
    try:
        with _WARNINGS_LOCK, warnings.catch_warnings(record=True) as record:
            caught = record
            warnings.simplefilter("always")
            yield found
    finally:
        own = {(w.lineno, w.category.__name__, str(w.message)) for w in caught if w.filename == _COMPILED_AS}
        found.extend(
            CompileWarning(line=line, category=kind, message=text) for line, kind, text in sorted(own)
        )
        for other in caught:
            if other.filename != _COMPILED_AS and not other.filename.startswith(_CODECS):
                with suppress(Warning):  # under `-W error` it would be raised here, in the wrong thread
                    warnings.warn_explicit(other.message, other.category, other.filename, other.lineno)
