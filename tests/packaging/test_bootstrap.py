"""`scripts/bootstrap.py` in a folder of its own, where a script that talks like pip stands for Python."""

from __future__ import annotations

import ast
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "bootstrap.py"

PIP = """\
#!/bin/sh
echo "$@" >> "$(dirname "$0")/calls"
case "$*" in *--editable*) exit 0;; esac
echo Collecting one
echo Collecting two
{ending}
"""
FINE = "echo 'Installing collected packages: one, two'"


class Folder:
    """A project folder, and the script under test set to it."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        spec = importlib.util.spec_from_file_location("bootstrap", SCRIPT)
        assert spec
        assert spec.loader
        self.script: ModuleType = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self.script)
        self.root = root
        self.ending = FINE
        (root / "requirements").mkdir()
        for name in ("runtime", "dev", "bench"):
            self.lock(
                name,
                "one==1 \\\n    --hash=sha256:00\ntwo==2 ; python_version < '4' \\\n    --hash=sha256:00\n",
            )
        (root / "pyproject.toml").write_text("[project]\nname = 'x'\n", encoding="utf-8")
        monkeypatch.setattr(self.script, "ROOT", root)
        monkeypatch.setattr(self.script, "VENV", root / ".venv")
        monkeypatch.setattr(self.script, "PYTHON", root / ".venv" / "bin" / "python")
        monkeypatch.setattr(self.script, "STAMP", root / ".venv" / "omnimind-stamp.json")
        monkeypatch.setattr(self.script, "LOG", root / ".venv" / "bootstrap.log")
        monkeypatch.setattr(self.script, "make_venv", self.make_venv)

    def lock(self, name: str, text: str) -> None:
        (self.root / "requirements" / f"{name}.txt").write_text(text, encoding="utf-8")

    def make_venv(self) -> None:
        python = self.root / ".venv" / "bin" / "python"
        python.parent.mkdir(parents=True, exist_ok=True)
        python.write_text(PIP.format(ending=self.ending), encoding="utf-8")
        python.chmod(0o755)

    def fill(self, group: str) -> int:
        code: int = self.script.main([group])
        return code

    def calls(self) -> list[str]:
        """Return what pip was asked for since the last look."""
        path = self.root / ".venv" / "bin" / "calls"
        asked = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return ["project" if "--editable" in call else call.rpartition("/")[2] for call in asked]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    return Folder(tmp_path, monkeypatch)


def test_says_what_it_does_once_and_then_nothing(folder: Folder, capfd: pytest.CaptureFixture[str]) -> None:
    assert folder.fill("runtime") == 0
    assert folder.calls() == ["runtime.txt", "project"]
    said = capfd.readouterr().err.splitlines()
    assert said[0].startswith("omnimind: installing 2 packages into .venv (first time only) …")
    assert said[-1].endswith("s")
    assert "done in" in said[-1]

    assert folder.fill("runtime") == 0
    assert folder.calls() == []
    assert capfd.readouterr().err == ""


def test_the_larger_set_covers_the_smaller_one(folder: Folder) -> None:
    assert folder.fill("dev") == folder.fill("runtime") == 0
    assert folder.calls() == ["dev.txt", "project"]
    assert folder.fill("bench") == 0
    assert folder.calls() == ["bench.txt"]


def test_a_changed_lock_is_installed_again(folder: Folder) -> None:
    folder.fill("dev")
    folder.calls()
    folder.lock("dev", "one==2 \\\n    --hash=sha256:00\n")
    assert folder.fill("runtime") == 0
    assert folder.calls() == []
    assert folder.fill("dev") == 0
    assert folder.calls() == ["dev.txt"]


def test_a_changed_project_table_is_installed_again_and_a_tool_setting_is_not(folder: Folder) -> None:
    folder.fill("dev")
    folder.calls()
    project = folder.root / "pyproject.toml"
    project.write_text("[project]\nname = 'x'\n[tool.ruff]\nline-length = 1\n", encoding="utf-8")
    folder.fill("dev")
    assert folder.calls() == []
    project.write_text("[project]\nname = 'y'\n", encoding="utf-8")
    folder.fill("dev")
    assert folder.calls() == ["project"]


def test_a_moved_folder_gets_a_new_venv(folder: Folder) -> None:
    folder.fill("dev")
    folder.calls()
    stamp = folder.root / ".venv" / "omnimind-stamp.json"
    stamp.write_text(
        stamp.read_text(encoding="utf-8").replace(str(folder.root), "/elsewhere"), encoding="utf-8"
    )
    folder.fill("dev")
    assert folder.calls() == ["dev.txt", "project"]


@pytest.mark.parametrize(
    ("ending", "mend"),
    [
        ("echo 'ERROR: [Errno 28] No space left on device'; exit 1", "the disk is full"),
        ("echo 'ERROR: THESE PACKAGES DO NOT MATCH THE HASHES'; exit 1", "do not go around"),
        (
            "echo 'WARNING: NewConnectionError'; echo 'ERROR: No matching distribution found'; exit 1",
            "cannot be reached",
        ),
        ("echo 'ERROR: No matching distribution found for one==1'; exit 1", "lacks that package"),
        ("echo 'something else'; exit 1", "pip failed"),
    ],
)
def test_a_failure_says_the_mend_and_is_tried_again(
    folder: Folder, capfd: pytest.CaptureFixture[str], ending: str, mend: str
) -> None:
    folder.ending = ending
    assert folder.fill("dev") == 1
    said = capfd.readouterr().err
    assert mend in said
    assert "bootstrap.log" in said

    folder.ending = FINE
    folder.make_venv()
    folder.calls()
    assert folder.fill("dev") == 0
    assert folder.calls() == ["dev.txt", "project"]


def test_an_old_python_is_refused_with_the_mend(
    folder: Folder, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 8, 1))
    monkeypatch.setenv("PATH", "")
    assert folder.fill("dev") == 1
    said = capfd.readouterr().err
    assert "this is Python 3.8" in said
    assert "make PYTHON=" in said


def test_a_refused_python_can_read_the_script() -> None:
    source = SCRIPT.read_text(encoding="utf-8")
    tree = ast.parse(source, feature_version=(3, 6))
    annotations = [node.annotation for node in ast.walk(tree) if isinstance(node, ast.arg | ast.AnnAssign)]
    annotations += [node.returns for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    assert not [ast.unparse(a) for a in annotations if isinstance(a, ast.Subscript | ast.BinOp)]


def test_unknown_group_is_refused(folder: Folder, capfd: pytest.CaptureFixture[str]) -> None:
    assert folder.fill("all") == 2
    assert "runtime|dev|bench" in capfd.readouterr().err
