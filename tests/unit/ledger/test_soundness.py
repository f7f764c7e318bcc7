"""Each way in which a ledger can lie is found, named and answered with a mend, on both databases."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import msgspec
import psycopg
import pytest

from omnimind.cluster.policies import QueuePolicy, Schedule
from omnimind.cluster.records import (
    BlobSaved,
    HandlerSaved,
    NodeSaved,
    QueueSaved,
    Records,
    ScheduleSaved,
    task_row,
)
from omnimind.cluster.states import Line
from omnimind.cluster.task import TaskOptions
from omnimind.config.sections import LedgerSettings
from omnimind.ids import digest_of, fence
from omnimind.ledger import soundness, stores_sqlite, transfer
from omnimind.ledger.opening import open_ledger, sqlite_path
from omnimind.ledger.stores import quiet
from omnimind.testing.rows import a_task, ended, id_of, inserts

CODE = b"code"
SPEC = msgspec.json.encode({"task_type": "t", "kind": "sync", "by": "value", "blob": digest_of(CODE)})
HANDLER = digest_of(SPEC)


def sound(settings: LedgerSettings, home: Path) -> None:
    with closing(open_ledger(settings, home)) as ledger:
        ledger.open(10)
        task = a_task(9_999, options=TaskOptions(handler=HANDLER))
        schedule = Schedule("s", msgspec.msgpack.encode(task_row(task)), interval=5.0, next_run=9e9)
        ledger.write(
            inserts(
                a_task(1, options=TaskOptions(handler=HANDLER)),
                a_task(2, line=Line.DELAYED, rank=9e9, not_before=9e9),
                a_task(3, line=Line.WAITING, after=(id_of(1),)),
                ended(a_task(4)),
                a_task(5, payload=b"x" * 5000, fence=fence(1, 3)),
            )
        )
        ledger.write(
            Records(
                others=[
                    HandlerSaved(HANDLER, "t", SPEC),
                    BlobSaved(digest_of(CODE), CODE),
                    QueueSaved(QueuePolicy("q")),
                    ScheduleSaved(schedule),
                    NodeSaved("n", b'{"node_id": "n"}'),
                ]
            )
        )


LIES = [
    ("status", "UPDATE tasks SET status = 'lost' WHERE seq = 1"),
    ("contradiction 1", "UPDATE tasks SET line = -1 WHERE seq = 1"),
    ("contradiction 2", "UPDATE tasks SET line = 3 WHERE seq = 1"),
    ("contradiction 3", "UPDATE tasks SET completed_at = NULL WHERE seq = 4"),
    ("result", "UPDATE tasks SET result = NULL WHERE seq = 4"),
    ("reason", "UPDATE tasks SET cause = '' WHERE seq = 4"),
    ("rank", "UPDATE tasks SET rank = 1e301 WHERE seq = 1"),
    ("delay", "UPDATE tasks SET rank = 1 WHERE seq = 2"),
    ("tasks", "UPDATE handler_uses SET uses = 7"),
    ("tasks", "DELETE FROM handlers"),
    ("dependencies", "DELETE FROM tasks WHERE seq = 1"),
    ("code", "DELETE FROM blobs"),
    ("code", "UPDATE task_types SET digest = 'none'"),
    ("queues and nodes", "UPDATE queues SET name = 'other'"),
    ("schedules", "UPDATE schedules SET schedule = queues.policy FROM queues"),
    ("fences", "UPDATE ledger SET epoch = 0"),
    ("discarded", "INSERT INTO discarded (seq, at) VALUES (4, 1.0)"),
    ("payload", "UPDATE tasks SET payload = options WHERE seq = 5"),
    ("owner", "DELETE FROM ledger"),
]


def test_every_rule_is_lied_to() -> None:
    told = {name for name, _ in LIES}
    generated = {name for name in soundness.RULES if name.startswith("contradiction")}
    assert set(soundness.RULES) - told - generated == {"database", "schema", "values"}


@pytest.mark.parametrize(("rule", "lie"), LIES)
def test_a_lie_is_found(rule: str, lie: str, tmp_path: Path) -> None:
    settings = LedgerSettings()
    sound(settings, tmp_path)
    with closing(transfer.store_of(settings, tmp_path)) as store:
        assert soundness.check(store, quiet) == []
    with closing(stores_sqlite.connect(sqlite_path(tmp_path), read_only=False)) as connection:
        connection.execute(lie)
    before = sqlite_path(tmp_path).read_bytes()
    with closing(transfer.store_of(settings, tmp_path)) as store:
        found = soundness.check(store, quiet)
    named = {finding.check: finding for finding in found}
    assert rule in named
    assert named[rule].count >= 1
    assert named[rule].mend
    assert sqlite_path(tmp_path).read_bytes() == before, "a check changes nothing"


@pytest.mark.parametrize("rule", ["result", "tasks", "code", "fences", "delay", "dependencies"])
def test_a_lie_is_found_in_postgresql_too(rule: str, new_database: Callable[[], str], tmp_path: Path) -> None:
    settings = LedgerSettings(url=new_database())
    sound(settings, tmp_path)
    with closing(transfer.store_of(settings, tmp_path)) as store:
        assert soundness.check(store, quiet) == []
    with psycopg.connect(settings.url) as connection:
        connection.execute("SET search_path TO omnimind")
        connection.execute(dict(LIES)[rule].encode())
    with closing(transfer.store_of(settings, tmp_path)) as store:
        assert rule in {finding.check for finding in soundness.check(store, quiet)}


def test_damaged_pages_are_found(tmp_path: Path) -> None:
    sound(LedgerSettings(), tmp_path)
    path = sqlite_path(tmp_path)
    data = bytearray(path.read_bytes())
    data[3 * 4096 : 4 * 4096] = b"\xaa" * 4096
    path.write_bytes(data)
    with closing(transfer.store_of(LedgerSettings(), tmp_path)) as store:
        found = soundness.check(store, quiet)
    assert [finding.check for finding in found] == ["database"]
    assert "restore" in found[0].mend


def test_a_value_of_another_kind_is_found(tmp_path: Path) -> None:
    sound(LedgerSettings(), tmp_path)
    with closing(stores_sqlite.connect(sqlite_path(tmp_path), read_only=False)) as connection:
        connection.execute("UPDATE tasks SET result = 'text' WHERE seq = 4")
    with closing(transfer.store_of(LedgerSettings(), tmp_path)) as store:
        assert "values" in {finding.check for finding in soundness.check(store, quiet)}


def test_an_older_schema_is_a_warning(tmp_path: Path) -> None:
    sound(LedgerSettings(), tmp_path)
    with closing(stores_sqlite.connect(sqlite_path(tmp_path), read_only=False)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '0001'")
    with closing(transfer.store_of(LedgerSettings(), tmp_path)) as store:
        (finding,) = soundness.check(store, quiet)
    assert (finding.check, finding.state) == ("schema", soundness.WARNING)


@pytest.mark.parametrize(
    ("before", "keep", "gone"), [(math.inf, 10**6, 9), (0.0, 4, 5), (0.0, 100, 0), (0.0, 0, 9)]
)
def test_a_plan_of_a_prune_is_what_the_prune_does(
    before: float, keep: int, gone: int, tmp_path: Path
) -> None:
    with closing(open_ledger("", tmp_path)) as ledger:
        ledger.open(10)
        ledger.write(inserts(*(ended(a_task(n)) for n in range(1, 11))))
        ledger.write(inserts(a_task(20, line=Line.WAITING, after=(id_of(3),))))
    with closing(transfer.store_of(LedgerSettings(), tmp_path)) as store:
        planned = soundness.would_prune(store, min(before, 9e99), keep)
    with closing(open_ledger("", tmp_path)) as ledger:
        ledger.open(10)
        done = 0
        while number := ledger.prune(before, keep, 3):
            done += number
    assert done == gone
    assert planned == done
