"""The process that submits, on one of the hosts.

``python -m benchmarks.recovery.driver omnimind HOME FOLDER`` or ``… ray ADDRESS FOLDER``.

One command a line on standard input, one answer a line on standard output: ``submit NAME DELAY`` is answered
when the task is submitted (which is when OmniMind has acknowledged it), ``nodes`` with the hosts that take
work. Of OmniMind alone: ``once NAME`` submits a task that is run at most once, ``task NAME`` says how it is,
``coordinator`` who coordinates, both as JSON.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from benchmarks.recovery.work import work


class OmniMind:
    def __init__(self, home: str, folder: str) -> None:
        import omnimind  # noqa: PLC0415

        self._busy = (omnimind.Unavailable, omnimind.errors.Refused)
        self._client = omnimind.connect(home)
        self._folder = folder

    def submit(self, name: str, delay: float, **more: Any) -> str:
        options: dict[str, Any] = {"key": name, "needs": {"lane"}, "delay": delay or None, **more}
        while True:
            try:
                self._client.submit(work, folder=self._folder, name=name, **options)
            except self._busy:
                time.sleep(0.05)  # the key makes it safe to ask again
            else:
                return name

    def once(self, name: str) -> str:
        return self.submit(name, 0.0, at_most_once=True)

    def task(self, name: str) -> str:
        # The same submission again: by its key it is the same task, whichever driver asks.
        handle = self._client.submit(work, folder=self._folder, name=name, key=name, needs={"lane"})
        found = self._client.task(handle.id)
        return json.dumps({key: found[key] for key in ("status", "result", "cause")})

    def nodes(self) -> str:
        up = [n for n in self._client.cluster_status()["nodes"] if n["status"] in {"active", "busy"}]
        return " ".join(n["hostname"] for n in up)

    def coordinator(self) -> str:
        return json.dumps(self._client.cluster_status()["coordinator"])


class PlainRay:
    def __init__(self, address: str, folder: str) -> None:
        import ray  # noqa: PLC0415

        ray.init(address=address, log_to_driver=False)
        self._ray: Any = ray
        self._task: Any = ray.remote(max_retries=-1, num_cpus=1, resources={"lane": 0.001})(work)
        self._folder = folder
        self._kept: list[Any] = []  # a task whose reference is dropped is not run again

    def submit(self, name: str, delay: float) -> str:
        del delay
        self._kept.append(self._task.remote(self._folder, name))
        return name

    def nodes(self) -> str:
        return " ".join(n["NodeManagerHostname"] for n in self._ray.nodes() if n["Alive"])


def main() -> None:
    kind, where, folder = sys.argv[1:4]
    side: Any = OmniMind(where, folder) if kind == "omnimind" else PlainRay(where, folder)
    print("ready", flush=True)
    for line in sys.stdin:
        match line.split():
            case ["submit", name, delay]:
                answer = side.submit(name, float(delay))
            case [verb, *names]:
                answer = getattr(side, verb)(*names)
            case _:
                continue
        print(answer, flush=True)


if __name__ == "__main__":
    main()
