"""Source that compilers of CPython follow without counting, until their stack is full or the day is over.

Most nesting is bounded by the compiler itself (RecursionError, MemoryError, SyntaxError). Here is what was
found not to be, by trying some eighty shapes at up to a million repetitions on CPython 3.11, 3.12 and 3.13.
"""

from __future__ import annotations

import ast
import re
import sys

MAX_GENERATORS = 1000
MAX_KEYWORDS = 10_000
MAX_NESTED_COMPREHENSIONS = 15

_INLINED = sys.version_info[1] >= 12  # noqa: YTT203 - comprehensions share a block stack from 3.12 on
_LONG_NAME = re.compile(r"(?:\.[ \t]*+[^\W\d]\w*+[ \t]*+){1000}")
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp)


def refuse_before_parsing(text: str) -> None:
    """Raise RecursionError for `import a.a.a…`: it costs the parser the square of its length in memory."""
    if _LONG_NAME.search(text):
        raise RecursionError


def refuse_before_compiling(text: str, tree: ast.Module) -> None:
    """Raise for what would overflow the compiler's stack (RecursionError) or keep it for hours (ValueError).

    That is a comprehension with too many clauses, too many comprehensions inside each other, and a call whose
    many keywords would be compared each with each.
    """
    loops = text.count("for")
    if loops > MAX_GENERATORS or text.count("=") > MAX_KEYWORDS:
        _refuse_wide(tree)
    if _INLINED and loops > MAX_NESTED_COMPREHENSIONS:
        _refuse_deep(tree)


def _refuse_wide(tree: ast.Module) -> None:
    for node in ast.walk(tree):
        if len(getattr(node, "generators", ())) > MAX_GENERATORS:
            raise RecursionError
        if len(getattr(node, "keywords", ())) > MAX_KEYWORDS:
            raise ValueError(f"more than {MAX_KEYWORDS} keyword arguments in one call: not analysed")


def _refuse_deep(tree: ast.Module) -> None:
    waiting: list[tuple[ast.AST, int]] = [(tree, 0)]
    while waiting:
        node, depth = waiting.pop()
        if isinstance(node, _COMPREHENSIONS):
            depth += 1
            if depth > MAX_NESTED_COMPREHENSIONS:
                raise RecursionError
        waiting.extend((child, depth) for child in ast.iter_child_nodes(node))
