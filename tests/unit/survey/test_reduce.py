from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from omnimind.survey.analysis import analyse_file
from omnimind.survey.baseline import main, run_plain
from omnimind.survey.files import Tree, find_files
from omnimind.survey.reduce import KEPT, Reduction, reason_of, totals
from omnimind.survey.source import UNREADABLE


def reduced(tree: Tree, seed: int) -> dict[str, Any]:
    """Fold the results of `tree` in an order that the seed decides."""
    results = list(tree.files)
    random.Random(seed).shuffle(results)
    reduction = Reduction()
    for file in results:
        try:
            reduction.add(json.loads(json.dumps(analyse_file(path=file.path, root=file.root))))
        except UNREADABLE as error:
            reduction.fail(file.path, file.root, reason_of(type(error).__name__, str(error)))
    return reduction.report(seconds=float(seed), not_read=tree.problems)


def test_the_order_of_the_results_does_not_matter(tree_of_files: Path) -> None:
    tree = find_files(tree_of_files)
    plain = totals(run_plain(tree))
    for seed in range(20):
        assert totals(reduced(tree, seed)) == plain


def test_the_order_does_not_matter_where_lists_are_cut() -> None:
    source = (Path(__file__).parents[3] / "omnimind", Path(json.__file__).parent)
    for folder in source:
        tree = find_files(folder)
        plain = json.dumps(totals(run_plain(tree)))
        assert [json.dumps(totals(reduced(tree, seed))) for seed in range(3)] == [plain] * 3


def test_totals_are_what_one_counts_without_a_syntax_tree(tree_of_files: Path) -> None:
    report = run_plain(find_files(tree_of_files))
    good = [p for p in tree_of_files.rglob("*.py") if not p.name.startswith("bad_")]
    texts = [path.read_bytes().decode("latin-1" if path.name == "latin.py" else "utf-8") for path in good]
    lines = [line.strip() for text in texts for line in text.splitlines()]
    assert report["lines"] == len(lines)
    assert report["blank"] == lines.count("")
    assert report["comments"] == sum(line.startswith("#") for line in lines)
    assert report["functions"] == sum(line.startswith(("def ", "async def ")) for line in lines)
    assert report["classes"] == sum(line.startswith("class ") for line in lines)
    assert report["bytes"] == sum(path.stat().st_size for path in good)
    assert report["files"] == len(good) + 2
    assert report["failed"] == 2


def test_failures_have_their_path_and_reason(tree_of_files: Path) -> None:
    report = run_plain(find_files(tree_of_files))
    assert [Path(failure["path"]).name for failure in report["failures"]] == ["bad_bytes.py", "bad_syntax.py"]
    assert report["failures"][0]["reason"] == (
        "UnicodeError: line 1: byte 0xe9 at offset 8 is not utf-8 (invalid continuation byte)"
    )
    assert report["failures"][1]["reason"].startswith("SyntaxError: ")
    assert "line 2" in report["failures"][1]["reason"]


def test_the_keys_of_the_report(tree_of_files: Path) -> None:
    report = run_plain(find_files(tree_of_files))
    wanted = {"files", "failed", "lines", "functions", "classes", "seconds", "failures", "by_package"}
    assert wanted <= report.keys()
    assert json.loads(json.dumps(report)) == report


def test_packages_sum_to_the_totals(tree_of_files: Path) -> None:
    report = run_plain(find_files(tree_of_files))
    packages = report["by_package"]
    assert set(packages) == {"pkg", "single", "empty", "warns", "bad_syntax", "bad_bytes", "latin"}
    for key in (
        "files",
        "failed",
        "lines",
        "code",
        "functions",
        "classes",
        "public",
        "undocumented",
        "warnings",
    ):
        assert sum(package[key] for package in packages.values()) == report[key]
    assert (packages["pkg"]["files"], packages["pkg"]["functions"], packages["pkg"]["classes"]) == (3, 3, 1)
    assert packages["bad_syntax"]["failed"] == 1


def test_complexity_and_documentation(tree_of_files: Path) -> None:
    report = run_plain(find_files(tree_of_files))
    assert report["complexity"]["total"] == 3 + 3 + 1
    assert report["complexity"]["mean"] == pytest.approx(7 / 3, abs=0.01)
    first, second, third = report["most_complex"]
    assert (first["name"], first["line"], first["complexity"]) == ("run", 1, 3)
    assert (second["name"], second["line"], third["name"]) == ("Circle.area", 10, "_hidden")
    undocumented = {Path(entry["path"]).name: entry["names"] for entry in report["least_documented"]}
    assert undocumented["shapes.py"] == ["Circle.area"]
    assert undocumented["more.py"] == ["(module)", "run"]


def test_lists_are_bounded(tmp_path: Path) -> None:
    for number in range(200):
        (tmp_path / f"m{number:03}.py").write_text("def f(): pass\n" * 10 + "'\\d'\n" * 5, encoding="utf-8")
    report = run_plain(find_files(tmp_path))
    assert len(report["largest_files"]) == len(report["most_complex"]) == KEPT
    assert (report["warnings"], len(report["warnings_listed"])) == (1000, 200)
    assert report["most_complex"][0]["path"].endswith("m000.py")


def test_a_report_of_nothing() -> None:
    report = Reduction().report(seconds=0.0)
    assert (report["files"], report["complexity"]["mean"], report["documented_percent"]) == (0, 0.0, 0.0)


def test_reasons_are_one_bounded_line() -> None:
    assert reason_of("builtins.SyntaxError", "a\n  b") == "SyntaxError: a b"
    assert reason_of("MemoryError", "") == "MemoryError"
    assert len(reason_of("ValueError", "x" * 10_000)) < 600


def test_the_plain_run_as_a_command(tree_of_files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--path", str(tree_of_files)]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert totals(printed) == totals(run_plain(find_files(tree_of_files)))


def test_the_plain_run_refuses_a_missing_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--path", str(tmp_path / "gone")])
    assert caught.value.code == 2
    assert "there is no folder" in capsys.readouterr().err
