"""`omnimind ledger backup`, `backups` and `restore`."""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from omnimind.cli.changes import Change, Effect
from omnimind.cli.ledger_common import Bar, ledger_of, url_option
from omnimind.cli.ledger_move import free, moved_view, place
from omnimind.cli.options import read, write
from omnimind.cli.output import View, next_steps
from omnimind.cli.session import Session
from omnimind.cli.table import Column, sheet
from omnimind.cli.times import Duration
from omnimind.errors import NotFound

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from omnimind.ledger.backup import Backup

_FOLDER = click.Path(path_type=Path, file_okay=False, resolve_path=True)
LATEST = "latest"

COLUMNS = (
    Column("BACKUP", "name"),
    Column("MADE", "made_at", kind="time"),
    Column("KIND", "kind"),
    Column("TASKS", "tasks", kind="number"),
    Column("BYTES", "bytes", kind="number"),
    Column("EPOCH", "epoch", kind="number"),
    Column("SCHEMA", "revision"),
)


def folder_of(session: Session, given: Path | None) -> Path:
    """Return where backups are."""
    return given or session.home / "backups"


@click.command()
@click.option("--to", type=_FOLDER, default=None, help="Folder of the backups.  [HOME/backups]")
@click.option("--keep", type=click.IntRange(min=1), default=None, help="Afterwards keep only the newest N.")
@click.option(
    "--max-age", type=Duration(), default=None, help="Afterwards remove what is older, such as 30d."
)
@url_option
@write()
def backup(
    session: Session, to: Path | None, keep: int | None, max_age: float | None, url: str | None
) -> Change:
    """Make a backup, while an instance is at work or not.

    It holds one moment: everything that was acknowledged before it began. It gets its name when it is whole,
    checked and on disk. The newest backup is never removed.
    """
    from omnimind.ledger import backup as backups_  # noqa: PLC0415
    from omnimind.ledger import transfer  # noqa: PLC0415

    chosen, folder = ledger_of(session, url), folder_of(session, to)

    def plan() -> list[Effect]:
        with closing(transfer.store_of(chosen, session.home)) as store:
            transfer.need_ledger(store)
            effects = [Effect(str(folder), "back up", "", f"one more backup, of {store.where}")]
        there = backups_.listed(folder)
        # The new one stands before them all.
        gone = _surplus([there[0], *there] if there else [], keep, max_age)
        return effects + [Effect(b.name, "remove", "kept", "removed") for b in gone]

    def apply() -> View:
        with Bar() as bar:
            made = backups_.make(chosen, session.home, folder, bar)
        gone = _surplus(backups_.listed(folder), keep, max_age)
        backups_.remove(folder, gone)
        data = {**_public(made), "removed": [b.name for b in gone]}
        return View(
            data=data, text=_page(made, len(gone)), notes=next_steps(f"omnimind ledger restore {made.name}")
        )

    return Change(plan, apply)


def _surplus(there: list[Backup], keep: int | None, age: float | None) -> list[Backup]:
    from omnimind.ledger.backup import surplus  # noqa: PLC0415

    return surplus(there, keep, age, time.time())


@click.command()
@click.option("--from", "from_", type=_FOLDER, default=None, help="Folder of the backups.  [HOME/backups]")
@read()
def backups(session: Session, from_: Path | None) -> View:
    """List the backups, the newest first."""
    from omnimind.ledger.backup import listed  # noqa: PLC0415

    folder = folder_of(session, from_)
    found = [_public(b) for b in listed(folder)]
    return View(data=found, columns=COLUMNS, empty=f"there is no backup in {folder}")


def _complete(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """Offer the backups of the home by name."""
    from click.shell_completion import CompletionItem  # noqa: PLC0415

    from omnimind.instance import home_path  # noqa: PLC0415
    from omnimind.ledger.backup import listed  # noqa: PLC0415

    step: click.Context | None = ctx
    home = None
    while step is not None and home is None:
        home = step.params.get("home")
        step = step.parent
    folder = ctx.params.get("from_") or home_path(home) / "backups"
    return [
        CompletionItem(b.name, help=f"{b.manifest.tasks():,} tasks")
        for b in listed(Path(folder))
        if b.name.startswith(incomplete)
    ]


@click.command()
@click.argument("name", metavar="BACKUP", shell_complete=_complete)
@click.option("--from", "from_", type=_FOLDER, default=None, help="Folder of the backups.  [HOME/backups]")
@click.option("--replace", is_flag=True, help="Move a ledger with work in it aside, instead of refusing.")
@url_option
@write()
def restore(session: Session, name: str, from_: Path | None, replace: bool, url: str | None) -> Change:
    """Make BACKUP (a name, a folder or `latest`) the ledger again, in an empty home or database.

    Every byte is checked first. The epoch leaps above all that the backup and the ledger that was there have
    seen, so that no former coordinator and no former attempt can write. Tasks that ran then run again.
    """
    from omnimind.ledger import backup as backups_  # noqa: PLC0415
    from omnimind.ledger import restore as restoring  # noqa: PLC0415
    from omnimind.ledger import transfer  # noqa: PLC0415
    from omnimind.ledger.stores import work_in  # noqa: PLC0415

    chosen = ledger_of(session, url)
    found = _find(folder_of(session, from_), name)

    def plan() -> list[Effect]:
        free(chosen, session)
        with Bar() as bar:
            backups_.verify(found, bar)
        if not replace:
            transfer.refuse_work(chosen, session.home)
        with closing(transfer.store_of(chosen, session.home)) as store:
            rows = work_in(store)
        now = f"{rows.get('tasks', 0):,} tasks" if rows else "empty"
        note = "what is there is moved aside" if rows else ""
        then = f"{found.name}: {found.manifest.tasks():,} tasks"
        return [Effect(place(chosen, session), "restore", now, then, note)]

    def apply() -> View:
        with Bar() as bar:
            moved = restoring.restore(found, chosen, session.home, replace=replace, progress=bar)
        return moved_view(moved, next_steps("omnimind ledger check", "omnimind up"))

    return Change(plan, apply, destructive=replace)


def _find(folder: Path, name: str) -> Backup:
    from omnimind.ledger import backup as backups_  # noqa: PLC0415

    if name == LATEST:
        there = backups_.listed(folder)
        if not there:
            raise NotFound(f"there is no backup in {folder}", hint="name its folder: --from DIR")
        return there[0]
    path = folder / name
    if not path.exists():
        path = Path(name).expanduser().resolve()
    try:
        return backups_.load(path)
    except NotFound as error:
        raise NotFound(
            f"there is no backup {name}", hint=f"omnimind ledger backups --from {folder}"
        ) from error


def _public(found: Backup) -> dict[str, Any]:
    manifest = found.manifest
    return {
        "name": found.name,
        "path": str(found.path),
        "made_at": manifest.made_at,
        "kind": manifest.kind,
        "tasks": manifest.tasks(),
        "rows": manifest.rows,
        "bytes": manifest.bytes,
        "epoch": manifest.epoch,
        "revision": manifest.revision,
        "shards": manifest.shards,
        "omnimind": manifest.omnimind,
        "sha256": manifest.sha256 or None,
    }


def _page(made: Backup, removed: int) -> str:
    manifest = made.manifest
    return sheet([
        ("backup", made.name),
        ("where", str(made.path)),
        ("tasks", f"{manifest.tasks():,}"),
        ("rows", f"{manifest.rows:,}"),
        ("bytes", f"{manifest.bytes:,}"),
        ("epoch", manifest.epoch),
        ("removed", f"{removed} older ones" if removed else None),
    ])  # fmt: skip
