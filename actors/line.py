"""The supervisor's line to the coordinator: single calls over its socket, without an event loop."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable
from typing import Any

import msgspec

from omnimind.client.protocol import Empty, Hello, decode, encode
from omnimind.errors import Unavailable, from_problem
from omnimind.instance import Paths

_HEAD = 4
_LOOK_UP_EVERY = 0.1
_decode_frame = msgspec.msgpack.Decoder(tuple[int, bool, bytes]).decode


def ask(
    paths: Paths,
    method: str,
    timeout: float,
    give_up: Callable[[], bool] = lambda: False,
    *,
    until_closed: bool = False,
) -> Any:
    """Call a method without arguments and return its answer.

    timeout: seconds. give_up: looked at every 0.1 s. until_closed: wait also until the coordinator has
    closed the connection, which it does when it ends. Raises Unavailable, or the coordinator's error.
    """
    until = time.monotonic() + timeout
    received = b""
    answers: list[Any] = []
    try:
        with socket.socket(socket.AF_UNIX) as line:
            line.settimeout(_LOOK_UP_EVERY)
            line.connect(str(paths.socket))
            token = paths.token.read_text(encoding="ascii").strip()
            line.sendall(_frame(0, "hello", Hello(token)) + _frame(1, method, Empty()))
            while len(answers) < 2 or until_closed:  # noqa: PLR2004
                if time.monotonic() > until or give_up():
                    msg = f"the coordinator did not answer `{method}` in time"
                    raise Unavailable(msg)
                with contextlib.suppress(TimeoutError):
                    data = line.recv(65536)
                    if not data:
                        break
                    received += data
                received = _take(received, answers)
    except OSError as error:
        msg = f"no coordinator answers on {paths.socket}"
        raise Unavailable(msg) from error
    if len(answers) < 2:  # noqa: PLR2004
        raise Unavailable("the coordinator hung up")
    return answers[1]


def _frame(number: int, method: str, request: msgspec.Struct) -> bytes:
    body = encode((number, method, encode(request)))
    return len(body).to_bytes(_HEAD, "big") + body


def _take(received: bytes, answers: list[Any]) -> bytes:
    while len(received) >= _HEAD:
        end = _HEAD + int.from_bytes(received[:_HEAD], "big")
        if len(received) < end:
            break
        _, good, body = _decode_frame(received[_HEAD:end])
        if not good:
            raise from_problem(decode(body))
        answers.append(decode(body))
        received = received[end:]
    return received
