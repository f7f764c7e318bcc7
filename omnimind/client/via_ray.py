"""Calls to the coordinator as a Ray actor, for drivers in a Ray cluster. Imports Ray in functions only."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

from omnimind.client.protocol import Empty, decode, encode
from omnimind.client.transport import UNREPEATABLE
from omnimind.errors import InvalidInput, OmniMindError, Unavailable

ACTOR = "coordinator"
NAMESPACE = "omnimind"
_BACKOFF_FIRST = 0.1
_BACKOFF_LAST = 2.0


def in_ray() -> bool:
    """Return whether this process is connected to Ray already, or was started by a Ray job."""
    return _initialised() or "RAY_ADDRESS" in os.environ or "RAY_JOB_ID" in os.environ


def job_folder() -> Path | None:
    """Return the working folder that this process's Ray job was given, where it can be found here."""
    if not _initialised():
        return None
    import ray  # noqa: PLC0415

    uri = str(ray.get_runtime_context().runtime_env.get("working_dir") or "")
    if not uri:
        return None
    if "://" not in uri:
        return Path(uri) if Path(uri).is_dir() else None
    # Ray names the unpacked copy after the package; a submitted job's driver starts inside it.
    name = uri.rpartition("/")[2].removesuffix(".zip")
    for place in (Path.cwd(), *map(Path, sys.path)):
        for folder in (place, *place.parents):
            if folder.name == name:
                return folder
    return None


class RayTransport:
    """A `Transport` over `call.remote(method, body)` of the coordinator's actor.

    address: what Ray is initialised with when this process is not connected yet (None: Ray's own rules).
    token: of the Ray cluster, for that case. patience: seconds for which a call waits for a coordinator
    that is being restarted.
    """

    def __init__(
        self, address: str | None = None, token: str | None = None, *, patience: float = 30.0
    ) -> None:
        self._address = address
        self._token = token
        self._patience = patience
        self._actor: Any = None

    async def connect(self) -> dict[str, Any]:
        await asyncio.to_thread(self._attach)
        answer = await self.call("ping", encode(Empty()), self._patience)
        return {"version": 1, **decode(answer)}

    async def call(self, method: str, body: bytes, timeout: float | None = None) -> bytes:
        import ray.exceptions  # noqa: PLC0415

        loop = asyncio.get_running_loop()
        give_up = loop.time() + (self._patience if timeout is None else timeout)
        pause = _BACKOFF_FIRST
        while True:
            try:
                if self._actor is None:
                    await asyncio.to_thread(self._attach)
                async with asyncio.timeout_at(None if timeout is None else give_up):
                    answer: bytes = await asyncio.wrap_future(self._actor.call.remote(method, body).future())
                    return answer
            except ray.exceptions.RayTaskError as error:
                raise _cause_of(error, method) from None
            except ray.exceptions.RayActorError as error:
                self._actor = None
                trouble = Unavailable(f"the coordinator went away during `{method}`: {type(error).__name__}")
                if method in UNREPEATABLE:
                    trouble.hint = "it may have been done all the same: look before you repeat it"
                    raise trouble from error
            except Unavailable as error:
                trouble = error
            except TimeoutError as error:
                msg = f"no answer to `{method}` within {timeout:g} s"
                raise Unavailable(msg) from error
            if loop.time() + pause > give_up:
                raise trouble
            await asyncio.sleep(pause)
            pause = min(pause * 1.6, _BACKOFF_LAST)

    async def close(self) -> None:
        """Leave Ray as it is: others in this process may use it."""
        self._actor = None

    def _attach(self) -> None:
        """Connect this process to Ray where needed, and find the actor. Blocks; raises Unavailable."""
        import ray  # noqa: PLC0415

        if not ray.is_initialized():
            if self._token is not None:
                os.environ["RAY_AUTH_MODE"] = "token"
                os.environ["RAY_AUTH_TOKEN"] = self._token
            try:
                # "auto" finds a cluster or fails; without it Ray would start one of its own.
                ray.init(address=self._address or "auto", log_to_driver=False)
            except Exception as error:
                msg = f"Ray cannot be reached: {error}"
                raise Unavailable(msg) from error
        try:
            self._actor = ray.get_actor(ACTOR, namespace=NAMESPACE)
        except ValueError as error:
            msg = "Ray runs here, but no OmniMind in it"
            raise Unavailable(msg) from error
        except Exception as error:
            msg = f"Ray does not find the coordinator: {error}"
            raise Unavailable(msg) from error


def _initialised() -> bool:
    ray: Any = sys.modules.get("ray")
    return ray is not None and bool(ray.is_initialized())


def _cause_of(error: Any, method: str) -> OmniMindError:
    """Return the coordinator's own error from what Ray wraps around it."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, OmniMindError):
        return cause
    if isinstance(cause, TypeError | ValueError):
        return InvalidInput(f"`{method}`: {cause}")
    return OmniMindError(f"the coordinator failed in `{method}`: {cause or error}")
