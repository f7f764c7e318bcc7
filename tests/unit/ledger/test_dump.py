"""An export that is not what was written is refused, with the line; whatever was done to it."""

from __future__ import annotations

import random
import zlib
from contextlib import closing
from pathlib import Path

import pytest

from omnimind.config.sections import LedgerSettings
from omnimind.errors import BackupDamaged, LedgerError
from omnimind.ledger import transfer
from omnimind.ledger.dump import Reader
from omnimind.ledger.dump_rows import BYTES, FLOAT, INT, TEXT, Codec, Columns
from omnimind.ledger.opening import open_ledger
from omnimind.ledger.stores import quiet
from omnimind.testing.rows import a_task, inserts

HEADER = 10


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    home = tmp_path_factory.mktemp("home")
    ledger = open_ledger("", home)
    ledger.open(10)
    ledger.write(inserts(*(a_task(n, payload=random.Random(n).randbytes(900)) for n in range(1, 400))))
    ledger.close()
    with closing(transfer.store_of(LedgerSettings(), home)) as store:
        transfer.export(store, home / "x.omnimind", quiet)
    return (home / "x.omnimind").read_bytes()


def read(path: Path) -> int:
    return sum(1 for _ in Reader(path).items())


def refused(data: bytes, tmp_path: Path) -> BackupDamaged:
    """Let an import try, which must write nothing; return why it was refused."""
    path, home = tmp_path / "x.omnimind", tmp_path / "home"
    path.write_bytes(data)
    with pytest.raises(BackupDamaged) as caught:
        transfer.import_file(path, LedgerSettings(), home, quiet)
    assert sorted(p.name for p in home.iterdir()) == ["run"]
    return caught.value


def lines_of(data: bytes) -> list[bytes]:
    return zlib.decompress(data, 31).splitlines(keepends=True)


def zipped(lines: list[bytes]) -> bytes:
    packer = zlib.compressobj(wbits=31)
    return packer.compress(b"".join(lines)) + packer.flush()


def test_the_file_is_an_ordinary_gzip_of_lines(export: bytes, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(export)
    assert read(tmp_path / "x") > 20
    lines = lines_of(export)
    assert all(int(line[:8], 16) == zlib.crc32(line[9:-1]) for line in lines)
    # The same, however it was compressed.
    (tmp_path / "y").write_bytes(zipped(lines))
    assert read(tmp_path / "y") == read(tmp_path / "x")


@pytest.mark.parametrize("part", [0.0, 0.0001, 0.1, 0.5, 0.9, 0.9999])
def test_a_file_that_was_cut_is_refused(part: float, export: bytes, tmp_path: Path) -> None:
    error = refused(export[: int(len(export) * part)], tmp_path)
    assert "line" in error.message or "no export" in error.message


@pytest.mark.parametrize("seed", range(24))
def test_a_byte_that_was_altered_is_noticed(seed: int, export: bytes, tmp_path: Path) -> None:
    chance = random.Random(seed)
    at = chance.randrange(HEADER, len(export))
    data = bytearray(export)
    data[at] ^= 1 << chance.randrange(8)
    error = refused(bytes(data), tmp_path)
    assert error.details["line"] >= 1


@pytest.mark.parametrize(
    "what", ["altered", "doubled", "dropped", "swapped", "added", "moved", "cut in a line"]
)
def test_a_line_that_is_another_is_named(what: str, export: bytes, tmp_path: Path) -> None:
    lines = lines_of(export)
    n = next(i for i, line in enumerate(lines) if line[9:12] == b"[20")
    match what:
        case "altered":
            lines[n] = lines[n].replace(b"tests.noop", b"tests.evil")
        case "doubled":
            lines.insert(n, lines[n])
        case "dropped":
            del lines[n]
        case "swapped":
            lines[n], lines[n + 1] = lines[n + 1], lines[n]
        case "added":
            lines.append(lines[0])
        case "moved":
            lines.insert(1, lines.pop())
        case _:
            lines[-1] = lines[-1][:-5]
    error = refused(zipped(lines), tmp_path)
    if what == "altered":
        assert error.details["line"] == n + 1
    # A row that is there twice meets itself in the database, before the line that ends its table is reached.
    named = "contradict each other" if what == "doubled" else f"line {error.details['line']:,}"
    assert named in error.message


def test_an_altered_line_with_a_new_checksum_of_its_own_is_noticed_too(export: bytes, tmp_path: Path) -> None:
    lines = lines_of(export)
    n = next(i for i, line in enumerate(lines) if line[9:12] == b"[20")
    text = lines[n][9:-1].replace(b"tests.noop", b"tests.evil")
    lines[n] = b"%08x %b\n" % (zlib.crc32(text), text)
    assert "rows of tasks" in refused(zipped(lines), tmp_path).message


@pytest.mark.parametrize(
    "data", [b"", b"SQLite format 3\0" * 100, b"\x1f\x8b" + b"\0" * 50, zipped([b"x\n"])]
)
def test_what_is_no_export_is_refused(data: bytes, tmp_path: Path) -> None:
    refused(data, tmp_path)


@pytest.mark.parametrize("more", [b"\0", b"more", b"\x1f\x8b"])
def test_bytes_behind_the_end_are_refused(more: bytes, export: bytes, tmp_path: Path) -> None:
    assert "behind the end" in refused(export + more, tmp_path).message


COLUMNS = Columns("t", (("n", INT), ("f", FLOAT), ("s", TEXT), ("b", BYTES)))


@pytest.mark.parametrize(
    "row",
    [
        (1, 0.1 + 0.2, '\0\x1aä\U0001f600"\\\n', b"\0\xff"),
        (-(2**63), float("inf"), "", b""),
        (2**63 - 1, float("-inf"), None, None),
        (None, None, "null", b"null"),
        (0, 5e-324, "NaN", b"[]"),
        (0, -0.0, "inf", b"}"),
        (0, 1e308, "x" * 100_000, bytes(100_000)),
    ],
)
def test_a_row_comes_back_as_it_was(row: tuple[object, ...]) -> None:
    back = Codec(COLUMNS).decode(Codec(COLUMNS).encode(row))
    assert repr(back) == repr(row)


def test_a_digest_is_that_of_the_rows_in_any_order_and_of_no_others() -> None:
    rows = [(n, float(n), str(n), b"") for n in range(50)]
    one, other, doubled = Codec(COLUMNS), Codec(COLUMNS), Codec(COLUMNS)
    for row in rows:
        one.encode(row)
    for row in reversed(rows):
        other.encode(row)
    for row in [*rows[:-1], rows[0]]:
        doubled.encode(row)
    assert (one.digest, one.count) == (other.digest, other.count)
    assert one.digest != doubled.digest


def test_a_value_of_another_kind_is_not_made_one_of_its_column() -> None:
    with pytest.raises(LedgerError, match="s holds bytes, not text"):
        Codec(COLUMNS).encode((1, 1.0, b"bytes", b""))
