"""Which shard keeps what. Pure, and the same in every process of every version.

A queue's name is hashed to one of 4096 *buckets*, and a bucket to a shard by a jump consistent hash
(Lamping and Veach, 2014): when the number of shards grows from N to N + 1, one queue in N + 1 moves, and
only to the new shard. Task ids carry the bucket of their queue, so an id leads to its shard as its queue
does, before and after the number of shards has changed, and nobody has to be asked.

An idempotency key has a shard of its own, by its own hash: its *home*, where it is decided for whom the
key stands, whatever queue it comes with.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache

from omnimind.ids import BUCKETS, SHARDS_MAX, bucket_in

_MULTIPLIER = 2862933555777941757
_MASK = (1 << 64) - 1


@lru_cache(maxsize=4096)
def bucket_of(name: str) -> int:
    """Return the bucket of a queue's name (or of a key)."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big") % BUCKETS


@lru_cache(maxsize=BUCKETS * 4)
def shard_of_bucket(bucket: int, shards: int) -> int:
    """Return the shard, from 0 to ``shards - 1``, that keeps a bucket."""
    if not 1 <= shards <= SHARDS_MAX:
        msg = f"there are 1 to {SHARDS_MAX} shards, not {shards}"
        raise ValueError(msg)
    # Neighbouring buckets must not go the same way: mix the number before it seeds the jumps.
    state = int.from_bytes(hashlib.blake2b(b"bucket %d" % bucket, digest_size=8).digest(), "big")
    found, candidate = 0, 0
    while candidate < shards:
        found = candidate
        state = (state * _MULTIPLIER + 1) & _MASK
        candidate = int((found + 1) * (1 << 31) / ((state >> 33) + 1))
    return found


def shard_of_queue(queue: str, shards: int) -> int:
    """Return the shard that keeps a queue, its tasks and its schedules."""
    return 0 if shards == 1 else shard_of_bucket(bucket_of(queue), shards)


def home_of_key(key: str, shards: int) -> int:
    """Return the shard that decides for which task an idempotency key stands."""
    return 0 if shards == 1 else shard_of_bucket(bucket_of(f"key\0{key}"), shards)


def shards_of_id(task_id: str, shards: int) -> tuple[int, ...]:
    """Return the shards that may keep a task: one, as its id says; all, for an id that carries no bucket."""
    if shards == 1:
        return (0,)
    bucket = bucket_in(task_id)
    if bucket is None:
        return tuple(range(shards))
    return (shard_of_bucket(bucket, shards),)


def moves(bucket: int, before: int, after: int) -> bool:
    """Return whether a bucket changes its shard when the number of shards does."""
    return shard_of_bucket(bucket, before) != shard_of_bucket(bucket, after)
