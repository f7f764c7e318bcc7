"""How each of the core's sends reaches a node: one message for each. The only place that decides it.

Nothing is waited for: what gets lost is missed in the node's next heartbeat.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from actors import wire
from omnimind.cluster.sends import AskRegister, Dispatch, FenceNode, ReleaseNode, Send, StopAttempts

log = logging.getLogger("omnimind.coordinator")

Post = Callable[[str, str, bytes], None]
"""(node id, kind of message, data)"""


class Dispatcher:
    """Carries sends out. post: sends a message to a node, if there is a way."""

    def __init__(self, post: Post) -> None:
        self._post = post
        self._specs: dict[str, bytes] = {}

    def know(self, digest: str, spec: bytes) -> None:
        """Remember a handler's record: it travels with each batch."""
        self._specs[digest] = spec

    def __call__(self, send: Send) -> None:
        """Carry a send out."""
        match send:
            case Dispatch(node_id, incarnation, batch):
                spec = self._specs.get(batch.options.handler, b"")
                self._post(node_id, "run", wire.encode(wire.Run(batch, incarnation, spec)))
            case StopAttempts(node_id, incarnation, fence, indexes, hard, cause):
                stop = wire.Stop(incarnation, fence, indexes, hard, cause)
                self._post(node_id, "stop", wire.encode(stop))
            case AskRegister(node_id, _):
                self._post(node_id, "register", wire.encode(wire.Register()))
            case FenceNode(node_id, incarnation):
                self._post(node_id, "fence", wire.encode(wire.Fence(incarnation)))
            case ReleaseNode(node_id):
                log.info("node %s is drained", node_id)
            case _:
                msg = f"{type(send).__name__} is not for a node"
                raise TypeError(msg)
