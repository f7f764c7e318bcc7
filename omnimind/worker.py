"""The Ray task that carries a batch: the only code of OmniMind, beside the runner, in a user's process.

It may not import `actors`: the user's project may have a package of that name, and Ray puts the
driver's folder first. Besides `client.via_ray` this is the one file of the package that uses Ray.
"""

from __future__ import annotations

import os
from typing import Any

import msgspec

from omnimind.cluster.sends import Batch
from omnimind.registry import HandlerSpec
from omnimind.runner import run_batch

_PULSE_TIMEOUT = 30.0
_CHECKPOINT_TIMEOUT = 60.0

_batches = msgspec.msgpack.Decoder(Batch)
_specs = msgspec.json.Decoder(HandlerSpec)
_encode = msgspec.msgpack.Encoder().encode


class _NodeWire:
    """A worker's line to the Node actor that owns its batch."""

    def __init__(self, node: str, namespace: str) -> None:
        self._where = (node, namespace)
        self._actor: Any = None

    @property
    def _node(self) -> Any:
        # Looked up when it is needed: most batches are over before that.
        if self._actor is None:
            import ray  # noqa: PLC0415 (only ever called inside a Ray worker)

            name, namespace = self._where
            self._actor = ray.get_actor(name, namespace=namespace)
        return self._actor

    def pulse(self, data: bytes) -> bytes:
        """Send a pulse."""
        return self._ask(self._node.pulse.remote(os.getpid(), data), _PULSE_TIMEOUT)

    def blob(self, digest: str) -> bytes:
        """Fetch stored bytes."""
        return self._ask(self._node.blob.remote(digest), _PULSE_TIMEOUT)

    def checkpoint(self, task_id: str, fence: int, data: bytes) -> None:
        """Store a checkpoint."""
        self._ask(self._node.checkpoint.remote(task_id, fence, data), _CHECKPOINT_TIMEOUT)

    @staticmethod
    def _ask(ref: Any, timeout: float) -> bytes:
        import ray  # noqa: PLC0415 (only ever called inside a Ray worker)

        answer: bytes = ray.get(ref, timeout=timeout)
        return answer


def run(batch: bytes, spec: bytes, node: str, namespace: str) -> bytes:
    """Run a batch (msgpack of `Batch`) whose handler is `spec` (JSON of `HandlerSpec`).

    node, namespace: name of the Node actor that owns the batch. Returns msgpack of the outcomes that no
    pulse has delivered.
    """
    return _encode(run_batch(_batches.decode(batch), _specs.decode(spec), _NodeWire(node, namespace)))
