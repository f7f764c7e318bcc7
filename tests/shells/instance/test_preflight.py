from __future__ import annotations

import re
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

import omnimind
from actors import preflight
from omnimind.errors import BadInstallation

ROOT = Path(omnimind.__file__).parent.parent


def refused() -> BadInstallation:
    with pytest.raises(BadInstallation) as caught:
        preflight.check()
    return caught.value


def test_this_installation_is_fine() -> None:
    preflight.check()
    assert set(preflight.versions()) == {"omnimind", "ray", "python"}
    assert all(preflight.versions().values())


def test_the_versions_are_those_that_the_project_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    ray = next(text for text in project["dependencies"] if text.startswith("ray["))
    assert re.fullmatch(r"ray\[.*\]==(.*)\.\*", ray.partition(" ")[0])[1] == preflight.RAY  # type: ignore[index]
    assert project["requires-python"] == ">=" + ".".join(map(str, preflight.PYTHON))
    assert project["name"] == preflight.DISTRIBUTION


def test_a_missing_or_other_ray_is_named_with_the_command_that_mends_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = metadata.version
    for version, text in (
        ("2.59.1", r"Ray 2\.59\.1 is installed, 2\.60\.\* is needed"),
        ("", "not installed"),
    ):

        def other(name: str, found: str = version) -> str:
            if name == "ray" and not found:
                raise metadata.PackageNotFoundError(name)
            return found if name == "ray" else real(name)

        monkeypatch.setattr(metadata, "version", other)
        error = refused()
        assert re.search(text, error.message)
        assert 'pip install "ray[default,serve]==2.60.*"' in error.hint


def test_a_package_that_stands_in_front_of_ours_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    foreign = tmp_path / "actors"
    foreign.mkdir()
    (foreign / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "actors")
    error = refused()
    assert f"`import actors` finds {foreign}" in error.message
    assert f"take {tmp_path} off PYTHONPATH" in error.hint


def test_a_folder_without_init_shadows_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "actors").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "actors")
    preflight.check()


def test_a_distribution_that_was_installed_over_ours_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "0.5.1" if name == "actors" else real(name))
    error = refused()
    assert "the distribution `actors` 0.5.1" in error.message
    assert "pip uninstall actors" in error.hint


def test_all_that_is_wrong_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    error = refused()
    assert "not installed in" in error.message
    assert "Ray is not installed" in error.message
