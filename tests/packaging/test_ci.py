"""With `CI=true` a skipped test fails the session, and is named."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = Path(__file__).resolve().parents[1] / "conftest.py"

SUITES = {
    "skipped at run time": "import pytest\ndef test_a(): pass\ndef test_b(): pytest.skip('no fuse')\n",
    "skipped by a mark": "import pytest\n@pytest.mark.skip(reason='no fuse')\ndef test_b(): pass\n",
    "skipped by a fixture": (
        "import pytest\n@pytest.fixture\ndef f(): pytest.skip('no fuse')\ndef test_b(f): pass\n"
    ),
    "skipped as a module": "import pytest\npytest.skip('no fuse', allow_module_level=True)\n",
}


def run(folder: Path, suite: str, ci: str) -> tuple[int, str]:
    shutil.copy(CONFTEST, folder)
    (folder / "test_suite.py").write_text(suite, encoding="utf-8")
    (folder / "test_other.py").write_text("def test_passes(): pass\n", encoding="utf-8")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(folder),
        str(folder),
    ]
    ended = subprocess.run(
        command, cwd=folder, env={**os.environ, "CI": ci}, capture_output=True, text=True, check=False
    )
    return ended.returncode, ended.stdout


@pytest.mark.parametrize("suite", SUITES.values(), ids=SUITES.keys())
def test_a_skip_fails_in_ci_and_is_named(tmp_path: Path, suite: str) -> None:
    code, said = run(tmp_path, suite, "true")
    assert code == pytest.ExitCode.TESTS_FAILED
    assert "skipped, which is a failure" in said
    assert "no fuse" in said.split("skipped, which is a failure")[1]


def test_a_skip_is_allowed_elsewhere(tmp_path: Path) -> None:
    assert run(tmp_path, SUITES["skipped at run time"], "")[0] == pytest.ExitCode.OK


def test_an_expected_failure_is_no_skip(tmp_path: Path) -> None:
    suite = "import pytest\n@pytest.mark.xfail(strict=True)\ndef test_b(): assert 0\n"
    assert run(tmp_path, suite, "true")[0] == pytest.ExitCode.OK
