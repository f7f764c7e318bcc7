from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from omnimind import instance
from omnimind.errors import HomeUnusable
from omnimind.instance import Paths, Record
from omnimind.processes import Process, identify


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def long_home(tmp_path: Path) -> Path:
    home = tmp_path / ("deep" * 20) / ("home" * 10)
    home.mkdir(parents=True)
    return home


def test_the_home_is_given_or_named_by_the_environment_or_the_xdg_state_folder(tmp_path: Path) -> None:
    env = {"OMNIMIND_HOME": str(tmp_path / "b")}
    assert instance.home_path(tmp_path / "a" / ".." / "c", env) == tmp_path / "c"
    assert instance.home_path(None, env) == tmp_path / "b"
    assert instance.home_path("~/x", {}) == Path.home().resolve() / "x"
    assert instance.home_path(None, {}).name == "omnimind"


def test_a_home_is_made_private(tmp_path: Path) -> None:
    home = tmp_path / "open"
    home.mkdir(mode=0o755)
    paths = Paths(home)
    instance.prepare(paths)
    for folder in (home, paths.run, paths.logs, paths.packages, paths.ray):
        assert mode(folder) == 0o700
    for token in (paths.token, paths.ray_token):
        assert mode(token) == 0o600
        assert len(bytes.fromhex(token.read_text(encoding="ascii"))) == 32
    assert paths.token.read_bytes() != paths.ray_token.read_bytes()


def test_tokens_are_made_once_and_closed_again(tmp_path: Path) -> None:
    path = tmp_path / "token"
    token = instance.make_token(path)
    path.chmod(0o644)
    assert instance.make_token(path) == token
    assert mode(path) == 0o600
    path.write_text("\n", encoding="ascii")
    assert len(instance.make_token(path)) == 64


def test_a_token_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(HomeUnusable, match=str(path)):
        instance.make_token(path)


def test_a_home_below_a_file_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(HomeUnusable, match=f"{tmp_path}/file/home") as caught:
        instance.prepare(Paths(tmp_path / "file" / "home"))
    assert caught.value.field == "OMNIMIND_HOME"


def test_homes_have_different_markers_and_aliases(tmp_path: Path) -> None:
    one, two = Paths(tmp_path / "one"), Paths(tmp_path / "two")
    assert one.marker != two.marker
    assert one.alias != two.alias
    assert one.marker == Paths(str(tmp_path / "one")).marker


def test_a_short_home_needs_no_alias() -> None:
    paths = Paths("/srv/om")
    assert not paths.needs_alias
    assert paths.socket == Path("/srv/om/run/coordinator.sock")
    assert paths.ray_temp == paths.ray


def test_a_long_home_is_reached_by_its_alias(tmp_path: Path) -> None:
    paths = Paths(long_home(tmp_path))
    instance.prepare(paths)
    instance.make_alias(paths)
    instance.make_alias(paths)
    try:
        assert paths.needs_alias
        assert len(os.fsencode(paths.socket)) <= instance.SOCKET_PATH_MAX
        assert len(os.fsencode(paths.ray_temp)) + 65 <= instance.SOCKET_PATH_MAX
        with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
            server.bind(str(paths.socket))
            server.listen()
            client.connect(str(paths.socket))
        assert (paths.run / "coordinator.sock").is_socket()
        assert mode(paths.alias.parent) == 0o700
    finally:
        instance.remove_alias(paths)
    assert not paths.alias.is_symlink()


def test_an_alias_that_leads_elsewhere_is_laid_anew(tmp_path: Path) -> None:
    paths = Paths(long_home(tmp_path))
    instance.make_alias(paths)
    try:
        paths.alias.unlink()
        paths.alias.symlink_to(tmp_path)
        instance.remove_alias(paths)
        assert paths.alias.is_symlink(), "somebody else's alias is not ours to remove"
        instance.make_alias(paths)
        assert paths.alias.readlink() == paths.home
    finally:
        paths.alias.unlink()
        instance.remove_alias(paths)


@pytest.mark.parametrize("plant", ["link", "open", "file"])
def test_an_alias_folder_that_others_could_have_laid_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plant: str
) -> None:
    monkeypatch.setattr(instance, "_ALIASES", tmp_path)
    paths = Paths(long_home(tmp_path))
    folder = paths.alias.parent
    match plant:
        case "link":
            (tmp_path / "elsewhere").mkdir()
            folder.symlink_to(tmp_path / "elsewhere")
        case "open":
            folder.mkdir()
            folder.chmod(0o777)
        case _:
            folder.touch()
    with pytest.raises(HomeUnusable, match=str(folder)):
        instance.make_alias(paths)
    with pytest.raises(HomeUnusable, match=str(folder)):
        _ = paths.socket


def test_the_record_is_read_back_and_counts_only_while_its_process_lives(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    instance.prepare(paths)
    assert instance.running(paths) is None
    me = identify(os.getpid())
    assert me is not None
    record = Record(home=str(tmp_path), versions={}, supervisor=me, started_at=1.5, children={"ray": me})
    instance.write_record(paths, record)
    assert instance.read_record(paths) == record
    assert instance.running(paths) == record
    assert mode(paths.record) == 0o600
    recycled = Process(me.pid, me.started + 1, me.boot)
    instance.write_record(paths, Record(home=str(tmp_path), versions={}, supervisor=recycled, started_at=1.5))
    assert instance.running(paths) is None
    paths.record.write_text("{", encoding="utf-8")
    assert instance.read_record(paths) is None


def test_a_driver_gets_what_it_needs_to_reach_ray(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    me = identify(os.getpid())
    assert me is not None
    record = Record(
        home=str(tmp_path), versions={}, supervisor=me, started_at=0, ray_address="127.0.0.1:7000"
    )
    env = instance.ray_environment(paths, record)
    assert env["RAY_ADDRESS"] == "127.0.0.1:7000"
    assert env["RAY_AUTH_MODE"] == "token"
    assert env["RAY_AUTH_TOKEN_PATH"] == str(paths.ray_token)
    assert env["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] == "0"
    assert "RAY_ADDRESS" not in instance.ray_environment(paths)
    far = Record(home=str(tmp_path), versions={}, supervisor=me, started_at=0, ray_address="10.0.0.7:7000")
    assert "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER" not in instance.ray_environment(paths, far)
