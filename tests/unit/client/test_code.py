"""How code travels: packed by a driver's process, run by one that cannot import the driver's files."""

from __future__ import annotations

import functools
import io
import json
import math
import os
import subprocess
import sys
import threading
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest

import omnimind
from omnimind.client import code, origin, package
from omnimind.client.code import BLOB_MAX, pack, parts_of
from omnimind.client.package import pack_folder
from omnimind.errors import InvalidInput, UnserialisableValue
from omnimind.ids import digest_of
from omnimind.registry import HandlerSpec, Task, task

ROOT = str(Path(omnimind.__file__).parents[1])

DRIVER = """
import base64, json, sys
from pathlib import Path
from omnimind.client.code import as_task, dumps, pack
from omnimind.client.package import pack_folder

def send(handler, payload=None, folder=None):
    folder = pack_folder(Path(folder)) if folder else None
    code = pack(as_task(handler), folder)
    blobs = {digest: base64.b64encode(data).decode() for digest, data in code.blobs.items()}
    payload = base64.b64encode(dumps(payload or {}, folder)).decode()
    print(json.dumps({"spec": code.spec.decode(), "blobs": blobs, "payload": payload}))
"""

WORKER = """
import base64, io, json, pickle, sys, tempfile, zipfile
from omnimind.runner import resolve
from omnimind.registry import HandlerSpec
import msgspec

sent = json.load(sys.stdin)
blobs = {digest: base64.b64decode(data) for digest, data in sent["blobs"].items()}
spec = msgspec.json.decode(sent["spec"], type=HandlerSpec)
if spec.package:
    sys.path.insert(0, tempfile.mkdtemp(dir=sys.argv[1]))
    zipfile.ZipFile(io.BytesIO(blobs[spec.package])).extractall(sys.path[0])

class Wire:
    def blob(self, digest):
        return blobs[digest]

function = resolve(spec, "d", Wire())[0]
print(json.dumps(function(**pickle.loads(base64.b64decode(sent["payload"])))))
"""


def run(command: list[str], cwd: Path, **more: Any) -> str:
    environment = os.environ | {"PYTHONPATH": ROOT}
    done = subprocess.run(
        command, cwd=cwd, env=environment, text=True, capture_output=True, check=False, **more
    )
    assert done.returncode == 0, done.stderr
    return str(done.stdout)


def travel(tmp_path: Path, main: str, **modules: str) -> tuple[HandlerSpec, Any]:
    """Run a driver's script beside its modules, then what it sent in a process elsewhere."""
    project, elsewhere = tmp_path / "project", tmp_path / "elsewhere"
    elsewhere.mkdir()
    for name, text in {"main": DRIVER + main, **modules}.items():
        file = project / f"{name.replace('.', '/')}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    sent = run([sys.executable, "main.py"], project)
    (elsewhere / "worker.py").write_text(WORKER)
    result = run([sys.executable, "worker.py", str(elsewhere)], elsewhere, input=sent)
    return msgspec.json.decode(json.loads(sent)["spec"], type=HandlerSpec), json.loads(result)


def test_a_function_of_a_script_travels_by_value(tmp_path: Path) -> None:
    spec, result = travel(tmp_path, "N = 20\ndef f(x): return x + N\nsend(f, {'x': 1})")
    assert (spec.by, result) == ("value", 21)


def test_a_task_of_a_script_that_calls_itself(tmp_path: Path) -> None:
    main = """
from omnimind import task
@task(retries=7)
def fact(n):
    "The factorial."
    return 1 if n < 2 else n * fact(n - 1)
send(fact, {'n': 5})
"""
    spec, result = travel(tmp_path, main)
    assert result == 120
    assert (spec.task_type, spec.defaults, spec.doc) == (
        "__main__.fact",
        {"max_retries": 7},
        "The factorial.",
    )


def test_helper_modules_come_along(tmp_path: Path) -> None:
    spec, result = travel(
        tmp_path,
        "import handlers\nsend(handlers.entry, {'x': 2})",
        handlers="import tools\nfrom lib.deep import square\ndef entry(x): return tools.twice(square(x))",
        tools="FACTOR = 2\ndef twice(x): return FACTOR * x",
        **{"lib.__init__": "", "lib.deep": "def square(x): return x * x"},
    )
    assert (spec.by, spec.package, result) == ("value", None, 8)


