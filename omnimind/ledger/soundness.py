"""Whether what a ledger says can be true: the rules that every write keeps, asked of all rows.

It changes nothing. A finding is an error when work may be lost or stand still by it, else a warning; each
says what would mend it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator

import msgspec

from omnimind.cluster.node import NodeInfo
from omnimind.cluster.policies import QueuePolicy, Schedule
from omnimind.cluster.records import references, task_from_row
from omnimind.cluster.schedules import next_run
from omnimind.cluster.states import TERMINAL, Line, TaskStatus
from omnimind.errors import LedgerCorrupt, OmniMindError
from omnimind.ids import epoch_of as epoch_of_fence
from omnimind.ledger import retention
from omnimind.ledger.dump_rows import Codec
from omnimind.ledger.migrate import HEAD
from omnimind.ledger.statements import CONTRADICTIONS
from omnimind.ledger.stores import Progress, Store

ERROR, WARNING = "error", "warning"

_NAMED = 5
_TERMINAL = ", ".join(f"'{status}'" for status in TERMINAL)
_STATUSES = ", ".join(f"'{status}'" for status in TaskStatus)
_LINES = ", ".join(str(int(line)) for line in Line)

_RESTORE = "restore a backup of before: omnimind ledger restore; and report it: this is a bug of OmniMind"
_REPORT = "it does no harm; report it: this is a bug of OmniMind"
_RERUN = "submit that work again; and report it: this is a bug of OmniMind"


class Finding(msgspec.Struct, frozen=True):
    """What is wrong. check: which rule. count: how many rows. examples: the first of them."""

    check: str
    shard: int
    state: str
    what: str
    count: int
    examples: list[str]
    mend: str


class _Code(msgspec.Struct):
    """Of a handler's record (`omnimind.registry.HandlerSpec`), what names the code that it needs."""

    task_type: str
    blob: str | None = None
    package: str | None = None


Rule = Callable[[Store, int], Iterator[tuple[str, str, str, list[str], int]]]
"""Yields (state, what, mend, examples, count) of what it finds in a shard."""


def check(store: Store, progress: Progress) -> list[Finding]:
    """Return what is wrong with a ledger; nothing when all is well."""
    found: list[Finding] = []
    total = len(RULES) * len(store.shards)
    for n, shard in enumerate(store.shards):
        for i, (name, rule) in enumerate(RULES.items()):
            progress("checking", n * len(RULES) + i, total)
            found += [
                Finding(name, shard, state, what, count, examples[:_NAMED], mend)
                for state, what, mend, examples, count in rule(store, shard)
                if count
            ]
            if name == "database" and found:
                break  # What a damaged database answers says nothing about the rest.
    return found


def _rows(state: str, what: str, mend: str, query: str) -> Rule:
    """Return a rule that finds the rows of a query, the first column of which names them."""

    def rule(store: Store, shard: int) -> Iterator[tuple[str, str, str, list[str], int]]:
        examples = [str(row[0]) for row in store.ask(shard, f"{query} LIMIT {_NAMED}")]
        count = len(examples)
        if count == _NAMED:
            count = int(store.ask(shard, f"SELECT count(*) FROM ({query}) AS found")[0][0])
        yield state, what, mend, examples, count

    return rule


def _database(store: Store, shard: int) -> Iterator[tuple[str, str, str, list[str], int]]:
    if store.kind != "sqlite":
        return  # PostgreSQL checks its own pages as it reads them, where they have checksums.
    try:
        wrong = [str(row[0]) for row in store.ask(shard, "PRAGMA integrity_check(20)") if row[0] != "ok"]
    except LedgerCorrupt as error:
        wrong = [error.message]
    mend = "stop with: omnimind down; then: omnimind ledger restore latest --replace"
    yield ERROR, f"the database is damaged: {'; '.join(wrong[:3])}", mend, wrong, len(wrong)


def _schema(store: Store, shard: int) -> Iterator[tuple[str, str, str, list[str], int]]:
    revision = store.revision(shard)
    if revision != HEAD:
        what = f"its schema is {revision}, this OmniMind's is {HEAD}"
        yield WARNING, what, "omnimind ledger migrate, or just start it: omnimind up", [revision], 1


def _values(store: Store, shard: int) -> Iterator[tuple[str, str, str, list[str], int]]:
    """Each value is of its column's kind: SQLite itself does not see to that."""
    if store.kind != "sqlite":
        return
    for columns in store.tables(shard):
        codec, wrong, count = Codec(columns), [], 0
        for rows in store.rows(shard, columns):
            for row in rows:
                try:
                    codec.encode(row)
                except OmniMindError as error:
                    wrong.append(error.message)
                    count += 1
        yield (
            ERROR,
            f"values in {columns.table} are of another kind than their column",
            _RESTORE,
            wrong,
            count,
        )


