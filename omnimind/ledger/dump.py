"""The file of `omnimind ledger export`: every row of a ledger, compressed, and each line checked.

A gzip stream of lines, each ``CRC32 JSON`` (the CRC of the JSON's bytes, eight hexadecimal digits)::

    … {"format": "omnimind-ledger", "version": 1, "schema": "0003", "shards": [0], …}     `Head`
    … {"table": "tasks", "shard": 0, "columns": [["seq", "int"], ["id", "text"], …]}      `Opened`
    … [1, "tsk_…", …]                                                                     a row
    … {"end": "tasks", "shard": 0, "count": 1, "sha256": "…"}                             `Closed`
    … {"end": "ledger", "lines": 5, "sha256": "…"}                                        `Sealed`

The last line says how many lines stand above it, and the SHA-256 of their bytes. So a file that was cut is
noticed by its end, an altered one by the line, and rows that were moved, lost or doubled by their table.
Both sides hold a few hundred rows at a time, however many there are. It is no protection against somebody
who alters a file on purpose: such a person makes the sums anew.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, TypeVar

import msgspec

from omnimind.errors import BackupDamaged, LedgerVersion
from omnimind.ledger.dump_rows import Codec, Columns, Row

T = TypeVar("T")

FORMAT = "omnimind-ledger"
VERSION = 1

_GZIP = 31
_LEVEL = 3
_HEAD = b"\x1f\x8b\x08\0\0\0\0\0"
_PORTION = 1 << 18
_ROWS = 500
_CRC = 8
_SEALED = "ledger"


class Head(msgspec.Struct, kw_only=True):
    """The first line. schema: the ledger's revision. made_at: Unix seconds. source: of which kind it was."""

    format: str = FORMAT
    version: int = VERSION
    schema: str
    shards: list[int]
    omnimind: str = ""
    made_at: float = 0.0
    source: str = ""


class Opened(msgspec.Struct):
    """A table begins; its rows follow."""

    table: str
    shard: int
    columns: list[tuple[str, str]]

    @property
    def shape(self) -> Columns:
        """Return the table's columns."""
        return Columns(self.table, tuple((name, kind) for name, kind in self.columns))


class Rows(msgspec.Struct):
    """Some rows of the table that is open, and their lines."""

    rows: list[Row]
    lines: list[bytes]


class Closed(msgspec.Struct):
    """A table ends. count: its rows. sha256: their digest."""

    end: str
    shard: int
    count: int
    sha256: str


class Sealed(msgspec.Struct):
    """The last line."""

    end: str
    lines: int
    sha256: str


Item = Head | Opened | Rows | Closed
"""What a ledger is made of: a head, then of each table of each shard what opens it, its rows, its end."""


