"""The process that submits, on one of the hosts.

``python -m benchmarks.recovery.driver omnimind HOME FOLDER`` or ``… ray ADDRESS FOLDER``.

One command a line on standard input, one answer a line on standard output: ``submit NAME DELAY`` is answered
when the task is submitted (which is when OmniMind has acknowledged it), ``nodes`` with the hosts that take
work, ``coordinator`` with the process id of OmniMind's coordinator.
"""

from __future__ import annotations

import sys
import time
from typing import Any, Protocol

from benchmarks.recovery.work import work


class Side(Protocol):
    """What is driven."""

    def submit(self, name: str, delay: float) -> str: ...

    def nodes(self) -> str: ...

    def coordinator(self) -> str: ...


class OmniMind:
    def __init__(self, home: str, folder: str) -> None:
        import omnimind  # noqa: PLC0415

        self._busy = (omnimind.Unavailable, omnimind.errors.Refused)
        self._client = omnimind.connect(home)
        self._folder = folder

    def submit(self, name: str, delay: float) -> str:
        options: dict[str, Any] = {"key": name, "needs": {"lane"}, "delay": delay or None}
        while True:
            try:
                self._client.submit(work, folder=self._folder, name=name, **options)
            except self._busy:
                time.sleep(0.05)  # the key makes it safe to ask again
            else:
                return name

    def nodes(self) -> str:
        up = [n for n in self._client.cluster_status()["nodes"] if n["status"] in {"active", "busy"}]
        return " ".join(n["hostname"] for n in up)

    def coordinator(self) -> str:
        return str(self._client.cluster_status()["coordinator"]["pid"])


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

    def coordinator(self) -> str:
        return ""


def main() -> None:
    kind, where, folder = sys.argv[1:4]
    side: Side = OmniMind(where, folder) if kind == "omnimind" else PlainRay(where, folder)
    print("ready", flush=True)
    for line in sys.stdin:
        match line.split():
            case ["submit", name, delay]:
                print(side.submit(name, float(delay)), flush=True)
            case ["nodes"]:
                print(side.nodes(), flush=True)
            case ["coordinator"]:
                print(side.coordinator(), flush=True)
            case other:
                raise ValueError(f"no command: {other}")


if __name__ == "__main__":
    main()
