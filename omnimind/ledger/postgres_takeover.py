"""Becoming the writer of a schema: make it, migrate it and raise its epoch, in one transaction."""

from __future__ import annotations

import logging

import psycopg
import sqlalchemy as sa

from omnimind.errors import LedgerError, LedgerFenced
from omnimind.failpoints import failpoint
from omnimind.ledger.migrate import HEAD, migrate, revision_of
from omnimind.ledger.postgres_connections import Connection, Connections
from omnimind.ledger.postgres_errors import as_ours, state_of
from omnimind.ledger.statements import TAKE_OVER

log = logging.getLogger("omnimind.ledger")

_LOCKED = "55P03"
_FIRST_WAIT, _LAST_WAIT = "1s", "5s"
_MIGRATION_SECONDS = 3600.0
"""A new schema may rewrite every row; whatever takes longer than this has been paused or cut off."""

_END_OTHERS = (
    "SELECT pid, pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE datname = current_database() AND usename = current_user AND pid <> pg_backend_pid()"
    " AND application_name = current_setting('application_name')"
)
_TABLES = (
    "SELECT count(*) FROM pg_class WHERE relnamespace = current_schema()::regnamespace AND relkind = 'r'"
)


def take_over(connections: Connections, after: int | None) -> int:
    """Connect the writer and return its epoch. after: the epoch that must have been the last one.

    Raises LedgerFenced when `after` is over. A predecessor that was paused inside a transaction holds
    locks: when waiting does not help, its session is ended.
    """
    connection = connections.connect_writer()
    where = str(connections.address)
    try:
        try:
            return _try(connections, connection, after, _FIRST_WAIT)
        except Exception as error:
            ours = as_ours(error, where)
            if state_of(_original(error)) != _LOCKED:
                raise ours from error
            connection.rollback()
            ended = connection.execute(_END_OTHERS).fetchall()
            connection.commit()
            log.warning("%s: ended the sessions of a predecessor: %s", where, [row[0] for row in ended])
            return _try(connections, connection, after, _LAST_WAIT)
    except psycopg.Error as error:
        raise as_ours(error, where) from error
    except sa.exc.DBAPIError as error:
        raise as_ours(error, where) from error


def _original(error: BaseException) -> BaseException:
    return error.orig if isinstance(error, sa.exc.DBAPIError) and error.orig is not None else error


def _try(connections: Connections, connection: Connection, after: int | None, wait: str) -> int:
    connection.autocommit = False
    engine = sa.create_engine(
        "postgresql+psycopg://",
        creator=lambda: connection,
        poolclass=sa.StaticPool,
        pool_reset_on_return=None,
    )
    try:
        with connections.working(connection), engine.connect() as database:
            database.exec_driver_sql(f"SET LOCAL lock_timeout TO '{wait}'")
            _make_schema(database, connections)
            if revision_of(database) != HEAD:
                database.exec_driver_sql("SET LOCAL statement_timeout TO 0")
                with connections.deadlines.within(connection, _MIGRATION_SECONDS):
                    migrate(database, str(connections.address))
            if after is not None:
                _refuse_if_over(database, after, str(connections.address))
            epoch: int = database.exec_driver_sql(TAKE_OVER).scalar_one()
            failpoint("ledger.before_takeover")
            database.commit()
    finally:
        if not connection.broken:
            connection.rollback()
            connection.autocommit = True
    return epoch


def _make_schema(database: sa.Connection, connections: Connections) -> None:
    """Make the schema unless it is there; only one at a time, and only where nothing else lives."""
    schema = connections.address.schema
    database.exec_driver_sql(f"SELECT pg_advisory_xact_lock(hashtext('omnimind'), hashtext('{schema}'))")
    there = database.exec_driver_sql(f"SELECT 1 FROM pg_namespace WHERE nspname = '{schema}'").scalar()
    if not there:
        database.exec_driver_sql(f'CREATE SCHEMA "{schema}"')
    elif database.exec_driver_sql("SELECT to_regclass('ledger') IS NULL").scalar_one():
        tables = database.exec_driver_sql(_TABLES).scalar_one()
        if tables:
            msg = f"{connections.address} holds {tables} tables of another program"
            raise LedgerError(msg, hint="name another database in ledger.url")


def _refuse_if_over(database: sa.Connection, after: int, where: str) -> None:
    epoch = database.exec_driver_sql("SELECT epoch FROM ledger WHERE id = 1 FOR UPDATE").scalar_one()
    if epoch != after:
        msg = f"epoch {after} of {where} is over: a newer coordinator owns it (epoch {epoch})"
        raise LedgerFenced(msg, hint="this coordinator must stop")
