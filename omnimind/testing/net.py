"""`SimNet`: carries every message of a simulation, and loses, delays, doubles and reorders them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from omnimind.testing.clock import SimClock
from omnimind.testing.draws import Draws, mix

_UNIT = 65536


class Link:
    """One direction between two places."""

    __slots__ = ("cut_until", "key", "name", "sent")

    def __init__(self, name: str, key: int) -> None:
        self.name = name
        self.key = key
        self.sent = 0
        self.cut_until = 0.0


class SimNet:
    """A network with faults per message and per link.

    delay: seconds of a usual message (half to one and a half of it). loss, duplicate, slow: chances per
    message; a slow one, and the second copy of a doubled one, takes up to `slow_seconds`. So messages
    overtake each other. Cuts are one way: what is sent or arrives during one is lost. Without `faulty`
    (the healing phase) nothing but the usual delay happens to a message.
    """

    def __init__(
        self,
        clock: SimClock,
        draws: Draws,
        *,
        delay: float = 0.005,
        loss: float = 0.0,
        duplicate: float = 0.0,
        slow: float = 0.0,
        slow_seconds: float = 8.0,
    ) -> None:
        self.clock = clock
        self.draws = draws
        self.delay = delay
        self.slow_seconds = slow_seconds
        self.faulty = True
        self.lost_in_cuts = 0
        self._loss = int(loss * _UNIT)
        self._duplicate = int(duplicate * _UNIT)
        self._slow = int(slow * _UNIT)
        self._any = bool(self._loss or self._duplicate or self._slow)
        self._links: dict[tuple[str, str], Link] = {}

    def link(self, source: str, target: str) -> Link:
        """Return the link from one place to another."""
        link = self._links.get((source, target))
        if link is None:
            name = f"{source}>{target}"
            link = self._links[source, target] = Link(name, self.draws.key("net", name))
        return link

    def cut(self, source: str, target: str, until: float) -> None:
        """Lose everything on a link until a time."""
        link = self.link(source, target)
        link.cut_until = max(link.cut_until, until)

    def heal(self) -> None:
        """End all cuts and all faults of messages, for good."""
        self.faulty = False
        for link in self._links.values():
            link.cut_until = 0.0

    def send(self, source: str, target: str, receive: Callable[..., None], *args: Any) -> None:
        """Carry a message: ``receive(*args)`` is called when it arrives, never at once."""
        link = self.link(source, target)
        number = link.sent
        link.sent = number + 1
        if link.cut_until > self.clock.now:
            self.lost_in_cuts += 1
            return
        bits = mix(self.draws.seed, link.key, number)
        delay = self.delay * (0.5 + (bits & 0xFFFF) / _UNIT)
        if self.faulty and self._any:
            if (bits >> 16) & 0xFFFF < self._loss and self.draws.allow(f"loss:{link.name}:{number}"):
                return
            again = mix(self.draws.seed, link.key ^ 0x5BD1E995, number)
            if (bits >> 32) & 0xFFFF < self._duplicate and self.draws.allow(
                f"duplicate:{link.name}:{number}"
            ):
                late = self._stretch(again >> 32)
                self.clock.after(delay + late, self._arrive, link, receive, args)
            if (bits >> 48) & 0xFFFF < self._slow and self.draws.allow(f"slow:{link.name}:{number}"):
                delay += self._stretch(again)
        self.clock.after(delay, self._arrive, link, receive, args)

    def _stretch(self, bits: int) -> float:
        """Return seconds up to `slow_seconds`, short ones more often than long ones."""
        share = (bits & 0xFFFF) / _UNIT
        return self.slow_seconds * share * share

    def _arrive(self, link: Link, receive: Callable[..., None], args: tuple[Any, ...]) -> None:
        if link.cut_until > self.clock.now:
            self.lost_in_cuts += 1
            return
        receive(*args)
