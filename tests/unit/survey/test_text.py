from __future__ import annotations

import pytest

from omnimind.survey.text import below, clip, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain ü 中.py", "plain ü 中.py"),
        ("a\x1b[31mb", "a\\x1b[31mb"),
        ("a\nb\tc", "a\\nb\\tc"),
        ("a\u202eb", "a\\u202eb"),
        ("a\u200bb", "a\\u200bb"),
        ("a\udce9", "a\\udce9"),
        ("a\u00a0b", "a\u00a0b"),
    ],
)
def test_printable(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_clip_leaves_both_ends() -> None:
    assert clip("abcdefghij", 10) == "abcdefghij"
    assert clip("abcdefghijk", 10) == "abcd…ghijk"
    assert len(clip("x" * 1000, 31)) == 31


def test_below_takes_the_longest_root() -> None:
    assert below("/a/b/c.py", ["/a", "/a/b"]) == "c.py"
    assert below("/ab/c.py", ["/a"]) == "/ab/c.py"
    assert below("/c.py", ["/"]) == "c.py"
