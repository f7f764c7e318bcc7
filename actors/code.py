"""`Code`: handlers' records and stored bytes, on an `Engine`; and the tasks that a submission describes."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from actors.engine import Engine
from omnimind.client import protocol as p
from omnimind.cluster import events as ev
from omnimind.cluster.records import BlobSaved, HandlerSaved
from omnimind.cluster.task import DEFAULT_OPTIONS, DistributedTask, TaskOptions
from omnimind.errors import InvalidInput, NotFound, PayloadTooLarge, UnknownTaskType
from omnimind.ids import SLAB_MAX, new_slab, slab_of, task_id
from omnimind.registry import MAX_NAME, HandlerSpec

KEY_MAX = 1_024
_KNOWN_MAX = 10_000


class Code:
    """Carries out the protocol's methods that concern code. learned: hears of records as they are read."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.learned: Callable[[str, bytes], None] = lambda _digest, _spec: None
        self._handlers: dict[str, tuple[HandlerSpec, TaskOptions]] = {}
        self._current: dict[str, str] | None = None

    async def _types(self) -> dict[str, str]:
        if self._current is None:
            known = await self.engine.read(self.engine.ledger.handlers)
            self._current = {task_type: digest for task_type, (digest, _) in known.items()}
        return self._current

    async def handler(self, digest: str) -> tuple[HandlerSpec, TaskOptions]:
        """Return a handler's record and the options that its defaults make."""
        found = self._handlers.get(digest)
        if found is None:
            data = await self.engine.read(self.engine.ledger.handler, digest)
            if data is None:
                raise NotFound(
                    f"there is no handler {digest}", field="handler", hint="register it again, by submitting"
                )
            spec = msgspec.json.decode(data, type=HandlerSpec)
            self.learned(digest, data)
            if len(self._handlers) >= _KNOWN_MAX:
                self._handlers.clear()
            found = self._handlers[digest] = (spec, _options(DEFAULT_OPTIONS, spec, digest, None))
        return found

    async def register(self, request: p.HandlerRequest) -> dict[str, Any]:
        """Store a handler's record, and say which blobs are missing."""
        try:
            spec = msgspec.json.decode(request.spec, type=HandlerSpec)
        except msgspec.MsgspecError as error:
            raise InvalidInput(f"this is no handler's record: {error}", field="spec") from None
        if not 0 < len(spec.task_type) <= MAX_NAME:
            raise InvalidInput(f"a task type has 1 to {MAX_NAME} characters", field="task_type")
        digest = hashlib.sha256(request.spec).hexdigest()[:32]
        _options(DEFAULT_OPTIONS, spec, digest, None)  # what could never be submitted is not kept
        types = await self._types()
        if types.get(spec.task_type) != digest:
            await self.engine.ask(lambda n: ev.Note(n, HandlerSaved(digest, spec.task_type, request.spec)))
            types[spec.task_type] = digest
        blobs = [b for b in (spec.blob, spec.package) if b]
        lacking = [b for b in blobs if await self.engine.read(self.engine.ledger.blob, b) is None]
        return {"digest": digest, "missing": lacking}

    async def blob_put(self, request: p.BlobRequest) -> None:
        """Store bytes by their digest."""
        data = request.data or b""
        if hashlib.sha256(data).hexdigest()[: len(request.digest)] != request.digest:
            raise InvalidInput("the digest is not that of the data", field="digest")
        await self.engine.ask(lambda n: ev.Note(n, BlobSaved(request.digest, data)))

    async def blob_get(self, request: p.BlobRequest) -> bytes:
        """Return stored bytes."""
        data: bytes | None = await self.engine.read(self.engine.ledger.blob, request.digest)
        if data is None:
            raise NotFound(f"there are no stored bytes {request.digest}", field="digest")
        return data

    async def handlers(self, _request: p.Empty) -> list[dict[str, Any]]:
        """Return every task type's current handler."""
        known = await self.engine.read(self.engine.ledger.handlers)
        return [msgspec.json.decode(spec) | {"digest": digest} for _, (digest, spec) in sorted(known.items())]

    async def tasks_of(self, request: p.SubmitRequest, now: float) -> list[DistributedTask]:
        """Return the tasks that a request describes; raises InvalidInput naming the field."""
        _check_request(request)
        digest = request.handler or (await self._types()).get(request.task_type)
        if digest is None:
            raise _unknown_type(request.task_type, await self._types())
        spec, options = await self.handler(digest)
        if request.options:
            options = _options(options, spec, digest, request.options)
        defaults = spec.defaults
        needs = frozenset(request.needs if request.needs is not None else defaults.get("needs", ()))
        needs |= options.amounts
        not_before = request.not_before or 0.0
        if request.delay:
            not_before = now + request.delay
        deadline = now + request.ttl if request.ttl is not None else request.deadline

        def value(name: str, otherwise: Any) -> Any:
            given = getattr(request, name)
            return given if given is not None else defaults.get(name, otherwise)

        priority, queue = value("priority", 5), value("queue", "default")
        retries, timeout = value("max_retries", 3), value("timeout", None)
        at_most_once, after = value("at_most_once", False), tuple(request.after)
        keys = request.keys
        try:
            return [
                DistributedTask(
                    task_id(request.slab, index), request.task_type, payload, priority, queue, needs,
                    retries, timeout, deadline, not_before, keys[index] if keys else None, after,
                    at_most_once, options, request.encoding,
                )
                for index, payload in enumerate(request.payloads)
            ]  # fmt: skip
        except ValueError as error:
            raise InvalidInput(str(error), field="priority") from None

    def methods(self) -> dict[str, Callable[[Any], Awaitable[Any]]]:
        """Return this object's part of the protocol, by method name."""
        return {
            "register": self.register,
            "blob_put": self.blob_put,
            "blob_get": self.blob_get,
            "handlers": self.handlers,
        }


