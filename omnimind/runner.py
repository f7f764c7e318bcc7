"""Runs one batch of handlers in a worker process, beside the user's code. Imports only omnimind.

Each item has an outcome of its own, whatever its mates do; what the worker says while the batch runs is
`omnimind.pulse`'s.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from omnimind import encoding
from omnimind.cluster.events import Outcome
from omnimind.cluster.sends import Batch, BatchItem
from omnimind.context import Cancelled, TaskContext, active
from omnimind.errors import OmniMindError, ResultTooLarge
from omnimind.pulse import BatchRun, Pulses, Wire, keep_logs
from omnimind.registry import HandlerSpec, Task

RESULT_MAX = 1 << 20
_TRACEBACK_MAX = 16_384
_MESSAGE_MAX = 4_096


class _Overtime(BaseException):
    """Raised in a handler that ran over its timeout; a BaseException: `except Exception` lets it by."""


_pulses = Pulses()
_functions: dict[str, tuple[Callable[..., Any], str | None]] = {}
_FUNCTIONS_MAX = 1_000


def resolve(spec: HandlerSpec, digest: str, wire: Wire) -> tuple[Callable[..., Any], str | None]:
    """Return the handler's function, and the name of its parameter that takes the context.

    Raises OmniMindError that says why it cannot be had here.
    """
    known = _functions.get(digest)
    if known is not None:
        return known
    try:
        if spec.by == "value":
            import cloudpickle  # noqa: PLC0415 (only for functions by value)

            loaded = cloudpickle.loads(wire.blob(spec.blob or ""))
        else:
            loaded = importlib.import_module(spec.module)
            for part in spec.qualname.split("."):
                loaded = getattr(loaded, part)
    except Exception as error:
        where = f"{spec.module}.{spec.qualname}" if spec.by == "name" else "its stored function"
        msg = (
            f"the handler of {spec.task_type} cannot be loaded from {where}: {type(error).__name__}: {error}"
        )
        hint = (
            "install its module on the nodes, or connect with working_dir= so that your folder travels along"
        )
        raise OmniMindError(msg, hint=hint) from error
    function = loaded.fn if isinstance(loaded, Task) else loaded
    if not callable(function):
        msg = f"{spec.module}.{spec.qualname} is no function"
        raise OmniMindError(msg)
    if len(_functions) >= _FUNCTIONS_MAX:
        _functions.clear()
    _functions[digest] = known = (function, _context_parameter(function))
    return known


def run_batch(batch: Batch, spec: HandlerSpec, wire: Wire) -> list[Outcome]:
    """Run a batch's items and return the outcomes that were not delivered on the way."""
    run = BatchRun(batch, wire)
    keep_logs()
    _pulses.watch(run)
    try:
        try:
            function, wants_context = resolve(spec, batch.options.handler, wire)
        except Exception as error:  # noqa: BLE001 (every item ends with the reason)
            failure = describe(error)
            run.outcomes = [Outcome(i, "invalid", error=failure) for i in range(len(batch.items))]
            return run.finish()
        if batch.options.kind == "async" or inspect.isasyncgenfunction(function):
            _run_async(run, function, wants_context)
        else:
            for index, item in enumerate(batch.items):
                run.current, run.since = index, time.monotonic()
                run.outcomes.append(_run_sync(run, function, index, item, wants_context))
            run.current = run.since = None
        return run.finish()
    finally:
        _pulses.leave()


def _context_parameter(function: Callable[..., Any]) -> str | None:
    for name, parameter in inspect.signature(function).parameters.items():
        note = parameter.annotation
        if note is TaskContext or (isinstance(note, str) and note.rpartition(".")[2] == "TaskContext"):
            return name
    return None


def _context(run: BatchRun, index: int, item: BatchItem) -> TaskContext:
    return TaskContext(
        run,
        index,
        task_id=item.task_id,
        task_type=run.batch.task_type,
        attempt=item.attempt,
        deadline=item.deadline,
        checkpoint=item.checkpoint,
        fence=run.batch.fence + index,
    )


def _arguments(
    item: BatchItem, context: TaskContext, wants_context: str | None
) -> tuple[list[Any], dict[str, Any]]:
    args, kwargs = encoding.call_arguments(encoding.decode(item.payload, item.encoding))
    if wants_context is not None:
        kwargs[wants_context] = context
    return args, kwargs


def _run_sync(
    run: BatchRun, function: Callable[..., Any], index: int, item: BatchItem, wants_context: str | None
) -> Outcome:
    cause = run.stop_cause(index)
    if cause is not None:
        return Outcome(index, "cancelled", error={"type": "Cancelled", "message": cause})
    began = time.perf_counter()
    context = _context(run, index, item)
    token = active.set(context)
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    try:
        args, kwargs = _arguments(item, context, wants_context)
        if item.timeout is None:
            value = function(*args, **kwargs)
            if run.batch.options.kind == "generator":
                value = _drain(run, context, index, value)
        else:
            with _alarm(item.timeout):
                value = function(*args, **kwargs)
                if run.batch.options.kind == "generator":
                    value = _drain(run, context, index, value)
        return _success(index, value, time.perf_counter() - began)
    except BaseException as error:  # noqa: BLE001 (whatever a handler raises is its outcome)
        misfit = _unbound(function, args, kwargs) if isinstance(error, TypeError) else None
        return _failure(run, index, item, error, time.perf_counter() - began, misfit)
    finally:
        active.reset(token)


def _drain(run: BatchRun, context: TaskContext, index: int, generator: Any) -> Any:
    """Run a generator handler: what it yields is progress, what it returns is the result."""
    while True:
        try:
            step = next(generator)
        except StopIteration as end:
            return end.value
        _progress(context, step)
        if run.stop_cause(index) is not None:
            generator.close()
            context.check()


