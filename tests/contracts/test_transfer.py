"""A whole ledger moves between any two databases, and by backups, with nothing lost, altered or doubled."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from omnimind.cluster.policies import QueuePolicy, Schedule
from omnimind.cluster.records import (
    AuditSaved,
    BlobSaved,
    CheckpointSaved,
    Discarded,
    HandlerSaved,
    LogSaved,
    QueueSaved,
    Record,
    Records,
    ScheduleSaved,
    task_row,
)
from omnimind.cluster.states import Line, TaskStatus
from omnimind.cluster.task import TaskOptions
from omnimind.config.sections import LedgerSettings
from omnimind.errors import AlreadyRunning, Conflict, LedgerCorrupt, LedgerFenced, LedgerVersion, NotFound
from omnimind.ids import digest_of, fence
from omnimind.ledger import backup as backups
from omnimind.ledger import migrate, soundness, stores, transfer
from omnimind.ledger.interface import Ledger, TaskFilter
from omnimind.ledger.opening import open_ledger
from omnimind.ledger.restore import restore
from omnimind.ledger.stores import EPOCH_LEAP, quiet
from omnimind.testing.rows import a_task, ended, id_of, inserts

CODE = b"code of a handler"
SPEC = msgspec.json.encode({
    "task_type": "tests.noop", "kind": "sync", "by": "value", "blob": digest_of(CODE),
})  # fmt: skip
HANDLER = digest_of(SPEC)
LAST = 1_500

Place = Callable[[str], tuple[LedgerSettings, Path]]
KINDS = ("sqlite", "postgresql")


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Return a function from a kind of database to a fresh place: settings and home."""
    counter = itertools.count()

    def make(kind: str) -> tuple[LedgerSettings, Path]:
        url = request.getfixturevalue("new_database")() if kind == "postgresql" else ""
        home = tmp_path / f"home{next(counter)}"
        home.mkdir()
        return LedgerSettings(url=url), home

    return make


def opened(settings: LedgerSettings, home: Path) -> Ledger:
    ledger = open_ledger(settings, home)
    ledger.open(10)
    return ledger


def fill(settings: LedgerSettings, home: Path) -> None:
    """Write a bit of everything."""
    schedule = Schedule(
        "nightly",
        msgspec.msgpack.encode(task_row(a_task(9_999, options=TaskOptions(handler=HANDLER)))),
        cron="0 3 * * *",
        next_run=2e9,
    )
    strange = [
        a_task(1, task_type="a\0b\x1ac", queue="\0", key="k\0\x1a0", payload=b"\0\xff", digest=b"\x00"),
        a_task(2, task_type="ä\U0001f600\n\"'", payload=None, options=TaskOptions(handler=HANDLER)),
        a_task(3, payload=bytes(range(256)) * 40, priority=1, deadline=3e9),
        a_task(4, line=Line.DELAYED, not_before=9e9, rank=9e9, retry_count=2),
        a_task(5, line=Line.WAITING, after=(id_of(1), id_of(4))),
        a_task(6, line=Line.RUNNING, status=TaskStatus.RUNNING, fence=fence(1, 7), assigned_node="n1"),
        ended(a_task(7), error=None, result=b"\x80pickle", result_encoding="pickle"),
        ended(a_task(8), TaskStatus.FAILED, error={"type": "ValueError", "message": "\0"}),
        ended(a_task(9), TaskStatus.DEAD, error={"type": "Died"}, deaths=3),
        a_task(10, rank=0.1 + 0.2, created_at=1e-300, not_before=5e-324),
    ]
    others: list[Record] = [
        HandlerSaved(HANDLER, "tests.noop", SPEC),
        BlobSaved(digest_of(CODE), CODE),
        QueueSaved(QueuePolicy("q/ü", weight=0.1)),
        ScheduleSaved(schedule),
        CheckpointSaved(3, b"half way"),
        LogSaved(id_of(7), 1 << 40, tuple((float(n), "info", f"line {n}\0") for n in range(700))),
        Discarded(9, 12.5),
        AuditSaved(1.0, "cli:me", "queue.set", "q/ü", "{}"),
    ]
    with closing(opened(settings, home)) as ledger:
        ledger.write(inserts(*strange))
        ledger.write(inserts(*(a_task(n) if n % 3 else ended(a_task(n)) for n in range(11, LAST + 1))))
        ledger.write(Records(others=others))


def told(ledger: Ledger) -> dict[str, Any]:
    """Return all that a ledger answers, by its own reads: a witness that shares nothing with the transfer."""
    everything = ledger.list(TaskFilter(), None, 10_000).rows
    ids = [row[1] for row in everything]
    usage = ledger.usage()
    return {
        "tasks": sorted(ledger.tasks(ids)),
        "handlers": ledger.handlers(),
        "blob": ledger.blob(digest_of(CODE)),
        "logs": ledger.logs(id_of(7), 0, 10_000),
        "usage": (usage.by_status, usage.by_queue, usage.pruned),
        "audit": [entry for entry in ledger.audit(100) if not entry[2].startswith("ledger.")],
        "discarded": [row[1] for row in ledger.list(TaskFilter(discarded=True), None, 10).rows],
        "keys": ledger.known_keys(["k\0\x1a0"]),
    }


