"""From any older schema to the present one with all data; never from a newer one."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from omnimind import failpoints
from omnimind.cluster.records import LogSaved, Records
from omnimind.cluster.states import TaskStatus
from omnimind.errors import LedgerError, LedgerVersion
from omnimind.ledger import migrate, schema
from omnimind.ledger import statements as sql
from omnimind.ledger.rows import bind_task
from omnimind.ledger.sqlite import SqliteLedger
from omnimind.testing.rows import a_task, ended, id_of, row

REVISIONS = sorted(
    path.name[1:5] for path in (Path(migrate.__file__).parent / "migrations" / "versions").glob("r*.py")
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


@pytest.fixture
def disarmed() -> Iterator[None]:
    yield
    failpoints.arm("")


def bring_to(path: Path, revision: str) -> None:
    """Make a ledger as an older OmniMind left it."""
    engine = sa.create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        migrate.migrate(connection, str(path), target=revision)
        connection.exec_driver_sql(f"PRAGMA application_id = {schema.APPLICATION_ID}")
    engine.dispose()


def index_texts(connection: sa.Connection) -> dict[str, str]:
    found = connection.exec_driver_sql("SELECT name, sql FROM sqlite_schema WHERE name LIKE 'tasks_%'")
    return {row[0]: row[1] for row in found}


def revision_of(path: Path) -> str | None:
    with closing(sqlite3.connect(path)) as connection:
        found = connection.execute("SELECT version_num FROM alembic_version").fetchone()
        return None if found is None else str(found[0])


def test_the_last_revision_is_the_one_that_the_code_expects() -> None:
    assert REVISIONS[-1] == migrate.HEAD
    assert len(REVISIONS) >= 2, "or no migration is tested"


def test_the_revisions_lead_to_the_schema(path: Path) -> None:
    bring_to(path, migrate.HEAD)
    engine = sa.create_engine(f"sqlite:///{path}")
    with engine.connect() as connection:
        found = compare_metadata(MigrationContext.configure(connection), schema.metadata)
        assert found == []
        migrated = index_texts(connection)
    engine.dispose()
    fresh = sa.create_engine("sqlite://")
    schema.metadata.create_all(fresh)
    with fresh.connect() as connection:
        # What the comparison does not see: the conditions of partial indexes.
        assert migrated == index_texts(connection)
    fresh.dispose()


@pytest.mark.parametrize("revision", REVISIONS)
def test_an_older_ledger_is_migrated_with_its_data(path: Path, revision: str) -> None:
    bring_to(path, revision)
    tasks = [a_task(1, key="k", payload=b"old"), ended(a_task(2), TaskStatus.DEAD)]
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executemany(sql.INSERT_TASK, [bind_task(row(task)) for task in tasks])
        connection.execute("UPDATE ledger SET epoch = 41")
    ledger = SqliteLedger(path, reserve=0)
    found = ledger.open(10)
    assert (found.epoch, found.last_seq, [t.seq for t in found.ready]) == (42, 2, [1])
    assert sorted(ledger.tasks([id_of(1), id_of(2)])) == [row(task) for task in tasks]
    ledger.write(Records(others=[LogSaved(id_of(1), 1, ((1.0, "info", "new"),))]))
    assert ledger.logs(id_of(1), 0, 10) == [(1, 1.0, "info", "new")]
    assert ledger.check() == []
    ledger.close()
    assert revision_of(path) == migrate.HEAD


def test_a_migration_that_dies_leaves_the_older_ledger(path: Path, disarmed: None) -> None:
    bring_to(path, REVISIONS[0])
    ledger = SqliteLedger(path, reserve=0)
    failpoints.arm("ledger.before_takeover=raise")
    with pytest.raises(LedgerError):
        ledger.open(1)
    assert revision_of(path) == REVISIONS[0]
    assert ledger.open(1).epoch == 1
    assert revision_of(path) == migrate.HEAD
    ledger.close()


def test_a_newer_ledger_is_left_alone(path: Path) -> None:
    bring_to(path, migrate.HEAD)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    ledger = SqliteLedger(path, reserve=0)
    with pytest.raises(LedgerVersion, match="schema 9999, which is newer") as caught:
        ledger.open(1)
    assert "pip install --upgrade" in caught.value.hint
    ledger.close()
    assert revision_of(path) == "9999"
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute(sql.EPOCH).fetchone() == (0,), "it took over, though it cannot read it"


@pytest.mark.parametrize("mark", [0, 4711])
def test_a_database_of_another_program_is_left_alone(path: Path, mark: int) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE theirs (a)")
        connection.execute(f"PRAGMA application_id = {mark}")
    before = path.read_bytes()
    ledger = SqliteLedger(path, reserve=0)
    with pytest.raises(LedgerError, match="another program") as caught:
        ledger.open(1)
    assert "OMNIMIND_HOME" in caught.value.hint
    assert path.read_bytes() == before


def test_alembic_is_not_even_imported_for_a_present_schema(path: Path) -> None:
    """A coordinator that comes back is in a hurry."""
    ledger = SqliteLedger(path, reserve=0)
    ledger.open(1)
    ledger.close()
    code = (
        "import sys; from omnimind.ledger.sqlite import SqliteLedger;"
        "ledger = SqliteLedger(sys.argv[1], reserve=0);"
        "print(ledger.open(1).epoch, 'alembic' in sys.modules); ledger.close()"
    )
    told = subprocess.run([sys.executable, "-c", code, str(path)], check=True, capture_output=True, text=True)
    assert told.stdout.split() == ["2", "False"]
