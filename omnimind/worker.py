"""The Ray task that carries a batch: the only code of OmniMind, beside the runner, in a user's process.

It may not import `actors`: the user's project may have a package of that name, and Ray puts the
driver's folder first. Besides `client.via_ray` this is the one file of the package that uses Ray.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from typing import Any

import msgspec

from omnimind.cluster.sends import Batch
from omnimind.registry import HandlerSpec
from omnimind.runner import run_batch

_PULSE_TIMEOUT = 30.0

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
        # As long as the node waits: while the ledger's database is away, that is until it is back.
        self._ask(self._node.checkpoint.remote(task_id, fence, data), None)

    @staticmethod
    def _ask(ref: Any, timeout: float | None) -> bytes:
        import ray  # noqa: PLC0415 (only ever called inside a Ray worker)

        answer: bytes = ray.get(ref, timeout=timeout)
        return answer


class Ring(msgspec.Struct, array_like=True):
    """What a worker tells its node at a batch's end, besides Ray's own answer; see `actors.doorbell`."""

    token: str
    fence: int
    outcomes: bytes


class Owner(msgspec.Struct, frozen=True, array_like=True):
    """How a worker reaches the Node actor that owns its batch: as an actor, and at its doorbell."""

    actor: str
    namespace: str
    doorbell: str
    token: str


_RING_MAX = 32 << 10
_owners = msgspec.msgpack.Decoder(Owner)
_bell = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
_bell.setblocking(False)


def _ring(owner: Owner, fence: int, outcomes: bytes) -> None:
    # Whatever goes wrong (another host, a full buffer): Ray's answer says the same a little later.
    with contextlib.suppress(OSError):
        _bell.sendto(_encode(Ring(owner.token, fence, outcomes)), owner.doorbell)


def warm(seconds: float) -> None:
    """Load what a batch needs, and stay for `seconds`, so that the next call warms another worker."""
    time.sleep(seconds)


def run(batch: bytes, spec: bytes, owner: bytes) -> bytes:
    """Run a batch (msgpack of `Batch`) whose handler is `spec` (JSON of `HandlerSpec`).

    owner: msgpack of `Owner`. Returns msgpack of the outcomes that no pulse has delivered.
    """
    reach = _owners.decode(owner)
    work = _batches.decode(batch)
    outcomes = _encode(run_batch(work, _specs.decode(spec), _NodeWire(reach.actor, reach.namespace)))
    if len(outcomes) <= _RING_MAX:
        _ring(reach, work.fence, outcomes)
    return outcomes
