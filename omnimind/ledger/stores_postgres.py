"""A ledger in PostgreSQL, read whole and written whole: all shards in one transaction of one connection."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import psycopg
import sqlalchemy as sa

from omnimind.config.sections import LedgerSettings
from omnimind.errors import Conflict
from omnimind.failpoints import failpoint
from omnimind.ledger.dump_rows import TEXT, Columns, Row, kind_of
from omnimind.ledger.migrate import migrate
from omnimind.ledger.postgres_address import Address
from omnimind.ledger.postgres_errors import as_ours
from omnimind.ledger.postgres_pack import MARK, escape, unescape
from omnimind.ledger.stores import PORTION

Connection = psycopg.Connection[Any]

_SCHEMA = re.compile(r"omnimind(?:_([1-9]\d*))?")
_SCHEMAS = (
    "SELECT nspname FROM pg_namespace WHERE nspname ~ '^omnimind(_[1-9][0-9]*)?$'"
    " AND to_regclass(format('%I.ledger', nspname)) IS NOT NULL"
)
_COLUMNS = (
    "SELECT column_name, data_type FROM information_schema.columns"
    " WHERE table_schema = %s AND table_name = %s ORDER BY ordinal_position"
)
_TABLES = (
    "SELECT relname FROM pg_class WHERE relnamespace = %s::regnamespace AND relkind = 'r'"
    " AND relname <> 'alembic_version' ORDER BY relname COLLATE \"C\""
)
_OWNERS = (
    "SELECT pid, coalesce(client_addr::text, 'this host') FROM pg_stat_activity"
    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    " AND application_name ~ '^omnimind(_[1-9][0-9]*)? writer$'"
)
_SERIALS = (
    "SELECT a.attrelid::regclass::text, a.attname FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid"
    " WHERE c.relnamespace = %s::regnamespace AND c.relkind = 'r' AND a.attnum > 0 AND NOT a.attisdropped"
    " AND pg_get_serial_sequence(a.attrelid::regclass::text, a.attname) IS NOT NULL"
)
_AUDIT = "INSERT INTO audit (at, actor, verb, subject, detail) VALUES (%s, %s, %s, %s, %s)"


def connect(settings: LedgerSettings, role: str) -> Connection:
    """Return a connection that stands outside of any transaction, and waits for nobody's lock for long."""
    address = Address(settings)
    connection: Connection | None = None
    try:
        connection = psycopg.connect(**address.parameters(role), autocommit=True)
        connection.execute("SET statement_timeout TO 0")
        connection.execute("SET lock_timeout TO '10s'")
        connection.execute("SET jit TO off")
    except psycopg.Error as error:
        if connection is not None:
            connection.close()
        raise as_ours(error, str(address)) from error
    return connection


def schema_of(shard: int) -> str:
    """Return the schema of a shard."""
    return f"omnimind_{shard}" if shard else "omnimind"


def owners(settings: LedgerSettings) -> list[str]:
    """Return the sessions of coordinators that own the ledger now, for people."""
    connection = connect(settings, "look")
    try:
        found = connection.execute(_OWNERS).fetchall()
    except psycopg.Error as error:
        raise as_ours(error, Address(settings).where) from error
    finally:
        connection.close()
    return [f"session {pid} from {client}" for pid, client in found]