def test_classes_of_the_driver_come_along_in_payloads(tmp_path: Path) -> None:
    _, result = travel(
        tmp_path,
        "import shapes\ndef area(box): return box.area() * isinstance(box, shapes.Box)\n"
        "send(area, {'box': shapes.Box(3)})",
        shapes="class Box:\n    def __init__(self, a): self.a = a\n    def area(self): return self.a ** 2",
    )
    assert result == 9


def test_lambdas_closures_and_methods_travel(tmp_path: Path) -> None:
    main = """
class Adder:
    def __init__(self, n): self.n = n
    def add(self, x): return x + self.n
def outer(k):
    def inner(x): return (lambda y: y * k)(x) + Adder(1).add(x)
    return inner
send(outer(10), {'x': 3})
"""
    assert travel(tmp_path, main)[1] == 34


def test_installed_functions_travel_by_name(tmp_path: Path) -> None:
    spec, result = travel(tmp_path, "import textwrap\nsend(textwrap.dedent, {'text': '  a'})")
    assert (spec.by, spec.module, spec.qualname, result) == ("name", "textwrap", "dedent", "a")


def test_with_a_working_folder_modules_travel_by_name(tmp_path: Path) -> None:
    spec, result = travel(
        tmp_path,
        "import handlers\nsend(handlers.entry, {'x': 2}, '.')",
        handlers="def entry(x):\n    import tools\n    return tools.twice(x)",
        tools="def twice(x): return 2 * x",
    )
    assert (spec.by, spec.module, result) == ("name", "handlers", 4)
    assert spec.package


def test_a_script_s_own_function_finds_the_folder_s_modules(tmp_path: Path) -> None:
    spec, result = travel(
        tmp_path,
        "import tools\ndef f(x): return tools.twice(x)\nsend(f, {'x': 2}, '.')",
        tools="def twice(x): return 2 * x",
    )
    assert (spec.by, result) == ("value", 4)
    assert spec.package


def test_omnimind_and_its_dependencies_are_installed() -> None:
    for module in (omnimind, msgspec, pytest, json, math, os):
        assert origin.is_installed(module.__name__), module
    assert not origin.is_installed("__main__")


def plant(name: str, file: Path | None, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = ModuleType(name)
    if file is not None:
        module.__file__ = str(file)
    monkeypatch.setitem(sys.modules, name, module)
    origin._known.pop(name, None)
    return module


def test_where_modules_come_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant("users_own", tmp_path / "users_own.py", monkeypatch)
    plant("a_dist", tmp_path / "lib" / "site-packages" / "a_dist.py", monkeypatch)
    plant("typed_in", None, monkeypatch)
    assert not origin.is_installed("users_own")
    assert origin.is_installed("a_dist")
    assert not origin.is_installed("typed_in")
    assert "users_own" in origin.own_modules()


def test_editable_installs_count_as_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project, site = tmp_path / "project", tmp_path / "site"
    (project / "pkg").mkdir(parents=True)
    site.mkdir()
    (project / "pkg" / "__init__.py").touch()
    (project / "loose.txt").touch()
    (site / "_editable.pth").write_text(f"# a comment\nimport nothing\n{project}\n")
    monkeypatch.setattr(origin, "_site_paths", lambda: (str(site),))
    origin._editable_folders.cache_clear()
    plant("pkg", project / "pkg" / "__init__.py", monkeypatch)
    plant("stray", project / "scripts" / "stray.py", monkeypatch)
    assert origin.is_installed("pkg")
    assert not origin.is_installed("stray"), "it lies in the project, but not where its name says"
    origin._editable_folders.cache_clear()


def test_the_record_says_what_a_worker_must_know() -> None:
    @task(name="n", queue="q", priority="low", needs="gpu", non_retryable=[ValueError], num_cpus=2)
    async def handler() -> None:
        """Do it.

        More.
        """

    packed = pack(handler)
    spec = msgspec.json.decode(packed.spec, type=HandlerSpec)
    assert (spec.task_type, spec.kind, spec.doc) == ("n", "async", "Do it.")
    assert spec.defaults == {
        "queue": "q",
        "priority": 7,
        "needs": ["gpu"],
        "options": {"non_retryable": ["builtins.ValueError"], "num_cpus": 2},
    }
    assert packed.blobs.keys() == {spec.blob}
    assert digest_of(packed.blobs[spec.blob or ""]) == spec.blob


def test_the_same_function_is_the_same_code() -> None:
    def handler(x: int) -> int:
        return x + 1

    assert pack(Task(handler, "n", {})).spec == pack(Task(handler, "n", {})).spec


def test_a_redefined_helper_makes_other_code() -> None:
    space: dict[str, Any] = {"__name__": "__main__"}
    exec("def helper(x): return x + 1\ndef handler(x): return helper(x)", space)
    packed = pack(Task(space["handler"], "n", {}))
    assert packed.fresh
    exec("def helper(x): return x + 2", space)
    assert not packed.fresh
    assert pack(Task(space["handler"], "n", {})).spec != packed.spec


def test_parts_go_through_closures_defaults_and_tasks() -> None:
    default = object()

    @task
    def inner(x: int) -> int:
        return x

    def unbound() -> None:
        late()  # type: ignore[name-defined]  # noqa: F821

    def handler(x: int, y: Any = default) -> Any:
        return inner(x), unbound, y

    parts = list(parts_of(handler).values())
    for part in (handler, inner, inner.fn, unbound):
        assert any(p is part for p in parts)
    assert parts_of(math.sqrt) == {id(math.sqrt): math.sqrt}


def test_what_cannot_travel_says_what_to_do() -> None:
    lock = threading.Lock()

    def handler() -> None:
        lock.acquire()

    with pytest.raises(UnserialisableValue, match="inside the function, or give connect") as caught:
        pack(Task(handler, None, {}))
    assert caught.value.field == "task"


def test_what_is_too_large_to_travel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code, "BLOB_MAX", 10_000)
    data = os.urandom(10_000)

    def handler() -> bytes:
        return data

    with pytest.raises(UnserialisableValue, match="load large data inside"):
        pack(Task(handler, None, {}))
    assert BLOB_MAX > 10_000