def answers(settings: LedgerSettings, home: Path) -> dict[str, Any]:
    """Return what a ledger answers, and what its coordinator would begin with, without its epoch."""
    with closing(open_ledger(settings, home)) as ledger:
        recovered = ledger.open(10_000)
        assert ledger.check() == []
        begins = msgspec.structs.replace(recovered, epoch=0)
        return {**told(ledger), "begins": msgspec.to_builtins(begins, str_keys=True)}


def epoch(settings: LedgerSettings, home: Path) -> int:
    with closing(transfer.store_of(settings, home)) as store:
        return stores.epoch_of(store)


def exported(settings: LedgerSettings, home: Path, path: Path) -> transfer.Moved:
    with closing(transfer.store_of(settings, home)) as store:
        return transfer.export(store, path, quiet)


@pytest.mark.parametrize("there", KINDS)
@pytest.mark.parametrize("here", KINDS)
def test_an_export_fills_another_database_with_the_same(
    here: str, there: str, place: Place, tmp_path: Path
) -> None:
    source, target = place(here), place(there)
    fill(*source)
    out = exported(*source, tmp_path / "x.omnimind")
    moved = transfer.import_file(tmp_path / "x.omnimind", *target, quiet)
    assert moved.counts == out.counts
    assert moved.counts["tasks"] == LAST
    assert epoch(*target) == epoch(*source) + EPOCH_LEAP
    assert answers(*target) == answers(*source)
    # New numbers go on from those that came along.
    with closing(opened(*target)) as ledger:
        ledger.write(Records(others=[AuditSaved(2.0, "me", "later", "", "")]))
        assert [entry[2] for entry in ledger.audit(2)] == ["later", "ledger.fill"]
    with closing(transfer.store_of(*target)) as store:
        assert soundness.check(store, quiet) == []


@pytest.mark.parametrize("there", KINDS)
@pytest.mark.parametrize("here", KINDS)
def test_a_backup_of_either_is_restored_into_either(
    here: str, there: str, place: Place, tmp_path: Path
) -> None:
    source, target = place(here), place(there)
    fill(*source)
    made = backups.make(*source, tmp_path / "backups", quiet)
    assert made.manifest.tasks() == LAST
    assert made == backups.load(made.path)
    moved = restore(backups.listed(tmp_path / "backups")[0], *target, replace=False, progress=quiet)
    assert moved.epoch > made.manifest.epoch
    assert answers(*target) == answers(*source)


