"""Start-up is felt on each Tab: it imports next to nothing. Each case runs in a fresh interpreter."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

HEAVY = (
    "ray",
    "sqlalchemy",
    "alembic",
    "rich",
    "httpx",
    "asyncio",
    "yaml",
    "cloudpickle",
    "psutil",
    "actors",
    "pydantic",
)

PROBE = """
import sys
from omnimind.cli.main import main
try:
    main()
except SystemExit as end:
    code = end.code
print("loaded:", ",".join(m for m in {modules!r} if m in sys.modules), file=sys.stderr)
sys.exit(code)
"""


def probe(*words: str, modules: tuple[str, ...] = HEAVY) -> tuple[str, str, int]:
    done = subprocess.run(
        [sys.executable, "-c", PROBE.format(modules=modules), *words],
        capture_output=True,
        text=True,
        check=False,
    )
    loaded = [line for line in done.stderr.splitlines() if line.startswith("loaded:")]
    return done.stdout, loaded[-1] if loaded else done.stderr, done.returncode


@pytest.mark.parametrize(
    "line",
    [
        "--version",
        "--help",
        "task --help",
        "submit --help",
        "up --help",
        "doctor --help",
        "top --help",
        "completion bash",
    ],
)
def test_help_and_version_import_nothing_heavy(line: str) -> None:
    stdout, loaded, code = probe(*line.split())
    assert stdout
    assert code == 0
    assert loaded == "loaded: "


@pytest.mark.parametrize(
    "words",
    ["omnimind ", "omnimind ta", "omnimind task ", "omnimind task list --st", "omnimind task list -s "],
)
def test_completion_of_words_imports_nothing_heavy(words: str) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "omnimind"],
        capture_output=True,
        text=True,
        check=True,
        env={
            **os.environ,
            "_OMNIMIND_COMPLETE": "bash_complete",
            "COMP_WORDS": words,
            "COMP_CWORD": str(len(words.split(" ")) - 1),
        },
    )
    assert done.stdout.startswith("plain,")
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert imported.isdisjoint(HEAVY)


def test_a_group_loads_only_the_command_that_is_run() -> None:
    others = ("omnimind.cli.task", "omnimind.cli.top", "omnimind.cli.doctor", "omnimind.cli.schedule")
    _, loaded, _ = probe("task", "--help", modules=others)
    assert loaded == "loaded: omnimind.cli.task"
