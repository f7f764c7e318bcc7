"""Names for the types that the clients' signatures repeat."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Callable, Coroutine, Generator, Iterable
from typing import Any, TypeVar

R = TypeVar("R")

Steps = Callable[..., Coroutine[Any, Any, R] | Generator[Any, Any, R] | AsyncIterator[R]]
"""An `async def` handler, a generator that yields progress and returns its result, or an async generator
whose last item is its result.
"""
Plain = Callable[..., R]
"""Any other handler, or a `Task` made of one."""
Items = Iterable[Any] | AsyncIterable[Any]
