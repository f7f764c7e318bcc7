"""`arrange`: bring the ledgers to a number of shards, while no coordinator runs.

Shard 0's ledger says how many shards there are (`Layout`), and each step is one that may be repeated::

    shards=2                       as it was
    shards=2 target=3              copying what moves: what is copied is nobody's yet
    shards=3 leaving=2             the cut: one commit; from now on the copies count
    shards=3                       what has moved is deleted where it was

Killed before the cut, the next start deletes what was copied and begins again (or stays as it was, if it is
told the old number again). Killed after it, the next start goes on deleting. A coordinator does not start
in between. A queue moves with all that belongs to it: its policy, schedules, tasks of any state with
their numbers, attempts, logs, results and checkpoints. Numbers are unique over all shards, so the order
inside a queue stays as it is.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec
import sqlalchemy as sa

from omnimind.cluster.policies import Schedule
from omnimind.cluster.records import references, task_from_row
from omnimind.cluster.sharding import home_of_key, shard_of_queue
from omnimind.config.sections import LedgerSettings
from omnimind.errors import LedgerError
from omnimind.ledger import schema as t
from omnimind.ledger.bulk import Bulk
from omnimind.ledger.interface import Layout
from omnimind.ledger.opening import open_ledger, sqlite_path
from omnimind.ledger.reads import Reads

_STEP = 500
_BY_SEQ = (t.payloads, t.checkpoints, t.discarded)
_BY_ID = (t.attempts, t.logs)
_NAMED = (t.queues, t.schedules, t.claims, t.blobs, t.handlers, t.task_types)


_IN_SQLITE = "SELECT count(*) FROM sqlite_schema WHERE name = 'layout'"
_IN_POSTGRES = (
    "SELECT count(*) FROM pg_class WHERE relname = 'layout' AND relnamespace ="
    " (SELECT oid FROM pg_namespace WHERE nspname = current_schema())"
)


def read_layout(settings: LedgerSettings, home: Path) -> Layout:
    """Return how many shards there are; one, where there is no ledger. Raises what the database raises."""
    if not settings.url and not sqlite_path(home).exists():
        return Layout()
    ledger = open_ledger(settings, home)
    assert isinstance(ledger, Reads)
    try:
        # A ledger from before there were shards has no such table.
        there = ledger._read(_IN_POSTGRES if settings.url else _IN_SQLITE)[0][0]  # noqa: SLF001
        return ledger.layout() if there else Layout()
    finally:
        ledger.close()


def arrange(
    settings: LedgerSettings, home: Path, shards: int, *, begin: Callable[[], None] = lambda: None
) -> bool:
    """Move what must move, so that there are `shards` shards; return whether anything was to be done.

    begin: called before the first change; from then on nothing may run. Raises what the databases raise:
    then nothing is lost, and the next call goes on.
    """
    layout = read_layout(settings, home)
    if layout == Layout(shards):
        return False
    begin()
    most = max(n for n in (layout.shards, layout.target, layout.leaving, shards) if n is not None)
    with contextlib.ExitStack() as opened:
        ledgers = []
        for shard in range(most):
            ledgers.append(Bulk(settings, home, shard))
            opened.callback(ledgers[-1].close)
        _Arranger(ledgers, layout).bring_to(shards)
    return True


class _Arranger:
    def __init__(self, ledgers: list[Bulk], layout: Layout) -> None:
        self._ledgers = ledgers
        self._layout = layout

    def bring_to(self, shards: int) -> None:
        """Finish what was begun, then do what is asked for."""
        if self._layout.leaving is not None or self._layout.target is not None:
            # After the cut: what has moved goes where it was. Before it: the copies go.
            self._sweep_all(self._layout.shards)
            self._note(Layout(self._layout.shards))
        if self._layout.shards == shards:
            return
        before = self._layout.shards
        self._note(Layout(before, target=shards))
        self._copy_all(before, shards)
        self._note(Layout(shards, leaving=before))
        self._sweep_all(shards)
        self._note(Layout(shards))

    def _note(self, layout: Layout) -> None:
        with self._ledgers[0].transaction() as db:
            db.execute(sa.delete(t.layout))
            db.execute(sa.insert(t.layout), {"id": 1, **msgspec.structs.asdict(layout)})
        self._layout = layout

    # ------------------------------------------------------------------------------------------ copying

    def _copy_all(self, before: int, shards: int) -> None:
        for source in self._ledgers[:before]:
            moving = _queues_by_home(source, shards)
            for home, queues in sorted(moving.items()):
                if home != source.shard:
                    self._copy(source, self._ledgers[home], queues)
        self._level()
        for source in self._ledgers[:before]:
            self._claim(source, shards)

    def _copy(self, source: Bulk, target: Bulk, queues: list[str]) -> None:
        _copy_code(source, target)
        with source.transaction() as db:
            policies = _rows(db, sa.select(t.queues).where(t.queues.c.name.in_(queues)))
            schedules = _schedules_of(source, db, queues)
        with target.transaction() as db:
            _put(db, t.queues, policies)
            _put(db, t.schedules, schedules)
        copied, last = 0, -1
        while True:
            with source.transaction() as db:
                where = t.tasks.c.queue.in_(queues) & (t.tasks.c.seq > last)
                rows = _rows(db, sa.select(t.tasks).where(where).order_by(t.tasks.c.seq).limit(_STEP))
                seqs, ids = [r["seq"] for r in rows], [r["id"] for r in rows]
                beside = {
                    table: _rows(db, sa.select(table).where(table.c.seq.in_(seqs))) for table in _BY_SEQ
                }
                beside |= {
                    table: _rows(db, sa.select(table).where(table.c.task_id.in_(ids))) for table in _BY_ID
                }
            if not rows:
                break
            with target.transaction() as db:
                # Fences are compared within a shard only; whatever ran has been ended.
                _put(db, t.tasks, [r if r["line"] < 0 else r | {"fence": 0} for r in rows])
                for table, found in beside.items():
                    _put(db, table, [{k: v for k, v in r.items() if k != "n"} for r in found])
                _use_handlers(db, rows, 1)
            copied, last = copied + len(rows), seqs[-1]
        with target.transaction() as db:
            count = sa.select(sa.func.count()).select_from(t.tasks).where(t.tasks.c.queue.in_(queues))
            arrived = db.execute(count).scalar_one()
        if arrived != copied:
            msg = (
                f"{copied} tasks were to move from shard {source.shard} to {target.shard}, {arrived} arrived"
            )
            raise LedgerError(msg, hint="nothing was cut over; start it with the number of shards of before")

    def _level(self) -> None:
        """Let no number be given twice, and no pruned task be called unknown, whatever has moved where."""
        highest, pruned = 0, None
        for ledger in self._ledgers:
            with ledger.transaction() as db:
                last = db.execute(sa.select(sa.func.coalesce(sa.func.max(t.tasks.c.seq), 0))).scalar_one()
                row = db.execute(sa.select(t.ledger.c.pruned_seq, t.ledger.c.pruned_before)).one()
            highest = max(highest, last, row[0])
            pruned = max((p for p in (pruned, row[1]) if p is not None), default=None)
        for ledger in self._ledgers:
            with ledger.transaction() as db:
                db.execute(sa.update(t.ledger).values(pruned_seq=highest, pruned_before=pruned))

    def _claim(self, source: Bulk, shards: int) -> None:
        """Let the keys of a shard's tasks be known at their homes."""
        if shards == 1:
            return
        last = -1
        while True:
            with source.transaction() as db:
                columns = (t.tasks.c.seq, t.tasks.c.key, t.tasks.c.id, t.tasks.c.digest, t.tasks.c.created_at)
                query = sa.select(*columns).where(t.tasks.c.key.is_not(None) & (t.tasks.c.seq > last))
                rows = db.execute(query.order_by(t.tasks.c.seq).limit(_STEP)).all()
            if not rows:
                return
            by_home: dict[int, list[dict[str, Any]]] = {}
            for _, key, task_id, digest, at in rows:
                claim = {"key": key, "task_id": task_id, "digest": digest, "at": at}
                by_home.setdefault(home_of_key(source.text(key), shards), []).append(claim)
            for home, claims in by_home.items():
                with self._ledgers[home].transaction() as db:
                    _put(db, t.claims, claims)
            last = rows[-1][0]

    # ----------------------------------------------------------------------------------------- deleting

    def _sweep_all(self, shards: int) -> None:
        for ledger in self._ledgers:
            moved = _queues_by_home(ledger, shards)
            queues = [name for home, names in moved.items() if home != ledger.shard for name in names]
            self._sweep(ledger, queues)
            self._sweep_claims(ledger, shards)
            if ledger.shard >= shards:
                _move_audit(ledger, self._ledgers[0])

    def _sweep(self, ledger: Bulk, queues: list[str]) -> None:
        while queues:
            with ledger.transaction() as db:
                where = t.tasks.c.queue.in_(queues)
                query = sa.select(t.tasks.c.seq, t.tasks.c.id, t.tasks.c.options).where(where).limit(_STEP)
                rows = _rows(db, query)
                seqs, ids = [r["seq"] for r in rows], [r["id"] for r in rows]
                for table in (*_BY_SEQ, t.tasks):
                    db.execute(sa.delete(table).where(table.c.seq.in_(seqs)))
                for table in _BY_ID:
                    db.execute(sa.delete(table).where(table.c.task_id.in_(ids)))
                _use_handlers(db, rows, -1)
            if not rows:
                break
        with ledger.transaction() as db:
            names = [s["name"] for s in _schedules_of(ledger, db, queues)]
            db.execute(sa.delete(t.schedules).where(t.schedules.c.name.in_(names)))
            db.execute(sa.delete(t.queues).where(t.queues.c.name.in_(queues)))

    def _sweep_claims(self, ledger: Bulk, shards: int) -> None:
        last = ""
        while True:
            with ledger.transaction() as db:
                query = sa.select(t.claims.c.key).where(t.claims.c.key > last).order_by(t.claims.c.key)
                keys = list(db.execute(query.limit(_STEP)).scalars())
                gone = [k for k in keys if shards == 1 or home_of_key(ledger.text(k), shards) != ledger.shard]
                if gone:
                    db.execute(sa.delete(t.claims).where(t.claims.c.key.in_(gone)))
            if len(keys) < _STEP:
                return
            last = keys[-1]


