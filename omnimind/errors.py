"""Every error that OmniMind raises at its border, in one tree.

::

    OmniMindError
    ├── InvalidInput                 the caller's fault; mend the named field           400
    │   ├── UnknownTaskType                                                             404
    │   ├── UnknownQueue                                                                404
    │   ├── PayloadTooLarge          over 256 KiB                                       413
    │   ├── ResultTooLarge           over 1 MiB (raised where the handler ran)          413
    │   ├── UnserialisableValue      neither JSON nor a pickle                          422
    │   └── CyclicDependency                                                            422
    ├── NotFound                     no such task, node, schedule, …                    404
    │   └── Pruned                   it existed; its record is older than is kept       410
    ├── Conflict                     the state of the thing forbids the request         409
    │   ├── KeyConflict              idempotency key reused with another payload        409
    │   ├── PlanStale                the world moved since the plan was made            412
    │   └── WrongShard               another shard keeps this: ask that one             421
    ├── Forbidden                    the token is wrong, or its role is too low         403
    ├── Refused                      not now; retry after `retry_after` seconds         429
    │   ├── QueueFull                a bound of P5 is reached                           429
    │   ├── LedgerUnavailable        the database cannot be reached or is locked        503
    │   ├── LedgerFull               the disk of the ledger is full                     507
    │   └── Unavailable              no coordinator answers                             503
    ├── WaitTimeout                  the wait ended, the task did not                   504
    ├── TaskFailed                   the task ended, without a result                   -
    │   ├── TaskCancelled
    │   ├── TaskExpired
    │   └── TaskDead                 parked in the dead letters
    ├── LedgerError                  the ledger is damaged, foreign or too new          500
    │   ├── LedgerCorrupt
    │   ├── LedgerVersion
    │   ├── BackupDamaged            an export or a backup is not what was written
    │   └── LedgerFenced             a newer coordinator owns this ledger
    ├── InstanceError                an instance cannot be started, found or stopped    500
    │   ├── AlreadyRunning           another supervisor owns this OMNIMIND_HOME         409
    │   ├── HomeUnusable             not writable, or not ours                          500
    │   ├── DiskFull                 too little space to start                          507
    │   ├── PortInUse                a port that was asked for is taken                 409
    │   ├── HeadUnreachable          the head of a cluster does not answer              503
    │   ├── HostUnreachable          ssh does not get to a host                         503
    │   ├── BadInstallation          Ray missing, version skew, a foreign `actors`      500
    │   ├── StartFailed              a part ended while it started                      500
    │   └── StartTimeout             not ready in time                                  504
    └── ConfigError                  a setting is unknown or out of bounds              400

An error answers three questions: whose fault (`status` below 500 is the caller's), whether to repeat
(`retryable`, `retry_after`), and what to do (`hint`). `to_problem()` is its RFC 9457 form. All are
picklable and survive `from_problem(error.to_problem())`, which is how they cross process borders.
"""

from __future__ import annotations

from typing import Any, ClassVar

DOCS = "https://omnimind.invalid/errors/"


class OmniMindError(Exception):
    """Something went wrong in OmniMind; see the subclasses."""

    code: ClassVar[str] = "error"
    status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False
    default_hint: ClassVar[str] = ""

    def __init__(
        self,
        message: str = "",
        *,
        field: str | None = None,
        hint: str | None = None,
        retry_after: float | None = None,
        **details: Any,
    ) -> None:
        text = message or (self.__doc__ or self.code).strip().splitlines()[0]
        super().__init__(text)
        self.message = text
        self.field = field
        self.hint = self.default_hint if hint is None else hint
        self.retry_after = retry_after
        self.details = details

    def __str__(self) -> str:
        where = f"{self.field}: " if self.field else ""
        mend = f" ({self.hint})" if self.hint else ""
        return f"{where}{self.message}{mend}"

    def __reduce__(self) -> tuple[Any, ...]:
        return from_problem, (self.to_problem(),)

    def to_problem(self) -> dict[str, Any]:
        """Return the RFC 9457 problem document, with only JSON values."""
        problem: dict[str, Any] = {
            "type": f"{DOCS}{self.code}",
            "title": (self.__doc__ or self.code).strip().splitlines()[0],
            "status": self.status,
            "detail": self.message,
            "code": self.code,
            "retryable": self.retryable,
        }
        if self.hint:
            problem["hint"] = self.hint
        if self.field:
            problem["errors"] = [{"field": self.field, "detail": self.message}]
        if self.retry_after is not None:
            problem["retry_after"] = self.retry_after
        problem.update(self.details)
        return problem


