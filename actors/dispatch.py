"""How each of the core's sends reaches a node: one function for each. The only place that decides it.

Calls to Node actors are not waited for: what gets lost is missed in the node's next heartbeat.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from actors.wire import encode
from omnimind.cluster.sends import AskRegister, Dispatch, FenceNode, ReleaseNode, Send, StopAttempts

log = logging.getLogger("omnimind.coordinator")


class Dispatcher:
    """Carries sends out. find: returns the handle of a node's actor, None when there is none."""

    def __init__(self, find: Callable[[str], Any | None]) -> None:
        self._find = find
        self._specs: dict[str, bytes] = {}

    def know(self, digest: str, spec: bytes) -> None:
        """Remember a handler's record: it travels with each batch."""
        self._specs[digest] = spec

    def knows(self, digest: str) -> bool:
        """Return whether a handler's record is at hand."""
        return digest in self._specs

    def __call__(self, send: Send) -> None:
        """Carry a send out."""
        match send:
            case Dispatch(node_id, _, batch):
                node = self._find(node_id)
                if node is not None:
                    node.run.remote(encode(batch), self._specs.get(batch.options.handler, b""))
            case StopAttempts(node_id, incarnation, fence, indexes, hard, cause):
                node = self._find(node_id)
                if node is not None:
                    node.stop.remote(incarnation, fence, list(indexes), hard, cause)
            case AskRegister(node_id, _):
                node = self._find(node_id)
                if node is not None:
                    node.register.remote()
            case FenceNode(node_id, incarnation):
                node = self._find(node_id)
                if node is not None:
                    node.fence.remote(incarnation)
            case ReleaseNode(node_id):
                log.info("node %s is drained", node_id)
            case _:
                msg = f"{type(send).__name__} is not for a node"
                raise TypeError(msg)
