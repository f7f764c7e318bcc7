from __future__ import annotations

import os
import sysconfig
from pathlib import Path

import pytest

from omnimind.errors import InvalidInput
from omnimind.survey.analysis import analyse_file
from omnimind.survey.files import Tree, find_files, interpreter_roots, portable_path
from omnimind.survey.source import local_path


def names(tree: Tree, root: Path) -> list[str]:
    return [os.path.relpath(file.path, root) for file in tree.files]


def make(root: Path, *paths: str) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text("x = 1\n", encoding="utf-8")


def test_finds_every_python_file_below_sorted(tmp_path: Path) -> None:
    make(
        tmp_path,
        "b.py",
        "a/z.py",
        "a/b/c.py",
        ".hidden/d.py",
        "a/__pycache__/x.py",
        "a/no.txt",
        "a/py",
        "a/x.pyc",
    )
    tree = find_files(tmp_path)
    assert names(tree, tmp_path) == [".hidden/d.py", "a/b/c.py", "a/z.py", "b.py"]
    assert {file.root for file in tree.files} == {str(tmp_path)}
    assert tree.roots == (str(tmp_path),)
    assert (tree.files[0].size, tree.files[0].mtime_ns) == (6, (tmp_path / ".hidden/d.py").stat().st_mtime_ns)


def test_the_number_is_what_a_person_counts(tree_of_files: Path) -> None:
    by_hand = sum(1 for path in tree_of_files.rglob("*.py") if path.is_file())
    assert len(find_files(tree_of_files).files) == by_hand == 9


def test_a_file_under_several_names_counts_once(tmp_path: Path) -> None:
    make(tmp_path, "pkg/one.py", "elsewhere/outside.py")
    root = tmp_path / "pkg"
    (root / "again.py").symlink_to(root / "one.py")
    (root / "loop").symlink_to(root)
    (root / "first.py").symlink_to(tmp_path / "elsewhere/outside.py")
    (root / "second.py").symlink_to(tmp_path / "elsewhere/outside.py")
    (root / "nowhere.py").symlink_to(tmp_path / "gone.py")
    (root / "circle.py").symlink_to(root / "circle.py")
    assert names(find_files(root), root) == ["first.py", "one.py"]


def test_a_root_that_is_a_link_is_the_folder_it_leads_to(tmp_path: Path) -> None:
    make(tmp_path, "real/a.py")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert find_files(tmp_path / "link") == find_files(tmp_path / "real")


def test_what_is_no_file_is_left_out(tmp_path: Path) -> None:
    make(tmp_path, "a.py", "folder.py/b.py")
    os.mkfifo(tmp_path / "pipe.py")
    assert names(find_files(tmp_path), tmp_path) == ["a.py", "folder.py/b.py"]


def test_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="there is no folder") as caught:
        find_files(tmp_path / "gone")
    assert caught.value.field == "path"


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    make(tmp_path, "a.py")
    with pytest.raises(InvalidInput, match="is not a folder") as caught:
        find_files(tmp_path / "a.py")
    assert str(tmp_path) in caught.value.hint


def test_a_folder_without_python_files(tmp_path: Path) -> None:
    make(tmp_path, "a.txt", "__pycache__/a.py")
    with pytest.raises(InvalidInput, match=r"no Python file \(\*\.py\) below"):
        find_files(tmp_path)


def test_paths_that_cannot_be_looked_into(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for path in (tmp_path / "loop", "null\0byte", "a" * 5000):
        with pytest.raises(InvalidInput) as caught:
            find_files(path)
        assert caught.value.field == "path"


def test_a_folder_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    make(tmp_path, "a.py")
    # A path longer than the kernel takes: a refusal that even root gets.
    folder, descriptor = tmp_path, os.open(tmp_path, os.O_RDONLY)
    while len(str(folder)) < 4200:
        os.mkdir("d" * 200, dir_fd=descriptor)
        deeper = os.open("d" * 200, os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        folder, descriptor = folder / ("d" * 200), deeper
    os.close(descriptor)
    tree = find_files(tmp_path)
    assert names(tree, tmp_path) == ["a.py"]
    assert len(tree.problems) == 1
    assert "File name too long" in tree.problems[0]


def test_a_name_that_is_not_unicode(tmp_path: Path) -> None:
    place = os.path.join(os.fsencode(tmp_path), b"caf\xe9 %41.py")  # noqa: PTH118 - a name in bytes
    with open(place, "wb") as file:  # noqa: PTH123
        file.write(b"x = 1\n")
    (found,) = find_files(tmp_path).files
    assert found.path.startswith("file:///")
    assert found.path.isascii()
    assert os.fsencode(local_path(found.path)) == place
    result = analyse_file(path=found.path, root=found.root)
    assert result["lines"] == 1
    assert result["package"] == "caf\\udce9 %41"


def test_portable_paths_come_back_as_they_were() -> None:
    for path in ("/a/b.py", "/a/ü%20b?#.py", "/a/\udce9.py", "/a\n/b.py"):
        portable_path(path).encode()
        assert local_path(portable_path(path)) == path


def test_the_interpreter_is_found_without_duplicates() -> None:
    roots = interpreter_roots()
    assert os.path.realpath(sysconfig.get_path("stdlib")) in roots
    assert os.path.realpath(sysconfig.get_path("purelib")) in roots
    tree = find_files()
    paths = [file.path for file in tree.files]
    assert len(paths) > 1000
    assert len({os.path.realpath(path) for path in paths}) == len(paths)
    assert paths == sorted(paths)
    assert not any("/__pycache__/" in path for path in paths)
    assert any(path.endswith("/asyncio/__init__.py") for path in paths)
    assert any("/pytest/" in path for path in paths)


def test_packages_that_a_virtual_environment_does_not_see_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(
        tmp_path,
        "lib/os.py",
        "lib/site-packages/foreign.py",
        "venv/site-packages/ours.py",
        "lib/sub/site-packages/x.py",
    )
    where = {"stdlib": tmp_path / "lib", "purelib": tmp_path / "venv/site-packages"}
    where["platlib"] = where["purelib"]
    monkeypatch.setattr(sysconfig, "get_paths", lambda: {name: str(path) for name, path in where.items()})
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(where[name]))
    monkeypatch.setattr("sys.path", [])
    assert names(find_files(), tmp_path) == [
        "lib/os.py",
        "lib/sub/site-packages/x.py",
        "venv/site-packages/ours.py",
    ]
    where["purelib"] = tmp_path / "lib/site-packages"  # without a virtual environment it is ours
    assert names(find_files(), tmp_path) == [
        "lib/os.py",
        "lib/site-packages/foreign.py",
        "lib/sub/site-packages/x.py",
        "venv/site-packages/ours.py",
    ]
