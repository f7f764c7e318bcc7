"""`@task`: handlers and the record that says how a worker finds their code.

A handler travels by name when workers can import its module, by value otherwise (a function of
`__main__`, of a notebook, of a module outside the installed packages), and in both cases with the
driver's packed `working_dir` when it gave one. Here is only the declaration; packing is the client's.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Iterable
from importlib.metadata import entry_points
from typing import Any, Generic, ParamSpec, TypeVar, overload

import msgspec

from omnimind.cluster.states import TaskPriority, priority_number
from omnimind.errors import InvalidInput

P = ParamSpec("P")
R = TypeVar("R")


class HandlerSpec(msgspec.Struct, frozen=True):
    """The durable record of a handler. Its digest (SHA-256 of its JSON, 32 hex digits) names it in tasks.

    by: ``name`` (`module` and `qualname`) or ``value`` (`blob`: digest of a cloudpickle).
    package: digest of a packed working folder, or None. defaults: of `SubmitRequest` fields.
    """

    task_type: str
    kind: str
    by: str
    module: str = ""
    qualname: str = ""
    blob: str | None = None
    package: str | None = None
    doc: str = ""
    defaults: dict[str, Any] = msgspec.field(default_factory=dict)


class Task(Generic[P, R]):
    """A function declared with `@task`. Calling it runs the function here, as if undecorated."""

    def __init__(self, fn: Callable[P, R], name: str | None, defaults: dict[str, Any]) -> None:
        if not callable(fn):
            msg = f"@task needs a function, not {type(fn).__name__}"
            raise InvalidInput(msg, field="task")
        self.fn = fn
        self.name = name or f"{fn.__module__}.{fn.__qualname__}"
        if not 0 < len(self.name) <= MAX_NAME:
            msg = f"a task type's name has 1 to {MAX_NAME} characters, this one has {len(self.name)}"
            raise InvalidInput(msg, field="name", hint="give a shorter one: @task(name=…)")
        self.defaults = defaults
        functools.update_wrapper(self, fn)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.fn(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<task {self.name}>"

    @property
    def kind(self) -> str:
        """Return ``sync``, ``async`` or ``generator``."""
        return kind_of(self.fn)


MAX_NAME = 512


def kind_of(fn: Callable[..., Any]) -> str:
    """Return how a function is run: ``async``, ``generator`` (sync or async) or ``sync``."""
    if inspect.isgeneratorfunction(fn) or inspect.isasyncgenfunction(fn):
        return "generator"
    return "async" if inspect.iscoroutinefunction(fn) else "sync"


def names_of(errors: Iterable[type[BaseException] | str]) -> list[str]:
    """Return exception classes as the names that `TaskOptions.non_retryable` holds."""
    return [e if isinstance(e, str) else f"{e.__module__}.{e.__qualname__}" for e in errors]


@overload
def task(fn: Callable[P, R], /) -> Task[P, R]: ...
@overload
def task(
    *,
    name: str | None = None,
    retries: int = 3,
    retry_base: float = 1.0,
    retry_factor: float = 2.0,
    retry_cap: float = 60.0,
    non_retryable: Iterable[type[BaseException] | str] = (),
    timeout: float | None = None,
    priority: int | str | TaskPriority = TaskPriority.MEDIUM,
    queue: str = "default",
    needs: Iterable[str] = (),
    num_cpus: float = 1.0,
    num_gpus: float = 0.0,
    memory: int = 0,
    at_most_once: bool = False,
) -> Callable[[Callable[P, R]], Task[P, R]]: ...
def task(fn: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Declare a handler, with its defaults; each submission may override them.

    name: the task type (default: module and qualified name). retries: further attempts after an
    exception, with full-jitter backoff of `retry_base` seconds times `retry_factor` each, at most
    `retry_cap`. non_retryable: exception classes that end the task at once. timeout: seconds an attempt.
    needs: capabilities that a node must have. num_cpus, num_gpus, memory (bytes): passed to Ray.

    Raises InvalidInput naming the field.
    """
    if fn is not None:
        return Task(fn, None, {})
    name = options.pop("name", None)
    defaults: dict[str, Any] = {}
    extra: dict[str, Any] = {}
    for key, value in options.items():
        match key:
            case "retries":
                defaults["max_retries"] = _amount(key, value, whole=True)
            case "priority":
                try:
                    defaults["priority"] = priority_number(value)
                except ValueError as error:
                    what, _, mend = str(error).partition(": ")
                    raise InvalidInput(what, field="priority", hint=mend) from None
            case "needs":
                defaults["needs"] = sorted({value} if isinstance(value, str) else set(value))
            case "timeout":
                defaults[key] = None if value is None else _amount(key, value, zero=False)
            case "queue" | "at_most_once":
                defaults[key] = value
            case "non_retryable":
                extra[key] = names_of(value)
            case "retry_base" | "retry_factor" | "retry_cap" | "num_cpus" | "num_gpus" | "memory":
                extra[key] = _amount(key, value, whole=key == "memory")
            case _:
                msg = f"@task has no option {key!r}"
                raise InvalidInput(msg, field=key)
    if extra:
        defaults["options"] = extra
    return lambda function: Task(function, name, defaults)


def _amount(name: str, value: Any, *, whole: bool = False, zero: bool = True) -> Any:
    """Return a number of something. A handler with another default would fail at every submission."""
    kinds = int if whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds) or not 0 <= value < math.inf:
        what = "a whole number" if whole else "a number"
        hint = f"give {what} from 0 on" if zero else f"give {what} above 0, or leave it out"
    elif not (zero or value):
        hint = f"give a number above 0, or leave `{name}` out for none"
    else:
        return value
    msg = f"{value!r} cannot be its value"[:200]
    raise InvalidInput(msg, field=name, hint=hint)


def installed_tasks() -> dict[str, Task[..., Any]]:
    """Return the handlers that installed packages offer under the entry point group `omnimind.tasks`."""
    found: dict[str, Task[..., Any]] = {}
    for entry in entry_points(group="omnimind.tasks"):
        loaded = entry.load()
        handler = loaded if isinstance(loaded, Task) else Task(loaded, entry.name, {})
        found[handler.name] = handler
    return found
