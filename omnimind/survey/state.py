"""Which survey is unfinished: the memory that lets a survey that was interrupted go on."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from omnimind.survey.analysis import VERSION
from omnimind.survey.files import SourceFile


@dataclass(frozen=True, slots=True, kw_only=True)
class SurveyRun:
    """One survey, from its first start until it is finished, through any number of interruptions."""

    run_id: str
    is_resumed: bool

    def key_of(self, file: SourceFile) -> str:
        """Return the idempotency key of a file's task: another one when the file or the analysis changed."""
        what = json.dumps([VERSION, file.path, file.root, file.size, file.mtime_ns])
        return f"survey:{self.run_id}:{hashlib.sha256(what.encode()).hexdigest()[:32]}"


class SurveyState:
    """The unfinished surveys of one instance, one for each set of roots, in a file beside its ledger.

    A file that cannot be understood counts as empty: at worst files are analysed once more.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def begin(self, roots: Iterable[str]) -> SurveyRun:
        """Return the unfinished survey of these roots, or a new one, which is remembered from now on."""
        unfinished = self._load()
        scope = _scope(roots)
        known = unfinished.get(scope)
        if isinstance(known, str):
            return SurveyRun(run_id=known, is_resumed=True)
        run = SurveyRun(run_id=uuid4().hex, is_resumed=False)
        self._save({**unfinished, scope: run.run_id})
        return run

    def finish(self, roots: Iterable[str]) -> None:
        """Forget the survey of these roots: the next one starts afresh."""
        unfinished = self._load()
        unfinished.pop(_scope(roots), None)
        self._save(unfinished)

    def _load(self) -> dict[str, Any]:
        try:
            found = json.loads(self.path.read_bytes())["unfinished"]
        except (FileNotFoundError, ValueError, TypeError, KeyError):
            return {}
        return found if isinstance(found, dict) else {}

    def _save(self, unfinished: dict[str, Any]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor, aside = tempfile.mkstemp(prefix=f".{self.path.name}.", dir=self.path.parent)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump({"unfinished": unfinished}, file)
                file.flush()
                os.fsync(descriptor)
            Path(aside).replace(self.path)
        except BaseException:
            Path(aside).unlink(missing_ok=True)
            raise


def _scope(roots: Iterable[str]) -> str:
    return hashlib.sha256(json.dumps(sorted(roots)).encode()).hexdigest()[:32]
