from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from omnimind.survey.analysis import COMPLEXITY_STEPS, TIMEOUT, analyse_file, package_of


def analyse(tmp_path: Path, source: str, name: str = "module.py") -> dict[str, Any]:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(source, encoding="utf-8")
    return analyse_file(path=str(path), root=str(tmp_path))


def complexity_of(tmp_path: Path, body: str) -> int:
    source = "def f(a, b, c):\n" + "".join(f"    {line}\n" for line in body.splitlines())
    most = analyse(tmp_path, source)["complexity"]["most"]
    return int(next(entry["complexity"] for entry in most if entry["name"] == "f"))


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("pass", 1),
        ("if a: pass", 2),
        ("if a: pass\nelif b: pass\nelse: pass", 3),
        ("return 1 if a else 2", 2),
        ("for x in a: pass\nelse: pass", 2),
        ("while a: pass", 2),
        ("try: pass\nexcept A: pass\nexcept B: pass\nelse: pass\nfinally: pass", 3),
        ("with a: pass", 1),
        ("assert a", 1),
        ("return a and b", 2),
        ("return a and b and c or a", 4),
        ("return [x for x in a]", 2),
        ("return {x: y for x in a if x if b for y in c}", 5),
        ("return lambda: a if b else c", 2),
        ("match a:\n    case 1: pass\n    case _: pass", 2),
        ("match a:\n    case 1 | 2: pass\n    case x if x: pass\n    case _ if b: pass", 4),
        ("return f'{a if b else c}'", 2),
        ("def g():\n    if a: pass", 1),
        ("def g(x=a or b): pass", 2),
    ],
)
def test_complexity_is_one_and_the_decisions(tmp_path: Path, body: str, expected: int) -> None:
    assert complexity_of(tmp_path, body) == expected


def test_counts_functions_methods_and_classes_at_every_depth(tmp_path: Path) -> None:
    result = analyse(
        tmp_path,
        "class A:\n"
        "    def m(self):\n"
        "        async def inner(): pass\n"
        "        class B:\n"
        "            @staticmethod\n"
        "            def n(): pass\n"
        "if True:\n"
        "    def f(): return lambda: 1\n",
    )
    assert (result["functions"], result["classes"]) == (4, 2)
    names = {entry["name"]: entry["line"] for entry in result["complexity"]["most"]}
    assert names == {"A.m": 2, "A.m.inner": 3, "A.m.B.n": 6, "f": 8}


def test_lines_are_code_comments_or_blank(tmp_path: Path) -> None:
    result = analyse(
        tmp_path,
        "# comment\n"  # comment
        "\n"  # blank
        "x = 1  # both\n"  # code
        "   \n"  # blank
        'y = """one\n'  # code
        "\n"  # code: inside the string
        "# no comment\n"  # code: inside the string
        '"""\n'  # code
        "z = ('a'\n"  # code
        "     # between two literals\n"  # comment
        "\n"  # blank
        "     'b')\n"  # code
        "w = 'a\\\n"  # code
        "# still the string'",  # code, and the last line has no end
    )
    assert (result["lines"], result["code"], result["comments"], result["blank"]) == (14, 9, 2, 3)


@pytest.mark.parametrize(
    ("source", "lines"), [("", 0), ("\n", 1), ("x=1", 1), ("x=1\n\n", 2), ("x=1\r\ry=2\r\n", 3)]
)
def test_lines_of_small_files(tmp_path: Path, source: str, lines: int) -> None:
    path = tmp_path / "m.py"
    path.write_bytes(source.encode())
    assert analyse_file(path=str(path), root=str(tmp_path))["lines"] == lines


def test_a_line_separator_inside_a_line_does_not_end_it(tmp_path: Path) -> None:
    assert analyse(tmp_path, "x = 'a\u2028b\x0c'\n")["lines"] == 1


def test_undocumented_public_names(tmp_path: Path) -> None:
    result = analyse(
        tmp_path,
        "from typing import overload\n"
        "class Shown:\n"
        "    '''Doc.'''\n"
        "    def bare(self): pass\n"
        "    def told(self): 'Doc.'\n"
        "    def _private(self): pass\n"
        "    def __init__(self): pass\n"
        "    @property\n"
        "    def size(self): pass\n"
        "    @size.setter\n"
        "    def size(self, value): pass\n"
        "class _Hidden:\n"
        "    def within(self): pass\n"
        "@overload\n"
        "def outer(a: int): ...\n"
        "def outer(a):\n"
        "    def inner(): pass\n",
    )
    assert result["undocumented_names"] == [
        {"line": 1, "name": "(module)"},
        {"line": 4, "name": "Shown.bare"},
        {"line": 9, "name": "Shown.size"},
        {"line": 16, "name": "outer"},
    ]
    assert (result["public"], result["undocumented"]) == (6, 4)


@pytest.mark.parametrize("name", ["_private.py", "_pkg/module.py"])
def test_a_private_module_has_no_public_name(tmp_path: Path, name: str) -> None:
    assert analyse(tmp_path, "def shown(): pass\n", name)["public"] == 0


@pytest.mark.parametrize("name", ["__init__.py", "__main__.py"])
def test_dunder_modules_are_public(tmp_path: Path, name: str) -> None:
    assert analyse(tmp_path, "def shown(): pass\n", name)["public"] == 2


def test_compiler_warnings_are_listed(tmp_path: Path) -> None:
    result = analyse(tmp_path, "x = '\\d'\nif x is 'a': pass\n")
    assert result["warnings"] == 2
    escape, identity = result["warnings_listed"]
    assert (escape["line"], identity["line"]) == (1, 2)
    assert "invalid escape sequence" in escape["message"]
    assert identity["category"] == "SyntaxWarning"


def test_many_warnings_are_counted_but_not_all_listed(tmp_path: Path) -> None:
    result = analyse(tmp_path, "x = '\\d'\n" * 1000)
    assert result["warnings"] == 1000
    assert [entry["line"] for entry in result["warnings_listed"]] == list(range(1, 11))


def test_histogram_sums_to_the_functions(tmp_path: Path) -> None:
    many = "def g(a):\n" + "    if a: pass\n" * 60
    result = analyse(tmp_path, "def f(): pass\n" * 3 + many)
    histogram = result["complexity"]["histogram"]
    assert len(histogram) == len(COMPLEXITY_STEPS)
    assert (histogram[0], histogram[-1], sum(histogram)) == (3, 1, result["functions"])
    assert (result["complexity"]["max"], result["complexity"]["total"]) == (61, 64)


def test_the_result_is_json_and_the_same_each_time(tmp_path: Path) -> None:
    source = "class A:\n" + "".join(f"    def f{i}(self):\n        return '\\d'\n" for i in range(50))
    first = json.dumps(analyse(tmp_path, source))
    assert json.dumps(analyse(tmp_path, source)) == first
    assert len(first) < 4096


def test_package_is_the_first_part_below_the_root(tmp_path: Path) -> None:
    root = str(tmp_path)
    assert package_of(f"{root}/a/b/c.py", root)[0] == "a"
    assert package_of(f"{root}/six.py", root)[0] == "six"
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg/__init__.py").touch()
    assert package_of(f"{root}/pkg/x.py", f"{root}/pkg")[0] == "pkg"
    assert package_of(f"{root}/pkg/sub/x.py", f"{root}/pkg")[0] == "sub"


def test_the_handler_is_declared_with_its_bounds() -> None:
    assert analyse_file.name == "omnimind.survey.analysis.analyse_file"
    assert analyse_file.defaults == {"max_retries": 0, "timeout": TIMEOUT}