_STANDARD = {"type", "title", "status", "detail", "code", "retryable", "hint", "errors", "retry_after"}


class InvalidInput(OmniMindError, ValueError):
    """The request is not valid."""

    code, status = "invalid_input", 400


class UnknownTaskType(InvalidInput):
    """No handler is registered under this task type."""

    code, status = "unknown_task_type", 404


class UnknownQueue(InvalidInput):
    """This queue does not exist."""

    code, status = "unknown_queue", 404
    default_hint = "create it first: omnimind queue set NAME --weight 1"


class PayloadTooLarge(InvalidInput):
    """The payload is over 256 KiB."""

    code, status = "payload_too_large", 413
    default_hint = "put the data in a file or an object store and pass its address"


class ResultTooLarge(InvalidInput):
    """The handler's result is over 1 MiB."""

    code, status = "result_too_large", 413
    default_hint = "write the data to a file or an object store and return its address"


class UnserialisableValue(InvalidInput):
    """The value is neither JSON nor picklable."""

    code, status = "unserialisable_value", 422


class CyclicDependency(InvalidInput):
    """The tasks wait for each other in a circle."""

    code, status = "cyclic_dependency", 422


class NotFound(OmniMindError, LookupError):
    """There is no such thing."""

    code, status = "not_found", 404


class Pruned(NotFound):
    """The record was removed: it is older than what is kept."""

    code, status = "pruned", 410


class Conflict(OmniMindError):
    """The state of the thing does not allow this."""

    code, status = "conflict", 409


class KeyConflict(Conflict):
    """The idempotency key was used before with another payload."""

    code = "key_conflict"
    default_hint = "use a new key for new work, or send the same task type and payload again"


class PlanStale(Conflict):
    """The world moved since the plan was made: nothing was done."""

    code, status = "plan_stale", 412
    default_hint = "look at the new plan, then give its --plan-id"


class WrongShard(Conflict):
    """Another shard keeps this.

    `details` hold its number as `shard` and, for a submission, the `queue` that it is for. Clients find
    the right shard by themselves; who sees this has spoken to a coordinator directly.
    """

    code, status = "wrong_shard", 421
    default_hint = "use omnimind.connect, which finds the right shard by itself"


class Forbidden(OmniMindError):
    """The token is not valid, or its role does not allow this."""

    code, status = "forbidden", 403


class Refused(OmniMindError):
    """Not now."""

    code, status, retryable = "refused", 429, True


class QueueFull(Refused):
    """The queue is full."""

    code = "queue_full"


class LedgerUnavailable(Refused):
    """The ledger cannot be reached."""

    code, status = "ledger_unavailable", 503


class LedgerFull(Refused):
    """The disk of the ledger is full: nothing was accepted."""

    code, status = "ledger_full", 507
    default_hint = "free space on the disk that holds OMNIMIND_HOME; work goes on by itself"


class Unavailable(Refused):
    """No coordinator answers."""

    code, status = "unavailable", 503
    default_hint = "start one with: omnimind up"


class WaitTimeout(OmniMindError, TimeoutError):
    """The wait ended before the task did; the task goes on."""

    code, status, retryable = "wait_timeout", 504, True


