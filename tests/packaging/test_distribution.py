"""What is built and installed: the wheel's packages, the types marker, the command."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel with the locked hatchling, without isolation and so without a network."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


def test_wheel_holds_our_packages_and_nothing_else(wheel: Path) -> None:
    """These names are a promise: a second wheel with `actors/` overwrites ours, and pip says nothing."""
    names = {name.partition("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert names == {"omnimind", "actors", "serve", f"omnimind_runtime-{PROJECT['version']}.dist-info"}


def test_wheel_holds_what_is_not_python(wheel: Path) -> None:
    """Templates, migrations and type markers are easily forgotten."""
    there = {
        str(path.relative_to(ROOT))
        for package in ("omnimind", "actors", "serve")
        for path in (ROOT / package).rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert there - set(zipfile.ZipFile(wheel).namelist()) == set()
    assert {"omnimind/py.typed", "actors/py.typed", "serve/py.typed"} <= there


def test_wheel_says_what_it_is(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        info = f"omnimind_runtime-{PROJECT['version']}.dist-info"
        text = archive.read(f"{info}/METADATA").decode()
        entry_points = archive.read(f"{info}/entry_points.txt").decode()
        assert f"{info}/licenses/LICENSE" in archive.namelist()
    assert "Name: omnimind-runtime\n" in text
    assert "License-Expression: Apache-2.0\n" in text
    assert re.search(r"^Requires-Dist: ray\[default,serve\]==2\.60\.\*$", text, flags=re.MULTILINE)
    assert "omnimind = omnimind.cli.main:main" in entry_points


def test_installed_version_is_the_projects() -> None:
    assert metadata.version("omnimind-runtime") == PROJECT["version"]


def test_the_command_tells_its_version() -> None:
    command = Path(sys.executable).with_name("omnimind")
    told = subprocess.run([command, "--version"], check=True, capture_output=True, text=True)
    assert PROJECT["version"] in told.stdout


def test_changelog_knows_the_version_or_is_unreleased() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(rf"^## \[(Unreleased|{re.escape(PROJECT['version'])})\]", text, flags=re.MULTILINE)
