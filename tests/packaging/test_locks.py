"""The lock files are complete, agree with `pyproject.toml` and each other, and name no index."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
LOCKS = {"runtime": [], "dev": ["dev", "postgres"], "bench": ["bench"]}


def entries(name: str) -> list[tuple[Requirement, list[str]]]:
    """Return each pin of a lock with its hashes."""
    text = (ROOT / "requirements" / f"{name}.txt").read_text(encoding="utf-8")
    lines = "\n".join(line for line in text.splitlines() if not line.startswith("#")).replace("\\\n", " ")
    split = [re.split(r"\s+--hash=", line.strip()) for line in lines.splitlines()]
    return [(Requirement(pin), hashes) for pin, *hashes in split]


def pins(name: str) -> dict[str, set[str]]:
    versions: dict[str, set[str]] = {}
    for requirement, _ in entries(name):
        versions.setdefault(canonicalize_name(requirement.name), set()).add(str(requirement.specifier))
    return versions


@pytest.mark.parametrize("name", LOCKS)
def test_every_pin_is_exact_and_hashed(name: str) -> None:
    assert len(entries(name)) > len(LOCKS)
    for requirement, hashes in entries(name):
        assert re.fullmatch(r"==[^*,]+", str(requirement.specifier)), requirement
        assert requirement.url is None
        assert hashes, f"{requirement} has no hash"
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", value) for value in hashes)


@pytest.mark.parametrize("name", LOCKS)
def test_no_index_is_named(name: str) -> None:
    text = (ROOT / "requirements" / f"{name}.txt").read_text(encoding="utf-8")
    assert "://" not in text
    assert not re.search(r"^\s*-", text.replace("    --hash=", ""), flags=re.MULTILINE)


@pytest.mark.parametrize(("name", "extras"), LOCKS.items())
def test_locks_what_pyproject_asks_for(name: str, extras: list[str]) -> None:
    """A requirement that was added or raised without `make lock` is found here."""
    table = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    asked = [*table["project"]["dependencies"], *table["dependency-groups"]["build"]]
    asked += [line for extra in extras for line in table["project"]["optional-dependencies"][extra]]
    locked = pins(name)
    for requirement in map(Requirement, asked):
        versions = locked.get(canonicalize_name(requirement.name))
        assert versions, f"{requirement} is not locked: run `make lock`"
        for version in versions:
            assert requirement.specifier.contains(version.removeprefix("=="), prereleases=True), requirement


@pytest.mark.parametrize(("small", "large"), [("runtime", "dev"), ("runtime", "bench")])
def test_larger_lock_holds_the_smaller_one(small: str, large: str) -> None:
    assert pins(small).items() <= pins(large).items()


def test_locks_that_share_a_venv_agree() -> None:
    dev, bench = pins("dev"), pins("bench")
    assert {name: dev[name] for name in dev.keys() & bench.keys()} == {
        name: bench[name] for name in dev.keys() & bench.keys()
    }


def test_the_build_backend_is_the_locked_one() -> None:
    table = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert table["build-system"]["requires"] == table["dependency-groups"]["build"]