class TaskFailed(OmniMindError):
    """The task ended as `failed`. `details` hold `task_id`, `error_type` and `traceback` where known."""

    code, status = "task_failed", 500


class TaskCancelled(TaskFailed):
    """The task was cancelled."""

    code = "task_cancelled"


class TaskExpired(TaskFailed):
    """The task's deadline passed before it ended."""

    code = "task_expired"


class TaskDead(TaskFailed):
    """The task is parked in the dead letters."""

    code = "task_dead"
    default_hint = "see: omnimind deadletter show ID; run it again with: omnimind deadletter replay ID"


class LedgerError(OmniMindError):
    """The ledger cannot be used."""

    code = "ledger_error"


class LedgerCorrupt(LedgerError):
    """The ledger's file is damaged."""

    code = "ledger_corrupt"


class LedgerVersion(LedgerError):
    """The ledger was written by a newer OmniMind."""

    code = "ledger_version"


class BackupDamaged(LedgerError):
    """An export or a backup is not what was written. `details` hold its `path`, of an export the `line`."""

    code = "backup_damaged"
    default_hint = "take another copy or an older backup: nothing was written"


class LedgerFenced(LedgerError):
    """A newer coordinator owns this ledger; this one must stop."""

    code = "ledger_fenced"


class InstanceError(OmniMindError):
    """The instance cannot be started, found or stopped."""

    code = "instance_error"


class AlreadyRunning(InstanceError):
    """Another supervisor owns this OMNIMIND_HOME. `details` hold its `pid`."""

    code, status = "already_running", 409
    default_hint = "stop it with: omnimind down; or give this one another --home"


class HomeUnusable(InstanceError):
    """OMNIMIND_HOME cannot be used."""

    code = "home_unusable"
    default_hint = "give another folder: --home DIR, or OMNIMIND_HOME"


class DiskFull(InstanceError):
    """The disk of OMNIMIND_HOME has too little space to start."""

    code, status = "disk_full", 507
    default_hint = "free some space, or give a folder on another disk: --home DIR"


class PortInUse(InstanceError):
    """A port that was asked for is taken."""

    code, status = "port_in_use", 409
    default_hint = "set it to 0 for a free one"


class HeadUnreachable(InstanceError):
    """The head of a cluster does not answer."""

    code, status, retryable = "head_unreachable", 503, True
    default_hint = "is it up, is its ray.node_ip an address that this host reaches, is its ray.port open?"


class HostUnreachable(InstanceError):
    """A host cannot be reached by ssh."""

    code, status, retryable = "host_unreachable", 503, True


class BadInstallation(InstanceError):
    """The installed packages do not fit together."""

    code = "bad_installation"


class StartFailed(InstanceError):
    """A part of the instance ended while it started. `details` hold the last lines of its `log`."""

    code, retryable = "start_failed", True


class StartTimeout(InstanceError, TimeoutError):
    """The instance was not ready in time. `details` hold the last lines of its `log`."""

    code, status, retryable = "start_timeout", 504, True


class ConfigError(OmniMindError, ValueError):
    """A setting is unknown or out of bounds."""

    code, status = "config_error", 400


def _tree(base: type[OmniMindError]) -> dict[str, type[OmniMindError]]:
    found = {base.code: base}
    for child in base.__subclasses__():
        found.update(_tree(child))
    return found


def from_problem(problem: dict[str, Any]) -> OmniMindError:
    """Make the error again that `to_problem` described; an unknown code becomes an `OmniMindError`."""
    cls = _tree(OmniMindError).get(problem.get("code", ""), OmniMindError)
    errors = problem.get("errors") or [{}]
    return cls(
        problem.get("detail", ""),
        field=errors[0].get("field"),
        hint=problem.get("hint", ""),
        retry_after=problem.get("retry_after"),
        **{k: v for k, v in problem.items() if k not in _STANDARD},
    )
