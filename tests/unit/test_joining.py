"""Where a head is, and the token that is shown there."""

from __future__ import annotations

import socket
import stat
from pathlib import Path

import pytest

from omnimind import joining
from omnimind.errors import HeadUnreachable, InvalidInput
from omnimind.instance import Paths
from omnimind.joining import Join

TOKEN = "a1" * 32


def test_an_address_is_read() -> None:
    assert Join.parse(" head:6379 ", 3.0) == Join("head", 6379, 3.0)
    assert Join.parse("[fd00::1]:6379").address == "[fd00::1]:6379"
    assert Join.parse("10.0.0.1:1").address == "10.0.0.1:1"


@pytest.mark.parametrize("text", ["head", "head:", ":6379", "head:0", "head:70000", "head:x", ""])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="not HOST:PORT"):
        Join.parse(text)


def test_a_head_that_is_there_shows_this_hosts_address_and_one_that_is_not_says_why() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        join = Join("127.0.0.1", server.getsockname()[1])
        assert join.reach(5.0) == "127.0.0.1"
    with pytest.raises(HeadUnreachable, match="refused"):
        join.reach(5.0)
    with pytest.raises(HeadUnreachable, match="cannot be reached"):
        Join("no-such-host.invalid", 1).reach(5.0)


def test_the_token_is_kept_closed_to_others(tmp_path: Path) -> None:
    paths = Paths(tmp_path / "home")
    joining.take_token(paths, f"{TOKEN}\n", "t")
    assert paths.ray_token.read_text(encoding="ascii") == f"{TOKEN}\n"
    assert stat.S_IMODE(paths.ray_token.stat().st_mode) == 0o600
    joining.take_token(paths, None, "", {})
    other = "b" * 64
    joining.take_token(paths, other, "t")
    assert paths.ray_token.read_text(encoding="ascii").strip() == other


def test_rays_own_places_are_looked_at(tmp_path: Path) -> None:
    by_file = Paths(tmp_path / "one")
    (tmp_path / "token").write_text(TOKEN, encoding="ascii")
    joining.take_token(by_file, None, "", {"RAY_AUTH_TOKEN_PATH": str(tmp_path / "token")})
    assert by_file.ray_token.read_text(encoding="ascii").strip() == TOKEN
    by_variable = Paths(tmp_path / "two")
    joining.take_token(by_variable, None, "", {"RAY_AUTH_TOKEN": TOKEN})
    assert by_variable.ray_token.read_text(encoding="ascii").strip() == TOKEN


@pytest.mark.parametrize("given", ["", "short", "two words that are long enough", "ü" * 40, "x" * 5000])
def test_what_is_no_token_is_refused_and_nothing_is_made(tmp_path: Path, given: str) -> None:
    paths = Paths(tmp_path / "home")
    with pytest.raises(InvalidInput, match="token"):
        joining.take_token(paths, given, "the file")
    with pytest.raises(InvalidInput, match="no token of the cluster here"):
        joining.take_token(paths, None, "", {"RAY_AUTH_TOKEN_PATH": str(tmp_path / "absent")})
    assert not paths.home.exists()


def test_a_token_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text(TOKEN, encoding="ascii")
    path.chmod(0o644)
    with pytest.raises(InvalidInput, match="others can read"):
        joining.read_token_file(path)
    path.chmod(0o600)
    assert joining.read_token_file(path) == TOKEN
    with pytest.raises(InvalidInput, match="cannot read"):
        joining.read_token_file(tmp_path / "absent")
