"""How payloads and results travel: as JSON where that loses nothing, as a pickle otherwise.

JSON: ``None``, `bool`, `int`, finite `float`, `str`, `list`, and `dict` with `str` keys, of exactly
these types all the way down. Anything else (a tuple, a set, bytes, a datetime, a dataclass, an enum, a
numpy number, a dict with other keys) makes the whole value a pickle, so that Python gets back what it
gave; such a value can be read by Python clients only. NaN and infinities in plain containers are refused.
"""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from omnimind.errors import InvalidInput, UnserialisableValue

JSON = "json"
PICKLE = "pickle"

_BLAME_DEPTH = 20
_ATOMS = frozenset({str, int, bool, type(None)})
_json_encode = msgspec.json.Encoder().encode
_json_decode = msgspec.json.Decoder().decode

Path = tuple[Any, ...]


def pickled(value: Any) -> bytes:
    """Return a cloudpickle, which also takes functions and classes of `__main__` along."""
    import cloudpickle  # noqa: PLC0415 (10 ms that JSON users do not pay)

    data: bytes = cloudpickle.dumps(value, protocol=5)
    return data


def encode(value: Any, field: str, dumps: Callable[[Any], bytes] = pickled) -> tuple[bytes, str]:
    """Return a value's bytes and their encoding, ``json`` or ``pickle``.

    field: what errors call the value. Raises InvalidInput for NaN and infinities, naming the place, and
    UnserialisableValue naming the item that cannot be pickled.
    """
    try:
        if _is_json(value, field, ()):
            return _json_encode(value), JSON
    except (RecursionError, UnicodeEncodeError):
        pass  # too deep, circular, or a lone surrogate: a pickle may carry it
    try:
        return dumps(value), PICKLE
    except Exception as error:
        raise _unserialisable(value, field, dumps, error) from error


def decode(data: bytes, encoding: str) -> Any:
    """Return the value again. A pickle runs code: read those only that a worker or a client wrote."""
    return _json_decode(data) if encoding == JSON else pickle.loads(data)  # noqa: S301


def call_value(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Return the payload of a call: its keywords, or ``[args, kwargs]`` where positions are needed."""
    return [list(args), dict(kwargs)] if args else dict(kwargs)


def call_arguments(payload: Any) -> tuple[list[Any], dict[str, Any]]:
    """Return positional and keyword arguments of a decoded payload. Raises InvalidInput for another form."""
    if isinstance(payload, dict):
        return [], payload
    match payload:
        case [list() as args, dict() as kwargs]:
            return args, kwargs
        case _:
            msg = f"a payload is a dict of keywords or [args, kwargs], not {type(payload).__name__}"
            raise InvalidInput(msg, field="payload")


def _is_json(value: Any, field: str, path: Path) -> bool:
    """Return whether JSON gives back this very value. Walks on after a no, to find every NaN."""
    kind = type(value)
    if kind in _ATOMS:
        return True
    if kind is float:
        if math.isfinite(value):
            return True
        msg = f"{value!r} is not a number that JSON knows"
        raise InvalidInput(msg, field=_place(field, path), hint="use None, or leave it out")
    plain = True
    if kind is dict:
        for key, item in value.items():
            if type(key) is not str:
                plain = False
            if type(item) not in _ATOMS and not _is_json(item, field, (*path, key)):
                plain = False
        return plain
    if kind in (list, tuple, set, frozenset):
        for index, item in enumerate(value):
            if type(item) not in _ATOMS and not _is_json(item, field, (*path, index)):
                plain = False
        return plain and kind is list
    return False


def _place(field: str, path: Path) -> str:
    return field + "".join(f".{p}" if isinstance(p, str) else f"[{p!r}]" for p in path)


def _unserialisable(
    value: Any, field: str, dumps: Callable[[Any], bytes], error: Exception, depth: int = 0
) -> UnserialisableValue:
    items: list[tuple[Any, Any]] = []
    match value:
        case dict() if depth < _BLAME_DEPTH:
            items = list(value.items())
        case list() | tuple() if depth < _BLAME_DEPTH:
            items = list(enumerate(value))
        case _:
            pass
    for key, item in items:
        try:
            dumps(item)
        except Exception as cause:  # noqa: BLE001 (a user's object raises whatever it likes)
            return _unserialisable(item, _place(field, (key,)), dumps, cause, depth + 1)
    msg = f"a {type(value).__name__} can be sent neither as JSON nor as a pickle: {error}"
    hint = "send what it is made from (a path, an id, the data itself) and make the object in the handler"
    return UnserialisableValue(msg, field=field, hint=hint)
