"""Calls to the coordinator as a Ray actor, for drivers in a Ray cluster. Imports Ray in functions only."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import os
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omnimind.client.code import BLOB_MAX, Folder
from omnimind.client.package import pack_folder
from omnimind.client.protocol import Hello, decode, encode
from omnimind.client.transport import UNREPEATABLE
from omnimind.errors import InvalidInput, OmniMindError, Unavailable, from_problem
from omnimind.ids import digest_of

ACTOR = "coordinator"
"""Of shard 0; of shard n: ``coordinator-n``."""
NAMESPACE = "omnimind"
_BACKOFF_FIRST = 0.1
_BACKOFF_LAST = 2.0


def in_ray() -> bool:
    """Return whether this process is connected to Ray already, or was started by a Ray job."""
    return _initialised() or "RAY_ADDRESS" in os.environ or "RAY_JOB_ID" in os.environ


def job_folder() -> Folder | None:
    """Return the working folder of this process's Ray job, packed by Ray, where there is one.

    OmniMind stores it itself, since Ray drops the package some time after the job has ended. Raises
    InvalidInput when it is too large for that.
    """
    if not _initialised():
        return _submitted_folder()
    import ray  # noqa: PLC0415
    from ray.experimental import internal_kv  # noqa: PLC0415

    uri = str(ray.get_runtime_context().runtime_env.get("working_dir") or "")
    # What lies elsewhere (https, s3) has no copy in Ray's own store.
    data: bytes | None = internal_kv._internal_kv_get(uri) if uri.startswith("gcs://") else None  # noqa: SLF001
    if data is None:
        return None
    if len(data) > BLOB_MAX:
        msg = f"the Ray job's working_dir has {len(data) >> 20} MiB packed, at most {BLOB_MAX >> 20} travel"
        hint = "give connect(working_dir=…) a folder with what the handlers need"
        raise InvalidInput(msg, field="working_dir", hint=hint)
    with zipfile.ZipFile(io.BytesIO(data)) as packed:
        names = [name for name in packed.namelist() if not name.endswith("/")][:20]
    places = [Path.cwd(), *map(Path, sys.path)]
    here = next((p for p in places if all((p / name).is_file() for name in names)), Path(os.devnull))
    return Folder(path=here.resolve(), data=data, digest=digest_of(data))


def _submitted_folder() -> Folder | None:
    """Return the folder that `ray job submit` unpacked for this driver, which has not connected to Ray."""
    job = json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR") or "{}")
    uri = str((job.get("runtime_env") or {}).get("working_dir") or "")
    name = uri.rpartition("/")[2].removesuffix(".zip")
    here = Path.cwd()
    found = [folder for folder in (here, *here.parents) if name and folder.name == name]
    return pack_folder(found[0]) if found else None


class RayTransport:
    """A `Transport` over `call_ray` of the coordinator's actor.

    environment: variables by which Ray finds the cluster, for a process that is not connected to Ray yet
    (RAY_ADDRESS among them, else Ray's own rules hold). patience: seconds for which a call waits for a
    coordinator that is being restarted. shard: whose coordinator is meant.
    """

    def __init__(self, environment: Mapping[str, str], *, patience: float = 30.0, shard: int = 0) -> None:
        self._environment = environment
        self._name = f"{ACTOR}-{shard}" if shard else ACTOR
        self.info: dict[str, Any] = {}
        self._patience = patience
        self._actor: Any = None

    async def connect(self) -> dict[str, Any]:
        await asyncio.to_thread(self._attach)
        self.info = decode(await self.call("hello", encode(Hello(token="")), self._patience))
        return self.info

    async def call(self, method: str, body: bytes, timeout: float | None = None) -> bytes:
        loop = asyncio.get_running_loop()
        give_up = loop.time() + (self._patience if timeout is None else timeout)
        pause = _BACKOFF_FIRST
        while True:
            try:
                if self._actor is None:
                    await asyncio.to_thread(self._attach)
                async with asyncio.timeout_at(None if timeout is None else give_up):
                    return await self._once(method, body)
            except Unavailable as error:
                if loop.time() + pause > give_up or (error.details.get("sent") and method in UNREPEATABLE):
                    raise
            except TimeoutError as error:
                msg = f"no answer to `{method}` within {timeout:g} s"
                raise Unavailable(msg) from error
            await asyncio.sleep(pause)
            pause = min(pause * 1.6, _BACKOFF_LAST)

    async def _once(self, method: str, body: bytes) -> bytes:
        import ray.exceptions  # noqa: PLC0415

        try:
            # By keyword: where `actors` cannot be imported (the user has a package of that name), Ray puts a
            # class in its place whose methods take no positional arguments.
            ref = self._actor.call_ray.remote(method=method, body=body)
            good, answer = await asyncio.wrap_future(ref.future())
        except ray.exceptions.RayTaskError as error:
            msg = f"the coordinator failed in `{method}`: {error.cause}"
            raise OmniMindError(msg) from error
        except ray.exceptions.RayError as error:
            self._actor = None
            hint = "it may have been done all the same: look before you repeat it"
            msg = f"the coordinator went away during `{method}`: {type(error).__name__}"
            raise Unavailable(msg, hint=hint if method in UNREPEATABLE else None, sent=True) from error
        if not good:
            raise from_problem(decode(answer))
        data: bytes = answer
        return data

    async def close(self) -> None:
        """Leave Ray as it is: others in this process may use it."""
        self._actor = None

    def _attach(self) -> None:
        """Connect this process to Ray where needed, and find the actor. Blocks; raises Unavailable."""
        if not _initialised():
            # Before the import: Ray reads some of it then. The keep-alives let a call notice a link that
            # was cut without a word; otherwise it would wait until TCP does, a quarter of an hour.
            os.environ.update(self._environment)
            for name in ("time", "timeout"):
                os.environ.setdefault(f"RAY_grpc_client_keepalive_{name}_ms", "2000")
        import ray  # noqa: PLC0415

        try:
            if not ray.is_initialized():
                # "auto" finds a cluster or fails; without it Ray would start one of its own.
                address = os.environ.get("RAY_ADDRESS", "auto")
                ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
            self._actor = ray.get_actor(self._name, namespace=NAMESPACE)
        except ValueError as error:
            msg = "Ray runs here, but no OmniMind in it"
            raise Unavailable(msg) from error
        except Exception as error:
            msg = f"Ray cannot be reached: {error}"
            raise Unavailable(msg) from error


def _initialised() -> bool:
    ray: Any = sys.modules.get("ray")
    return ray is not None and bool(ray.is_initialized())
