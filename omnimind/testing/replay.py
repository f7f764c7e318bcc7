"""Feed what happened to one core to another: the same events at the same times give the same effects.

That is what makes a core testable and a log worth keeping. A difference means that something else than
its events decides what a core does: a clock, an address, the order of a set, or an object that it shares
with the one who sent the event.
"""

from __future__ import annotations

import pickle
from typing import Any

import msgspec

from omnimind.cluster.core import CoordinatorCore
from omnimind.cluster.events import Event
from omnimind.cluster.sends import Accepted, Effects, Reply, Send
from omnimind.errors import OmniMindError


def _plain(value: Any) -> Any:
    return value.to_problem() if isinstance(value, OmniMindError) else repr(value)


_encode = msgspec.msgpack.Encoder(order="deterministic", enc_hook=_plain).encode


def _stable(send: Send) -> Any:
    """Return a send without anything whose order may differ between two processes."""
    if type(send) is Reply and type(send.value) is Accepted:
        return send.request, send.value.count, sorted(send.value.existing.items())
    return type(send).__name__, send


def frozen(effects: Effects) -> bytes:
    """Return effects as bytes that are the same in every process."""
    return _encode((effects.records, [*map(_stable, effects.sends)]))


class EventLog:
    """The events of one core, as they were before it had them, and what it made of them."""

    def __init__(self) -> None:
        self._entries: list[tuple[bytes, bytes]] = []
        self._next = b""

    def __len__(self) -> int:
        return len(self._entries)

    def before(self, event: Event, now: float) -> None:
        """Keep an event before it is handled."""
        self._next = pickle.dumps((event, now))

    def after(self, effects: Effects) -> None:
        """Keep what the event led to."""
        self._entries.append((self._next, frozen(effects)))

    def differs(self, core: CoordinatorCore) -> int | None:
        """Return the number of the first event that a fresh core handles in another way, None if none."""
        for number, (entry, effects) in enumerate(self._entries):
            event, now = pickle.loads(entry)  # noqa: S301 (our own bytes, from `before`)
            if frozen(core.handle(event, now)) != effects:
                return number
        return None
