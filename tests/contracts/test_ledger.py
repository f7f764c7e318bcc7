"""What every ledger promises (`omnimind.ledger.interface.Ledger`), on each of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from omnimind.cluster.events import Recovered
from omnimind.cluster.node import NodeInfo
from omnimind.cluster.policies import QueuePolicy, Schedule
from omnimind.cluster.records import (
    AuditSaved,
    BlobSaved,
    CheckpointSaved,
    ClaimRemoved,
    ClaimSaved,
    Discarded,
    DocumentRemoved,
    DocumentSaved,
    HandlerSaved,
    LogSaved,
    NodeRemoved,
    QueueRemoved,
    QueueSaved,
    Record,
    Records,
    ScheduleRemoved,
    ScheduleSaved,
    node_saved,
    task_row,
)
from omnimind.cluster.states import Line, TaskStatus
from omnimind.cluster.task import DistributedTask, TaskOptions
from omnimind.errors import LedgerError, LedgerFenced, NotFound, Pruned
from omnimind.ledger import retention
from omnimind.ledger.interface import Layout, Ledger, TaskFilter
from omnimind.ledger.memory import MemoryLedger
from omnimind.ledger.memory_store import Store
from omnimind.ledger.opening import open_ledger
from omnimind.ledger.sqlite import SqliteLedger
from omnimind.testing.rows import START, a_task, ended, id_of, inserts, row, updates

FIRST = (float("-inf"), 0)
DAY = 86_400.0

Opening = Callable[[], Ledger]


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
def another(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Opening]:
    """Return what makes a further ledger object on the same storage, not open yet."""
    made: list[Ledger] = []
    store = Store()
    url = request.getfixturevalue("new_database")() if request.param == "postgresql" else ""

    def make() -> Ledger:
        ledger: Ledger
        match request.param:
            case "memory":
                ledger = MemoryLedger(store)
            case "sqlite":
                ledger = SqliteLedger(tmp_path / "ledger.db", reserve=0)
            case _:
                ledger = open_ledger(url, tmp_path)
        made.append(ledger)
        return ledger

    yield make
    for ledger in made:
        ledger.close()


@pytest.fixture
def ledger(another: Opening) -> Ledger:
    opened = another()
    opened.open(100)
    return opened


def others(*records: Record) -> Records:
    return Records(others=[*records])


SHAPES = {
    "ready": a_task(1),
    "delayed": a_task(1, line=Line.DELAYED, rank=9e9, not_before=9e9, cause="retry in 3 s", retry_count=1),
    "waiting": a_task(1, line=Line.WAITING, after=(id_of(7), id_of(8))),
    "running": a_task(
        1, line=Line.RUNNING, status=TaskStatus.RUNNING, fence=5 << 40 | 3, assigned_node="n1", started_at=2.5
    ),
    "completed": ended(a_task(1)),
    "completed on the second try": ended(a_task(1, retry_count=1, deaths=1, solo=True)),
    "failed": ended(a_task(1), TaskStatus.FAILED, error={"type": "ValueError", "message": "ä"}),
    "dead": ended(a_task(1), TaskStatus.DEAD, deaths=3),
    "pickled": a_task(1, encoding="pickle", payload=b"\x80\x05N.", digest=b"\0\xff", key="k"),
    "with everything": a_task(
        1,
        priority=1,
        queue="q/ü",
        needs=frozenset({"gpu", "ssd"}),
        max_retries=0,
        timeout=1.5,
        deadline=START + 5,
        key="key",
        digest=b"0123456789abcdef",
        at_most_once=True,
        origin="schedule:nightly",
        checkpoint=b"half way",
        options=TaskOptions(handler="ab" * 16, memory=1 << 40, non_retryable=("ValueError",)),
    ),
    "no payload": a_task(1, payload=None),
    "empty payload": a_task(1, payload=b""),
    "payload at the bound": a_task(1, payload=b"x" * 1024),
    "payload over the bound": a_task(1, payload=b"y" * 1025),
    "large payload": a_task(1, payload=bytes(range(256)) * 1024),
    "long names": a_task(1, task_type="t" * 10_000, queue="q" * 10_000, key="k" * 10_000),
    "a NUL in names": a_task(1, task_type="a\0b", queue="\0", key="k\0ey", cause="\0"),
    "an id of its own": a_task(1, task_id="t-1"),
}


@pytest.mark.parametrize("task", SHAPES.values(), ids=SHAPES)
def test_a_row_comes_back_as_it_was_written(ledger: Ledger, task: DistributedTask) -> None:
    ledger.write(inserts(task))
    assert ledger.tasks([task.task_id]) == [row(task)]


@pytest.mark.parametrize("task", SHAPES.values(), ids=SHAPES)
def test_an_update_writes_the_whole_state(ledger: Ledger, task: DistributedTask) -> None:
    before = msgspec.structs.replace(
        task, status=TaskStatus.PENDING, line=Line.DELAYED, rank=1.5, not_before=1.5, retry_count=9, deaths=9,
        fence=9, assigned_node="n9", result=b"9", result_encoding="pickle", error={"type": "E"}, cause="?",
        started_at=9.0, completed_at=None, solo=not task.solo,
    )  # fmt: skip
    ledger.write(inserts(before))
    assert ledger.tasks([task.task_id]) == [row(before)]
    ledger.write(updates(task))
    assert ledger.tasks([task.task_id]) == [row(task)]


def test_a_transaction_may_insert_and_end_a_task(ledger: Ledger) -> None:
    task = a_task(1)
    records = inserts(task)
    records.extend(updates(msgspec.structs.replace(task, line=Line.RUNNING, status=TaskStatus.RUNNING)))
    records.extend(updates(ended(task)))
    ledger.write(records)
    assert ledger.tasks([id_of(1)]) == [row(task)]


def test_updates_of_one_task_keep_their_order(ledger: Ledger) -> None:
    done = ended(a_task(1))
    again = a_task(1, retry_count=2)
    ledger.write(inserts(a_task(1), a_task(2)))
    ledger.write(Records(updates=[*updates(done, ended(a_task(2)), again).updates]))
    assert ledger.tasks([id_of(1)]) == [row(again)]


def test_an_update_of_a_task_that_is_not_there_does_nothing(ledger: Ledger) -> None:
    ledger.write(updates(a_task(1)))
    ledger.write(
        others(CheckpointSaved(1, b"x"), Discarded(1, 1.0), LogSaved(id_of(1), 1, ((1.0, "info", "x"),)))
    )
    assert ledger.tasks([id_of(1)]) == []
    assert ledger.logs(id_of(1), 0, 10) == []
    assert ledger.check() == []


@pytest.mark.parametrize(
    "second",
    [
        a_task(1, task_id="other", key="other"),
        a_task(2, task_id=id_of(1), key="other"),
        a_task(2, key="key"),
    ],
    ids=["number", "id", "key"],
)
def test_what_would_be_there_twice_is_refused_whole(ledger: Ledger, second: DistributedTask) -> None:
    ledger.write(inserts(a_task(1, key="key")))
    records = inserts(a_task(3), second)
    records.extend(updates(ended(a_task(1))))
    with pytest.raises(LedgerError, match="UNIQUE"):
        ledger.write(records)
    assert ledger.tasks([id_of(1), id_of(3)]) == [row(a_task(1, key="key"))]
    ledger.write(inserts(a_task(3)))
    assert ledger.check() == []


def test_an_empty_transaction_is_none(ledger: Ledger) -> None:
    ledger.write(Records())
    assert ledger.statistics()["commits"] == 0


# ------------------------------------------------------------------------------------------------ epochs


def test_each_opening_has_a_higher_epoch(another: Opening) -> None:
    ledger = another()
    assert [ledger.open(1).epoch, ledger.open(1).epoch, another().open(1).epoch] == [1, 2, 3]


def test_a_predecessor_is_fenced_and_writes_nothing(another: Opening) -> None:
    old, new = another(), another()
    old.open(1)
    old.write(inserts(a_task(1)))
    new.open(1)
    for _ in range(2):
        with pytest.raises(LedgerFenced):
            old.write(inserts(a_task(2)))
    with pytest.raises(LedgerFenced):
        old.prune(9e9, 0, 10)
    assert [r[0] for r in new.list(TaskFilter(), None, 10).rows] == [1]
    new.write(inserts(a_task(2)))


def test_a_fenced_ledger_may_be_opened_again(another: Opening) -> None:
    old, new = another(), another()
    old.open(1)
    new.open(1)
    with pytest.raises(LedgerFenced):
        old.write(inserts(a_task(1)))
    assert old.open(1).epoch == 3
    old.write(inserts(a_task(1)))
    with pytest.raises(LedgerFenced):
        new.write(inserts(a_task(2)))


def test_who_opens_again_after_another_is_refused(another: Opening) -> None:
    old, new = another(), another()
    epoch = old.open(1).epoch
    assert old.open(1, after=epoch).epoch == epoch + 1
    new.open(1)
    with pytest.raises(LedgerFenced):
        old.open(1, after=epoch + 1)
    new.write(inserts(a_task(1)))
    assert new.open(1, after=epoch + 2).epoch == epoch + 3, "a refused opening raises no epoch"


# ---------------------------------------------------------------------------------------------- recovery


def test_an_empty_ledger_recovers_to_nothing(another: Opening) -> None:
    found = another().open(10)
    assert found == Recovered(1, 0)


def test_recovery_returns_lines_in_order_within_the_window(another: Opening) -> None:
    ledger = another()
    ledger.open(1)
    ready = [a_task(n, queue=f"q{n % 3}", rank=float(-n // 2)) for n in range(1, 11)]
    delayed = [a_task(n, line=Line.DELAYED, rank=50.0 - n, queue=f"q{n % 2}") for n in range(11, 18)]
    waiting = [a_task(n, line=Line.WAITING, after=(id_of(31), id_of(1), id_of(99))) for n in range(18, 20)]
    running = [a_task(20, line=Line.RUNNING, status=TaskStatus.RUNNING, fence=7, assigned_node="n1")]
    gone = [ended(a_task(31), TaskStatus.FAILED, cause="ValueError: no")]
    ledger.write(inserts(*ready, *delayed, *waiting, *running, *gone))
    found = another().open(4)

    def by_place(tasks: list[DistributedTask]) -> list[DistributedTask]:
        return sorted(tasks, key=lambda t: (t.rank, t.seq))

    assert [row(t) for t in found.ready] == [row(t) for t in by_place(ready)[:4]]
    assert [row(t) for t in found.delayed] == [row(t) for t in by_place(delayed)[:4]]
    assert [t.seq for t in found.waiting] == [18, 19]
    assert [t.seq for t in found.running] == [20]
    left = [t.queue for t in by_place(ready)[4:]]
    assert found.tails == {queue: left.count(queue) for queue in set(left)}
    behind = [t.queue for t in by_place(delayed)[4:]]
    assert found.delayed_tails == {queue: behind.count(queue) for queue in set(behind)}
    assert found.last_seq == 31
    known = {name: (fact.status, fact.cause) for name, fact in found.known_ids.items()}
    assert known == {id_of(31): ("failed", "ValueError: no"), id_of(1): ("pending", "submitted")}


def test_recovery_returns_queues_schedules_and_nodes(another: Opening) -> None:
    ledger = another()
    ledger.open(1)
    queue = QueuePolicy("q", weight=2.5, concurrency=3, rate=0.5, paused=True)
    schedule = Schedule("nightly", b"\0row", cron="0 3 * * *", timezone="Europe/Berlin", last_run=5.0, runs=2)
    node = NodeInfo("n1", capabilities={"gpu"}, pids={"node": 4711}, incarnation="a")
    ledger.write(others(QueueSaved(QueuePolicy("q")), QueueSaved(queue), QueueSaved(QueuePolicy("r"))))
    ledger.write(others(QueueRemoved("r"), ScheduleSaved(schedule), node_saved(node)))
    ledger.write(others(ScheduleSaved(Schedule("x", b"")), ScheduleRemoved("x"), NodeRemoved("n9")))
    found = another().open(1)
    assert (found.queues, found.schedules, found.nodes) == ([queue], [schedule], [node])


# --------------------------------------------------------------------------------------- lines and facts


def test_ready_pages_through_one_queue(ledger: Ledger) -> None:
    tasks = [a_task(n, queue="q" if n % 2 else "r", rank=float(n % 4)) for n in range(1, 21)]
    ledger.write(inserts(*tasks, a_task(30, line=Line.DELAYED, queue="q"), ended(a_task(31, queue="q"))))
    expected = sorted((t.rank, t.seq) for t in tasks if t.queue == "q")
    seen: list[tuple[float, int]] = []
    after = FIRST
    while page := ledger.ready("q", after, 3):
        seen += [(r[16], r[0]) for r in page]
        after = seen[-1]
    assert seen == expected


def test_delayed_pages_through_all_queues(ledger: Ledger) -> None:
    tasks = [a_task(n, queue=f"q{n % 3}", line=Line.DELAYED, rank=float(100 - n)) for n in range(1, 11)]
    ledger.write(inserts(*tasks, a_task(30)))
    first = ledger.delayed(FIRST, 4)
    rest = ledger.delayed((first[-1][16], first[-1][0]), 100)
    assert [r[0] for r in first + rest] == list(range(10, 0, -1))


def test_overdue_are_pending_tasks_past_their_deadline(ledger: Ledger) -> None:
    ledger.write(
        inserts(
            a_task(1, deadline=10.0),
            a_task(2, deadline=5.0, line=Line.DELAYED),
            a_task(3, deadline=5.5, line=Line.WAITING),
            a_task(4, deadline=11.0),
            a_task(5),
            a_task(6, deadline=1.0, line=Line.RUNNING, status=TaskStatus.RUNNING),
            ended(a_task(7, deadline=1.0)),
        )
    )
    assert [r[0] for r in ledger.overdue(10.0, 10)] == [2, 3, 1]
    assert [r[0] for r in ledger.overdue(10.0, 2)] == [2, 3]


def test_facts_by_id_and_by_key(ledger: Ledger) -> None:
    tasks = [a_task(n, key=f"k{n}", digest=bytes([n % 256])) for n in range(1, 700)]
    ledger.write(inserts(*tasks, ended(a_task(800), TaskStatus.DEAD, cause="killed workers")))
    known = ledger.known_keys([f"k{n}" for n in range(1000)])
    assert len(known) == 699
    assert (known["k7"].task_id, known["k7"].status, known["k7"].digest) == (id_of(7), "pending", b"\x07")
    facts = ledger.known_ids([id_of(n) for n in range(900)])
    assert len(facts) == 700
    assert (facts[id_of(800)].status, facts[id_of(800)].cause) == ("dead", "killed workers")
    assert ledger.known_keys([]) == ledger.known_ids([]) == {}
    assert len(ledger.tasks([id_of(n) for n in range(900)])) == 700


def test_find_by_prefix(ledger: Ledger) -> None:
    names = ["tsk_a1", "tsk_a2", "tsk_b1", "x", "tsk_%", "tsk__"]
    ledger.write(inserts(*(a_task(n, task_id=name) for n, name in enumerate(names, 1))))
    assert sorted(ledger.find("tsk_a", 10)) == ["tsk_a1", "tsk_a2"]
    assert ledger.find("tsk_%", 10) == ["tsk_%"]
    assert ledger.find("tsk__", 10) == ["tsk__"]
    assert len(ledger.find("", 4)) == 4
    assert ledger.find("nothing", 4) == []


# ----------------------------------------------------------------------------------------------- listing


def a_mixture(count: int) -> list[DistributedTask]:
    statuses = [s for s in TaskStatus if s is not TaskStatus.PENDING]
    tasks: list[DistributedTask] = []
    for n in range(1, count + 1):
        task = a_task(n, queue=f"q{n % 2}", task_type=f"t{n % 5}", payload=b"x" * (n * 100))
        kind = n % 11
        if kind == 10:
            task.line, task.status, task.assigned_node = Line.RUNNING, TaskStatus.RUNNING, f"n{n % 3}"
        elif kind >= 4:
            ended(task, statuses[kind % 5 + 1], assigned_node=f"n{n % 3}")
        else:
            task.line = (Line.READY, Line.READY, Line.DELAYED, Line.WAITING)[kind]
        tasks.append(task)
    return tasks


FILTERS = {
    "all": TaskFilter(),
    **{status.value: TaskFilter(status=(status.value,)) for status in TaskStatus},
    "two statuses": TaskFilter(status=("pending", "dead")),
    "a status twice": TaskFilter(status=("failed", "failed")),
    "no status": TaskFilter(status=()),
    "queue": TaskFilter(queue="q1"),
    "queue and status": TaskFilter(queue="q1", status=("pending",)),
    "type": TaskFilter(task_type="t3"),
    "node": TaskFilter(node="n1"),
    "since": TaskFilter(since=START + 20),
    "until": TaskFilter(until=START + 20),
    "between": TaskFilter(since=START + 10, until=START + 20, status=("completed", "running")),
    "undiscarded": TaskFilter(status=("dead",), discarded=False),
    "discarded": TaskFilter(discarded=True),
    "none": TaskFilter(queue="nowhere"),
}


@pytest.mark.parametrize("where", FILTERS.values(), ids=FILTERS)
@pytest.mark.parametrize("limit", [1, 7, 1000])
def test_listings_are_complete_and_newest_first(ledger: Ledger, where: TaskFilter, limit: int) -> None:
    tasks = a_mixture(60)
    discarded = {t.seq for t in tasks if t.status is TaskStatus.DEAD and t.seq % 2}
    ledger.write(inserts(*tasks))
    ledger.write(others(*(Discarded(seq, 1.0) for seq in sorted(discarded))))
    assert discarded

    def wanted(task: DistributedTask) -> bool:
        return (
            (where.status is None or task.status in where.status)
            and where.queue in (None, task.queue)
            and where.task_type in (None, task.task_type)
            and where.node in (None, task.assigned_node)
            and (where.since is None or task.created_at >= where.since)
            and (where.until is None or task.created_at < where.until)
            and where.discarded in (None, task.seq in discarded)
        )

    pages = [ledger.list(where, None, limit)]
    while pages[-1].next_seq is not None:
        assert len(pages[-1].rows) == limit
        pages.append(ledger.list(where, pages[-1].next_seq, limit))
    expected = [msgspec.structs.replace(t, payload=None, result=None) for t in reversed(tasks) if wanted(t)]
    assert [r for page in pages for r in page.rows] == [row(t) for t in expected]


def test_usage_counts_by_status_queue_and_line(ledger: Ledger) -> None:
    ledger.write(
        inserts(
            a_task(1),
            a_task(2, queue="b"),
            a_task(3, queue="b", line=Line.DELAYED),
            a_task(4, line=Line.WAITING),
            a_task(5, line=Line.RUNNING, status=TaskStatus.RUNNING),
            ended(a_task(6)),
            ended(a_task(7), TaskStatus.EXPIRED),
        )
    )
    usage = ledger.usage()
    assert usage.by_status == {"pending": 4, "running": 1, "completed": 1, "expired": 1}
    assert usage.by_queue == {
        "default": {"ready": 1, "waiting": 1, "running": 1},
        "b": {"ready": 1, "delayed": 1},
    }
    assert (usage.pruned, usage.pruned_before) == (0, None)


# ------------------------------------------------------------------------------------------ other records


def test_a_checkpoint_is_replaced(ledger: Ledger) -> None:
    ledger.write(inserts(a_task(1)))
    ledger.write(others(CheckpointSaved(1, b"1"), CheckpointSaved(1, b"2" * 5000)))
    assert ledger.tasks([id_of(1)]) == [row(a_task(1, checkpoint=b"2" * 5000))]


def test_attempts_are_kept_in_their_order(ledger: Ledger) -> None:
    first = (id_of(1), 0, 5, "n1", "error", "ValueError", b"{}", 1.0, 0.5)
    second = (id_of(1), 1, 9, None, "lost", "node died", None, 2.0, None)
    ledger.write(inserts(a_task(1)))
    ledger.write(Records(attempts=[first, (id_of(2), 0, 6, "n1", "crashed", "", None, 1.0, None)]))
    ledger.write(Records(attempts=[second]))
    assert ledger.attempts(id_of(1)) == [first, second]
    assert ledger.attempts(id_of(3)) == []


def test_log_lines_are_numbered_by_task(ledger: Ledger) -> None:
    ledger.write(inserts(a_task(1), a_task(2)))
    ledger.write(others(LogSaved(id_of(1), 5, ((1.0, "info", "a"), (2.0, "error", "b")))))
    ledger.write(
        others(LogSaved(id_of(2), 6, ((3.0, "info", "x"),)), LogSaved(id_of(1), 5, ((3.0, "info", "c"),)))
    )
    assert ledger.logs(id_of(1), 0, 10) == [
        (1, 1.0, "info", "a"),
        (2, 2.0, "error", "b"),
        (3, 3.0, "info", "c"),
    ]
    assert ledger.logs(id_of(1), 1, 1) == [(2, 2.0, "error", "b")]
    assert ledger.logs(id_of(2), 0, 10) == [(1, 3.0, "info", "x")]


def test_a_log_keeps_its_newest_lines(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "LOG_LINES", 10)
    ledger.write(inserts(a_task(1)))
    for start in range(0, 30, 3):
        lines = tuple((float(n), "info", str(n)) for n in range(start, start + 3))
        ledger.write(others(LogSaved(id_of(1), 1, lines)))
    kept = ledger.logs(id_of(1), 0, 100)
    assert [(number, text) for number, _, _, text in kept] == [(n + 1, str(n)) for n in range(20, 30)]


def test_the_last_handler_of_a_type_is_its_current_one(ledger: Ledger) -> None:
    ledger.write(others(HandlerSaved("d1", "t", b"one"), HandlerSaved("d2", "t", b"two")))
    ledger.write(others(HandlerSaved("d3", "u", b"three"), HandlerSaved("d1", "t", b"one")))
    assert ledger.handlers() == {"t": ("d1", b"one"), "u": ("d3", b"three")}
    assert (ledger.handler("d2"), ledger.handler("d9")) == (b"two", None)


def test_blobs_and_audit(ledger: Ledger) -> None:
    ledger.write(others(BlobSaved("b1", b"\0" * 100_000), BlobSaved("b1", b"\0" * 100_000)))
    assert ledger.blob("b1") == b"\0" * 100_000
    assert ledger.blob("b2") is None
    ledger.write(others(*(AuditSaved(float(n), "me", "cordon", f"n{n}", "why") for n in range(5))))
    assert ledger.audit(2) == [(4.0, "me", "cordon", "n4", "why"), (3.0, "me", "cordon", "n3", "why")]


# --------------------------------------------------------------------------------------------- retention


def test_prune_takes_the_oldest_that_ended_before(ledger: Ledger) -> None:
    tasks = [ended(a_task(n, key=f"k{n}"), completed_at=float(100 - n)) for n in range(1, 11)]
    ledger.write(inserts(*tasks, a_task(20, key="live")))
    assert ledger.prune(95.0, 10**6, 3) == 3
    assert ledger.prune(95.0, 10**6, 3) == 2
    assert ledger.prune(95.0, 10**6, 3) == 0
    assert [r[0] for r in ledger.list(TaskFilter(), None, 100).rows] == [20, 5, 4, 3, 2, 1]
    assert ledger.usage().pruned == 5


def test_prune_keeps_a_number_of_ended_tasks(ledger: Ledger) -> None:
    statuses = (TaskStatus.COMPLETED, TaskStatus.DEAD, TaskStatus.CANCELLED)
    ledger.write(inserts(*(ended(a_task(n), statuses[n % 3]) for n in range(1, 11)), a_task(20)))
    assert ledger.prune(0.0, 4, 100) == 6
    assert [r[0] for r in ledger.list(TaskFilter(), None, 100).rows] == [20, 10, 9, 8, 7]


def test_with_a_task_goes_all_that_belongs_to_it(ledger: Ledger, another: Opening) -> None:
    task = ended(a_task(5, key="key", payload=b"x" * 5000, checkpoint=b"c"), TaskStatus.DEAD)
    ledger.write(inserts(task))
    ledger.write(Records(attempts=[(id_of(5), 0, 5, "n1", "crashed", "", None, 1.0, None)]))
    ledger.write(others(LogSaved(id_of(5), 1, ((1.0, "info", "a"),)), Discarded(5, 1.0)))
    assert ledger.prune(9e9, 0, 10) == 1
    assert ledger.tasks([id_of(5)]) == []
    assert ledger.known_keys(["key"]) == {}
    assert ledger.attempts(id_of(5)) == []
    assert ledger.logs(id_of(5), 0, 10) == []
    assert ledger.check() == []
    assert another().open(1).last_seq == 5, "a number is never given twice"


def test_the_key_of_a_pruned_task_is_free_again(ledger: Ledger) -> None:
    ledger.write(inserts(ended(a_task(1, key="key"))))
    ledger.prune(9e9, 0, 10)
    ledger.write(inserts(a_task(2, key="key")))
    assert ledger.known_keys(["key"])["key"].task_id == id_of(2)


def test_a_task_that_others_come_after_is_not_pruned(ledger: Ledger) -> None:
    waiting = a_task(3, line=Line.WAITING, after=(id_of(1), id_of(9)))
    ledger.write(inserts(ended(a_task(1)), ended(a_task(2)), waiting))
    assert ledger.prune(9e9, 0, 1) == 1
    assert ledger.prune(9e9, 0, 1) == 0
    assert [r[0] for r in ledger.list(TaskFilter(), None, 100).rows] == [3, 1]
    ledger.write(updates(ended(waiting)))
    assert ledger.prune(9e9, 0, 10) == 2


def test_a_pruned_id_is_told_from_one_that_never_was(ledger: Ledger) -> None:
    ledger.write(inserts(*(ended(a_task(n)) for n in (1, 2, 3)), a_task(4)))
    assert ledger.pruned_before() is None
    assert type(retention.missing(id_of(1), ledger.pruned_before())) is NotFound
    ledger.prune(a_task(3).created_at + 3600, 10**6, 10)
    assert ledger.pruned_before() == ledger.usage().pruned_before == START + 2
    assert isinstance(retention.missing(id_of(1), ledger.pruned_before()), Pruned)
    assert isinstance(retention.missing(id_of(2), ledger.pruned_before()), Pruned)
    assert type(retention.missing(id_of(3), ledger.pruned_before())) is NotFound
    assert type(retention.missing("nonsense", ledger.pruned_before())) is NotFound


H1, H2, H3, B1, B2, B3 = (f"{n}" * 32 for n in "123abc")


def test_handlers_and_blobs_go_when_nobody_needs_them(ledger: Ledger) -> None:
    def using(handler: str, seq: int) -> DistributedTask:
        return ended(a_task(seq, options=TaskOptions(handler=handler)))

    ledger.write(
        others(
            BlobSaved(B1, b"1"),
            BlobSaved(B2, b"2"),
            BlobSaved(B3, b"3"),
            HandlerSaved(H1, "t", f'{{"blob": "{B1}"}}'.encode()),
            HandlerSaved(H2, "t", f'{{"package": "{B2}"}}'.encode()),
            HandlerSaved(H3, "t", b"{}"),
        )
    )
    ledger.write(inserts(using(H1, 1), using(H1, 2), using(H3, 3)))

    def held() -> str:
        handlers = "".join(str(n) for n, d in enumerate((H1, H2, H3), 1) if ledger.handler(d) is not None)
        return handlers + "".join(
            n for n, d in (("a", B1), ("b", B2), ("c", B3)) if ledger.blob(d) is not None
        )

    ledger.prune(DAY, 10**6, 10)
    assert held() == "123abc", "what was used a moment ago stays for a day"
    ledger.prune(2 * DAY, 10**6, 10)
    assert held() == "13ab", "blob b is an orphan only since its handler went"
    ledger.prune(3 * DAY, 10**6, 10)
    assert held() == "13a"
    ledger.prune(a_task(1).created_at + 3600.5, 10**6, 10)
    assert held() == "13a", "task 2 needs handler 1"
    end = START + 10 * DAY
    for n in range(4):
        ledger.prune(end + n * DAY, 10**6, 10)
    assert held() == "3", "handler 3 is the current one of its type"


def test_what_a_schedule_needs_stays(ledger: Ledger) -> None:
    template = task_row(a_task(1, options=TaskOptions(handler=H1)))
    ledger.write(
        others(
            BlobSaved(B1, b"1"),
            HandlerSaved(H1, "t", f'{{"blob": "{B1}"}}'.encode()),
            HandlerSaved(H2, "t", b"{}"),
            ScheduleSaved(Schedule("s", msgspec.msgpack.encode(template), interval=5.0)),
        )
    )
    for n in range(4):
        ledger.prune(n * DAY, 10**6, 10)
    assert ledger.handler(H1) is not None
    assert ledger.blob(B1) is not None


def test_what_is_saved_again_is_no_orphan_any_more(ledger: Ledger) -> None:
    ledger.write(others(BlobSaved(B1, b"1")))
    ledger.prune(DAY, 10**6, 10)
    ledger.write(others(BlobSaved(B1, b"1")))
    ledger.prune(2.5 * DAY, 10**6, 10)
    assert ledger.blob(B1) == b"1"


def test_the_audit_is_bounded(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "AUDIT_ENTRIES", 5)
    ledger.write(others(*(AuditSaved(float(n), "me", "v", "s") for n in range(9))))
    ledger.prune(0.0, 10**6, 10)
    assert [entry[0] for entry in ledger.audit(100)] == [8.0, 7.0, 6.0, 5.0, 4.0]


# ------------------------------------------------------------------------------------------- maintenance


def test_maintenance_and_figures(ledger: Ledger) -> None:
    ledger.write(inserts(a_task(1), a_task(2)))
    ledger.write(updates(ended(a_task(1))))
    ledger.maintain()
    assert ledger.full is False
    figures = ledger.statistics()
    assert (figures["commits"], figures["rows"], figures["epoch"]) == (2, 3, 1)
    assert ledger.check() == []


def test_closing_twice_does_nothing(ledger: Ledger) -> None:
    ledger.close()
    ledger.close()


# ------------------------------------------------------------------------------------------------ shards


def test_documents_are_kept_by_kind_and_name(ledger: Ledger) -> None:
    ledger.write(Records(others=[DocumentSaved("token", n, n.encode()) for n in ("b", "a", "ü")]))
    ledger.write(Records(others=[DocumentSaved("pause", "a", b"other"), DocumentSaved("token", "b", b"new")]))
    assert list(ledger.documents("token").items()) == [("a", b"a"), ("b", b"new"), ("ü", "ü".encode())]
    ledger.write(Records(others=[DocumentRemoved("token", "a"), DocumentRemoved("none", "x")]))
    assert list(ledger.documents("token")) == ["b", "ü"]
    assert ledger.documents("pause") == {"a": b"other"}


def test_a_key_stands_for_the_task_that_claimed_it_last(ledger: Ledger) -> None:
    first, second = ClaimSaved("k\0y", "tsk_1", b"d1", 5.0), ClaimSaved("k\0y", "tsk_2", None, 7.0)
    other = ClaimSaved("other", "tsk_3", b"", 6.0)
    ledger.write(Records(others=[first, other]))
    assert ledger.claims(["k\0y", "other", "none"]) == {"k\0y": first, "other": other}
    ledger.write(Records(others=[second]))
    assert ledger.claims(["k\0y"]) == {"k\0y": second}
    assert ledger.old_claims(7.0, (0.0, ""), 10) == [other]
    assert ledger.old_claims(8.0, (0.0, ""), 1) == [other]
    assert ledger.old_claims(8.0, (6.0, "other"), 10) == [second]
    ledger.write(Records(others=[ClaimRemoved("k\0y"), ClaimRemoved("none")]))
    assert ledger.claims(["k\0y", "other"]) == {"other": other}


def test_a_ledger_that_was_never_sharded_has_one_shard(ledger: Ledger) -> None:
    assert ledger.layout() == Layout(shards=1)