class Writer:
    """Writes items to a file. `finish` ends it; without that nobody takes it for whole."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._zip = zlib.compressobj(_LEVEL, wbits=_GZIP)
        self._sum = hashlib.sha256()
        self._lines = 0

    def take(self, item: Item) -> None:
        """Write an item."""
        self._put(item.lines if isinstance(item, Rows) else [msgspec.json.encode(item)])

    def finish(self) -> None:
        """Write the last line."""
        self._put([msgspec.json.encode(Sealed(_SEALED, self._lines, self._sum.hexdigest()))])
        self._file.write(self._zip.flush())

    def _put(self, lines: list[bytes]) -> None:
        data = b"".join(b"%08x %b\n" % (zlib.crc32(line), line) for line in lines)
        self._sum.update(data)
        self._lines += len(lines)
        self._file.write(self._zip.compress(data))


class Reader:
    """Reads a file's items in order. Raises BackupDamaged with the line, LedgerVersion for a newer format."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._number = 0
        self._sum = hashlib.sha256()
        self._before = ""
        self._bytes = 0

    @property
    def place(self) -> int:
        """Return how many bytes of the file were read."""
        return self._bytes

    def items(self) -> Iterator[Item]:
        """Yield the items; the last one only when the whole file was found whole."""
        lines = self._lines()
        head = self._head(next(lines, None))
        yield head
        while True:
            line = self._next(lines)
            if line.startswith(b'{"table"'):
                yield from self._table(self._decode(line, Opened), lines)
                continue
            sealed = self._decode(line, Sealed)
            before = self._number - 1
            if sealed.end != _SEALED or sealed.lines != before or sealed.sha256 != self._before:
                raise self._damaged(f"the sum of the {before:,} lines above is another")
            for _ in lines:
                raise self._damaged("there are lines behind the last one")
            return

    def _table(self, opened: Opened, lines: Iterator[bytes]) -> Iterator[Item]:
        try:
            codec = Codec(opened.shape)
        except KeyError as error:
            raise self._damaged(f"there is no kind of column {error}") from None
        yield opened
        rows: list[Row] = []
        texts: list[bytes] = []
        while not (line := self._next(lines)).startswith(b"{"):
            try:
                rows.append(codec.decode(line))
            except (msgspec.MsgspecError, ValueError) as error:
                raise self._damaged(f"it is no row of {opened.table}: {error}") from None
            texts.append(line)
            if len(rows) >= _ROWS:
                yield Rows(rows, texts)
                rows, texts = [], []
        if rows:
            yield Rows(rows, texts)
        closed = self._decode(line, Closed)
        if (closed.end, closed.shard) != (opened.table, opened.shard):
            raise self._damaged(f"it ends {closed.end} of shard {closed.shard}, not {opened.table}")
        if (closed.count, closed.sha256) != (codec.count, codec.digest):
            raise self._damaged(f"the rows of {opened.table} are not those that were written")
        yield closed

    def _head(self, line: bytes | None) -> Head:
        if line is None:
            raise self._damaged("it is empty")
        try:
            known = msgspec.json.decode(line, type=dict)
        except msgspec.MsgspecError:
            known = {}
        if known.get("format") != FORMAT:
            raise BackupDamaged(f"{self.path} is no export of OmniMind's ledger", path=str(self.path))
        if known.get("version") != VERSION:
            msg = f"{self.path} has format {known.get('version')}; this OmniMind reads {VERSION}"
            raise LedgerVersion(msg, hint="upgrade OmniMind: pip install --upgrade omnimind-runtime")
        return self._decode(line, Head)

    def _next(self, lines: Iterator[bytes]) -> bytes:
        for line in lines:
            return line
        self._number += 1
        raise self._damaged("the file ends too early")

    def _decode(self, line: bytes, kind: type[T]) -> T:
        try:
            return msgspec.json.decode(line, type=kind)
        except msgspec.MsgspecError as error:
            raise self._damaged(f"it is no {kind.__name__.lower()} line: {error}") from None

    def _lines(self) -> Iterator[bytes]:
        """Yield the lines' JSON, each with its CRC checked."""
        begun: list[bytes] = []
        for data in self._unzipped():
            if b"\n" not in data:
                begun.append(data)
                continue
            *whole, rest = b"".join((*begun, data)).split(b"\n")
            begun = [rest] if rest else []
            for text in whole:
                self._number += 1
                self._before = (
                    self._sum.hexdigest() if text[_CRC + 1 :].startswith(b'{"end":"ledger"') else ""
                )
                line = text[_CRC + 1 :]
                if text[:_CRC] != b"%08x" % zlib.crc32(line) or text[_CRC : _CRC + 1] != b" ":
                    raise self._damaged("its checksum is another: it was altered")
                self._sum.update(text)
                self._sum.update(b"\n")
                yield line
        if begun:
            self._number += 1
            raise self._damaged("the file ends in the middle of it")

    def _unzipped(self) -> Iterator[bytes]:
        unzip = zlib.decompressobj(wbits=_GZIP)
        with self.path.open("rb") as file:
            first = True
            while data := file.read(_PORTION):
                if first and not data.startswith(_HEAD):
                    msg = f"{self.path} is no export of OmniMind's ledger"
                    raise BackupDamaged(msg, path=str(self.path))
                first = False
                self._bytes += len(data)
                more = not unzip.eof
                while more:
                    try:
                        found = unzip.decompress(data, _PORTION)
                    except zlib.error as error:
                        self._number += 1
                        raise self._damaged(f"it cannot be decompressed: {error}") from None
                    data = unzip.unconsumed_tail
                    if found:
                        yield found
                    more = not unzip.eof and (bool(data) or len(found) == _PORTION)
                if unzip.eof and (unzip.unused_data or file.read(1)):
                    self._number += 1
                    raise self._damaged("there are bytes behind the end")
        if not unzip.eof:
            self._number += 1
            raise self._damaged("the file ends too early")

    def _damaged(self, what: str) -> BackupDamaged:
        msg = f"{self.path}, line {self._number:,}: {what}"
        return BackupDamaged(msg, path=str(self.path), line=self._number)
