"""Where modules come from: installed (a worker can import them) or the user's own (it may not)."""

from __future__ import annotations

import functools
import site
import sys
import sysconfig
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import distributions
from pathlib import Path
from types import ModuleType
from typing import Any

_lock = threading.RLock()
_known: dict[str, bool] = {}
_own: tuple[int, list[str]] = (0, [])


def is_installed(name: str) -> bool:
    """Return whether workers can be expected to import a loaded module.

    They can what belongs to the standard library, to an installed distribution (an editable one too), and
    to OmniMind itself.
    """
    found = _known.get(name)
    if found is None:
        found = _known[name] = _find_out(name)
    return found


def own_modules() -> list[str]:
    """Return the loaded modules that are the user's own, without `__main__`."""
    global _own  # noqa: PLW0603 (a cache; the number of modules says whether it is still good)
    count, names = _own
    if count != len(sys.modules):
        names = [name for name in list(sys.modules) if name != "__main__" and not is_installed(name)]
        _own = (len(sys.modules), names)
    return names


@contextmanager
def carried(travels_otherwise: Path | None = None) -> Iterator[None]:
    """Make cloudpickle take the user's own modules along by value.

    travels_otherwise: a folder whose modules do not need it, since it is packed as a whole.
    """
    import cloudpickle  # noqa: PLC0415 (10 ms that few pay)

    with _lock:
        registered: list[ModuleType] = []
        before = cloudpickle.list_registry_pickle_by_value()
        for name in own_modules():
            module = sys.modules.get(name)
            if module is None or name in before or name != getattr(module, "__name__", None):
                continue
            if travels_otherwise is not None and is_under(module, travels_otherwise):
                continue
            cloudpickle.register_pickle_by_value(module)
            registered.append(module)
        try:
            yield
        finally:
            for module in registered:
                cloudpickle.unregister_pickle_by_value(module)


def is_under(module: ModuleType, folder: Path) -> bool:
    """Return whether a module is importable from `folder`, under its own name."""
    path = _path_of(module)
    if path is None:
        return False
    parts = module.__name__.split(".")
    return path in (folder.joinpath(*parts).with_suffix(".py"), folder.joinpath(*parts, "__init__.py"))


def _path_of(module: ModuleType) -> Path | None:
    file = getattr(module, "__file__", None)
    return Path(file).resolve() if isinstance(file, str) else None


def _find_out(name: str) -> bool:
    module = sys.modules.get(name)
    top = name.partition(".")[0]
    if top == "__main__":
        return False  # whatever file it is: in a worker that name is another module
    if module is None or top == "omnimind" or top in sys.stdlib_module_names:
        return True
    path = _path_of(module)
    if path is None:
        # A namespace package, or one made at run time: as installed as where its parts lie.
        places = [Path(p).resolve() for p in getattr(module, "__path__", ())]
        return bool(places) and all(_in_installed_folder(p) for p in places)
    if _in_installed_folder(path):
        return True
    return any(is_under(module, folder) for folder in _editable_folders()) or any(
        path.is_relative_to(folder) for folder in _editable_packages()
    )


def _in_installed_folder(path: Path) -> bool:
    if "site-packages" in path.parts or "dist-packages" in path.parts:
        return True
    return any(path.is_relative_to(folder) for folder in _installed_folders())


@functools.cache
def _installed_folders() -> tuple[Path, ...]:
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    return tuple({Path(sysconfig.get_path(name)).resolve() for name in names})


@functools.cache
def _editable_folders() -> tuple[Path, ...]:
    """Return the folders that `.pth` files of the site folders put on the path."""
    folders: list[Path] = []
    for place in {*site.getsitepackages(), site.getusersitepackages(), *_site_paths()}:
        for pth in Path(place).glob("*.pth"):
            lines = pth.read_text(encoding="utf-8", errors="replace").splitlines()
            folders += [
                Path(place, line.strip()).resolve()
                for line in lines
                if line and not line.startswith(("#", "import ", "import\t"))
            ]
    return tuple(folders)


def _site_paths() -> tuple[str, ...]:
    return (sysconfig.get_path("purelib"), sysconfig.get_path("platlib"))


@functools.cache
def _editable_packages() -> tuple[Path, ...]:
    """Return the package folders that setuptools' editable finders map."""
    if not any("editable" in (d.read_text("direct_url.json") or "") for d in distributions()):
        return ()
    found = []
    for finder in sys.meta_path:
        home: Any = sys.modules.get(getattr(finder, "__module__", ""))
        if home is not None and home.__name__.startswith("__editable__"):
            found += [Path(p).resolve() for p in getattr(home, "MAPPING", {}).values()]
    return tuple(found)
