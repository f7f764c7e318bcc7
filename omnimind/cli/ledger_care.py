"""`omnimind ledger check`, `migrate` and `prune`."""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path
from typing import Any

import click

from omnimind.cli.changes import Change, Effect
from omnimind.cli.errors import Exit
from omnimind.cli.ledger_common import Bar, ledger_of, settings_of, url_option
from omnimind.cli.ledger_move import free, place
from omnimind.cli.options import read, write
from omnimind.cli.output import View, next_steps
from omnimind.cli.session import Session
from omnimind.cli.table import Column
from omnimind.cli.times import Duration

FINDINGS = (
    Column("STATE", "state", kind="status"),
    Column("CHECK", "check"),
    Column("WHAT", "what", elastic=True),
    Column("COUNT", "count", kind="number"),
    Column("FIRST", lambda f: f["examples"][0] if f["examples"] else "", elastic=True),
    Column("MEND", "mend", elastic=True),
)
REVISIONS = (Column("SHARD", "shard", kind="number"), Column("BEFORE", "before"), Column("NOW", "now"))

_PRUNED_AT_ONCE = 5_000


@click.command()
@url_option
@read()
def check(session: Session, url: str | None) -> View:
    """Say whether the database is whole, and whether what it holds can be true; change nothing.

    An instance may be at work meanwhile: one moment is looked at. Exit code 1 when there is an error.
    """
    import msgspec  # noqa: PLC0415

    from omnimind.ledger import soundness, transfer  # noqa: PLC0415

    with closing(transfer.store_of(ledger_of(session, url), session.home)) as store, Bar() as bar:
        transfer.need_ledger(store)
        found = soundness.check(store, bar)
        rules, where = len(soundness.RULES) * len(store.shards), store.where
    errors = sum(f.state == soundness.ERROR for f in found)
    return View(
        data=[msgspec.to_builtins(f) for f in found],
        columns=FINDINGS,
        key="check",
        envelope={"where": where, "rules": rules, "errors": errors, "warnings": len(found) - errors},
        empty=f"all is well: {rules} rules hold in {where}",
        code=Exit.ERROR if errors else Exit.OK,
    )


@click.command()
@click.option("--no-backup", is_flag=True, help="Make no backup first.")
@url_option
@write()
def migrate(session: Session, no_backup: bool, url: str | None) -> Change:
    """Bring the ledger to the schema of this OmniMind, after a backup into HOME/backups.

    `omnimind up` does the same by itself, without a backup.
    """
    from omnimind.ledger import backup, transfer  # noqa: PLC0415
    from omnimind.ledger.custody import custody  # noqa: PLC0415
    from omnimind.ledger.migrate import HEAD  # noqa: PLC0415

    chosen = ledger_of(session, url)
    folder = session.home / "backups"

    def present() -> dict[int, str]:
        with closing(transfer.store_of(chosen, session.home)) as store:
            transfer.need_ledger(store)
            return {shard: store.revision(shard) for shard in store.shards}

    def plan() -> list[Effect]:
        free(chosen, session)
        where = place(chosen, session)
        found = present()
        steps = [
            Effect(
                where if len(found) == 1 else f"{where}, shard {s}",
                "migrate",
                f"schema {r}",
                f"schema {HEAD}",
            )
            for s, r in found.items()
        ]
        if not no_backup and any(step.changes for step in steps):
            steps.insert(0, Effect(str(folder), "back up", "", "one more backup"))
        return steps

    def apply() -> View:
        made = ""
        with custody(chosen, session.home), Bar() as bar:
            found = present()
            behind = [shard for shard, revision in found.items() if revision != HEAD]
            if behind and not no_backup:
                made = backup.make(chosen, session.home, folder, bar).name
            for shard in behind:
                _bring(chosen, session.home, shard)
            now = present()
        rows = [{"shard": shard, "before": before, "now": now[shard]} for shard, before in found.items()]
        notes = [f"a backup was made before: {made}"] if made else []
        return View(data=rows, columns=REVISIONS, key="now", envelope={"backup": made or None}, notes=notes)

    return Change(plan, apply)


def _bring(chosen: Any, home: Path, shard: int) -> None:
    if chosen.url:
        from omnimind.ledger import stores_postgres  # noqa: PLC0415

        stores_postgres.bring(chosen, shard)
    else:
        from omnimind.ledger import stores_sqlite  # noqa: PLC0415
        from omnimind.ledger.opening import sqlite_path  # noqa: PLC0415

        stores_sqlite.bring(sqlite_path(home, shard))


@click.command()
@click.option("--age", type=Duration(), default=None, help="Keep what ended since.  [retention.age]")
@click.option("--tasks", type=click.IntRange(min=0), default=None, help="Keep so many.  [retention.tasks]")
@url_option
@write()
def prune(session: Session, age: float | None, tasks: int | None, url: str | None) -> Change:
    """Delete ended tasks beyond an age or a number, with their logs, while no instance runs.

    A running instance does this by itself, by the settings retention.age and retention.tasks.
    """
    from omnimind.ledger import soundness, transfer  # noqa: PLC0415
    from omnimind.ledger.custody import custody  # noqa: PLC0415
    from omnimind.ledger.opening import open_ledger  # noqa: PLC0415

    chosen = ledger_of(session, url)
    retention = settings_of(session).retention
    before = time.time() - (retention.age if age is None else age)
    keep = retention.tasks if tasks is None else tasks

    def count() -> int:
        with closing(transfer.store_of(chosen, session.home)) as store:
            transfer.need_ledger(store)
            return soundness.would_prune(store, before, keep)

    def plan() -> list[Effect]:
        number = count()
        now, then = (f"{number:,} ended tasks beyond the bounds", "deleted") if number else ("", "")
        return [Effect(place(chosen, session), "prune", now, then)]

    def apply() -> View:
        gone = 0
        with custody(chosen, session.home), Bar() as bar:
            expected = count()
            with closing(transfer.store_of(chosen, session.home)) as store:
                shards = list(store.shards)
            for shard in shards:
                with closing(open_ledger(chosen, session.home, shard)) as opened:
                    opened.open(1)
                    while number := opened.prune(before, keep, _PRUNED_AT_ONCE):
                        gone += number
                        bar("deleting", gone, max(gone, expected))
        data = {"where": place(chosen, session), "deleted": gone}
        return View(
            data=data, text="", key="deleted", notes=[f"deleted {gone:,} tasks", *next_steps("omnimind up")]
        )

    return Change(plan, apply, destructive=True)