def _rows(db: sa.Connection, query: sa.Select[Any]) -> list[dict[str, Any]]:
    return [dict(row) for row in db.execute(query).mappings()]


def _queue_of(schedule: dict[str, Any]) -> str:
    """Return the queue of a schedule's tasks, as it is (not as a database may have to write it)."""
    kept = msgspec.msgpack.decode(schedule["schedule"], type=Schedule)
    return task_from_row(tuple(msgspec.msgpack.decode(kept.task))).queue


def _schedules_of(ledger: Bulk, db: sa.Connection, queues: list[str]) -> list[dict[str, Any]]:
    names = {ledger.text(name) for name in queues}
    return [s for s in _rows(db, sa.select(t.schedules)) if _queue_of(s) in names]


def _queues_by_home(ledger: Bulk, shards: int) -> dict[int, list[str]]:
    """Return the queues of which a ledger holds anything, by the shard that keeps them."""
    with ledger.transaction() as db:
        names = {*db.execute(sa.select(t.tasks.c.queue).distinct()).scalars()}
        names |= {*db.execute(sa.select(t.queues.c.name)).scalars()}
        names |= {_queue_of(schedule) for schedule in _rows(db, sa.select(t.schedules))}
    found: dict[int, list[str]] = {}
    for name in sorted(names):
        found.setdefault(shard_of_queue(ledger.text(name), shards), []).append(name)
    return found