def test_a_callable_without_a_name_needs_one() -> None:
    with pytest.raises(InvalidInput, match="give it a name"):
        code.as_task(functools.partial(print, 1))


# Folders.


def make_tree(root: Path, *names: str) -> None:
    for name in names:
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(name)


def names_in(data: bytes) -> list[str]:
    return zipfile.ZipFile(io.BytesIO(data)).namelist()


def test_a_folder_is_packed_without_what_is_ignored(tmp_path: Path) -> None:
    make_tree(
        tmp_path,
        "app.py",
        "pkg/mod.py",
        "pkg/__pycache__/mod.pyc",
        "pkg/data/big.bin",
        "pkg/data/keep.bin",
        "build/x.py",
        "sub/build/x.py",
        "secret.env",
        "logs/a.log",
        "logs/deep/b.log",
        ".git/config",
        ".venv/lib/x.py",
        "node_modules/x/index.js",
        "notes.tmp",
    )
    (tmp_path / ".gitignore").write_text("# built\n/build/\n*.env\nlogs/*.log\n\n*.bin\n!keep.bin\n")
    (tmp_path / "logs" / ".gitignore").write_text("deep\n")
    (tmp_path / ".omnimindignore").write_text("*.tmp\n")
    (tmp_path / "link.py").symlink_to("app.py")
    (tmp_path / "loop").symlink_to(tmp_path)
    assert names_in(pack_folder(tmp_path).data) == [
        ".gitignore",
        ".omnimindignore",
        "app.py",
        "link.py",
        "logs/.gitignore",
        "pkg/data/keep.bin",
        "pkg/mod.py",
        "sub/build/x.py",
    ]


def test_the_same_files_are_the_same_package(tmp_path: Path) -> None:
    for name, order in (("a", ("x.py", "y/z.py")), ("b", ("y/z.py", "x.py"))):
        make_tree(tmp_path / name, *order)
    os.utime(tmp_path / "a" / "x.py", (1, 1))
    first, second = pack_folder(tmp_path / "a"), pack_folder(tmp_path / "b")
    assert first.digest == second.digest == digest_of(first.data)
    (tmp_path / "b" / "x.py").write_text("other")
    assert pack_folder(tmp_path / "b").digest != first.digest


def test_a_folder_that_is_too_large_names_the_largest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_tree(tmp_path, "a.py")
    (tmp_path / "model.bin").write_bytes(os.urandom(50_000))
    monkeypatch.setattr(package, "BLOB_MAX", 10_000)
    with pytest.raises(InvalidInput, match=r"model.bin \(48 KiB\).*\.omnimindignore") as caught:
        pack_folder(tmp_path)
    assert caught.value.field == "working_dir"
    monkeypatch.setattr(package, "FILES_MAX", 1)
    with pytest.raises(InvalidInput, match="2 files"):
        pack_folder(tmp_path)


def test_what_is_no_folder(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="is no folder"):
        pack_folder(tmp_path / "nowhere")
