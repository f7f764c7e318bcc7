"""How a handler's parameters take what `submit` and `map` are given, checked before it travels."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from omnimind.client.options import OPTION_NAMES
from omnimind.context import TaskContext
from omnimind.encoding import call_value
from omnimind.errors import InvalidInput

_Kind = inspect.Parameter


class Parameters:
    """The parameters of one handler; for a task type known by name only (no function) all is allowed."""

    def __init__(self, task_type: str, fn: Callable[..., Any] | None) -> None:
        self.task_type = task_type
        self.names: frozenset[str] = frozenset()
        self._order: list[str] = []
        self._required: frozenset[str] = frozenset()
        self._signature: inspect.Signature | None = None
        self._any_keyword = True
        if fn is None:
            return
        try:
            signature = inspect.signature(fn)
        except (TypeError, ValueError):
            return  # a builtin that does not tell
        given = [p for p in signature.parameters.values() if not _is_context(p)]
        signature = signature.replace(parameters=given)
        named = [p for p in given if p.kind not in (_Kind.VAR_KEYWORD, _Kind.VAR_POSITIONAL)]
        self._signature = signature
        self._any_keyword = any(p.kind is _Kind.VAR_KEYWORD for p in signature.parameters.values())
        self._positions_needed = any(
            p.kind in (_Kind.POSITIONAL_ONLY, _Kind.VAR_POSITIONAL) for p in signature.parameters.values()
        )
        self._order = [p.name for p in named if p.kind is not _Kind.KEYWORD_ONLY]
        by_name = [p for p in named if p.kind is not _Kind.POSITIONAL_ONLY]
        self.names = frozenset(p.name for p in by_name)
        self._required = frozenset(p.name for p in named if p.default is p.empty)

    def payload(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Return what travels for ``handler(*args, **kwargs)``. Raises InvalidInput naming the parameter."""
        signature = self._signature
        if signature is None:
            return call_value(args, kwargs)
        if self._positions_needed:
            try:
                signature.bind(*args, **kwargs)
            except TypeError as error:
                self._bad("payload", str(error), f"it is {self.task_type}{signature}")
            return call_value(args, kwargs)
        if args:
            if len(args) > len(self._order):
                most = len(self._order)
                self._bad("payload", f"{self.task_type} takes {most} positional arguments, not {len(args)}")
            for name in self._order[: len(args)]:
                if name in kwargs:
                    self._bad(name, f"{self.task_type} got {name!r} twice, by position and by keyword")
            kwargs = {**dict(zip(self._order, args, strict=False)), **kwargs}
        given = kwargs.keys()
        if not self._any_keyword and not given <= self.names:
            self._unknown(next(name for name in given if name not in self.names))
        if not self._required <= given:
            self._missing(next(name for name in self._order_of_required() if name not in given))
        return kwargs

    def item(self, item: Any) -> Any:
        """Return the payload of one item of a `map`.

        It is a dict of keywords, a tuple of positional arguments, or the handler's first argument.
        """
        kind = type(item)
        if kind is dict:
            return self.payload((), item)
        if kind is tuple:
            return self.payload(item, {})
        if self._signature is None:
            hint = "give dicts of keywords (or tuples of positional arguments), or the function itself"
            msg = f"the parameters of {self.task_type} are not known here, so {kind.__name__} fits nowhere"
            self._bad("payloads", msg, hint)
        return self.payload((item,), {})

    def _order_of_required(self) -> list[str]:
        assert self._signature is not None
        return [name for name in self._signature.parameters if name in self._required]

    def _unknown(self, name: Any) -> NoReturn:
        if not isinstance(name, str):
            self._bad("payload", f"a keyword is text, not {type(name).__name__}")
        close = difflib.get_close_matches(name, [*self.names, *OPTION_NAMES], n=1)
        what = "option of submit" if close and close[0] in OPTION_NAMES else "parameter"
        hint = (
            f"did you mean the {what} {close[0]!r}?" if close else f"it is {self.task_type}{self._signature}"
        )
        shown = name if len(name) <= 80 else f"{name[:80]}…"  # noqa: PLR2004
        self._bad(shown, f"{self.task_type} has no parameter {shown!r}", hint)

    def _missing(self, name: str) -> NoReturn:
        hint = f"it is {self.task_type}{self._signature}"
        if name in OPTION_NAMES:
            hint = f"`{name}` is also an option of submit: pass the parameter as payload={{{name!r}: …}}"
        self._bad(name, f"{self.task_type} needs {name!r}", hint)

    def _bad(self, field: str, message: str, hint: str | None = None) -> NoReturn:
        raise InvalidInput(message, field=field, hint=hint)


def _is_context(parameter: inspect.Parameter) -> bool:
    """Return whether the runner fills this parameter with the attempt's `TaskContext`."""
    note = parameter.annotation
    return note is TaskContext or (isinstance(note, str) and note.rpartition(".")[2] == TaskContext.__name__)
