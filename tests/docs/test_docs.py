"""What the pages say is there: generated pages are fresh, names are documented, links lead somewhere."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import omnimind
from omnimind.config import specs
from omnimind.testing.fake import FakeCoordinator
from omnimind.testing.transport import FakeTransport

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([
    *DOCS.rglob("*.md"),
    *ROOT.glob("*.md"),
    *(ROOT / "benchmarks").glob("*.md"),
])  # fmt: skip
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)
BUILD_MACHINE = re.compile(r"/(?:work|tmp/omni\w*|home/\w+|root)/|/tmp/omni")


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def prose(page: Path) -> str:
    """Return a page's text without its code blocks."""
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def blocks(page: Path, language: str) -> list[str]:
    return [m[3] for m in FENCE.finditer(page.read_text(encoding="utf-8")) if m[2] == language]


def anchors(page: Path) -> set[str]:
    """Return what `#…` may name in a page: its headings, as GitHub writes them, and its explicit anchors."""
    text = prose(page)
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", t.lower()).replace(" ", "-") for t in titles} | set(
        re.findall(r"<a id='([^']+)'>", text)
    )


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = spec_from_file_location("docs_generator", ROOT / "scripts" / "docs.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def reference() -> dict[str, str]:
    return {p.stem: p.read_text(encoding="utf-8") for p in (DOCS / "reference").glob("*.md")}


def test_the_generated_pages_are_up_to_date(generator: Any) -> None:
    assert generator.outdated() == [], "run: python scripts/docs.py"


def test_a_changed_page_is_noticed(
    generator: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(generator, "DOCS", tmp_path)
    assert generator.main([]) == 0
    assert generator.outdated() == []
    (tmp_path / "reference" / "cli.md").write_text("something else")
    assert generator.main(["--check"]) == 1
    assert "docs/reference/cli.md" in capsys.readouterr().out


def test_every_setting_is_documented(reference: dict[str, str]) -> None:
    page = reference["settings"]
    missing = [s.key for s in specs() if f"`{s.key}`" not in page or f"`{s.variable}`" not in page]
    assert missing == []


def test_every_error_is_documented(generator: Any, reference: dict[str, str]) -> None:
    source = (ROOT / "omnimind" / "errors.py").read_text(encoding="utf-8")
    classes = [n.name for n in ast.parse(source).body if isinstance(n, ast.ClassDef)]
    assert [c for c in classes if f"`{c}`" not in reference["errors"]] == []
    assert [e.code for e in generator.errors() if f"<a id='{e.code}'>" not in reference["errors"]] == []


def test_no_error_is_defined_where_the_page_does_not_look(generator: Any) -> None:
    base = re.compile(
        r"^class \w+\((?:errors\.)?(?:" + "|".join(e.__name__ for e in generator.errors()) + r")\b",
        re.MULTILINE,
    )
    found = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for package in ("omnimind", "actors")
        for path in (ROOT / package).rglob("*.py")
        if "testing" not in path.parts and base.search(path.read_text(encoding="utf-8"))
    }
    assert found <= set(generator.WITH_ERRORS)


def test_every_command_is_documented_in_the_words_of_its_help(
    generator: Any, reference: dict[str, str]
) -> None:
    names = [name for name, _ in generator.commands()][1:]
    assert len(names) > 30
    assert [n for n in names if f"\n### {n}\n" not in reference["cli"]] == []


def test_every_public_name_is_documented(reference: dict[str, str]) -> None:
    assert [n for n in omnimind.__all__ if f"\n## {n}\n" not in reference["python"]] == []


def test_every_page_is_in_the_index() -> None:
    index = DOCS / "README.md"
    linked = {(DOCS / target).resolve() for target in re.findall(r"\]\(([^)#]+)", index.read_text())}
    assert [name_of(p) for p in DOCS.rglob("*.md") if p != index and p not in linked] == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for target in re.findall(r"\[[^\]]*\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        if not there.exists() or (anchor and there.suffix == ".md" and anchor not in anchors(there)):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_snippets_are_whole(page: Path) -> None:
    for code in blocks(page, "python"):
        compile(code, name_of(page), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    for code in blocks(page, "toml"):
        tomllib.loads(code)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_no_page_names_a_path_of_a_build_machine(page: Path) -> None:
    assert BUILD_MACHINE.findall(page.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_in_pages_exist(page: Path, generator: Any) -> None:
    """Every `omnimind …` in a console block names a command, with options that it has."""
    known = dict(generator.commands())
    wrong = []
    for block in blocks(page, "console"):
        for words in re.findall(r"^\$ (?:\S*/)?omnimind ([^#|>$\n]*)", block, re.MULTILINE):
            parts = words.split()
            name = "omnimind"
            while parts and f"{name} {parts[0]}" in known:
                name += f" {parts.pop(0)}"
            given = {w.partition("=")[0] for w in parts if re.match(r"--?[a-z]", w)}
            has = {"--help", "-h", *(o for p in known[name].params for o in (*p.opts, *p.secondary_opts))}
            if name == "omnimind" or not given <= has:
                wrong.append(words)
    assert wrong == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_tests_that_a_page_names_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    names = set(re.findall(r"`(test_\w+)`", text))
    defined = {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in [path.stem, *re.findall(r"def (test_\w+)", path.read_text(encoding="utf-8"))]
    }
    assert names - defined == set()
    paths = re.findall(r"`((?:tests|omnimind|actors|scripts|benchmarks)/[\w/.]+)`", text)
    assert [p for p in paths if not (ROOT / p).exists()] == []


@pytest.mark.parametrize("page", sorted((DOCS / "howto").glob("*.md")), ids=name_of)
def test_examples_run(page: Path) -> None:
    """The examples of the how-to pages run on a coordinator in memory; those that want more compile."""
    fake = FakeCoordinator()
    with omnimind.Client(transport=FakeTransport(fake)) as om:
        space: dict[str, Any] = {"om": om, "__name__": "__main__"}
        for code in blocks(page, "python"):
            compiled = compile(code, name_of(page), "exec")
            if "omnimind.local(" not in code and 'connect("https://' not in code:
                exec(compiled, space)
    fake.close()


def test_the_script_runs_by_itself() -> None:
    command = [sys.executable, str(ROOT / "scripts" / "docs.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
