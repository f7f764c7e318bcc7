"""The API as a Ray Serve application: each replica holds a connection to the coordinator, and no state."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
from fastapi import FastAPI
from ray import serve as ray_serve

from omnimind.client.client import AsyncClient
from omnimind.instance import Paths
from serve.app import build
from serve.auth import Door, Sessions
from serve.book import CoordinatorBook

NAME = "omnimind"
"""The Serve application's name, as the Ray dashboard shows it."""

_ONGOING = 200
"""Requests that a replica works on at one time; most of them wait for the coordinator."""


class ApiOptions(msgspec.Struct, frozen=True):
    """What a replica is started with.

    home: the instance's folder; its socket is used where it is on the same host, Ray elsewhere.
    admin: `roles.digest_of` the instance's own token. key: signs session cookies, the same in all replicas.
    """

    home: str
    admin: str
    key: bytes
    cors: tuple[str, ...] = ()
    replicas: tuple[int, int] = (1, 1)


@ray_serve.ingress()
class Api:
    """One replica."""

    async def __init__(self, options: bytes) -> None:  # type: ignore[misc]  # Serve awaits it
        self._options = msgspec.msgpack.decode(options, type=ApiOptions)
        home = Path(self._options.home)
        here = Paths(home).socket.exists()
        self._client = AsyncClient(home if here else None, address=None if here else "ray")

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Return the app, for Serve."""
        options = self._options
        book = CoordinatorBook(self._client.ask, options.admin)
        door = Door(book, Sessions(options.key))
        return build(self._client, door, cors=options.cors)

    async def check_health(self) -> None:
        """Stay in service also while the coordinator is away: requests are answered with 503 meanwhile."""


def application(options: ApiOptions) -> Any:
    """Return the application, ready for `ray.serve.run`."""
    least, most = options.replicas
    deployment: Any = ray_serve.deployment(Api)
    return deployment.options(
        name="Api",
        max_ongoing_requests=_ONGOING,
        autoscaling_config={"min_replicas": least, "max_replicas": most, "initial_replicas": least},
        ray_actor_options={"num_cpus": 0},
        graceful_shutdown_timeout_s=5,
    ).bind(msgspec.msgpack.encode(options))