def _progress(context: TaskContext, step: Any) -> None:
    match step:
        case (int() | float() as done, int() | float() as total):
            context.progress(done, total)
        case bool() | None:
            pass
        case int() | float():
            context.progress(step)
        case str():
            context.progress(0.0, None, step)
        case dict():
            context.progress(step.get("done", 0.0), step.get("total"), str(step.get("message", "")))
        case _:
            context.progress(0.0, None, repr(step))


@contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    """Raise `_Overtime` in the handler after `seconds`; only the main thread can be interrupted so."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(_signal: int, _frame: Any) -> None:
        raise _Overtime

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _success(index: int, value: Any, seconds: float) -> Outcome:
    """Return the outcome of a handler that returned: ``ok``, or ``invalid`` when its value cannot travel.

    The same handler would return the same again, so that is not worth a retry.
    """
    try:
        data, kind = encoding.encode(value, "result")
        if len(data) > RESULT_MAX:
            msg = f"the handler returned {len(data):,} bytes; the limit is {RESULT_MAX:,}"
            raise ResultTooLarge(msg)
    except OmniMindError as error:
        return Outcome(index, "invalid", error=describe(error), seconds=seconds)
    return Outcome(index, "ok", data, kind, None, seconds)


def _unbound(function: Callable[..., Any], args: list[Any], kwargs: dict[str, Any]) -> str | None:
    """Return why a payload does not fit a handler's parameters, None when it does."""
    try:
        inspect.signature(function).bind(*args, **kwargs)
    except TypeError as error:
        return str(error)
    return None


def _failure(
    run: BatchRun,
    index: int,
    item: BatchItem,
    error: BaseException,
    seconds: float,
    misfit: str | None,
) -> Outcome:
    match error:
        case _Overtime() | TimeoutError() if isinstance(error, _Overtime) or (
            item.timeout is not None and seconds >= item.timeout
        ):
            message = f"the handler ran over its timeout of {item.timeout} s"
            return Outcome(index, "timeout", None, "json", {"type": "Timeout", "message": message}, seconds)
        case Cancelled() | asyncio.CancelledError() if run.stop_cause(index) is not None:
            cause = run.stop_cause(index)
            return Outcome(index, "cancelled", error={"type": "Cancelled", "message": cause}, seconds=seconds)
        case TypeError() if misfit is not None:
            message = f"the payload does not fit the handler: {misfit}"
            found = describe(error) | {"type": "PayloadMismatch", "message": message}
            return Outcome(index, "invalid", error=found, seconds=seconds)
        case _:
            return Outcome(index, "error", error=describe(error), seconds=seconds)


def describe(error: BaseException) -> dict[str, Any]:
    """Return an exception as JSON values: type, bases (qualified names), message, traceback (16 KiB)."""
    kind = type(error)
    lines = traceback.format_exception(kind, error, error.__traceback__)
    text = "".join(lines)
    if len(text) > _TRACEBACK_MAX:
        text = text[: _TRACEBACK_MAX // 2] + "\n…\n" + text[-_TRACEBACK_MAX // 2 :]
    try:
        message = str(error)[:_MESSAGE_MAX]
    except Exception:  # noqa: BLE001 (a user's __str__)
        message = "(its message cannot be shown)"
    found: dict[str, Any] = {
        "type": kind.__qualname__,
        "bases": [
            f"{c.__module__}.{c.__qualname__}" for c in kind.__mro__ if c not in {object, BaseException}
        ],
        "message": message,
        "traceback": text,
    }
    if isinstance(error, OmniMindError):
        found |= {"code": error.code, "hint": error.hint, "message": error.message}
    return found


_loop: asyncio.AbstractEventLoop | None = None


def _run_async(run: BatchRun, function: Callable[..., Any], wants_context: str | None) -> None:
    """Run all items of a batch at the same time on one event loop."""
    global _loop  # noqa: PLW0603 (handlers keep connections from batch to batch, so the loop stays)
    if _loop is None or _loop.is_closed():
        _loop = asyncio.new_event_loop()
    loop = _loop

    async def one(index: int, item: BatchItem) -> None:
        began = time.perf_counter()
        cause = run.stop_cause(index)
        if cause is not None:
            run.outcomes.append(Outcome(index, "cancelled", error={"type": "Cancelled", "message": cause}))
            return
        context = _context(run, index, item)
        active.set(context)
        args: list[Any] = []
        kwargs: dict[str, Any] = {}
        try:
            args, kwargs = _arguments(item, context, wants_context)
            async with asyncio.timeout(item.timeout):
                if inspect.isasyncgenfunction(function):
                    value = None
                    async for step in function(*args, **kwargs):
                        _progress(context, step)
                        value = step
                        context.check()
                else:
                    value = await function(*args, **kwargs)
            outcome = _success(index, value, time.perf_counter() - began)
        except BaseException as error:  # noqa: BLE001 (whatever a handler raises is its outcome)
            misfit = _unbound(function, args, kwargs) if isinstance(error, TypeError) else None
            outcome = _failure(run, index, item, error, time.perf_counter() - began, misfit)
        run.outcomes.append(outcome)

    async def everything() -> None:
        tasks = {index: asyncio.ensure_future(one(index, item)) for index, item in enumerate(run.batch.items)}

        def stop(index: int) -> None:
            task = tasks.get(index)
            if task is not None:
                loop.call_soon_threadsafe(task.cancel)

        run.on_stop = stop
        await asyncio.gather(*tasks.values(), return_exceptions=True)

    run.current, run.since = (0, time.monotonic()) if len(run.batch.items) == 1 else (None, None)
    loop.run_until_complete(everything())
    run.current = run.since = None
