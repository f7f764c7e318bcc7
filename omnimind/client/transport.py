"""What carries calls to a coordinator. `via_socket` and `via_ray` are the real ones, `testing` has a fake."""

from __future__ import annotations

from typing import Any, Protocol

UNREPEATABLE = frozenset(
    {"retry", "replay", "discard", "queue_remove", "schedule_remove", "schedule_run", "shutdown"}
)
"""Methods that a transport must not send a second time after a break: the first copy may have been done.

All others may be: reads change nothing, a submission and a registration are recognised by their ids and
digests, and setting, cordoning or cancelling twice is the same as once.
"""


class Transport(Protocol):
    """One connection to a coordinator, used from one event loop.

    It reconnects by itself while the coordinator restarts, and sends calls again where that is safe.
    """

    @property
    def info(self) -> dict[str, Any]:
        """Return the last answer of `hello`; among others it says how many shards there are."""

    async def connect(self) -> dict[str, Any]:
        """Connect now and return the answer of `hello`. Raises Unavailable when nobody answers."""

    async def call(self, method: str, body: bytes, timeout: float | None = None) -> bytes:
        """Return the body of the answer.

        timeout: seconds, over all reconnections; None leaves it to the transport's patience.
        Raises the coordinator's error, or Unavailable when no answer came.
        """

    async def close(self) -> None:
        """Drop the connection; calls under way end with Unavailable."""
