"""Many tasks cut into slabs: encoded, bounded by count, bytes and time, and sent on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from omnimind.client.calls import Parameters
from omnimind.client.options import check_key
from omnimind.client.protocol import PAYLOAD_MAX, SubmitRequest
from omnimind.encoding import encode
from omnimind.errors import InvalidInput, PayloadTooLarge
from omnimind.ids import new_slab, task_id

SLAB_TASKS = 256
SLAB_BYTES = 4 << 20
SLAB_SECONDS = 0.05
"""How long the first task of a slab waits for company when the input is slow."""

Keys = Callable[[Any], str] | Iterable[str] | None


class Slab:
    """Tasks that are submitted together: one encoding, consecutive ids, any places in the input."""

    __slots__ = ("base", "encoding", "indexes", "keys", "payloads", "since", "size")

    def __init__(self, encoding: str, bucket: int | None = None) -> None:
        self.base = new_slab(bucket)
        self.encoding = encoding
        self.indexes: list[int] = []
        self.payloads: list[bytes] = []
        self.keys: list[str | None] | None = None
        self.size = 0
        self.since = time.monotonic()

    def ids(self, existing: dict[int, str]) -> list[str]:
        """Return the tasks' ids, given those that stood under their keys already."""
        ids = [task_id(self.base, i) for i in range(len(self.indexes))]
        for place, other in existing.items():
            ids[place] = other
        return ids

    def request(self, template: dict[str, Any], *, watch: bool = False) -> SubmitRequest:
        """Return the submission of this slab. template: the other fields."""
        return SubmitRequest(
            slab=self.base,
            payloads=self.payloads,
            encoding=self.encoding,
            keys=self.keys,
            watch=watch,
            **template,
        )


def encode_payload(
    parameters: Parameters, payload: Any, dumps: Callable[[Any], bytes], field: str = "payload"
) -> tuple[bytes, str]:
    """Return a payload's bytes and encoding. Raises InvalidInput and its kinds, naming the argument."""
    data, encoding = encode(payload, field, dumps)
    if len(data) > PAYLOAD_MAX:
        msg = f"{len(data):,} bytes for {parameters.task_type}, at most {PAYLOAD_MAX:,} travel with a task"
        raise PayloadTooLarge(msg, field=field)
    return data, encoding


class Cutter:
    """Takes items one by one and hands out slabs. `count`: items taken so far.

    bucket: of the queue that they are for, None where only the coordinator knows it.
    """

    def __init__(
        self,
        parameters: Parameters,
        dumps: Callable[[Any], bytes],
        keys: Keys,
        slab_tasks: int = SLAB_TASKS,
        bucket: int | None = None,
    ) -> None:
        self._bucket = bucket
        self._parameters = parameters
        self._dumps = dumps
        self._key_of = keys if callable(keys) else None
        self._keys: Iterator[str] | None = None if keys is None or callable(keys) else iter(keys)
        self._slab_tasks = slab_tasks
        self._open: dict[str, Slab] = {}
        self.count = 0

    def add(self, item: Any) -> Slab | None:
        """Take an item; return the slab that is full with it, if one is."""
        index = self.count
        try:
            payload = self._parameters.item(item)
            data, encoding = encode_payload(self._parameters, payload, self._dumps)
            key = self._key(item)
        except InvalidInput as error:
            error.field = f"payloads[{index}].{(error.field or '').removeprefix('payload.')}".rstrip(".")
            raise
        self.count += 1
        slab = self._open.get(encoding)
        if slab is None:
            slab = self._open[encoding] = Slab(encoding, self._bucket)
        slab.indexes.append(index)
        slab.payloads.append(data)
        slab.size += len(data)
        if key is not None:
            if slab.keys is None:
                slab.keys = [None] * (len(slab.payloads) - 1)
            slab.keys.append(key)
        elif slab.keys is not None:
            slab.keys.append(None)
        if len(slab.payloads) >= self._slab_tasks or slab.size >= SLAB_BYTES:
            return self._open.pop(encoding)
        return None

    @property
    def waiting(self) -> int:
        """Return how many tasks were taken and not handed out yet."""
        return sum(len(slab.payloads) for slab in self._open.values())

    def flush(self, older_than: float = -1.0) -> list[Slab]:
        """Hand out the open slabs (those only whose first task has waited for `older_than` seconds)."""
        if not self._open:
            return []
        before = time.monotonic() - older_than
        ready = [encoding for encoding, slab in self._open.items() if slab.since <= before]
        return [self._open.pop(encoding) for encoding in ready]

    def pull(self, items: Iterator[Any], most: int) -> tuple[list[Slab], bool]:
        """Take items until a slab is full, `most` are taken or the time is up.

        Returns the slabs to send and whether the input goes on.
        """
        until = time.monotonic() + SLAB_SECONDS
        for taken, item in enumerate(items, 1):
            full = self.add(item)
            if full is not None:
                return [full, *self.flush(SLAB_SECONDS)], True
            if taken >= most:
                return self.flush(), True
            if time.monotonic() >= until:
                return self.flush(), True
        return self.flush(), False

    def _key(self, item: Any) -> str | None:
        if self._key_of is not None:
            key: Any = self._key_of(item)
        elif self._keys is not None:
            key = next(self._keys, self)
            if key is self:
                raise InvalidInput("there are fewer keys than payloads", field="keys")
        else:
            return None
        return None if key is None else check_key(key)
