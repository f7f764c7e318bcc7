"""A ledger in SQLite files, read whole and written whole."""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from omnimind.errors import Conflict, LedgerError
from omnimind.failpoints import failpoint
from omnimind.ledger.dump_rows import Columns, Row, kind_of
from omnimind.ledger.migrate import migrate
from omnimind.ledger.opening import sqlite_path
from omnimind.ledger.schema import APPLICATION_ID
from omnimind.ledger.sqlite_errors import as_ours
from omnimind.ledger.sqlite_files import PRIVATE, sync_folder
from omnimind.ledger.statements import INSERT_AUDIT
from omnimind.ledger.stores import PORTION

_SHARD = re.compile(r"ledger(?:-([1-9]\d*))?\.db")
_INCOMING = ".incoming"
_COMPANIONS = ("", "-wal", "-shm")


def files_in(home: Path) -> dict[int, Path]:
    """Return the ledger's files in a folder by their shards."""
    found = {}
    with contextlib.suppress(FileNotFoundError):
        for path in home.iterdir():
            if match := _SHARD.fullmatch(path.name):
                found[int(match[1] or 0)] = path
    return dict(sorted(found.items()))


def connect(path: Path, *, read_only: bool, still: bool = False) -> sqlite3.Connection:
    """Return a connection to a ledger's file that exists. Raises LedgerError for another program's.

    still: the file is written to by nobody, and nothing may be made beside it.
    """
    how = "mode=ro&immutable=1" if still else "mode=rw"
    try:
        connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?{how}", uri=True, timeout=10.0, isolation_level=None
        )
        try:
            for pragma in ("trusted_schema = OFF", "cell_size_check = ON", f"query_only = {int(read_only)}"):
                connection.execute(f"PRAGMA {pragma}")
            mark = connection.execute("PRAGMA application_id").fetchone()[0]
            tables = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
        except BaseException:
            connection.close()
            raise
    except sqlite3.Error as error:
        raise as_ours(error, path) from error
    if mark != APPLICATION_ID and (mark or tables):
        connection.close()
        msg = f"{path} is a database of another program"
        raise LedgerError(msg, hint="name another file or home", path=str(path))
    return connection


class SqliteStore:
    """One moment of a ledger's files. Writers go on meanwhile; their log grows until it is closed.

    still: the files are copies that nobody writes to.
    """

    kind = "sqlite"

    def __init__(self, files: Mapping[int, Path], where: str = "", *, still: bool = False) -> None:
        self.where = where or ", ".join(map(str, files.values())) or "an empty home"
        self._files = dict(files)
        self._open: dict[int, sqlite3.Connection] = {}
        path = Path()
        try:
            for shard, path in self._files.items():
                if is_ledger(path, still=still):
                    connection = self._open[shard] = connect(path, read_only=True, still=still)
                    connection.execute("BEGIN")
                    connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        except sqlite3.Error as error:
            self.close()
            raise as_ours(error, path) from error
        except BaseException:
            self.close()
            raise

    @property
    def shards(self) -> Sequence[int]:
        """Return the shards that are there, in order."""
        return list(self._open)

    def connection(self, shard: int) -> sqlite3.Connection:
        """Return the connection that holds a shard's moment."""
        return self._open[shard]

    def path(self, shard: int) -> Path:
        """Return a shard's file."""
        return self._files[shard]

    def revision(self, shard: int) -> str:
        return str(self.ask(shard, "SELECT version_num FROM alembic_version")[0][0])

    def tables(self, shard: int) -> list[Columns]:
        found = []
        for (name,) in self.ask(
            shard,
            "SELECT name FROM sqlite_schema WHERE type = 'table'"
            " AND name NOT IN ('alembic_version', 'sqlite_sequence', 'sqlite_stat1', 'sqlite_stat4')"
            " ORDER BY name",
        ):
            columns = self.ask(shard, f"SELECT name, type FROM pragma_table_info('{name}')")
            found.append(Columns(name, tuple((column, kind_of(kind)) for column, kind in columns)))
        return found

    def rows(self, shard: int, columns: Columns) -> Iterator[list[Row]]:
        names = ", ".join(f'"{name}"' for name in columns.names)
        try:
            cursor = self._open[shard].execute(f'SELECT {names} FROM "{columns.table}"')
            while rows := cursor.fetchmany(PORTION):
                yield rows
        except sqlite3.Error as error:
            raise as_ours(error, self._files[shard]) from error

    def ask(self, shard: int, statement: str) -> list[Row]:
        try:
            return self._open[shard].execute(statement).fetchall()
        except sqlite3.Error as error:
            raise as_ours(error, self._files[shard]) from error

    def close(self) -> None:
        for connection in self._open.values():
            connection.close()
        self._open.clear()


