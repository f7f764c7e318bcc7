"""What a submission may say besides its payload, checked before it travels.

The coordinator checks again what protects it; here is what a person should hear at once.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, NoReturn, Protocol, TypedDict, runtime_checkable

from omnimind.cluster.states import TaskPriority, priority_number
from omnimind.errors import InvalidInput
from omnimind.registry import MAX_NAME, names_of

MAX_KEY = 1024
MAX_AFTER = 10_000
_ID_LENGTH = len("tsk_") + 32


@runtime_checkable
class HasId(Protocol):
    """A handle, or anything else that stands for a task."""

    @property
    def id(self) -> str:
        """Return the task's id."""


class MapOptions(TypedDict, total=False):
    """Options of every task of a `map`; each overrides the handler's own default."""

    priority: int | str | TaskPriority
    """A class (``"high"``) or 1 (most urgent) to 10."""
    queue: str
    """A queue that exists; ``default`` always does."""
    needs: str | Iterable[str]
    """Capabilities that a node must have, all of them."""
    retries: int
    """Further attempts after an exception."""
    timeout: float | timedelta
    """Seconds for one attempt."""
    delay: float | timedelta
    """Seconds before it may start."""
    not_before: float | datetime
    """Unix seconds (or a datetime) before which it may not start."""
    deadline: float | datetime | timedelta
    """Unix seconds or a datetime; a timedelta counts from now. What has not ended then expires."""
    after: str | HasId | Iterable[str | HasId]
    """Tasks that must complete first: handles or ids."""
    at_most_once: bool
    """Never start it twice; a lost attempt ends as failed."""
    retry_base: float
    """Seconds before the first retry, before jitter."""
    retry_factor: float
    """Growth of that time with each retry."""
    retry_cap: float
    """Most seconds between two attempts."""
    non_retryable: Iterable[type[BaseException] | str]
    """Exceptions that end the task at once."""
    num_cpus: float
    """CPUs that it takes of its node, by Ray's count."""
    num_gpus: float
    """GPUs, likewise."""
    memory: int
    """Bytes, likewise."""


class SubmitOptions(MapOptions, total=False):
    """Options of one task."""

    key: str | None
    """Idempotency key: the same key with the same payload is the same task."""
    payload: Mapping[str, Any] | None
    """Keywords of the handler that have the name of an option."""


OPTION_NAMES = frozenset(SubmitOptions.__annotations__)