class PostgresStore:
    """One moment of all shards; with `connection` what that connection sees inside its transaction."""

    kind = "postgresql"

    def __init__(self, settings: LedgerSettings, connection: Connection | None = None) -> None:
        self.where = f"PostgreSQL at {Address(settings).where}"
        self._own = connection is None
        self._connection = connect(settings, "reader of all") if connection is None else connection
        try:
            if self._own:
                self._connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            names = [row[0] for row in self._connection.execute(_SCHEMAS).fetchall()]
        except psycopg.Error as error:
            self.close()
            raise as_ours(error, self.where) from error
        self._shards = sorted(int(m[1] or 0) for name in names if (m := _SCHEMA.fullmatch(name)))

    @property
    def shards(self) -> Sequence[int]:
        """Return the shards that are there, in order."""
        return self._shards

    def revision(self, shard: int) -> str:
        return str(self.ask(shard, "SELECT version_num FROM alembic_version")[0][0])

    def tables(self, shard: int) -> list[Columns]:
        schema = schema_of(shard)
        try:
            names = [row[0] for row in self._connection.execute(_TABLES, (schema,)).fetchall()]
            return [
                Columns(
                    name,
                    tuple((c, kind_of(t)) for c, t in self._connection.execute(_COLUMNS, (schema, name))),
                )
                for name in names
            ]
        except psycopg.Error as error:
            raise as_ours(error, self.where) from error

    def rows(self, shard: int, columns: Columns) -> Iterator[list[Row]]:
        texts = any(kind == TEXT for _, kind in columns.columns)
        names = ", ".join(f'"{name}"' for name in columns.names)
        statement = f'SELECT {names} FROM {schema_of(shard)}."{columns.table}"'
        try:
            with self._connection.cursor("rows") as cursor:
                cursor.execute(statement.encode(), binary=True)
                while rows := cursor.fetchmany(PORTION):
                    yield [_unescaped(row) for row in rows] if texts else rows
        except psycopg.Error as error:
            raise as_ours(error, self.where) from error

    def ask(self, shard: int, statement: str) -> list[Row]:
        try:
            self._connection.execute(f"SET search_path TO {schema_of(shard)}".encode())
            found = self._connection.execute(statement.encode(), binary=True).fetchall()
        except psycopg.Error as error:
            raise as_ours(error, self.where) from error
        return [_unescaped(row) for row in found]

    def close(self) -> None:
        if self._own:
            self._connection.close()


def _unescaped(row: Row) -> Row:
    for value in row:
        if type(value) is str and MARK in value:
            return tuple(unescape(v) if type(v) is str else v for v in row)
    return row


