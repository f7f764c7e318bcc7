"""`local` and `alocal`: a whole OmniMind that ends with a block, for scripts and tests.

It is a real instance (Ray, coordinator, ledger) in a home of its own. It also ends with this process,
however that ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

from omnimind import config, launch
from omnimind.client.client import AsyncClient
from omnimind.client.sync import Client, connect
from omnimind.instance import home_path

PathLike = str | os.PathLike[str]


@contextlib.contextmanager
def local(
    num_cpus: int | None = None,
    *,
    home: PathLike | None = None,
    working_dir: PathLike | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Iterator[Client]:
    """Start an instance, give the block a client of it, and stop it at the end.

    ::

        with omnimind.local() as om:
            print(om.submit(handler, x=1).result())

    num_cpus: cores that tasks may use (default: all). home: where it keeps its files; what is queued there
    goes on at the next start. None takes a temporary folder, gone at the end. working_dir: as for
    `omnimind.connect`. settings: further ones by name (``{"coordinator.slots": 8}``, see `omnimind config`);
    Ray's dashboard is off unless they say otherwise.

    Takes some seconds. Raises InstanceError with the reason, ConfigError.
    """
    with _folder(home) as folder:
        instance = launch.start(folder, _settings(folder, num_cpus, settings))
        try:
            with connect(folder, working_dir=working_dir) as client:
                yield client
        finally:
            instance.stop()


@contextlib.asynccontextmanager
async def alocal(
    num_cpus: int | None = None,
    *,
    home: PathLike | None = None,
    working_dir: PathLike | None = None,
    settings: Mapping[str, Any] | None = None,
) -> AsyncIterator[AsyncClient]:
    """Do what `local` does, as an asynchronous context manager that gives an `AsyncClient`."""
    with _folder(home) as folder:
        starting = asyncio.ensure_future(
            asyncio.to_thread(launch.start, folder, _settings(folder, num_cpus, settings))
        )
        try:
            await asyncio.shield(starting)
            async with AsyncClient(folder, working_dir=working_dir) as client:
                yield client
        finally:
            # Also where the start was given up: the thread goes on with it, and it must not be left alone.
            with contextlib.suppress(Exception):
                await asyncio.to_thread((await starting).stop)


@contextlib.contextmanager
def _folder(home: PathLike | None) -> Iterator[Path]:
    if home is not None:
        yield home_path(home)
        return
    folder = Path(tempfile.mkdtemp(prefix="omnimind-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _settings(folder: Path, num_cpus: int | None, given: Mapping[str, Any] | None) -> config.Settings:
    flags = {"ray.dashboard": "false"}
    if num_cpus is not None:
        flags["ray.num_cpus"] = str(num_cpus)
    for name, value in (given or {}).items():
        flags[name] = str(value).lower() if isinstance(value, bool) else str(value)
    return config.load(folder, flags)
