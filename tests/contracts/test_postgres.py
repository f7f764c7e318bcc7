"""What only PostgreSQL's ledger has: addresses, secrets, refusals with their mend, sessions, plans."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from omnimind.config.sections import LedgerSettings
from omnimind.errors import (
    ConfigError,
    LedgerError,
    LedgerFenced,
    LedgerFull,
    LedgerUnavailable,
    OmniMindError,
)
from omnimind.ledger import postgres_connections, schema
from omnimind.ledger.opening import open_ledger
from omnimind.ledger.postgres import PostgresLedger
from omnimind.ledger.postgres_address import Address
from omnimind.ledger.postgres_pack import escape, unescape
from omnimind.testing.postgres import PASSWORD, PostgresServer
from omnimind.testing.rows import a_task, ended, id_of, inserts, row, updates

NOWHERE = Path()


@pytest.fixture
def url(new_database: Callable[[], str]) -> str:
    return new_database()


def ledger_at(url: str, **more: Any) -> PostgresLedger:
    ledger = open_ledger(LedgerSettings(url=url, **more), NOWHERE)
    assert isinstance(ledger, PostgresLedger)
    return ledger


@contextlib.contextmanager
def opened(url: str, **more: Any) -> Iterator[PostgresLedger]:
    ledger = ledger_at(url, **more)
    try:
        ledger.open(10)
        yield ledger
    finally:
        ledger.close()


def refused(url: str, **more: Any) -> OmniMindError:
    """Return the error of an opening; whatever it is, it says what to do."""
    with pytest.raises(OmniMindError) as found, opened(url, **more):
        pass
    assert found.value.hint
    return found.value


# -------------------------------------------------------------------------------------------- addresses


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("mysql://u@h/d", "no PostgreSQL url"),
        ("ledger.db", "no PostgreSQL url"),
        ("postgresql://u@h", "no database"),
        ("postgresql://u:hidden@h/d", "password"),
        ("postgresql://u@h/d?password=hidden", "password"),
        ("postgresql://u@h/d?nonsense=hidden", "cannot read"),
        ("postgresql://u@[h/d", "cannot read"),
    ],
)
def test_a_url_that_will_not_do_is_refused_without_its_secret(url: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as found:
        ledger_at(url)
    assert "hidden" not in str(found.value)
    assert found.value.__cause__ is None


def test_what_is_shown_names_host_database_and_schema_only() -> None:
    address = Address(LedgerSettings(url="postgresql://me@a:1,b:2/db?sslmode=require"), shard=3)
    assert str(address) == "PostgreSQL at a:1,b:2/db, schema omnimind_3"
    given = address.parameters("writer")
    assert (given["host"], given["port"], given["sslmode"]) == ("a,b", "1,2", "require")
    assert given["target_session_attrs"] == "read-write"
    assert given["tcp_user_timeout"] == 5000


def test_a_password_file_must_be_private_and_not_empty(url: str, tmp_path: Path) -> None:
    file = tmp_path / "secret"
    assert "cannot be read" in refused(url, password_file=str(file)).message
    file.write_text("\n")
    file.chmod(0o600)
    assert "empty" in refused(url, password_file=str(file)).message
    file.write_text("x\n")
    file.chmod(0o640)
    assert "others may read" in refused(url, password_file=str(file)).message


@pytest.mark.parametrize("text", ["", "plain", "\0", "\x1a", "\x1a0", "\x1a1", "a\0\x1a\0b", "\x1a\x1a0\0"])
def test_texts_come_back_whatever_is_in_them(text: str) -> None:
    stored = escape(text)
    assert "\0" not in stored
    assert unescape(stored) == text
    assert escape(text + "more").startswith(stored)


# --------------------------------------------------------------------------------------------- refusals


@pytest.fixture
def guarded(own_server: Callable[..., PostgresServer]) -> Iterator[PostgresServer]:
    with own_server(password=True).running() as server:
        yield server


def test_a_wrong_password_and_a_right_one(guarded: PostgresServer, tmp_path: Path) -> None:
    secret = tmp_path / "ours"
    secret.touch(mode=0o600)
    secret.write_text("wrong")
    error = refused(guarded.url(), password_file=str(secret))
    assert isinstance(error, LedgerUnavailable)
    assert "password is wrong" in error.message
    assert "wrong" not in error.message.replace("password is wrong", "")
    assert "password" in refused(guarded.url()).message
    secret.write_text(PASSWORD + "\n")
    with opened(guarded.url(), password_file=str(secret)) as ledger:
        assert ledger.epoch == 1


def test_each_thing_that_is_missing_has_its_mend(postgres: PostgresServer, url: str) -> None:
    assert "database does not exist" in refused(postgres.url("nowhere")).message
    assert "user does not exist" in refused(postgres.url(user="nobody-here")).message
    closed = url.replace(f":{postgres.port}/", ":1/")
    error = refused(closed)
    assert "nothing listens" in error.message
    assert error.retry_after
    assert "resolved" in refused(url.replace("127.0.0.1", "no-such-host.invalid")).message
    database = url.rpartition("/")[2]
    postgres.execute("CREATE ROLE plain LOGIN")
    error = refused(postgres.url(database, user="plain"))
    assert "may not do that" in error.message
    assert "GRANT CREATE" in (error.hint or "")
    postgres.execute(f'GRANT CREATE ON DATABASE "{database}" TO plain')
    with opened(postgres.url(database, user="plain")):
        pass
    postgres.execute("CREATE ROLE counted LOGIN CONNECTION LIMIT 1")
    postgres.execute(f'GRANT CREATE ON DATABASE "{database}" TO counted')
    with psycopg.connect(postgres.url(database, user="counted")):
        assert "connections it may have" in refused(postgres.url(database, user="counted")).message


def test_a_server_that_is_too_old_or_stores_no_utf8_is_refused(
    postgres: PostgresServer, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    postgres.execute("CREATE DATABASE latin ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0")
    assert "not as UTF8" in refused(postgres.url("latin")).message
    monkeypatch.setattr(postgres_connections, "OLDEST", 990000)
    assert "99 or later" in refused(url).message


def test_another_programs_schema_is_left_alone(postgres: PostgresServer, url: str) -> None:
    database = url.rpartition("/")[2]
    postgres.execute("CREATE SCHEMA omnimind; CREATE TABLE omnimind.theirs (x int)", database)
    assert "another program" in refused(url).message
    assert postgres.execute("SELECT to_regclass('omnimind.tasks') IS NULL", database) == [(True,)]


def test_a_read_before_the_first_opening_says_so(url: str) -> None:
    with pytest.raises(LedgerError, match="no ledger yet"):
        ledger_at(url).usage()


def test_a_standby_is_not_written_to_and_the_primary_is_found(postgres: PostgresServer, url: str) -> None:
    database = url.rpartition("/")[2]
    dead = f"127.0.0.1:1,127.0.0.1:{postgres.port}"
    both = url.replace(f"127.0.0.1:{postgres.port}", dead)
    with opened(both) as ledger:
        ledger.write(inserts(a_task(1)))
    postgres.execute(f'ALTER DATABASE "{database}" SET default_transaction_read_only TO on')
    assert "takes writes" in refused(url).message


def test_unwise_settings_of_the_server_are_told_and_its_commits_are_durable(
    postgres: PostgresServer, url: str
) -> None:
    database = url.rpartition("/")[2]
    postgres.execute(f'ALTER DATABASE "{database}" SET synchronous_commit TO off')
    with opened(url) as ledger:
        told = " ".join(ledger.about().warnings)
        assert "fsync is off" in told, "this server's is"
        assert "synchronous_commit is off" in told
        found = ledger._connections.writer.execute("SHOW synchronous_commit").fetchone()
        assert found == ("on",)
        assert ledger.about().version.startswith(str(ledger._connections.writer.info.server_version // 10000))


# --------------------------------------------------------------------------------- sessions and fencing


def test_a_predecessor_that_was_paused_in_a_transaction_is_ended(postgres: PostgresServer, url: str) -> None:
    with opened(url) as old:
        writer = old._connections.writer
        writer.execute("BEGIN")
        writer.execute("SELECT epoch FROM ledger WHERE id = 1 FOR SHARE")  # and here it is paused
        started = time.monotonic()
        with opened(url) as new:
            assert time.monotonic() - started < 8
            assert new.epoch == old.epoch + 1
            new.write(inserts(a_task(1)))
            with pytest.raises(LedgerError):
                old.write(inserts(a_task(2)))
            with pytest.raises(LedgerFenced):
                old.open(1, after=1)
            assert [r[0] for r in new.tasks([id_of(1), id_of(2)])] == [1]


def test_a_successor_waits_for_a_commit_that_is_under_way(url: str) -> None:
    """The proof of the epoch holds until the commit: nobody can come in between."""
    with opened(url) as old:
        writer = old._connections.writer
        writer.execute("BEGIN")
        psycopg.RawCursor(writer).execute(postgres_connections_prove(), (1,))
        done: list[int] = []
        new = ledger_at(url)
        thread = threading.Thread(target=lambda: done.append(new.open(1).epoch))
        thread.start()
        time.sleep(0.4)
        assert done == []
        writer.execute("COMMIT")
        thread.join(20)
        assert done == [2]
        new.close()


def postgres_connections_prove() -> bytes:
    from omnimind.ledger.postgres_statements import PROVE

    return PROVE.encode()


def test_who_lost_the_ledger_while_idle_hears_of_it_at_maintenance(url: str) -> None:
    with opened(url) as old, opened(url), pytest.raises(LedgerFenced):
        old.maintain()


def test_reads_go_on_after_a_restart_and_a_broken_write_says_that_nobody_knows(
    own_postgres: PostgresServer,
) -> None:
    with opened(own_postgres.url()) as ledger:
        ledger.write(inserts(a_task(1)))
        assert len(ledger.tasks([id_of(1)])) == 1
        own_postgres.stop()
        with pytest.raises(LedgerUnavailable):
            ledger.tasks([id_of(1)])
        with pytest.raises(LedgerError, match="unknown"):
            ledger.write(inserts(a_task(2)))
        own_postgres.start()
        assert ledger.tasks([id_of(1)]) == [row(a_task(1))]
        with pytest.raises(LedgerError, match="unknown"):
            ledger.write(inserts(a_task(3)))
        assert ledger.open(1, after=1).epoch == 2
        ledger.write(inserts(a_task(3)))


def test_a_server_that_is_paused_holds_nobody_for_ever(
    own_postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_connections, "_GRACE", 1.0)
    with opened(own_postgres.url(), statement_timeout=1.0) as ledger:
        own_postgres.signal(signal.SIGSTOP)
        try:
            started = time.monotonic()
            with pytest.raises(LedgerError, match="unknown"):
                ledger.write(inserts(a_task(1)))
            with pytest.raises(LedgerUnavailable):
                ledger.usage()
            assert time.monotonic() - started < 30
        finally:
            own_postgres.signal(signal.SIGCONT)
        ledger.open(1)
        ledger.write(inserts(a_task(2)))


def test_a_statement_that_takes_too_long_is_undone(postgres: PostgresServer, url: str) -> None:
    database = url.rpartition("/")[2]
    with opened(url, statement_timeout=1.0) as ledger, postgres.admin(database) as other:
        other.autocommit = False
        other.execute("LOCK TABLE omnimind.tasks IN EXCLUSIVE MODE")
        with pytest.raises(LedgerUnavailable, match="too long") as found:
            ledger.write(inserts(a_task(1)))
        assert found.value.retry_after
        other.rollback()
        ledger.write(inserts(a_task(1)))


def test_a_full_disk_refuses_new_tasks_and_heals(own_server: Callable[..., PostgresServer]) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root may mount a file system")
    server = own_server()
    place = server.folder.parent / "small"
    place.mkdir()
    with server.running(), _small_disk(place, server) as grow:
        server.execute(f"CREATE TABLESPACE small LOCATION '{place}/data'")
        server.execute("CREATE DATABASE tight TABLESPACE small")
        with opened(server.url("tight")) as ledger:
            written, full = 0, None
            while written < 4000 and full is None:
                try:
                    ledger.write(inserts(a_task(written + 1, payload=os.urandom(20_000))))
                    written += 1
                except LedgerFull as error:
                    full = error
            assert written > 10
            assert full is not None
            assert "PostgreSQL" in full.hint
            assert ledger.full
            assert len(ledger.tasks([id_of(n) for n in range(1, written + 2)])) == written, (
                "nothing is half there"
            )
            ledger.maintain()
            assert ledger.full, "there is no room yet"
            assert ledger.open(1, after=1).epoch == 2
            assert ledger.full, "nor by opening it again"
            grow()
            ledger.maintain()
            assert not ledger.full
            ledger.write(inserts(a_task(written + 1)))
            assert ledger.check() == []


@contextlib.contextmanager
def _small_disk(place: Path, server: PostgresServer) -> Iterator[Callable[[], None]]:
    import shutil
    import subprocess

    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", place], check=True)
    try:
        (place / "data").mkdir()
        shutil.chown(place / "data", "postgres")
        place.chmod(0o755)

        def grow() -> None:
            subprocess.run(["mount", "-o", "remount,size=64m", place], check=True)

        yield grow
    finally:
        server.stop()
        subprocess.run(["umount", "-l", place], check=True)


# ------------------------------------------------------------------------------------- schema and plans


def test_the_revisions_lead_to_the_schema_exactly(url: str) -> None:
    with opened(url):
        pass
    engine = sa.create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.connect() as connection:
        connection.exec_driver_sql("SET search_path TO omnimind")
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, schema.metadata) == []
        collations = connection.exec_driver_sql(
            "SELECT DISTINCT collation_name FROM information_schema.columns"
            " WHERE table_schema = 'omnimind' AND data_type = 'text' AND table_name <> 'alembic_version'"
        ).scalars()
        assert collations.all() == ["C"]
    engine.dispose()


PLACE = "(rank, seq) > (1, 2) ORDER BY rank, seq LIMIT 5"


@pytest.mark.parametrize(
    ("condition", "index"),
    [
        (f"line = 0 AND queue = 'q' AND {PLACE}", "tasks_ready"),
        (f"line >= 1 AND line = 1 AND {PLACE}", "tasks_held"),
        ("id >= 'a' AND id < 'b' ORDER BY id LIMIT 5", "tasks_id"),
        ("line = -1 AND status = 'completed' ORDER BY completed_at, seq LIMIT 5", "tasks_ended"),
    ],
)
def test_lines_and_ids_are_read_by_their_index(url: str, condition: str, index: str) -> None:
    with opened(url) as ledger:
        ledger.write(inserts(*(a_task(n) for n in range(1, 3000))))
        ledger.write(updates(*(ended(a_task(n)) for n in range(1, 1500))))
        writer = ledger._connections.writer
        writer.execute("ANALYZE tasks")
        plan = "\n".join(
            r[0]
            for r in writer.execute(f"EXPLAIN SELECT seq FROM tasks WHERE {condition}".encode()).fetchall()
        )
        assert f"using {index}" in plan, plan
