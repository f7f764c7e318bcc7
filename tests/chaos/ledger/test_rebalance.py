"""Queues change their shard with all that is theirs, whatever is killed when. Real databases."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from omnimind import failpoints
from omnimind.cluster.policies import QueuePolicy, Schedule
from omnimind.cluster.records import (
    AuditSaved,
    BlobSaved,
    CheckpointSaved,
    ClaimSaved,
    Discarded,
    HandlerSaved,
    LogSaved,
    QueueSaved,
    Records,
    ScheduleSaved,
    task_from_row,
    task_row,
)
from omnimind.cluster.sharding import bucket_of, home_of_key, shard_of_queue, shards_of_id
from omnimind.cluster.states import Line, TaskStatus
from omnimind.cluster.task import DistributedTask, TaskOptions
from omnimind.config.sections import LedgerSettings
from omnimind.errors import LedgerError
from omnimind.ids import new_slab, task_id
from omnimind.ledger import rebalance
from omnimind.ledger.interface import Layout, Ledger, TaskFilter
from omnimind.ledger.opening import open_ledger
from omnimind.ledger.rebalance import arrange, read_layout

QUEUES = ("default", "emails", "images", "reports", "bills", "scans", "c", "e")
START = 1_800_000_000.0
MOST = 4
EACH = 20
OPTIONS = TaskOptions(handler="h1")

Everything = dict[str, Any]


@pytest.fixture(params=["sqlite", "postgresql"])
def settings(request: pytest.FixtureRequest) -> LedgerSettings:
    url = request.getfixturevalue("new_database")() if request.param == "postgresql" else ""
    return LedgerSettings(url=url)


@pytest.fixture
def disarmed() -> Iterator[None]:
    yield
    failpoints.arm("")


def tasks_of(chance: random.Random, queue: str, number: int) -> Iterator[DistributedTask]:
    """Give tasks of every kind: in all lines, ended in every way, with and without keys, long and short."""
    bucket = bucket_of(queue)
    for n in range(number):
        # Some of them are from before ids said their bucket.
        slab = new_slab(bucket if chance.random() < 0.8 else None)
        task = DistributedTask(
            task_id(slab), "t", bytes([n % 250]) * chance.choice((5, 3000)), queue=queue, options=OPTIONS
        )
        task.created_at = START + n
        task.rank = START + chance.randrange(50)
        if chance.random() < 0.4:
            task.key, task.digest = f"{queue}/{n}\0é", b"digest"
        line = chance.choice((Line.READY, Line.READY, Line.DELAYED, Line.WAITING, Line.RUNNING, Line.NONE))
        task.line = line
        if line is Line.RUNNING:
            task.status, task.fence, task.assigned_node = TaskStatus.RUNNING, 77, "n1"
        elif line is Line.NONE:
            task.status = chance.choice((TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.DEAD))
            task.completed_at, task.result, task.fence = START + n, b"result", 5
        elif line is Line.WAITING:
            task.after = (task_id(new_slab(bucket)),)
        yield task


def fill(settings: LedgerSettings, home: Path, shards: int, seed: int, each: int = EACH) -> None:
    """Write work into a cluster of so many shards, as coordinators would have."""
    chance = random.Random(seed)
    assert arrange(settings, home, shards) is (shards > 1)
    ledgers = [open_ledger(settings, home, shard) for shard in range(shards)]
    numbers = [ledger.open(10).last_seq for ledger in ledgers]
    for queue in QUEUES:
        shard = shard_of_queue(queue, shards)
        records = Records()
        others = records.others
        others.append(QueueSaved(QueuePolicy(queue, weight=1.0 + len(queue))))
        others.append(HandlerSaved("h1", "t", b'{"task_type":"t","kind":"sync","by":"name"}'))
        others.append(BlobSaved("b1", b"blob"))
        for task in tasks_of(chance, queue, each):
            numbers[shard] += 1
            if shards > 1:
                numbers[shard] += (shard - numbers[shard]) % 16
            task.seq = numbers[shard]
            records.inserts.append(task_row(task))
            if task.line is Line.RUNNING:
                others.append(CheckpointSaved(task.seq, b"half"))
            if task.status is TaskStatus.DEAD and chance.random() < 0.5:
                others.append(Discarded(task.seq, START))
            if chance.random() < 0.3:
                lines = ((START, "info", "one"), (START + 1, "info", "two"))
                others.append(LogSaved(task.task_id, task.fence, lines))
                records.attempts.append((task.task_id, 0, 3, "n1", "error", "x", b'{"a":1}', START, 0.5))
            if task.key is not None and shards > 1:
                claim = ClaimSaved(task.key, task.task_id, task.digest, task.created_at)
                ledgers[home_of_key(task.key, shards)].write(Records(others=[claim]))
        template = DistributedTask("tsk_template", "t", b"{}", queue=queue, options=OPTIONS)
        row = msgspec.msgpack.encode(task_row(template))
        others.append(ScheduleSaved(Schedule(f"nightly-{queue}", row, None, 60.0, next_run=START)))
        others.append(AuditSaved(START + len(queue), "me", "queue.set", queue, "x"))
        ledgers[shard].write(records)
    for ledger in ledgers:
        ledger.close()


def normal(task: DistributedTask) -> dict[str, Any]:
    """Return a task without what a move may change: the fence of one that has not ended."""
    found: dict[str, Any] = msgspec.to_builtins(task)
    if not task.terminal:
        found["fence"] = 0
    return found


def everything(settings: LedgerSettings, home: Path, shards: int) -> Everything:
    """Return all that a cluster holds, and see that each thing is in its own shard and only there."""
    tasks: dict[str, Any] = {}
    order: dict[str, list[str]] = {}
    beside: dict[str, Any] = {}
    names: list[str] = []
    audit: list[Any] = []
    claims: dict[str, str] = {}
    for shard in range(MOST):
        if not settings.url and not (home / ("ledger.db" if shard == 0 else f"ledger-{shard}.db")).exists():
            continue
        ledger: Ledger = open_ledger(settings, home, shard)
        recovered = ledger.open(10_000)
        rows: list[Any] = []
        cursor: int | None = None
        while True:
            page = ledger.list(TaskFilter(), cursor, 100)
            rows += page.rows
            cursor = page.next_seq
            if cursor is None:
                break
        for row in ledger.tasks([row[1] for row in rows]):
            task = task_from_row(row)
            assert shard_of_queue(task.queue, shards) == shard, f"{task.queue} in shard {shard}"
            assert shard in shards_of_id(task.task_id, shards), "its id leads elsewhere"
            assert task.task_id not in tasks, f"{task.task_id} is there twice"
            tasks[task.task_id] = normal(task)
            beside[task.task_id] = [ledger.attempts(task.task_id), ledger.logs(task.task_id, 0, 100)]
            if task.key is not None:
                assert ledger.known_keys([task.key])[task.key].task_id == task.task_id
        for task in recovered.ready:
            order.setdefault(task.queue, []).append(task.task_id)
        names += [policy.name for policy in recovered.queues] + [s.name for s in recovered.schedules]
        assert all(shard_of_queue(policy.name, shards) == shard for policy in recovered.queues)
        audit += ledger.audit(1000)
        for claim in ledger.old_claims(START * 2, (0.0, ""), 10_000):
            assert home_of_key(claim.key, shards) == shard
            claims[claim.key] = claim.task_id
        assert ledger.check() == []
        if rows:
            assert ledger.handler("h1") is not None
            assert ledger.blob("b1") == b"blob"
        ledger.close()
    if shards > 1:
        assert claims == {t["key"]: i for i, t in tasks.items() if t["key"] is not None}
    else:
        assert claims == {}
    return {"tasks": tasks, "order": order, "beside": beside, "names": sorted(names), "audit": sorted(audit)}


def test_nothing_changes_but_the_shard(settings: LedgerSettings, tmp_path: Path) -> None:
    fill(settings, tmp_path, 1, 1)
    before = everything(settings, tmp_path, 1)
    assert len(before["tasks"]) == EACH * len(QUEUES)
    for shards in (2, 3, 2, 4, 1):
        assert arrange(settings, tmp_path, shards)
        assert read_layout(settings, tmp_path) == Layout(shards)
        assert everything(settings, tmp_path, shards) == before
        assert not arrange(settings, tmp_path, shards)


def test_work_of_three_shards_comes_together_and_apart(settings: LedgerSettings, tmp_path: Path) -> None:
    fill(settings, tmp_path, 3, 2)
    before = everything(settings, tmp_path, 3)
    for shards in (1, 3, 2):
        assert arrange(settings, tmp_path, shards)
        assert everything(settings, tmp_path, shards) == before


def test_no_number_is_given_twice(settings: LedgerSettings, tmp_path: Path) -> None:
    fill(settings, tmp_path, 1, 3)
    arrange(settings, tmp_path, 2)
    last = []
    for shard in range(2):
        ledger = open_ledger(settings, tmp_path, shard)
        last.append(ledger.open(1).last_seq)
        ledger.close()
    assert last[0] == last[1] >= EACH * len(QUEUES)


def test_handlers_are_used_as_often_as_before(settings: LedgerSettings, tmp_path: Path) -> None:
    """After everything has moved away and back, pruning all tasks leaves no handler in use."""
    fill(settings, tmp_path, 2, 4)
    arrange(settings, tmp_path, 1)
    ledger = open_ledger(settings, tmp_path)
    ledger.open(1)
    ended = sum(n for status, n in ledger.usage().by_status.items() if status not in {"pending", "running"})
    assert ended
    while ledger.prune(START + 1e6, 0, 100):
        pass
    live = EACH * len(QUEUES) - ended
    assert sum(ledger.usage().by_status.values()) == live
    assert ledger.handler("h1") is not None
    ledger.close()


STEP = """
import sys
from pathlib import Path
from omnimind.config.sections import LedgerSettings
from omnimind.ledger.rebalance import arrange
arrange(LedgerSettings(url=sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
"""


def killed_at(settings: LedgerSettings, home: Path, shards: int, where: str, visit: int) -> bool:
    """Arrange in a process that is killed at a point; return whether it came so far."""
    done = subprocess.run(
        [sys.executable, "-c", STEP, settings.url, str(home), str(shards)],
        env={**os.environ, failpoints.VARIABLE: f"rebalance.{where}=kill@{visit}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode != 0


@pytest.mark.parametrize("where", ["before_commit", "after_commit"])
@pytest.mark.parametrize("told", ["again", "the old number", "another number"])
def test_killed_anywhere_nothing_is_lost_or_doubled(tmp_path: Path, where: str, told: str) -> None:
    """Killed again and again, further along each time; then it is told a number and must get there."""
    settings = LedgerSettings()
    fill(settings, tmp_path, 2, 5, each=4)
    before = everything(settings, tmp_path, 2)
    visit, kills = 1, 0
    while killed_at(settings, tmp_path, 3, where, visit):
        kills += 1
        visit += 6
        if kills % 3 == 0:
            shards = {"again": 3, "the old number": 2, "another number": 1}[told]
            arrange(settings, tmp_path, shards)
            assert everything(settings, tmp_path, shards) == before
            arrange(settings, tmp_path, 2)
    assert kills > 5, "or nothing was killed"
    assert everything(settings, tmp_path, 3) == before


def test_a_process_that_was_replaced_while_it_moved_queues_is_refused(
    tmp_path: Path, disarmed: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = LedgerSettings()
    fill(settings, tmp_path, 1, 6)
    calls: list[Any] = []
    put = rebalance._put

    def put_after_another_took_over(*args: Any) -> None:
        calls.append(None)
        if len(calls) == 1:
            other = open_ledger(settings, tmp_path, 0)
            other.open(1)
            other.close()
        put(*args)

    monkeypatch.setattr(rebalance, "_put", put_after_another_took_over)
    with pytest.raises(LedgerError, match="taken over"):
        arrange(settings, tmp_path, 2)


# ---------------------------------------------------------------------------------------- planted bugs


def keeps_the_promise(settings: LedgerSettings, home: Path) -> bool:
    fill(settings, home, 1, 7)
    before = everything(settings, home, 1)
    try:
        arrange(settings, home, 3)
        return everything(settings, home, 3) == before
    except (AssertionError, LedgerError):
        return False


Plant = Callable[[pytest.MonkeyPatch], None]


def loses_a_task(patch: pytest.MonkeyPatch) -> None:
    put = rebalance._put

    def forgetful(db: Any, table: Any, rows: Any) -> None:
        given = list(rows)
        put(db, table, given[:-1] if table.name == "tasks" else given)

    patch.setattr(rebalance, "_put", forgetful)


def loses_logs(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(rebalance, "_BY_ID", rebalance._BY_ID[:1])


def leaves_what_moved(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(rebalance._Arranger, "_sweep", lambda *_: None)


def forgets_claims(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(rebalance._Arranger, "_claim", lambda *_: None)


def sends_elsewhere(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        rebalance, "shard_of_queue", lambda name, shards: (shard_of_queue(name, shards) + 1) % shards
    )


@pytest.mark.parametrize(
    "plant", [loses_a_task, loses_logs, leaves_what_moved, forgets_claims, sends_elsewhere]
)
def test_planted_bugs_are_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plant: Plant) -> None:
    healthy, sick = tmp_path / "healthy", tmp_path / "sick"
    healthy.mkdir()
    sick.mkdir()
    assert keeps_the_promise(LedgerSettings(), healthy)
    plant(monkeypatch)
    assert not keeps_the_promise(LedgerSettings(), sick)