def request_fields(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options as fields of `protocol.SubmitRequest`. Raises InvalidInput naming the option."""
    fields: dict[str, Any] = {}
    extra: dict[str, Any] = {}
    for name, value in options.items():
        if value is None:
            continue
        if name in _FIELDS:
            fields.update(_FIELDS[name](value))
        elif name in _EXTRA:
            extra[name] = _EXTRA[name](value, name)
        else:
            known = ", ".join(sorted(MapOptions.__annotations__))
            _bad(name, f"there is no option {name!r}", f"the options are: {known}")
    if "deadline" in fields or "ttl" in fields:
        _check_times(fields)
    if extra:
        fields["options"] = extra
    return fields


def check_key(key: Any) -> str:
    """Return an idempotency key that is one: text of 1 to 1,024 characters."""
    if not isinstance(key, str):
        _bad("key", f"an idempotency key is text, not {type(key).__name__}", "give str(key)")
    if not 0 < len(key) <= MAX_KEY:
        hint = "use a hash of it, such as hashlib.sha256(text).hexdigest()" if key else "leave it out"
        _bad("key", f"an idempotency key has 1 to {MAX_KEY} characters, this one has {len(key)}", hint)
    return key


def check_name(name: Any, field: str) -> str:
    """Return the name of a queue, schedule, node or capability that is one."""
    if not isinstance(name, str):
        _bad(field, f"a name is text, not {type(name).__name__}", "give a str")
    if not 0 < len(name) <= MAX_NAME:
        hint = "give a shorter one" if name else "give one, or leave it out"
        _bad(field, f"a name has 1 to {MAX_NAME} characters, this one has {len(name)}", hint)
    if not name.isprintable():
        _bad(field, "a name has printable characters only", "remove control characters and line breaks")
    return name


def task_id_of(task: Any, field: str = "task") -> str:
    """Return the id of a handle or the id itself."""
    value = task.id if isinstance(task, HasId) else task
    if not isinstance(value, str):
        _bad(field, f"a task is a handle or an id, not {type(value).__name__}")
    if len(value) != _ID_LENGTH or not value.startswith("tsk_"):
        shown = value if len(value) <= _ID_LENGTH * 2 else f"{value[:_ID_LENGTH]}…"
        _bad(field, f"{shown!r} is no task id", "an id is `tsk_` and 32 hexadecimal digits")
    return value


def seconds_of(value: Any, field: str, *, zero: bool = True) -> float:
    """Return a duration in seconds, given as a number or a timedelta."""
    return _seconds(value, field, zero=zero)


def _needs(value: Any) -> list[str]:
    names = {value} if isinstance(value, str) else set(value)
    return sorted(check_name(name, "needs") for name in names)


def _after(value: Any) -> list[str]:
    several = not isinstance(value, (str, HasId))
    ids = [task_id_of(t, "after") for t in (value if several else [value])]
    if len(ids) > MAX_AFTER:
        hint = "chain them: tasks that come after some, and one after those"
        _bad("after", f"a task comes after at most {MAX_AFTER} others, not {len(ids)}", hint)
    return list(dict.fromkeys(ids))


def _deadline(value: Any) -> dict[str, float]:
    if isinstance(value, timedelta):
        return {"ttl": _seconds(value, "deadline", zero=False)}
    when = _moment(value, "deadline")
    past = time.time() - when
    if past > 0:
        hint = "it is Unix seconds or a datetime; for a span from now use a timedelta"
        _bad("deadline", f"this was {past:,.0f} s ago", hint)
    return {"deadline": when}


def _check_times(fields: Mapping[str, Any]) -> None:
    now = time.time()
    start = max(fields.get("not_before", 0.0), now + fields.get("delay", 0.0))
    end = fields.get("deadline", now + fields["ttl"] if "ttl" in fields else math.inf)
    if end <= start:
        _bad(
            "deadline",
            "it ends before the task may start",
            "start earlier (`delay`, `not_before`), or end later",
        )


def _seconds(value: Any, field: str, *, zero: bool = True) -> float:
    if isinstance(value, timedelta):
        value = value.total_seconds()
    number = _number(value, field)
    if not zero and not number:
        _bad(field, "it must be more than 0 seconds", f"leave `{field}` out for none")
    return number


def _moment(value: Any, field: str) -> float:
    if isinstance(value, datetime):
        return value.timestamp()
    return _number(value, field)


def _number(value: Any, field: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        _bad(field, f"it must be a number, not {type(value).__name__}", "give a number, such as 1.5")
    if not math.isfinite(value):
        _bad(field, f"{value} is not a finite number", f"leave `{field}` out for no limit")
    if value < 0:
        _bad(field, f"{value:g} is negative", "use 0 or more")
    return float(value)


def _count(value: Any, field: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        _bad(field, f"it must be a whole number, not {value!r}"[:200], "give an int, such as 3")
    if not 0 <= value < 1 << 53:
        hint = "use 0 or more" if value < 0 else "use less than 2 to the power of 53"
        _bad(field, f"{value} is negative" if value < 0 else "it is too large", hint)
    return value


def _priority(value: Any) -> int:
    try:
        return priority_number(value)
    except ValueError as error:
        what, _, mend = str(error).partition(": ")
        raise InvalidInput(what, field="priority", hint=mend) from None


def _truth(value: Any, field: str) -> bool:
    if not isinstance(value, bool):
        _bad(field, f"it is True or False, not {value!r}"[:200], "give a bool")
    return value


def _exceptions(value: Any, field: str) -> list[str]:
    several = [value] if isinstance(value, (str, type)) else list(value)
    for item in several:
        if not isinstance(item, str) and not (isinstance(item, type) and issubclass(item, BaseException)):
            _bad(
                field, f"{item!r} is no exception class"[:200], "give classes, or names such as 'ValueError'"
            )
    return names_of(several)


def _bad(field: str, message: str, hint: str | None = None) -> NoReturn:
    raise InvalidInput(message, field=field, hint=hint)


_FIELDS: dict[str, Callable[[Any], dict[str, Any]]] = {
    "priority": lambda value: {"priority": _priority(value)},
    "queue": lambda value: {"queue": check_name(value, "queue")},
    "needs": lambda value: {"needs": _needs(value)},
    "retries": lambda value: {"max_retries": _count(value, "retries")},
    "timeout": lambda value: {"timeout": _seconds(value, "timeout", zero=False)},
    "delay": lambda value: {"delay": _seconds(value, "delay")},
    "not_before": lambda value: {"not_before": _moment(value, "not_before")},
    "deadline": _deadline,
    "after": lambda value: {"after": _after(value)},
    "at_most_once": lambda value: {"at_most_once": _truth(value, "at_most_once")},
}
_EXTRA: dict[str, Callable[[Any, str], Any]] = {
    "retry_base": _seconds,
    "retry_factor": _number,
    "retry_cap": _seconds,
    "non_retryable": _exceptions,
    "num_cpus": _number,
    "num_gpus": _number,
    "memory": _count,
}
