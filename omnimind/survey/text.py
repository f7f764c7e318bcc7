"""Make names and messages of strangers fit to be shown: a file's name may hold anything but `/` and null."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable

_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def printable(text: str) -> str:
    r"""Return `text` with control, invisible and direction-changing characters spelled out: `\x1b`."""
    if text.isprintable():
        return text
    return "".join(
        char.encode("unicode_escape").decode() if unicodedata.category(char) in _HIDDEN else char
        for char in text
    )


def clip(text: str, width: int) -> str:
    """Return the text in at most `width` characters, the middle left out: both ends of a path tell most."""
    if len(text) <= width:
        return text
    head = (width - 1) // 2
    return f"{text[:head]}…{text[head + 1 - width :]}"


def below(path: str, roots: Iterable[str]) -> str:
    """Return the path without the root that it lies below."""
    for root in sorted(roots, key=len, reverse=True):
        if path.startswith(root.rstrip(os.sep) + os.sep):
            return path[len(root.rstrip(os.sep)) + 1 :]
    return path