def _tasks(store: Store, shard: int) -> Iterator[tuple[str, str, str, list[str], int]]:
    """Options can be read, dependencies exist, handlers exist, and their uses are counted right."""
    handlers = {row[0] for row in store.ask(shard, "SELECT digest FROM handlers")}
    uses: Counter[str] = Counter()
    unreadable: list[str] = []
    for options, count in store.ask(shard, "SELECT options, count(*) FROM tasks GROUP BY options"):
        try:
            handler, _ = references(options)
        except (msgspec.MsgspecError, TypeError, ValueError) as error:
            unreadable.append(f"{count:,} tasks: {error}")
            continue
        if handler:
            uses[handler] += count
    yield ERROR, "options of tasks cannot be read", _RESTORE, unreadable, len(unreadable)
    missing = sorted(uses.keys() - handlers)
    what = "tasks name handlers that are not there: those that have not ended will fail"
    yield ERROR, what, "submit them again from a program that has the code", missing, len(missing)
    counted = {row[0]: row[1] for row in store.ask(shard, "SELECT digest, uses FROM handler_uses")}
    wrong = [
        f"{digest}: {counted.get(digest, 0)} instead of {uses[digest]}"
        for digest in sorted({*uses, *counted})
        if counted.get(digest, 0) != uses[digest]
    ]
    what = "the counts of tasks by handler are not the numbers of tasks"
    yield WARNING, what, _REPORT, wrong, len(wrong)


def _dependencies(store: Store, shard: int) -> Iterator[tuple[str, str, str, list[str], int]]:
    statuses: dict[str, str] = {}
    gone, ready = [], []
    for task_id, options in store.ask(shard, "SELECT id, options FROM tasks WHERE line = 2"):
        try:
            parents = references(options)[1]
        except (msgspec.MsgspecError, TypeError, ValueError):
            continue  # `_tasks` has said so.
        for parent in parents:
            if parent not in statuses:
                quoted = parent.replace("'", "''")
                rows = store.ask(shard, f"SELECT status FROM tasks WHERE id = '{quoted}'")
                statuses[parent] = rows[0][0] if rows else ""
        if any(not statuses[parent] for parent in parents):
            gone.append(task_id)
        elif all(statuses[parent] in TERMINAL for parent in parents):
            ready.append(task_id)
    if len(store.shards) == 1:
        what = "tasks wait for tasks that are not there"
        yield ERROR, what, "cancel them (omnimind task cancel ID) and submit them again", gone, len(gone)
    what = "tasks wait for tasks that have all ended"
    yield ERROR, what, "start the coordinator anew: omnimind down && omnimind up", ready, len(ready)


def _code(store: Store, shard: int) -> Iterator[tuple[str, str, str, list[str], int]]:
    handlers: dict[str, _Code] = {}
    unreadable = []
    for digest, spec in store.ask(shard, "SELECT digest, spec FROM handlers"):
        try:
            handlers[digest] = msgspec.json.decode(spec, type=_Code)
        except msgspec.MsgspecError as error:
            unreadable.append(f"{digest}: {error}")
    yield ERROR, "records of handlers cannot be read", _RERUN, unreadable, len(unreadable)
    types = store.ask(shard, "SELECT type, digest FROM task_types")
    lost = [name for name, digest in types if digest not in handlers]
    what = "task types name handlers that are not there"
    yield ERROR, what, "submit a task of that type from a program that has the code", lost, len(lost)
    blobs = {row[0] for row in store.ask(shard, "SELECT digest FROM blobs")}
    bare = [
        f"{spec.task_type} ({digest})"
        for digest, spec in handlers.items()
        if not {d for d in (spec.blob, spec.package) if d} <= blobs
    ]
    what = "the code of handlers is not there"
    yield ERROR, what, "submit a task of that type from a program that has the code", bare, len(bare)


def _settings(store: Store, shard: int) -> Iterator[tuple[str, str, str, list[str], int]]:
    wrong = []
    for name, data in store.ask(shard, "SELECT name, policy FROM queues"):
        try:
            if msgspec.json.decode(data, type=QueuePolicy).name != name:
                wrong.append(f"{name}: it names another queue")
        except msgspec.MsgspecError as error:
            wrong.append(f"{name}: {error}")
    yield ERROR, "limits of queues cannot be read", "omnimind queue set NAME …", wrong, len(wrong)
    wrong = []
    for name, data in store.ask(shard, "SELECT node_id, info FROM nodes"):
        try:
            msgspec.json.decode(data, type=NodeInfo)
        except msgspec.MsgspecError as error:
            wrong.append(f"{name}: {error}")
    yield ERROR, "records of nodes cannot be read", _RESTORE, wrong, len(wrong)


def _schedules(store: Store, shard: int) -> Iterator[tuple[str, str, str, list[str], int]]:
    wrong = []
    handlers = {row[0] for row in store.ask(shard, "SELECT digest FROM handlers")}
    for name, data in store.ask(shard, "SELECT name, schedule FROM schedules"):
        try:
            schedule = msgspec.msgpack.decode(data, type=Schedule)
            if (schedule.cron is None) == (schedule.interval is None):
                wrong.append(f"{name}: it has neither or both of cron and interval")
            next_run(schedule, 0.0)
            task = task_from_row(msgspec.msgpack.decode(schedule.task))
            if not math.isfinite(schedule.next_run):
                wrong.append(f"{name}: it has no next run")
            if task.options.handler and task.options.handler not in handlers:
                wrong.append(f"{name}: its handler {task.options.handler} is not there")
        except (msgspec.MsgspecError, OmniMindError, TypeError, ValueError) as error:
            wrong.append(f"{name}: {error}")
    yield ERROR, "schedules cannot run", "set them again: omnimind schedule set NAME …", wrong, len(wrong)


