"""Refuses to start where the installed packages do not fit together, and says what is in the way.

`actors` and `serve` are common names: another distribution, or a folder on PYTHONPATH, may stand in
front of ours. Ray's workers would then import the wrong one, late and with a strange error.
"""

from __future__ import annotations

import importlib.util
import platform
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import omnimind
from omnimind.errors import BadInstallation

DISTRIBUTION = "omnimind-runtime"
RAY = "2.60"
PYTHON = (3, 11)
_SHARED_NAMES = ("actors", "serve")


def check() -> None:
    """Raise BadInstallation, naming everything that is wrong with the packages this process sees."""
    problems = list(_problems())
    if problems:
        (first, mend), *rest = problems
        more = "".join(f"; {text}" for text, _ in rest)
        raise BadInstallation(first + more, hint=mend)


def versions() -> dict[str, str]:
    """Return the versions that must be the same on all nodes of a cluster; empty text for what is missing."""
    found = {"omnimind": _version(DISTRIBUTION), "ray": _version("ray")}
    return found | {"python": platform.python_version()}


def _problems() -> Iterator[tuple[str, str]]:
    root = Path(omnimind.__file__).resolve().parent.parent
    if sys.version_info < PYTHON:
        yield f"Python {platform.python_version()} is too old", "use Python 3.11 or later"
    if not _version(DISTRIBUTION):
        yield (
            f"OmniMind in {root} is not installed in {sys.prefix}",
            f"{sys.executable} -m pip install -e {root}",
        )
    ray = _version("ray")
    if not ray.startswith(f"{RAY}."):
        seen = f"Ray {ray} is installed, {RAY}.* is needed" if ray else "Ray is not installed"
        yield seen, f'{sys.executable} -m pip install "ray[default,serve]=={RAY}.*"'
    for name in _SHARED_NAMES:
        if (root / name).is_dir():
            yield from _shadow(root, name)


def _shadow(root: Path, name: str) -> Iterator[tuple[str, str]]:
    spec = importlib.util.find_spec(name)
    origin = Path(spec.origin).resolve() if spec is not None and spec.origin else None
    if origin is None or not origin.is_relative_to(root / name):
        place = origin.parent if origin is not None else Path("nothing")
        yield (
            f"`import {name}` finds {place}, not OmniMind's own in {root / name}",
            f"take {place.parent} off PYTHONPATH, or rename that package",
        )
    elif _version(name):
        yield (
            f"the distribution `{name}` {_version(name)} was installed over OmniMind's package of this name",
            f"{sys.executable} -m pip uninstall {name}, then install {DISTRIBUTION} again",
        )


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return ""
