"""Rows of any table as lines of text, and back: the same line for the same row, whichever database held it.

A row is a JSON array in the order of its table's columns; bytes are base64, and a float that JSON has no
number for is a string. The digest of a table is the sum of its rows' SHA-256, modulo 2^256: equal for the
same rows in any order, since databases sort differently.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Any

import msgspec

from omnimind.errors import LedgerCorrupt

INT, FLOAT, TEXT, BYTES = "int", "float", "text", "bytes"

_PYTHON: dict[str, type] = {INT: int, FLOAT: float, TEXT: str, BYTES: bytes}
_JSON: dict[str, Any] = {INT: int | None, FLOAT: float | str | None, TEXT: str | None, BYTES: bytes | None}
_MODULUS = 1 << 256

Row = tuple[Any, ...]


class Columns(msgspec.Struct, frozen=True, array_like=True):
    """A table: its name, and its columns as (name, kind)."""

    table: str
    columns: tuple[tuple[str, str], ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Return the columns' names."""
        return tuple(name for name, _ in self.columns)


class Codec:
    """Encodes and decodes the rows of one table, and counts and digests what passes through it."""

    def __init__(self, columns: Columns) -> None:
        self.columns = columns
        self.count = 0
        self._sum = 0
        self._encode = msgspec.json.Encoder().encode
        kinds = [kind for _, kind in columns.columns]
        self._decoder = msgspec.json.Decoder(tuple[tuple(_JSON[kind] for kind in kinds)])  # type: ignore[misc]
        self._allowed = [(_PYTHON[kind], type(None)) for kind in kinds]
        self._floats = [i for i, kind in enumerate(kinds) if kind == FLOAT]
        self._seen: set[tuple[type, ...]] = set()

    @property
    def digest(self) -> str:
        """Return the digest of all rows so far, as 64 hexadecimal digits."""
        return f"{self._sum:064x}"

    def encode(self, row: Row) -> bytes:
        """Return a row as JSON. Raises LedgerCorrupt for a value of another kind than its column's."""
        types = tuple(map(type, row))
        if types not in self._seen:
            self._check(row, types)
            self._seen.add(types)
        for i in self._floats:
            value = row[i]
            if value is not None and not math.isfinite(value):
                row = (*row[:i], str(value), *row[i + 1 :])
        line: bytes = self._encode(row)
        self.note(line)
        return line

    def decode(self, line: bytes) -> Row:
        """Return the row of a line. Raises msgspec.MsgspecError or ValueError for one that is none."""
        row: Row = self._decoder.decode(line)
        for i in self._floats:
            if type(row[i]) is str:
                row = (*row[:i], float(row[i]), *row[i + 1 :])
        self.note(line)
        return row

    def note(self, line: bytes) -> None:
        """Count a row."""
        self.count += 1
        self._sum = (self._sum + int.from_bytes(hashlib.sha256(line).digest(), "big")) % _MODULUS

    def _check(self, row: Row, types: tuple[type, ...]) -> None:
        for (name, kind), found, allowed in zip(self.columns.columns, types, self._allowed, strict=True):
            if found not in allowed:
                msg = f"table {self.columns.table}, row {row[0]!r}: {name} holds {found.__name__}, not {kind}"
                raise LedgerCorrupt(msg, hint="see what else is wrong: omnimind ledger check")


def kind_of(sql_type: str) -> str:
    """Return the kind of a column from its type in SQLite's or PostgreSQL's words."""
    word = sql_type.upper()
    if "INT" in word:
        return INT
    if "DOUBLE" in word or "REAL" in word or "FLOAT" in word:
        return FLOAT
    return TEXT if "TEXT" in word or "CHAR" in word else BYTES


def equal(ours: Columns, theirs: Columns) -> bool:
    """Return whether two tables have the same columns, in any order."""
    return ours.table == theirs.table and sorted(ours.columns) == sorted(theirs.columns)


def by_name(tables: Sequence[Columns]) -> dict[str, Columns]:
    """Return tables by their names."""
    return {columns.table: columns for columns in tables}
