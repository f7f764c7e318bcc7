from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import omnimind
from omnimind import AsyncClient, InvalidInput, Unavailable, task
from omnimind.client import connect as connecting
from omnimind.client import via_ray
from omnimind.client.package import pack_folder
from omnimind.errors import Forbidden
from omnimind.instance import Paths, prepare
from omnimind.testing.fake import FakeCoordinator
from omnimind.testing.transport import FakeServer


@task
def double(x: int) -> int:
    return 2 * x


@pytest.fixture(autouse=True)
def _no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_ADDRESS", "RAY_JOB_ID", "RAY_JOB_CONFIG_JSON_ENV_VAR", "OMNIMIND_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(connecting, "FIRST_TRY", 0.2)


@pytest.fixture
async def home(fake: FakeCoordinator, tmp_path: Path) -> AsyncIterator[Path]:
    """Return a home whose socket is served, as by a running instance."""
    paths = Paths(tmp_path / "home")
    prepare(paths)
    async with FakeServer(fake, paths.socket, paths.token.read_text().strip()):
        yield paths.home


async def in_thread(program: Any) -> Any:
    return await asyncio.to_thread(program)


async def test_connect_finds_the_home_it_is_told(home: Path) -> None:
    def program() -> int:
        with omnimind.connect(home) as om:
            return om.submit(double, 21).result(5)

    assert await in_thread(program) == 42


async def test_connect_finds_the_home_of_the_environment(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMNIMIND_HOME", str(home))
    async with AsyncClient() as om:
        assert await (await om.submit(double, 21)) == 42


async def test_a_client_connects_at_its_first_call(home: Path) -> None:
    om = AsyncClient(home)
    assert await (await om.submit(double, 1)) == 2
    await om.close()


async def test_a_token_may_be_given(home: Path) -> None:
    token = (home / "token").read_text().strip()
    (home / "token").write_text("something else")
    async with AsyncClient(home, token=token) as om:
        assert await om.ping()
    with pytest.raises(Forbidden):
        await AsyncClient(home).ping()


def test_without_an_instance_it_says_how_to_start_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Unavailable, match=f"omnimind up --detach --home {tmp_path}"):
        omnimind.connect(tmp_path)
    monkeypatch.setenv("OMNIMIND_HOME", str(tmp_path))
    with pytest.raises(Unavailable, match=r"omnimind up --detach\)"):
        omnimind.connect()


def test_a_socket_that_nobody_serves_is_tried_for_a_moment(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    prepare(paths)
    paths.socket.touch()
    with pytest.raises(Unavailable, match="no coordinator answers"):
        omnimind.connect(tmp_path)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"address": "https://host:8000"}, "token"),
        ({"address": "http://host:8000", "home": "x"}, "address"),
        ({"address": "ray://host:10001"}, "address"),
        ({"address": "somewhere"}, "address"),
        ({"address": 17}, "address"),
        ({"address": "host:6379", "home": "/x"}, "address"),
        ({"timeout": 0}, "timeout"),
        ({"timeout": -3}, "timeout"),
        ({"timeout": float("nan")}, "timeout"),
    ],
)
def test_bad_arguments_are_named(options: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        omnimind.connect(**options)
    assert caught.value.field == field
    assert caught.value.hint or field == "timeout"


async def test_a_working_folder_travels_with_the_handlers(
    home: Path, fake: FakeCoordinator, tmp_path: Path
) -> None:
    (tmp_path / "app.py").write_text("x = 1")
    async with AsyncClient(home, working_dir=tmp_path / "home") as om:
        await (await om.submit(double, 1))
    [spec] = fake.specs.values()
    assert spec.package in fake.blobs
    with pytest.raises(InvalidInput) as caught:
        await AsyncClient(home, working_dir=tmp_path / "nowhere").ping()
    assert caught.value.field == "working_dir"


async def test_by_ray_only_where_there_is_one(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="in no Ray cluster"):
        await AsyncClient(tmp_path, address="ray").ping()


async def test_a_process_in_a_cluster_goes_by_ray_when_no_socket_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    went: list[dict[str, str]] = []

    class Elsewhere(via_ray.RayTransport):
        async def connect(self) -> dict[str, Any]:
            went.append(dict(self._environment))
            raise Unavailable("not here")

    monkeypatch.setattr(connecting, "RayTransport", Elsewhere)
    monkeypatch.setenv("OMNIMIND_HOME", str(tmp_path))
    monkeypatch.setenv("RAY_JOB_ID", "01000000")
    assert via_ray.in_ray()
    with pytest.raises(Unavailable, match="not here"):
        await AsyncClient().ping()
    with pytest.raises(Unavailable, match="not here"):
        await AsyncClient(address="10.0.0.1:6379", token="t").ping()
    assert went == [
        {},
        {"RAY_ADDRESS": "10.0.0.1:6379", "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "t"},
    ]
    with pytest.raises(Unavailable, match="no instance"):
        await AsyncClient(tmp_path).ping()


def test_a_process_without_a_ray_job_has_no_job_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    assert via_ray.job_folder() is None
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", '{"runtime_env": {}, "metadata": {}}')
    assert via_ray.job_folder() is None


def test_a_submitted_driver_travels_with_the_folder_that_it_runs_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "_ray_pkg_0123abcd"
    (place / "sub").mkdir(parents=True)
    (place / "app.py").write_text("x = 1")
    job = {"runtime_env": {"working_dir": "gcs://_ray_pkg_0123abcd.zip"}}
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps(job))
    monkeypatch.chdir(place / "sub")
    found = via_ray.job_folder()
    assert found == pack_folder(place)
    monkeypatch.chdir(tmp_path)
    assert via_ray.job_folder() is None
