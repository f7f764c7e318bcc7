"""How a handler's code travels to workers: by name where they can import it, by value otherwise.

By value takes the user's own modules along (those that are not installed), as far as the handler refers
to them at the time of its first submission; an import inside the handler is not seen. With a working
folder the whole folder travels, and functions of its modules by name; only those of `__main__` still go
by value.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import msgspec

from omnimind.client.origin import carried, is_installed, is_under
from omnimind.encoding import pickled
from omnimind.errors import InvalidInput, UnserialisableValue
from omnimind.ids import digest_of
from omnimind.registry import HandlerSpec, Task, kind_of

BLOB_MAX = 32 << 20
DEFAULT_QUEUE = "default"
_PARTS_MAX = 2000


class Folder(msgspec.Struct, frozen=True):
    """A working folder that travels: where it is, and its packed form (see `package`)."""

    path: Path
    data: bytes
    digest: str


class Code(msgspec.Struct, frozen=True):
    """A handler ready to be registered.

    spec: its record as JSON, whose digest names it. blobs: what the record refers to, by digest.
    parts: the objects that its value was made from, by id, to see when one is replaced.
    """

    task_type: str
    fn: Callable[..., Any]
    spec: bytes
    blobs: dict[str, bytes]
    parts: dict[int, Any] | None

    @property
    def queue(self) -> str:
        """Return the queue in which its tasks stand unless they are given another one."""
        defaults = msgspec.json.decode(self.spec, type=HandlerSpec).defaults
        return str(defaults.get("queue", DEFAULT_QUEUE))

    @property
    def fresh(self) -> bool:
        """Return whether packing it again would give the same code, as far as names are bound anew."""
        return self.parts is None or parts_of(self.fn).keys() == self.parts.keys()


def as_task(handler: Any) -> Task[..., Any]:
    """Return the task that is meant by a `Task` or a plain function."""
    if isinstance(handler, Task):
        return handler
    if not callable(handler):
        hint = "give a function, one declared with @task, or a task type's name"
        msg = f"{type(handler).__name__} is no handler"
        raise InvalidInput(msg, field="task", hint=hint)
    if not hasattr(handler, "__qualname__") or not hasattr(handler, "__module__"):
        hint = "give it a name: omnimind.task(name=…)(function)"
        msg = f"a {type(handler).__name__} has no name of its own"
        raise InvalidInput(msg, field="task", hint=hint)
    return Task(handler, None, {})


def pack(task: Task[..., Any], folder: Folder | None = None) -> Code:
    """Return a handler's code. Raises UnserialisableValue when it can go neither by name nor by value."""
    fn = task.fn
    spec: dict[str, Any] = {
        "task_type": task.name,
        "kind": kind_of(fn),
        "doc": (getattr(fn, "__doc__", None) or "").strip().partition("\n")[0][:200],
        "defaults": task.defaults,
    }
    blobs: dict[str, bytes] = {}
    parts = None
    if folder is not None:
        spec["package"] = folder.digest
        blobs[folder.digest] = folder.data
    if _named(fn, folder):
        spec |= {"by": "name", "module": fn.__module__, "qualname": fn.__qualname__}
    else:
        parts = parts_of(fn)
        data = by_value(fn, folder, f"the function {task.name}")
        spec |= {"by": "value", "blob": digest_of(data)}
        blobs[digest_of(data)] = data
    record = msgspec.json.encode(HandlerSpec(**spec), order="sorted")
    return Code(task.name, fn, record, blobs, parts)


def by_value(value: Any, folder: Folder | None, what: str) -> bytes:
    """Return a pickle with the user's own code inside."""
    try:
        data = dumps(value, folder)
    except Exception as error:
        hint = "make what it refers to inside the function, or give connect(working_dir=…)"
        msg = f"{what} cannot travel by value: {error}"
        raise UnserialisableValue(msg, field="task", hint=hint) from error
    if len(data) > BLOB_MAX:
        hint = "load large data inside the function, from a file or an object store"
        msg = f"{what} with what it refers to has {len(data) >> 20} MiB, at most {BLOB_MAX >> 20} travel"
        raise UnserialisableValue(msg, field="task", hint=hint)
    return data


def dumps(value: Any, folder: Folder | None = None) -> bytes:
    """Pickle a function, a payload or a part of one so that workers can read it."""
    with carried(None if folder is None else folder.path):
        return pickled(value)


def _named(fn: Callable[..., Any], folder: Folder | None) -> bool:
    """Return whether a worker finds this very function under its module and qualified name."""
    name = getattr(fn, "__module__", None)
    module = sys.modules.get(name or "")
    if name is None or module is None or name == "__main__":
        return False
    if not is_installed(name) and (folder is None or not is_under(module, folder.path)):
        return False
    found: Any = module
    for part in fn.__qualname__.split("."):
        found = getattr(found, part, None)
    return found is fn or (isinstance(found, Task) and found.fn is fn)


def parts_of(fn: Callable[..., Any]) -> dict[int, Any]:
    """Return the objects that a function refers to by name, through the user's own functions, by their id.

    A redefined helper (a notebook's cell run again) is another object; a changed list is the same one.
    """
    found: dict[int, Any] = {}
    stack: list[Any] = [fn]
    while stack and len(found) < _PARTS_MAX:
        part = stack.pop()
        if id(part) in found:
            continue
        found[id(part)] = part
        if isinstance(part, Task):
            stack.append(part.fn)
        elif isinstance(part, FunctionType) and not _named(part, None):
            stack += [part.__code__, part.__defaults__, part.__kwdefaults__]
            for cell in part.__closure__ or ():
                try:
                    stack.append(cell.cell_contents)
                except ValueError:
                    continue  # not bound yet
            space = part.__globals__
            stack += [space[name] for name in _global_names(part.__code__) if name in space]
    return found


@functools.lru_cache(maxsize=4096)
def _global_names(code: CodeType) -> tuple[str, ...]:
    inner = [n for const in code.co_consts if isinstance(const, CodeType) for n in _global_names(const)]
    return (*code.co_names, *inner)
