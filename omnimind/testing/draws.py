"""Keyed randomness: each draw depends on the seed and on its own name, never on earlier draws.

So a fault that is switched off does not shift the others, and a failing run can be shrunk by leaving
out one fault after the other. A fault's id is ``kind:place:n``: the n-th chance of that kind there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")

_MASK = (1 << 64) - 1


def mix(seed: int, key: int, n: int) -> int:
    """Return 64 bits that depend on all three arguments (the finaliser of SplitMix64)."""
    x = (seed * 0x9E3779B97F4A7C15 + key + n * 0xD1342543DE82EF95) & _MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK
    return x ^ (x >> 31)


def key_of(name: str) -> int:
    """Return a name as 64 bits; the same in every process, unlike `hash`."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big")


class Draws:
    """All randomness of one run.

    only: ids of the faults that may fire; None lets every drawn fault fire. `fired` holds the ids of
    those that did, in order.
    """

    def __init__(self, seed: int, only: frozenset[str] | None = None) -> None:
        self.seed = seed
        self.only = only
        self.fired: dict[str, None] = {}
        self.by_kind: dict[str, int] = {}
        self._keys: dict[tuple[str, str], int] = {}
        self._counts: dict[tuple[str, str], int] = {}

    def key(self, kind: str, place: str) -> int:
        """Return the key of a stream, for callers that count and mix by themselves."""
        key = self._keys.get((kind, place))
        if key is None:
            key = self._keys[kind, place] = key_of(f"{kind}\0{place}")
        return key

    def value(self, kind: str, place: str, n: int) -> float:
        """Return the n-th draw of a stream, from [0, 1)."""
        return mix(self.seed, self.key(kind, place), n) / 18446744073709551616.0

    def next(self, kind: str, place: str) -> float:
        """Return the next draw of a stream, from [0, 1)."""
        stream = (kind, place)
        n = self._counts.get(stream, 0)
        self._counts[stream] = n + 1
        return self.value(kind, place, n)

    def pick(self, kind: str, place: str, n: int, choices: Sequence[T]) -> T:
        """Return one of the choices; a choice that is named twice is twice as likely."""
        return choices[int(self.value(kind, place, n) * len(choices))]

    def fires(self, kind: str, place: str, n: int, chance: float) -> bool:
        """Return whether the n-th chance of a fault comes true, and note it."""
        return chance > 0.0 and self.value(kind, place, n) < chance and self.allow(f"{kind}:{place}:{n}")

    def chance(self, kind: str, place: str, chance: float) -> bool:
        """Return whether the next chance of a fault comes true, and note it."""
        stream = (kind, place)
        n = self._counts.get(stream, 0)
        self._counts[stream] = n + 1
        return self.fires(kind, place, n, chance)

    def allow(self, fault: str) -> bool:
        """Note a drawn fault; returns False when this run leaves it out."""
        if self.only is not None and fault not in self.only:
            return False
        self.fired[fault] = None
        kind = fault.partition(":")[0]
        self.by_kind[kind] = self.by_kind.get(kind, 0) + 1
        return True