@pytest.mark.parametrize("kind", KINDS)
def test_work_is_not_written_over(kind: str, place: Place, tmp_path: Path) -> None:
    source, target = place("sqlite"), place(kind)
    fill(*source)
    exported(*source, tmp_path / "x.omnimind")
    with closing(opened(*target)) as ledger:
        ledger.write(inserts(a_task(1)))
    with pytest.raises(Conflict, match="1 rows of tasks"):
        transfer.import_file(tmp_path / "x.omnimind", *target, quiet)
    with closing(opened(*target)) as ledger:
        assert [row[1] for row in ledger.list(TaskFilter(), None, 10).rows] == [id_of(1)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_ledger_without_work_gives_way(kind: str, place: Place, tmp_path: Path) -> None:
    source, target = place("sqlite"), place(kind)
    fill(*source)
    exported(*source, tmp_path / "x.omnimind")
    opened(*target).close()
    assert transfer.import_file(tmp_path / "x.omnimind", *target, quiet).counts["tasks"] == LAST


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_replaced_is_moved_aside_and_its_coordinator_is_out(
    kind: str, place: Place, tmp_path: Path
) -> None:
    settings, home = place(kind)
    fill(settings, home)
    made = backups.make(settings, home, tmp_path / "backups", quiet)
    with closing(opened(settings, home)) as ledger:
        ledger.write(inserts(a_task(5_000)))
    for _ in range(5):
        opened(settings, home).close()
    before = epoch(settings, home)
    with pytest.raises(Conflict, match="not empty"):
        restore(made, settings, home, replace=False, progress=quiet)
    moved = restore(made, settings, home, replace=True, progress=quiet)
    assert moved.aside
    assert moved.epoch > before > made.manifest.epoch
    with closing(opened(settings, home)) as ledger:
        assert ledger.known_ids([id_of(5_000), id_of(1)]).keys() == {id_of(1)}
    if kind == "sqlite":
        with closing(open_ledger("", home / moved.aside)) as old:
            assert old.known_ids([id_of(5_000)])


def test_a_coordinator_that_owns_the_ledger_keeps_it(place: Place, tmp_path: Path) -> None:
    source, (settings, home) = place("sqlite"), place("postgresql")
    fill(*source)
    exported(*source, tmp_path / "x.omnimind")
    with closing(opened(settings, home)) as ledger:
        with pytest.raises(AlreadyRunning, match="coordinator"):
            transfer.import_file(tmp_path / "x.omnimind", settings, home, quiet)
        ledger.write(inserts(a_task(1)))
        assert ledger.known_ids([id_of(1)])


@pytest.mark.parametrize("kind", KINDS)
def test_a_predecessor_cannot_write_to_what_was_restored(kind: str, place: Place, tmp_path: Path) -> None:
    settings, home = place(kind)
    fill(settings, home)
    made = backups.make(settings, home, tmp_path / "backups", quiet)
    old = open_ledger(settings, home)
    old.open(10)
    before = epoch(settings, home)
    old.close()
    restore(made, settings, home, replace=True, progress=quiet)
    late = open_ledger(settings, home)
    with closing(late), pytest.raises(LedgerFenced):
        late.open(10, after=before)


@pytest.mark.parametrize("kind", KINDS)
def test_an_export_holds_one_moment(kind: str, place: Place, tmp_path: Path) -> None:
    settings, home = place(kind)
    fill(settings, home)
    with closing(opened(settings, home)) as ledger:
        written = itertools.count(10_000)

        def commit(_what: str, _done: int, _total: int) -> None:
            ledger.write(inserts(a_task(next(written))))

        with closing(transfer.store_of(settings, home)) as store:
            moved = transfer.export(store, tmp_path / "x.omnimind", commit)
        assert next(written) > 10_000, "nothing was written meanwhile"
        assert moved.counts["tasks"] == LAST
        made = backups.make(settings, home, tmp_path / "backups", commit)
        between = ledger.usage().by_status["pending"]
        assert LAST < made.manifest.tasks() < between + LAST
    assert transfer.read_through(tmp_path / "x.omnimind", quiet).counts["tasks"] == LAST


@pytest.mark.parametrize("kind", KINDS)
def test_a_newer_export_is_refused_and_nothing_is_written(kind: str, place: Place, tmp_path: Path) -> None:
    source, target = place("sqlite"), place(kind)
    fill(*source)
    path = tmp_path / "x.omnimind"
    exported(*source, path)
    for old, new in ((b'"version":1', b'"version":2'), (b'"schema":"', b'"schema":"9')):
        path.write_bytes(resealed(path.read_bytes(), old, new))
        with pytest.raises(LedgerVersion, match=r"upgrade|newer|format"):
            transfer.import_file(path, *target, quiet)
        with closing(transfer.store_of(*target)) as store:
            assert list(store.shards) == []


def resealed(data: bytes, old: bytes, new: bytes) -> bytes:
    """Return an export with its first line altered, and that line's checksum made anew."""
    first, rest = zlib.decompress(data, 31).split(b"\n", 1)
    line = first[9:].replace(old, new)
    zipped = zlib.compressobj(wbits=31)
    return zipped.compress(b"%08x %b\n" % (zlib.crc32(line), line) + rest) + zipped.flush()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("revision", migrate.revisions()[:-1])
def test_an_export_of_an_older_schema_is_brought_to_the_present_one(
    kind: str, revision: str, place: Place, tmp_path: Path
) -> None:
    old, target = tmp_path / "old", place(kind)
    old.mkdir()
    sink = transfer.sink_of(LedgerSettings(), old, None)
    sink.make(0, revision)
    with closing(sink.written()) as store:
        shape = next(c for c in store.tables(0) if c.table == "ledger")
    sink.write(0, shape, [tuple({"id": 1, "epoch": 3}.get(n, 0) for n in shape.names)])
    with closing(sink.written()) as store:
        assert store.revision(0) == revision
        transfer.export(store, tmp_path / "y.omnimind", quiet)
    sink.abandon()
    moved = transfer.import_file(tmp_path / "y.omnimind", *target, quiet)
    assert moved.revision == migrate.HEAD
    with closing(opened(*target)) as ledger:
        assert ledger.check() == []


@pytest.mark.parametrize("kind", KINDS)
def test_what_does_not_arrive_as_it_left_is_not_published(
    kind: str, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = place("sqlite"), place(kind)
    fill(*source)
    exported(*source, tmp_path / "x.omnimind")
    sink_of = transfer.sink_of

    def lossy(*given: Any) -> Any:
        sink = sink_of(*given)
        write = sink.write

        def all_but_one(shard: int, columns: Any, rows: list[Any]) -> None:
            write(shard, columns, rows[1:] if columns.table == "logs" else rows)

        monkeypatch.setattr(sink, "write", all_but_one)
        return sink

    monkeypatch.setattr(transfer, "sink_of", lossy)
    with pytest.raises(LedgerCorrupt, match="rows that are not"):
        transfer.import_file(tmp_path / "x.omnimind", *target, quiet)
    with closing(transfer.store_of(*target)) as store:
        assert list(store.shards) == []
    assert [p.name for p in target[1].iterdir()] == ["run"]


@pytest.mark.parametrize("kind", KINDS)
def test_where_there_is_no_ledger_nothing_can_be_backed_up(kind: str, place: Place, tmp_path: Path) -> None:
    settings, home = place(kind)
    with pytest.raises(NotFound, match="no ledger"):
        backups.make(settings, home, tmp_path / "backups", quiet)
    assert not (tmp_path / "backups").exists()