def _put(db: sa.Connection, table: sa.Table, rows: Iterable[dict[str, Any]]) -> None:
    """Insert rows; of names, those that are there already are replaced."""
    given = list(rows)
    if not given:
        return
    [first, *_] = table.primary_key
    if table in _NAMED:
        db.execute(sa.delete(table).where(first.in_([row[first.name] for row in given])))
    db.execute(sa.insert(table), given)


def _use_handlers(db: sa.Connection, rows: list[dict[str, Any]], sign: int) -> None:
    """Count tasks that come or go among their handlers' uses."""
    for digest, count in Counter(references(row["options"])[0] for row in rows).items():
        if digest:
            uses = t.handler_uses.c.uses
            changed = db.execute(
                sa.update(t.handler_uses)
                .where(t.handler_uses.c.digest == digest)
                .values(uses=uses + sign * count)
            )
            if not changed.rowcount:
                db.execute(sa.insert(t.handler_uses), {"digest": digest, "uses": sign * count})


def _copy_code(source: Bulk, target: Bulk) -> None:
    """Copy handlers, their types and blobs, as far as they are not there."""
    for table, key in ((t.blobs, "digest"), (t.handlers, "digest"), (t.task_types, "type")):
        with source.transaction() as db:
            names = list(db.execute(sa.select(table.c[key])).scalars())
        with target.transaction() as db:
            there = {*db.execute(sa.select(table.c[key])).scalars()}
        for name in names:
            if name not in there:
                with source.transaction() as db:
                    rows = _rows(db, sa.select(table).where(table.c[key] == name))
                with target.transaction() as db:
                    _put(db, table, rows)


def _move_audit(source: Bulk, target: Bulk) -> None:
    """Move who changed what out of a shard that has gone, each entry once."""
    columns = [c for c in t.audit.c if c.name != "n"]
    with source.transaction() as db:
        entries = _rows(db, sa.select(*columns).order_by(t.audit.c.n))
    with target.transaction() as db:
        there = {tuple(row) for row in db.execute(sa.select(*columns))}
        fresh = [e for e in entries if tuple(e.values()) not in there]
        if fresh:
            db.execute(sa.insert(t.audit), fresh)
    if entries:
        with source.transaction() as db:
            db.execute(sa.delete(t.audit))
