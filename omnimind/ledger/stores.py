"""Databases as things to read a ledger from and to write one to, whole: `Store` and `Sink`.

Not for work: a ledger at work is `interface.Ledger`. A store is one consistent moment of all its shards, for
as long as it is open. A sink shows nothing to anybody before `publish`, and leaves nothing without it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from importlib import metadata as metadata_of
from typing import Any, Protocol

import msgspec

from omnimind.errors import BackupDamaged, LedgerCorrupt, LedgerError, LedgerVersion
from omnimind.ledger.dump import Closed, Head, Item, Opened, Rows
from omnimind.ledger.dump_rows import Codec, Columns, Row, by_name, equal
from omnimind.ledger.schema import metadata

Progress = Callable[[str, int, int], None]
"""Told what is being done, how much of it is done, and how much it is altogether."""

EPOCH_LEAP = 1_000
"""By how much a restored ledger's epoch is above all it came from: more coordinators than the cluster it was
copied from can have had since. So no fence that was granted there is ever granted again."""

NO_WORK = frozenset({"alembic_version", "audit", "layout", "ledger", "nodes"})
"""Tables in which a ledger that was never worked with may have rows."""

PORTION = 500
"""Rows that are held at a time."""


class Store(Protocol):
    """A ledger to read from. where: for people. kind: ``sqlite`` or ``postgresql``."""

    kind: str
    where: str

    @property
    def shards(self) -> Sequence[int]:
        """Return the shards that are there, in order; none where there is no ledger."""

    def revision(self, shard: int) -> str:
        """Return the revision of a shard's schema."""

    def tables(self, shard: int) -> list[Columns]:
        """Return the tables with their columns, in the order of their names."""

    def rows(self, shard: int, columns: Columns) -> Iterator[list[Row]]:
        """Yield the rows of a table, some at a time."""

    def ask(self, shard: int, statement: str) -> list[Row]:
        """Return the rows of a query that both databases understand."""

    def close(self) -> None:
        """Let go of the moment."""


class Sink(Protocol):
    """An empty place for a ledger. where: for people."""

    where: str

    def make(self, shard: int, revision: str) -> None:
        """Make the empty tables of a shard, at a revision."""

    def write(self, shard: int, columns: Columns, rows: list[Row]) -> None:
        """Add rows to a table."""

    def written(self) -> Store:
        """Return what was written, read back from where it was written to."""

    def finish(self, shard: int, epoch: int, note: Row) -> None:
        """Bring a shard to the present schema, set its epoch, and enter `note` in its audit."""

    def publish(self) -> None:
        """Let it be the ledger, durably."""

    def abandon(self) -> None:
        """Leave nothing; after `publish` this does nothing."""


def revision_of(store: Store) -> str:
    """Return the revision of all shards. Raises LedgerVersion when they are not at the same one."""
    found = {shard: store.revision(shard) for shard in store.shards}
    if len(set(found.values())) != 1:
        told = ", ".join(f"shard {shard} at {revision}" for shard, revision in found.items())
        raise LedgerVersion(
            f"{store.where}: the shards have different schemas ({told})", hint="omnimind ledger migrate"
        )
    return next(iter(found.values()))


def epoch_of(store: Store) -> int:
    """Return the highest epoch of a ledger's shards, 0 where there is none."""
    return max(
        (int(store.ask(s, "SELECT epoch FROM ledger WHERE id = 1")[0][0]) for s in store.shards), default=0
    )


def counts(store: Store) -> dict[int, dict[str, int]]:
    """Return how many rows each table of each shard has."""
    return {
        shard: {
            columns.table: int(store.ask(shard, f"SELECT count(*) FROM {columns.table}")[0][0])
            for columns in store.tables(shard)
        }
        for shard in store.shards
    }


def work_in(store: Store) -> dict[str, int]:
    """Return the tables that hold work, with their rows; nothing for a ledger that was never worked with."""
    found: dict[str, int] = {}
    for tables in counts(store).values():
        for table, rows in tables.items():
            if rows and table not in NO_WORK:
                found[table] = found.get(table, 0) + rows
    return found


