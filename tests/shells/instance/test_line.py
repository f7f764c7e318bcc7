from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from actors import line
from omnimind import instance
from omnimind.client.protocol import encode
from omnimind.errors import Forbidden, Unavailable
from omnimind.instance import Paths


class FakeCoordinator:
    """Sends what it was told to, once somebody has asked, and keeps what was asked."""

    def __init__(self, paths: Paths) -> None:
        self.asked: list[tuple[int, str, bytes]] = []
        self.answers: list[bytes] = []
        self.hang_up = True
        self.released = threading.Event()
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(paths.socket))
        self._socket.listen()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        connection, _ = self._socket.accept()
        with connection:
            received = b""
            while len(self.asked) < 2 and (data := connection.recv(4096)):
                received += data
                while len(received) >= 4 and len(received) >= (
                    end := 4 + int.from_bytes(received[:4], "big")
                ):
                    frame = msgspec.msgpack.decode(received[4:end], type=tuple[int, str, bytes])
                    self.asked.append(frame)
                    received = received[end:]
            for part in self.answers:
                connection.sendall(part)
            if not self.hang_up:
                self.released.wait(60)

    def close(self) -> None:
        self.released.set()
        # Wakes it up where nobody has called.
        with socket.socket(socket.AF_UNIX) as poke:
            poke.connect(self._socket.getsockname())
        self._thread.join(60)
        self._socket.close()


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    paths = Paths(tmp_path)
    instance.prepare(paths)
    return paths


@pytest.fixture
def server(paths: Paths) -> Iterator[FakeCoordinator]:
    fake = FakeCoordinator(paths)
    yield fake
    fake.close()


def answer(number: int, value: object, *, good: bool = True) -> bytes:
    body = encode((number, good, encode(value)))
    return len(body).to_bytes(4, "big") + body


def test_a_call_shows_the_token_first_and_returns_the_answer(paths: Paths, server: FakeCoordinator) -> None:
    whole = answer(0, {"version": 1}) + answer(1, "pong")
    server.answers = [whole[:3], whole[3:20], whole[20:]]
    assert line.ask(paths, "ping", 30.0) == "pong"
    (_, first, hello), (_, second, _) = server.asked
    assert (first, second) == ("hello", "ping")
    assert msgspec.msgpack.decode(hello)["token"] == paths.token.read_text(encoding="ascii").strip()


def test_the_coordinators_error_is_raised(paths: Paths, server: FakeCoordinator) -> None:
    server.answers = [answer(0, Forbidden("wrong token").to_problem(), good=False)]
    with pytest.raises(Forbidden, match="wrong token"):
        line.ask(paths, "ping", 30.0)


def test_a_coordinator_that_hangs_up_is_unavailable(paths: Paths, server: FakeCoordinator) -> None:
    server.answers = [answer(0, {})]
    with pytest.raises(Unavailable):
        line.ask(paths, "ping", 30.0)


def test_waiting_for_the_end_ends_when_the_line_is_closed(paths: Paths, server: FakeCoordinator) -> None:
    server.answers = [answer(0, {}), answer(1, None)]
    assert line.ask(paths, "shutdown", 30.0, until_closed=True) is None


def test_a_call_can_be_given_up(paths: Paths, server: FakeCoordinator) -> None:
    server.hang_up = False
    looks = iter([False, False, True])
    with pytest.raises(Unavailable, match="in time"):
        line.ask(paths, "shutdown", 60.0, lambda: next(looks))


def test_a_call_ends_with_its_time(paths: Paths, server: FakeCoordinator) -> None:
    server.hang_up = False
    with pytest.raises(Unavailable, match="in time"):
        line.ask(paths, "ping", 0.0)


def test_no_coordinator_is_unavailable(paths: Paths) -> None:
    with pytest.raises(Unavailable, match=str(paths.socket)):
        line.ask(paths, "ping", 1.0)
