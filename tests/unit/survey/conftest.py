"""A client that needs no runtime, a display that remembers, and a folder of files.

The client runs handlers here, remembers results by key as the ledger would, and answers in an order of its
own. Faked: the runtime. Left alone: the survey, the analysis, the file system.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from omnimind.errors import TaskFailed
from omnimind.ids import new_slab, task_id
from omnimind.survey.live import Update


class Outcome:
    """As `omnimind.client.results.TaskResult`."""

    def __init__(self, task: str, result: Any = None, error: Exception | None = None) -> None:
        self.task_id = task
        self.index = -1
        self.result = result
        self.status = "completed" if error is None else "failed"
        details: dict[str, Any] = {
            "error_type": type(error).__qualname__,
            "error_message": str(error),
            "cause": "",
        }
        self.error = None if error is None else TaskFailed("it failed", **details)


class FakeClient:
    """`breaks_after`: raise `error` after so many results, with all the work submitted."""

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        self.ledger: dict[str, tuple[dict[str, Any], Outcome]] = {}
        self.ran: list[str] = []
        self.breaks_after: int | None = None
        self.error: BaseException = RuntimeError("the connection broke")
        self.twist: Callable[[list[Outcome]], list[Outcome]] = list

    async def map(
        self,
        task: Any,
        payloads: Iterable[dict[str, Any]],
        /,
        *,
        keys: Iterable[str],
        return_exceptions: bool,
    ) -> AsyncIterator[Any]:
        assert return_exceptions
        slab = new_slab()
        outcomes = []
        for index, (payload, key) in enumerate(zip(payloads, keys, strict=True)):
            known = self.ledger.get(key)
            if known is None:
                known = self.ledger[key] = payload, self._attempt(task, payload, task_id(slab, index))
            assert known[0] == payload, "a key reused with another payload is refused"
            known[1].index = index
            outcomes.append(known[1])
        random.Random(self.seed).shuffle(outcomes)
        for done, outcome in enumerate(self.twist(outcomes)):
            if done == self.breaks_after:
                raise self.error
            yield outcome

    def _attempt(self, task: Any, payload: dict[str, Any], name: str) -> Outcome:
        self.ran.append(payload["path"])
        try:
            return Outcome(name, task(**payload))
        except Exception as error:  # noqa: BLE001 - whatever a handler raises ends its task alone
            return Outcome(name, error=error)


class RecordingLive:
    """A display that writes down what it was told."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.failures: list[tuple[str, str]] = []
        self.updates: list[Update] = []
        self.total = -1
        self.is_open = False

    def begin(self, total: int) -> None:
        self.total, self.is_open = total, True

    def note(self, text: str) -> None:
        self.said.append(text)

    def failure(self, path: str, reason: str) -> None:
        self.failures.append((path, reason))

    def update(self, update: Update) -> None:
        assert self.is_open
        self.updates.append(update)

    def end(self) -> None:
        self.is_open = False


@pytest.fixture
def client() -> FakeClient:
    return FakeClient()


@pytest.fixture
def live() -> RecordingLive:
    return RecordingLive()


FILES: dict[str, str | bytes] = {
    "pkg/__init__.py": '"""A package."""\n',
    "pkg/shapes.py": (
        '"""Shapes."""\n\nimport math\n\n\nclass Circle:\n    """Round."""\n\n    # its size\n'
        "    def area(self, r):\n        if r < 0 or r is None:\n            raise ValueError\n"
        "        return math.pi * r * r\n"
    ),
    "pkg/deep/more.py": "async def run(xs):\n    return [x for x in xs if x]\n\n\ndef _hidden():\n    pass\n",
    "single.py": "x = 1\n",
    "empty.py": "",
    "warns.py": "import re\nre.compile('\\d')\n",
    "bad_syntax.py": "x = 1\ndef broken(:\n",
    "bad_bytes.py": b"x = 'caf\xe9'\n",
    "latin.py": b"# -*- coding: latin-1 -*-\nx = 'caf\xe9'\n",
}


@pytest.fixture
def tree_of_files(tmp_path: Path) -> Path:
    """Seven good files, one that does not parse and one that does not decode."""
    root = tmp_path / "tree"
    for name, content in FILES.items():
        place = root / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content if isinstance(content, bytes) else content.encode())
    return root
