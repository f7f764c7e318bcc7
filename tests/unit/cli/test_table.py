from __future__ import annotations

import click
from hypothesis import given
from hypothesis import strategies as st

from omnimind.cli.table import Column, block, clean, cut, sheet, show, table, whole, width_of

COLUMNS = [
    Column("NAME", "name", elastic=True),
    Column("N", "n", kind="number"),
    Column("S", "s", kind="status"),
]


def test_columns_line_up() -> None:
    text = table([{"name": "a", "n": 5, "s": "failed"}, {"name": "long name", "n": 1200, "s": "ok"}], COLUMNS)
    lines = [click.unstyle(line) for line in text.splitlines()]
    assert lines == ["NAME           N  S", "a              5  failed", "long name  1,200  ok"]


def test_wide_letters_line_up_too() -> None:
    lines = click.unstyle(
        table([{"name": "日本", "n": 1, "s": "x"}, {"name": "abcd", "n": 2, "s": "x"}], COLUMNS)
    ).splitlines()
    assert [width_of(line) for line in lines[1:]] == [width_of(lines[1])] * 2


@given(st.text(max_size=80), st.integers(30, 120))
def test_a_table_fits_the_terminal_and_is_one_line_a_row(name: str, width: int) -> None:
    text = click.unstyle(table([{"name": name, "n": 1, "s": "ok"}], COLUMNS, width))
    assert len(text.split("\n")) == 2
    assert all(width_of(line) <= width for line in text.split("\n"))


def test_names_cannot_write_to_the_terminal() -> None:
    assert clean("a\x1b[31mb\n\u202ec") == "a\\x1b[31mb\\n\\u202ec"
    assert "\x1b" not in show({"k": ["\x1b]0;title\x07"]})


@given(st.text(max_size=50), st.integers(1, 30))
def test_cut_never_exceeds_its_width(text: str, width: int) -> None:
    assert width_of(cut(clean(text), width)) <= width


def test_a_name_of_ten_thousand_letters_is_cut_for_people() -> None:
    assert len(table([{"name": "x" * 10_000, "n": 1, "s": "ok"}], COLUMNS).splitlines()[1]) < 300


def test_a_sheet_leaves_out_what_is_not_there() -> None:
    assert click.unstyle(sheet([("a", 1), ("long", "x"), ("b", None)])) == "a     1\nlong  x"


def test_spare_columns_go_when_narrow_ones_are_not_enough() -> None:
    columns = [Column("ID", "id"), Column("EXTRA", "extra", spare=True), Column("WHY", "why", elastic=True)]
    rows = [{"id": "x" * 30, "extra": "e" * 20, "why": "w" * 60}]
    wide = click.unstyle(table(rows, columns, 120)).splitlines()
    assert wide[0].split() == ["ID", "EXTRA", "WHY"]
    narrow = click.unstyle(table(rows, columns, 50)).splitlines()
    assert narrow[0].split() == ["ID", "WHY"]
    assert all(width_of(line) <= 50 for line in narrow)


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=200), st.integers(40, 100))
def test_a_sheet_fits_the_terminal(text: str, width: int) -> None:
    page = click.unstyle(
        sheet([("label", text), ("long", "word " * 40), ("id", whole("tsk_" + "0" * 32))], width)
    )
    assert all(width_of(line) <= width * 2 for line in page.split("\n"))
    assert all(line.startswith(("label", "long", "id   ", " ")) for line in page.split("\n"))


def test_a_look_is_put_on_after_wrapping() -> None:
    page = sheet([("error", block("first\n  second", {"fg": "red"}))], 40)
    assert click.unstyle(page) == "error  first\n         second"
    assert page.count("\x1b[31m") == 2