def is_ledger(path: Path, *, still: bool = False) -> bool:
    """Return whether a file has anything in it: an empty one was made, and its maker died."""
    try:
        connection = connect(path, read_only=True, still=still)
        try:
            return bool(connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'ledger'").fetchone())
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise as_ours(error, path) from error


class SqliteSink:
    """New files in a home. They are built beside their places, and move there when they are proven.

    aside: folder for what stands in those places now; None when nothing may stand there.
    """

    def __init__(self, home: Path, aside: Path | None = None) -> None:
        self.where = str(home)
        self._home = home
        self._aside = aside
        self._writers: dict[int, sqlite3.Connection] = {}
        self._published = False
        sweep(home)

    def incoming(self, shard: int) -> Path:
        """Return where a shard's file is built."""
        return incoming(self._home, shard)

    def make(self, shard: int, revision: str) -> None:
        path = self.incoming(shard)
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, PRIVATE))
            connection = sqlite3.connect(path, isolation_level=None)
            self._writers[shard] = connection
            # Nobody sees the file before it is whole, so that a crash in between needs no repair.
            for pragma in (
                "journal_mode = MEMORY",
                "synchronous = OFF",
                f"application_id = {APPLICATION_ID}",
            ):
                connection.execute(f"PRAGMA {pragma}")
            _migrate(connection, path, revision)
            for (name,) in connection.execute(
                "SELECT name FROM sqlite_schema WHERE type = 'table'"
            ).fetchall():
                if name != "alembic_version":
                    connection.execute(f'DELETE FROM "{name}"')
        except (sqlite3.Error, sa.exc.DBAPIError) as error:
            raise as_ours(error, path) from error

    def adopt(self, shard: int) -> None:
        """Go on with a file that was copied to `incoming`."""
        self._writers[shard] = connect(self.incoming(shard), read_only=False)

    def write(self, shard: int, columns: Columns, rows: list[Row]) -> None:
        names = ", ".join(f'"{name}"' for name in columns.names)
        places = ", ".join("?" * len(columns.names))
        connection = self._writers[shard]
        try:
            if not connection.in_transaction:
                connection.execute("BEGIN")
            connection.executemany(f'INSERT INTO "{columns.table}" ({names}) VALUES ({places})', rows)
        except sqlite3.Error as error:
            raise as_ours(error, self.incoming(shard)) from error
        failpoint("transfer.after_rows")

    def written(self) -> SqliteStore:
        for shard, connection in self._writers.items():
            try:
                if connection.in_transaction:
                    connection.execute("COMMIT")
            except sqlite3.Error as error:
                raise as_ours(error, self.incoming(shard)) from error
        return SqliteStore({shard: self.incoming(shard) for shard in self._writers})

    def finish(self, shard: int, epoch: int, note: Row) -> None:
        connection, path = self._writers[shard], self.incoming(shard)
        try:
            if connection.in_transaction:
                connection.execute("COMMIT")
            _migrate(connection, path)
            connection.execute("UPDATE ledger SET epoch = ? WHERE id = 1", (epoch,))
            connection.execute(INSERT_AUDIT, note)
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            connection.close()
        except (sqlite3.Error, sa.exc.DBAPIError) as error:
            raise as_ours(error, path) from error

    def publish(self) -> None:
        for shard in self._writers:
            sync_file(self.incoming(shard))
        failpoint("transfer.before_publish")
        self._move_aside()
        # Shard 0 last: without it the others are no ledger.
        for shard in sorted(self._writers, reverse=True):
            place = sqlite_path(self._home, shard)
            if place.exists():
                raise Conflict(
                    f"{place} has just been made by somebody else", hint="stop that, and try again"
                )
            self.incoming(shard).rename(place)
            failpoint("transfer.after_publish")
        sync_folder(self._home)
        self._published = True

    def _move_aside(self) -> None:
        there = files_in(self._home)
        if not there:
            return
        if self._aside is None:
            raise Conflict(f"{self._home} has a ledger already: {next(iter(there.values()))}")
        self._aside.mkdir(mode=0o700, parents=True)
        # Shard 0 first: a home that is left halfway has no ledger.
        for path in there.values():
            for suffix in _COMPANIONS:
                with contextlib.suppress(FileNotFoundError):
                    Path(f"{path}{suffix}").rename(self._aside / f"{path.name}{suffix}")
        sync_folder(self._aside)
        sync_folder(self._home)

    def abandon(self) -> None:
        for connection in self._writers.values():
            connection.close()
        if not self._published:
            sweep(self._home)


def incoming(home: Path, shard: int) -> Path:
    """Return where a shard's file is built before it is the ledger."""
    place = sqlite_path(home, shard)
    return place.with_name(f".{place.name}{_INCOMING}")


def sweep(home: Path) -> None:
    """Remove what an import or a restore that was killed has left. The caller owns the home."""
    with contextlib.suppress(FileNotFoundError):
        for path in home.glob(f".ledger*{_INCOMING}*"):
            path.unlink(missing_ok=True)


def bring(path: Path, target: str | None = None) -> str | None:
    """Bring a file to the present schema; return the revision of before. The caller owns the home."""
    connection = connect(path, read_only=False)
    try:
        return _migrate(connection, path, target)
    except (sqlite3.Error, sa.exc.DBAPIError) as error:
        raise as_ours(error, path) from error
    finally:
        connection.close()


def _migrate(connection: sqlite3.Connection, path: Path, target: str | None = None) -> str | None:
    engine = sa.create_engine(
        "sqlite://", creator=lambda: connection, poolclass=sa.StaticPool, pool_reset_on_return=None
    )
    with engine.connect() as database:
        database.exec_driver_sql("BEGIN IMMEDIATE")
        try:
            found = migrate(database, str(path)) if target is None else migrate(database, str(path), target)
            database.commit()
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
    return found


def sync_file(path: Path) -> None:
    """Make sure of a file's bytes."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def copy(source: sqlite3.Connection, path: Path, pages: int, progress: Any) -> None:
    """Copy the moment that `source` holds to a new file, `pages` at a time. Raises one of our errors.

    `source` stands in a read transaction: so it is one moment, however long it takes, and no commit makes it
    begin again.
    """
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, PRIVATE))
        target = sqlite3.connect(path, isolation_level=None)
        try:
            target.execute("PRAGMA synchronous = OFF")  # The whole file is synced at the end.
            source.backup(target, pages=pages, progress=progress, sleep=0.0)
        finally:
            target.close()
        sync_file(path)
    except sqlite3.Error as error:
        raise as_ours(error, path) from error
