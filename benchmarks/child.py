"""One measurement, one process: fresh memory, no other peer's threads, and an end that ends everything.

Parent: `run("benchmarks.session", request, watch)`. Child: `python -m benchmarks.child MODULE` calls the
module's `measure(request, emit)`. What it emits reaches `watch`, what it returns is the answer; both are
JSON. Its prints, and those of everything that it starts, go to a log.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.processes import adopt_orphans, end_descendants, end_with_parent, interrupt_on_terminate, tail

Message = dict[str, Any]
Emit = Callable[[Message], None]

_ROOT = Path(__file__).resolve().parent.parent
_ANSWER = "answer"
_LEFT = "left_running"
_END_SECONDS = 60.0


class MeasurementFailedError(RuntimeError):
    """A child ended without an answer. The message has the end of its log."""


def run(module: str, request: Mapping[str, Any], *, folder: Path, watch: Emit) -> Message:
    """Measure in a child process; `folder` becomes its place for temporary files, and holds its log.

    Raises MeasurementFailedError when it fails. When this process is interrupted the child is ended first.
    """
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "log.txt"
    receive, send = os.pipe()
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "OMNIMIND_"))},
        "PYTHONPATH": str(_ROOT),
        "TMPDIR": str(folder),
        "PYTHONHASHSEED": "0",
    }
    with log.open("wb") as output:
        child = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.child", module, str(send)],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            pass_fds=[send],
            env=environment,
            cwd=_ROOT,
            start_new_session=True,
        )
    os.close(send)
    assert child.stdin is not None
    answer: Message | None = None
    try:
        with child.stdin as pipe:
            pipe.write(json.dumps({**request, "folder": str(folder)}).encode())
        with os.fdopen(receive, encoding="utf-8") as messages:
            for line in messages:
                message: Message = json.loads(line)
                if _ANSWER in message:
                    answer = message[_ANSWER]
                    break
                watch(message)
    finally:
        _end(child, answered=answer is not None)
    if answer is None:
        raise MeasurementFailedError(f"{module} {dict(request)} failed:\n{tail(log)}")
    return answer


def _end(child: subprocess.Popen[bytes], *, answered: bool) -> None:
    """Wait for a child that is done; interrupt one that is not, and kill it when it does not clean up."""
    try:
        if not answered and child.poll() is None:
            child.send_signal(signal.SIGTERM)
        child.wait(_END_SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
        end_descendants()


def main() -> None:
    module, descriptor = sys.argv[1], int(sys.argv[2])
    os.set_inheritable(descriptor, False)
    adopt_orphans()
    interrupt_on_terminate()
    end_with_parent()
    request: Message = json.load(sys.stdin)
    with os.fdopen(descriptor, "w", encoding="utf-8", buffering=1) as messages:

        def emit(message: Message) -> None:
            messages.write(json.dumps(message) + "\n")

        try:
            answer = importlib.import_module(module).measure(request, emit)
        finally:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            left = end_descendants()
            print("left running and ended here:", left)
        emit({_ANSWER: {**answer, _LEFT: left}})


if __name__ == "__main__":
    main()
