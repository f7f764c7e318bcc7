"""`Ledger`: what the coordinator's shell needs of a database.

All methods are synchronous and may block on the disk; shells call `write` from a writer thread. Reads
may run at the same time from another thread, and see committed rows only. Rows are in the order of
`records.TASK_COLUMNS`.

Errors: LedgerFull (no space; nothing of the call was written), LedgerUnavailable (locked, cannot be
reached; for `write` nothing was written), LedgerFenced (another coordinator opened it later),
LedgerCorrupt, LedgerVersion. After any other error of `write` the outcome is unknown: open again.
"""

from __future__ import annotations

from typing import Any, Protocol

import msgspec

from omnimind.cluster.events import KnownTask, Recovered
from omnimind.cluster.records import AttemptRow, ClaimSaved, Records, TaskRow

# Named here, since inside the classes below `list` is a method.
Ids = list[str]
Sentences = list[str]
Attempts = list[AttemptRow]
Claims = list[ClaimSaved]
LogLines = list[tuple[int, float, str, str]]
AuditEntries = list[tuple[float, str, str, str, str]]


class TaskFilter(msgspec.Struct, frozen=True):
    """Which tasks to list; None means any. Times in Unix seconds, of the submission.

    discarded: whether to list dead letters that were taken off their list (True: only these).
    """

    status: tuple[str, ...] | None = None
    queue: str | None = None
    task_type: str | None = None
    node: str | None = None
    since: float | None = None
    until: float | None = None
    discarded: bool | None = None


class Layout(msgspec.Struct, frozen=True):
    """How many shards there are; see `ledger.rebalance`.

    target: to how many they are being brought. leaving: from how many they were brought here, while what
    has moved is still to be deleted where it was.
    """

    shards: int = 1
    target: int | None = None
    leaving: int | None = None


class Page(msgspec.Struct):
    """One page of a listing, newest first. `next_seq` continues it; None at the end."""

    rows: list[TaskRow]
    next_seq: int | None


class Usage(msgspec.Struct):
    """Figures about the ledger: rows by status, bytes on disk, the oldest kept and the pruned tasks."""

    by_status: dict[str, int]
    by_queue: dict[str, dict[str, int]]
    """Live tasks by queue and line: ready, delayed, waiting, running."""
    bytes: int
    pruned: int
    pruned_before: float | None
    """Submission time of the youngest pruned task: see `retention.missing`."""


class About(msgspec.Struct, frozen=True):
    """Which ledger this is, for people."""

    kind: str
    """``memory``, ``sqlite`` or ``postgresql``."""
    where: str
    """Its file, or its host, database and schema; no secret."""
    version: str
    """The database's version, empty while that is not known."""
    warnings: list[str]
    """What is unwise about the database's settings, in sentences."""


class Ledger(Protocol):
    """A durable record with one writer."""

    @property
    def remote(self) -> bool:
        """Return whether a read may take as long as a network does: then it is made off the loop."""

    def open(self, window: int, *, after: int | None = None) -> Recovered:
        """Migrate to the present schema, take over as the writer (epoch + 1) and return what is there.

        At most `window` ready tasks over all queues, in order of (rank, seq), and as many delayed ones.
        after: the epoch that must be the last one, for a coordinator that opens its ledger again; raises
        LedgerFenced when another has opened it since.
        """

    def close(self) -> None:
        """Release files and connections; a second call does nothing."""

    def write(self, records: Records) -> None:
        """Commit one transaction, durably: when this returns, a power cut does not undo it."""

    def tasks(self, ids: list[str]) -> list[TaskRow]:
        """Return the rows of those ids that exist, in any order."""

    def known_ids(self, ids: list[str]) -> dict[str, KnownTask]:
        """Return the states of those ids that exist."""

    def known_keys(self, keys: list[str]) -> dict[str, KnownTask]:
        """Return the tasks that stand under these idempotency keys, with their digests."""

    def claims(self, keys: list[str]) -> dict[str, ClaimSaved]:
        """Return for which tasks these keys stand, of those whose home is this shard."""

    def old_claims(self, before: float, after: tuple[float, str], limit: int) -> Claims:
        """Return claims that were made before a time, beyond (at, key), in that order."""

    def layout(self) -> Layout:
        """Return how many shards there are. Shard 0's ledger knows."""

    def ready(self, queue: str, after: tuple[float, int], limit: int) -> list[TaskRow]:
        """Return ready tasks of a queue beyond (rank, seq), in that order."""

    def delayed(self, after: tuple[float, int], limit: int) -> list[TaskRow]:
        """Return delayed tasks of all queues beyond (rank, seq), in that order; rank is when they are due."""

    def overdue(self, before: float, limit: int) -> list[TaskRow]:
        """Return pending tasks whose deadline is not after `before`."""

    def list(self, where: TaskFilter, before_seq: int | None, limit: int) -> Page:
        """Return tasks without payload and result (None), newest first, beyond the cursor `before_seq`."""

    def find(self, prefix: str, limit: int) -> Ids:
        """Return ids that begin with `prefix`, for the command line."""

    def attempts(self, task_id: str) -> Attempts:
        """Return the attempts that did not succeed, oldest first."""

    def logs(self, task_id: str, after: int, limit: int) -> LogLines:
        """Return logged lines as (number, Unix seconds, level, text), beyond line number `after`."""

    def handlers(self) -> dict[str, tuple[str, bytes]]:
        """Return each task type's current handler: type -> (digest, spec)."""

    def handler(self, digest: str) -> bytes | None:
        """Return one handler's spec."""

    def blob(self, digest: str) -> bytes | None:
        """Return stored bytes."""

    def documents(self, kind: str) -> dict[str, bytes]:
        """Return the documents of one kind by name, in the order of their names."""

    def audit(self, limit: int) -> AuditEntries:
        """Return the newest entries: (Unix seconds, actor, verb, subject, detail)."""

    def usage(self) -> Usage:
        """Return figures about the ledger."""

    def prune(self, before: float, keep: int, limit: int) -> int:
        """Delete at most `limit` ended tasks: those that ended before `before`, and the oldest beyond `keep`.

        Blobs and handlers that no kept task needs go too. Returns how many tasks were deleted.
        """

    def pruned_before(self) -> float | None:
        """Return the submission time (Unix seconds) of the youngest pruned task, None when none was.

        `retention.missing(id, pruned_before)` is the error to raise for an id that is not there.
        """

    def maintain(self) -> None:
        """Do what can wait for an idle moment; cheap when there is nothing to do."""

    @property
    def full(self) -> bool:
        """Return whether new tasks are refused for want of space; ends of tasks may still be written."""

    def about(self) -> About:
        """Return which ledger this is."""

    def check(self) -> Sentences:
        """Return what is wrong with the database, in sentences; empty when nothing is."""

    def statistics(self) -> dict[str, Any]:
        """Return counters of this opening: commits, rows, seconds spent in commits."""
