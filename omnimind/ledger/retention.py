"""What may go: the rules of retention that both ledgers share. Pure functions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from omnimind.cluster.records import references
from omnimind.errors import NotFound, Pruned
from omnimind.ids import submitted_at

LOG_LINES = 10_000
"""Lines kept of each task's log; older ones go first."""

AUDIT_ENTRIES = 100_000
"""Entries kept of the audit; older ones go first, at a prune."""

ORPHAN_GRACE = 86_400.0
"""Seconds that a handler or blob outlives its last use: a client stores code before it submits the task."""

_DIGEST = re.compile(rb"[0-9a-f]{32,}")


def missing(task_id: str, pruned_before: float | None) -> NotFound:
    """Return the error for an id that the ledger does not hold: Pruned when it is old enough to be that.

    pruned_before: see `Usage`. An id carries the time of its submission, so nothing is kept of the pruned.
    """
    made = submitted_at(task_id)
    if made is not None and pruned_before is not None and made <= pruned_before:
        return Pruned(
            f"task {task_id} is older than what is kept",
            hint="keep more: omnimind config, settings retention.*",
            task_id=task_id,
        )
    return NotFound(f"there is no task {task_id}", task_id=task_id)


def needed_ids(waiting_options: Iterable[bytes]) -> set[str]:
    """Return the ids that waiting tasks come after: these must stay, or the tasks would wait for ever."""
    return {parent for options in waiting_options for parent in references(options)[1]}


def youngest(ids: Iterable[str], before: float | None) -> float | None:
    """Return the latest submission time among pruned ids and `before`."""
    times = [t for t in map(submitted_at, ids) if t is not None]
    return max([*times, *([] if before is None else [before])], default=None)


def handlers_needed(used: Iterable[str], current: Iterable[str], schedules: Iterable[bytes]) -> set[str]:
    """Return the digests of handlers that kept tasks, a type's next submission or schedules need."""
    return {*used, *current, *_mentioned(schedules)}


def blobs_needed(specs: Iterable[bytes]) -> set[str]:
    """Return the digests that the records of kept handlers mention."""
    return _mentioned(specs)


def _mentioned(texts: Iterable[bytes]) -> set[str]:
    return {found.decode("ascii") for text in texts for found in _DIGEST.findall(text)}


def sweep(
    orphan_since: Mapping[str, float | None], needed: set[str], before: float
) -> tuple[list[str], list[str], list[str]]:
    """Return which to mark as orphans since `before`, which to unmark, and which to delete."""
    mark: list[str] = []
    unmark: list[str] = []
    delete: list[str] = []
    for digest, since in orphan_since.items():
        if digest in needed:
            if since is not None:
                unmark.append(digest)
        elif since is None:
            mark.append(digest)
        elif since <= before - ORPHAN_GRACE:
            delete.append(digest)
    return mark, unmark, delete