def _options(
    base: TaskOptions, spec: HandlerSpec, digest: str, overrides: dict[str, Any] | None
) -> TaskOptions:
    given = dict(overrides if overrides is not None else spec.defaults.get("options", {}))
    unknown = sorted(set(given) - set(TaskOptions.__struct_fields__) | ({"handler", "kind"} & set(given)))
    if unknown:
        raise InvalidInput(f"there is no option {unknown[0]!r}", field=f"options.{unknown[0]}")
    merged = msgspec.structs.asdict(base) | given | {"handler": digest, "kind": spec.kind}
    try:
        options = msgspec.convert(list(merged.values()), TaskOptions)
    except msgspec.ValidationError as error:
        raise InvalidInput(f"options: {error}", field="options") from None
    for name in ("retry_base", "retry_factor", "retry_cap", "num_cpus", "num_gpus", "memory"):
        value = getattr(options, name)
        if not 0 <= value < float("inf"):
            raise InvalidInput(f"{name} is 0 or more, not {value!r}", field=f"options.{name}")
    return options


def _check_request(request: p.SubmitRequest) -> None:
    if len(request.slab) != len(new_slab()) or not request.slab.startswith("tsk_"):
        raise InvalidInput("a slab is made by omnimind.ids.new_slab", field="slab")
    slab_of(request.slab + "0000")
    if not 0 < len(request.payloads) <= SLAB_MAX:
        raise InvalidInput(f"a submission has 1 to {SLAB_MAX} tasks", field="payloads")
    if request.keys is not None and len(request.keys) != len(request.payloads):
        raise InvalidInput("there are not as many keys as payloads", field="keys")
    for key in request.keys or ():
        if key is not None and not 0 < len(key) <= KEY_MAX:
            raise InvalidInput(f"a key has 1 to {KEY_MAX} characters", field="key")
    largest = max(map(len, request.payloads))
    if largest > p.PAYLOAD_MAX:
        raise PayloadTooLarge(
            f"{largest:,} bytes of payload; the limit is {p.PAYLOAD_MAX:,}", field="payload"
        )
    if request.encoding not in {"json", "pickle"}:
        raise InvalidInput(f"there is no encoding {request.encoding!r}", field="encoding")
    for name in ("delay", "ttl", "not_before", "deadline", "timeout"):
        value = getattr(request, name)
        if value is not None and not -1e12 < value < 1e12:  # noqa: PLR2004 (NaN and infinities too)
            raise InvalidInput(f"{value!r} is no time", field=name)
    if request.delay is not None and request.delay < 0:
        raise InvalidInput(f"a delay is 0 or more seconds, not {request.delay!r}", field="delay")


def _unknown_type(task_type: str, known: dict[str, str]) -> UnknownTaskType:
    close = difflib.get_close_matches(task_type, list(known), 1)
    hint = (
        f"did you mean {close[0]}?" if close else "submit it once from Python, or see: omnimind handler list"
    )
    return UnknownTaskType(
        f"no handler is registered under {task_type[:200]!r}", field="task_type", hint=hint
    )
