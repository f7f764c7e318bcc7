"""`Child`: a process that a supervisor starts itself."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

from omnimind import processes


class Child:
    """A child process, with its own log and its own session, so that no Ctrl-C of a terminal reaches it."""

    def __init__(self, words: list[str], env: dict[str, str], log: Path, **pipes: Any) -> None:
        if log.exists():
            log.replace(log.with_suffix(".log.1"))  # it may say why the one before ended
        with log.open("wb") as output:
            self.popen = subprocess.Popen(  # noqa: S603 - the words are our own
                words,
                env=env,
                cwd=log.parent.parent,
                stderr=output,
                start_new_session=True,
                **{"stdin": subprocess.DEVNULL, "stdout": output, **pipes},
            )
        self.log = log
        self.process = processes.identify(self.popen.pid)

    def ended(self) -> bool:
        """Return whether it has ended; its exit code is taken note of."""
        return self.popen.poll() is not None

    def close(self) -> None:
        """Close our end of its pipe."""
        if self.popen.stdout is not None:
            self.popen.stdout.close()
