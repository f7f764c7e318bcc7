"""The list of plants, and how one is put in and taken out again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import msgspec


class Patches:
    """Replaces attributes until it is closed."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack

    def put(self, owner: Any, name: str, value: Any) -> Any:
        """Replace an attribute and return what stood there."""
        original = getattr(owner, name)
        self._stack.enter_context(patch.object(owner, name, value))
        return original


class Plant(msgspec.Struct, frozen=True):
    """A bug. invariant: the id of the one that must catch it, within `seeds` seeds from 0.

    fixed: options that the plant needs; without them it would take many more seeds.
    """

    name: str
    invariant: str
    seeds: int
    story: str
    apply: Callable[[Patches], None]
    fixed: dict[str, Any] = msgspec.field(default_factory=dict)


PLANTS: dict[str, Plant] = {}

Bug = Callable[[Patches], None]


def plant(invariant: str, seeds: int, story: str, **fixed: Any) -> Callable[[Bug], Bug]:
    """Register a bug under its function's name."""

    def register(bug: Bug) -> Bug:
        name = bug.__name__
        PLANTS[name] = Plant(name, invariant, seeds, story, bug, fixed)
        return bug

    return register


@contextmanager
def planted(name: str) -> Iterator[None]:
    """Plant a bug for as long as the context lasts."""
    with ExitStack() as stack:
        PLANTS[name].apply(Patches(stack))
        yield
