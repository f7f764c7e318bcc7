from __future__ import annotations

import subprocess
import sys

import pytest

import omnimind

HEAVY = ("ray", "asyncio", "sqlalchemy", "cloudpickle", "msgspec", "inspect", "rich", "click")


def test_every_public_name_is_there_and_sorted() -> None:
    assert omnimind.__all__ == sorted(omnimind.__all__, key=lambda name: (name[0].islower(), name))
    for name in omnimind.__all__:
        assert getattr(omnimind, name) is not None
    assert set(omnimind.__all__) <= set(dir(omnimind))


def test_another_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        omnimind.nothing  # noqa: B018


def loaded_by(code: str) -> set[str]:
    """Return the top-level packages that a fresh interpreter has loaded after some code."""
    shown = f"import sys; {code}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    return set(
        subprocess.run(
            [sys.executable, "-c", shown], capture_output=True, text=True, check=True
        ).stdout.split()
    )


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert not loaded_by("import omnimind") & set(HEAVY)


def test_declaring_a_task_loads_neither_client_nor_loop() -> None:
    assert not loaded_by("import omnimind; omnimind.task(lambda: 1)") & {"ray", "asyncio", "sqlalchemy"}


def test_a_client_loads_no_ray_and_no_database() -> None:
    assert not loaded_by("import omnimind; omnimind.connect") & {"ray", "sqlalchemy", "cloudpickle", "rich"}