def _fences(store: Store, shard: int) -> Iterator[tuple[str, str, str, list[str], int]]:
    row = store.ask(shard, "SELECT epoch FROM ledger WHERE id = 1")
    epoch = int(row[0][0]) if row else 0
    highest = store.ask(shard, "SELECT id, fence FROM tasks ORDER BY fence DESC LIMIT 1")
    wrong = [
        f"{task}: epoch {epoch_of_fence(fence)}" for task, fence in highest if epoch_of_fence(fence) > epoch
    ]
    what = f"tasks carry fences of epochs that are to come (the ledger's is {epoch})"
    mend = "restore it with `omnimind ledger restore`, not by copying files: that raises the epoch"
    yield ERROR, what, mend, wrong, len(wrong)


def _one_row(store: Store, shard: int) -> Iterator[tuple[str, str, str, list[str], int]]:
    rows = store.ask(shard, "SELECT id, epoch, pruned, pruned_seq FROM ledger")
    wrong = [str(row) for row in rows if row[0] != 1 or row[1] < 0 or row[2] < 0 or row[3] < 0]
    if len(rows) != 1:
        wrong.append(f"{len(rows)} rows")
    yield ERROR, "the row that says whose the ledger is cannot be", _RESTORE, wrong, len(wrong)


RULES: dict[str, Rule] = {
    "database": _database,
    "schema": _schema,
    "owner": _one_row,
    "values": _values,
    "status": _rows(
        ERROR,
        "tasks are in a state or a line that does not exist",
        _RESTORE,
        f"SELECT id FROM tasks WHERE status NOT IN ({_STATUSES}) OR line NOT IN ({_LINES})",
    ),
    **{
        f"contradiction {n}": _rows(WARNING if "belong to no task" in what else ERROR, what, mend, query)
        for n, (what, query) in enumerate(CONTRADICTIONS, 1)
        for mend in [_REPORT if "belong to no task" in what else _RESTORE]
    },
    "result": _rows(
        ERROR,
        "tasks have completed without a result",
        _RERUN,
        "SELECT id FROM tasks WHERE status = 'completed' AND result IS NULL",
    ),
    "reason": _rows(
        ERROR,
        "tasks have ended without a reason",
        _REPORT,
        f"SELECT id FROM tasks WHERE status IN ({_TERMINAL}) AND cause = '' AND error IS NULL",
    ),
    "rank": _rows(
        ERROR,
        "tasks stand in a line at no place",
        _RESTORE,
        "SELECT id FROM tasks WHERE line >= 0 AND NOT (rank > -1e300 AND rank < 1e300)",
    ),
    "delay": _rows(
        ERROR,
        "delayed tasks stand at another place than when they are due",
        _RESTORE,
        "SELECT id FROM tasks WHERE line = 1 AND rank <> not_before",
    ),
    "payload": _rows(
        ERROR,
        "tasks have two payloads",
        _RESTORE,
        "SELECT id FROM tasks WHERE payload IS NOT NULL AND seq IN (SELECT seq FROM payloads)",
    ),
    "discarded": _rows(
        WARNING,
        "tasks are taken off the list of the dead that are not dead",
        _REPORT,
        "SELECT id FROM tasks WHERE status <> 'dead' AND seq IN (SELECT seq FROM discarded)",
    ),
    "tasks": _tasks,
    "dependencies": _dependencies,
    "code": _code,
    "queues and nodes": _settings,
    "schedules": _schedules,
    "fences": _fences,
}
"""By name. The first decides whether the others are asked at all."""


def would_prune(store: Store, before: float, keep: int) -> int:
    """Return how many ended tasks `Ledger.prune` would delete until it has no more to do."""
    found = 0
    for shard in store.shards:
        ended = int(store.ask(shard, "SELECT count(*) FROM tasks WHERE line = -1")[0][0])
        old = int(
            store.ask(
                shard,
                f"SELECT count(*) FROM tasks WHERE line = -1 AND coalesce(completed_at, 0) < {before}",
            )[0][0]
        )
        number = max(old, ended - keep)
        if number <= 0:
            continue
        waiting = store.ask(shard, "SELECT DISTINCT options FROM tasks WHERE line = 2")
        needed = retention.needed_ids(row[0] for row in waiting)
        gone = [
            row[0]
            for row in store.ask(
                shard, f"SELECT id FROM tasks WHERE line = -1 ORDER BY completed_at, seq LIMIT {number}"
            )
            if row[0] not in needed
        ]
        found += len(gone)
    return found
