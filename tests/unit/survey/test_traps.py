from __future__ import annotations

import ast

import pytest

from omnimind.survey import traps


def refuse(text: str) -> None:
    traps.refuse_before_parsing(text)
    traps.refuse_before_compiling(text, ast.parse(text))


def nested(depth: int) -> str:
    return "[" * depth + "a" + " for a in b]" * depth


@pytest.mark.parametrize(
    "text",
    [
        "import a" + ".a" * 1001,
        "a" + " . a" * 1001,
        "[a " + "for a in b " * (traps.MAX_GENERATORS + 1) + "]",
    ],
)
def test_refused(text: str) -> None:
    with pytest.raises(RecursionError):
        refuse(text)


@pytest.mark.parametrize(
    "text",
    [
        "import a" + ".a" * 900,
        "x = '" + "1." * 5000 + "'",
        "[a " + "for a in b " * traps.MAX_GENERATORS + "]",
        "f(" + ",".join(f"a{i}=1" for i in range(traps.MAX_KEYWORDS)) + ")",
        "[a for a in b]\n" * 2000,
        "x=1\n" * 20_000,
    ],
)
def test_not_refused(text: str) -> None:
    refuse(text)


def test_too_many_keywords_are_refused() -> None:
    with pytest.raises(ValueError, match="keyword arguments"):
        refuse("class A(" + ",".join(f"a{i}=1" for i in range(traps.MAX_KEYWORDS + 1)) + "): pass")


def test_comprehensions_in_comprehensions_are_refused_where_they_are_inlined(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(traps, "_INLINED", True)
    refuse(nested(traps.MAX_NESTED_COMPREHENSIONS) + "\n" + nested(traps.MAX_NESTED_COMPREHENSIONS))
    with pytest.raises(RecursionError):
        refuse(nested(traps.MAX_NESTED_COMPREHENSIONS + 1))