def items_of(store: Store, progress: Progress) -> Iterator[Item]:
    """Yield a ledger's items. Raises LedgerCorrupt for a table that this OmniMind does not know."""
    yield Head(
        schema=revision_of(store),
        shards=list(store.shards),
        omnimind=version_here(),
        made_at=time.time(),
        source=store.kind,
    )
    total = sum(sum(tables.values()) for tables in counts(store).values())
    done = 0
    for shard in store.shards:
        for columns in store.tables(shard):
            if columns.table not in metadata.tables:
                msg = f"{store.where} holds a table of another program: {columns.table}"
                raise LedgerCorrupt(msg, hint="move that table away")
            yield Opened(columns.table, shard, list(columns.columns))
            codec = Codec(columns)
            for rows in store.rows(shard, columns):
                lines = [codec.encode(row) for row in rows]
                yield Rows(rows, lines)
                done += len(rows)
                progress("reading", done, max(total, done))
            yield Closed(columns.table, shard, codec.count, codec.digest)


class Poured(msgspec.Struct):
    """What was written: the head, and how each table looks and ends, by shard and name."""

    head: Head
    shapes: dict[tuple[int, str], Columns]
    ends: dict[tuple[int, str], Closed]

    @property
    def counts(self) -> dict[str, int]:
        """Return rows by table, over all shards."""
        found: dict[str, int] = {}
        for (_, table), closed in self.ends.items():
            found[table] = found.get(table, 0) + closed.count
        return found


def pour(items: Iterator[Item], sink: Sink, known: Sequence[str], progress: Progress) -> Poured:
    """Write items to a sink and prove by reading it back that they are there; `publish` is the caller's.

    known: the revisions that this OmniMind can make. Raises LedgerVersion, BackupDamaged, LedgerCorrupt.
    """
    head = next(items)
    assert isinstance(head, Head)
    if head.schema not in known:
        msg = f"its ledger had schema {head.schema}, which is newer than this OmniMind's {known[-1]}"
        raise LedgerVersion(msg, hint="upgrade OmniMind: pip install --upgrade omnimind-runtime")
    for shard in head.shards:
        sink.make(shard, head.schema)
    with closing(sink.written()) as empty:
        made = {shard: by_name(empty.tables(shard)) for shard in head.shards}
    poured = Poured(head, {}, {})
    current: Opened | None = None
    for item in items:
        match item:
            case Opened():
                current = item
                ours = made.get(item.shard, {}).get(item.table)
                if ours is None or not equal(ours, item.shape):
                    msg = f"table {item.table} of shard {item.shard} is not what schema {head.schema} has"
                    raise BackupDamaged(msg)
                poured.shapes[item.shard, item.table] = item.shape
            case Rows():
                assert current is not None
                _write(sink, current, item.rows)
            case Closed():
                poured.ends[item.shard, item.end] = item
            case Head():
                raise BackupDamaged("it has two heads")
    missing = [f"{t} of shard {s}" for s, tables in made.items() for t in tables if (s, t) not in poured.ends]
    if missing:
        raise BackupDamaged(f"these tables are not in it: {', '.join(missing)}")
    with closing(sink.written()) as written:
        prove(written, poured, progress)
    return poured


def _write(sink: Sink, opened: Opened, rows: list[Row]) -> None:
    try:
        sink.write(opened.shard, opened.shape, rows)
    except LedgerError as error:
        if "UNIQUE" in error.message:
            msg = f"rows of {opened.table} contradict each other: {error.message}"
            raise BackupDamaged(msg) from error
        raise


def prove(store: Store, poured: Poured, progress: Progress) -> None:
    """Raise LedgerCorrupt unless each table holds just the rows that were poured into it."""
    total = sum(closed.count for closed in poured.ends.values())
    done = 0
    for (shard, table), closed in poured.ends.items():
        shape = poured.shapes[shard, table]
        codec = Codec(shape)
        for rows in store.rows(shard, shape):
            for row in rows:
                codec.encode(row)
            done += len(rows)
            progress("verifying", done, max(total, done))
        if (codec.count, codec.digest) != (closed.count, closed.sha256):
            msg = (
                f"{store.where}: {table} holds {codec.count:,} rows that are not the {closed.count:,}"
                " that were to be written"
            )
            raise LedgerCorrupt(msg, hint="nothing was changed; check the disk, and try again")


def version_here() -> str:
    """Return the version of OmniMind that runs, empty in a checkout that is not installed."""
    try:
        return metadata_of.version("omnimind-runtime")
    except metadata_of.PackageNotFoundError:
        return ""


def quiet(_what: str, _done: int, _total: int) -> None:
    """Tell nobody."""


def one(rows: list[Any]) -> Any:
    """Return the only value of the only row."""
    return rows[0][0]