class PostgresSink:
    """New schemas in a database, made and filled in one transaction: until it is committed nobody sees any.

    aside: what to call the schemas that are there now, for `{aside}_omnimind`; None when none may be there.
    """

    def __init__(self, settings: LedgerSettings, aside: str | None = None) -> None:
        self.where = f"PostgreSQL at {Address(settings).where}"
        self._settings = settings
        self._connection = connect(settings, "writer of all")
        self._types: dict[tuple[int, str], list[str]] = {}
        try:
            self._connection.execute("BEGIN")
            self._connection.execute(
                "SELECT pg_advisory_xact_lock(hashtext('omnimind'), hashtext('omnimind'))"
            )
            self._move_aside(aside)
        except psycopg.Error as error:
            self._connection.close()
            raise as_ours(error, self.where) from error
        except BaseException:
            self._connection.close()
            raise

    def _move_aside(self, aside: str | None) -> None:
        there = PostgresStore(self._settings, self._connection).shards
        if there and aside is None:
            raise Conflict(f"{self.where} has a ledger already: schema {schema_of(there[0])}")
        for shard in there:
            schema = schema_of(shard)
            # Who wants to write to it waits here, and finds no ledger afterwards.
            self._connection.execute(f"SELECT epoch FROM {schema}.ledger WHERE id = 1 FOR UPDATE".encode())
            self._connection.execute(f'ALTER SCHEMA {schema} RENAME TO "{aside}_{schema}"'.encode())

    def make(self, shard: int, revision: str) -> None:
        schema = schema_of(shard)
        try:
            self._connection.execute(f"CREATE SCHEMA IF NOT EXISTS {schema}".encode())
            _migrate(self._connection, schema, self.where, revision)
            for columns in PostgresStore(self._settings, self._connection).tables(shard):
                self._connection.execute(f'DELETE FROM {schema}."{columns.table}"'.encode())
        except (psycopg.Error, sa.exc.DBAPIError) as error:
            raise as_ours(error, self.where) from error

    def write(self, shard: int, columns: Columns, rows: list[Row]) -> None:
        names = ", ".join(f'"{name}"' for name in columns.names)
        table = f'{schema_of(shard)}."{columns.table}"'
        texts = [i for i, (_, kind) in enumerate(columns.columns) if kind == TEXT]
        try:
            types = self._types_of(shard, columns)
            with self._connection.cursor() as cursor:
                text = f"COPY {table} ({names}) FROM STDIN (FORMAT BINARY)"
                with cursor.copy(text.encode()) as copying:
                    copying.set_types(types)
                    for row in rows:
                        copying.write_row(_escaped(row, texts))
        except psycopg.Error as error:
            raise as_ours(error, self.where) from error
        failpoint("transfer.after_rows")

    def _types_of(self, shard: int, columns: Columns) -> list[str]:
        key = (shard, columns.table)
        if key not in self._types:
            found = self._connection.execute(_COLUMNS, (schema_of(shard), columns.table)).fetchall()
            kinds = dict(found)
            self._types[key] = [_SHORT[kinds[name]] for name in columns.names]
        return self._types[key]

    def written(self) -> PostgresStore:
        return PostgresStore(self._settings, self._connection)

    def finish(self, shard: int, epoch: int, note: Row) -> None:
        schema = schema_of(shard)
        try:
            _migrate(self._connection, schema, self.where)
            self._connection.execute(f"SET LOCAL search_path TO {schema}".encode())
            self._connection.execute("UPDATE ledger SET epoch = %s WHERE id = 1", (epoch,))
            for table, column in self._connection.execute(_SERIALS, (schema,)).fetchall():
                # Rows brought their own numbers: the next ones go on from there.
                text = (
                    f"SELECT setval(pg_get_serial_sequence('{table}', '{column}'),"
                    f" (SELECT coalesce(max({column}), 0) + 1 FROM {table}), false)"
                )
                self._connection.execute(text.encode())
            self._connection.execute(_AUDIT, tuple(escape(v) if isinstance(v, str) else v for v in note))
        except (psycopg.Error, sa.exc.DBAPIError) as error:
            raise as_ours(error, self.where) from error

    def publish(self) -> None:
        failpoint("transfer.before_publish")
        try:
            self._connection.execute("SET LOCAL synchronous_commit TO on")
            self._connection.execute("COMMIT")
        except psycopg.Error as error:
            raise as_ours(error, self.where) from error
        failpoint("transfer.after_publish")
        self._connection.close()

    def abandon(self) -> None:
        # The server undoes what was not committed.
        self._connection.close()


_SHORT = {
    "bigint": "int8",
    "integer": "int4",
    "smallint": "int2",
    "double precision": "float8",
    "text": "text",
    "bytea": "bytea",
}


def _escaped(row: Row, texts: list[int]) -> Row:
    for i in texts:
        value = row[i]
        if value is not None and (escaped := escape(value)) is not value:
            row = (*row[:i], escaped, *row[i + 1 :])
    return row


def bring(settings: LedgerSettings, shard: int) -> str | None:
    """Bring a shard's schema to the present revision; return the revision of before."""
    connection = connect(settings, "writer of all")
    try:
        connection.execute("BEGIN")
        found = _migrate(connection, schema_of(shard), Address(settings, shard).where)
        connection.execute("COMMIT")
    except (psycopg.Error, sa.exc.DBAPIError) as error:
        raise as_ours(error, Address(settings, shard).where) from error
    finally:
        connection.close()
    return found


def _migrate(connection: Connection, schema: str, where: str, target: str | None = None) -> str | None:
    """Run the missing revisions inside the connection's transaction, which stays open."""
    connection.execute(f"SET LOCAL search_path TO {schema}".encode())
    engine = sa.create_engine(
        "postgresql+psycopg://",
        creator=lambda: connection,
        poolclass=sa.StaticPool,
        pool_reset_on_return=None,
    )
    # The transaction is the caller's: SQLAlchemy may neither commit nor undo it.
    for name in ("do_commit", "do_rollback"):
        setattr(engine.dialect, name, _leave)
    with engine.connect() as database:
        return migrate(database, where) if target is None else migrate(database, where, target)


def _leave(_connection: Any) -> None:
    """Do nothing."""
