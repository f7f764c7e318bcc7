"""The app put together: routers, errors, limits, probes."""

from __future__ import annotations

from importlib.metadata import version

from fastapi import FastAPI, Request
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response

from omnimind.client.client import AsyncClient
from omnimind.errors import OmniMindError
from serve import limits, problems
from serve.api import ROUTERS
from serve.auth import Door
from serve.backend import answer, ask

PREFIX = "/api/v1"
_DESCRIPTION = (
    "Durable tasks, the machines that run them, and why they are where they are. Errors are RFC 9457 problem "
    "documents. Times are RFC 3339 in UTC, durations seconds. Every route under /api needs a token."
)


def build(client: AsyncClient, door: Door, *, cors: tuple[str, ...] = ()) -> FastAPI:
    """Return the app of one replica.

    client: the way to the coordinator. door: who comes in. cors: origins of other sites whose pages may
    call this API; none by default.
    """
    app = FastAPI(
        title="OmniMind",
        version=version("omnimind-runtime"),
        description=_DESCRIPTION,
        openapi_url=f"{PREFIX}/openapi.json",
        docs_url=None,
        redoc_url=None,
    )
    app.state.client = client
    app.state.door = door
    problems.install(app)
    for router in ROUTERS:
        app.include_router(router, prefix=PREFIX)
    _add_probes(app)
    if cors:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(cors),
            allow_methods=["GET", "POST", "PUT", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "Idempotency-Key"],
            expose_headers=["Link", "Location", "Retry-After"],
        )
    app.add_middleware(limits.Limits)
    return app


def _add_probes(app: FastAPI) -> None:
    @app.get("/healthz", operation_id="healthz", tags=["probes"])
    async def healthz() -> dict[str, str]:
        """Say that this process answers."""
        return {"status": "ok"}

    @app.get(
        "/readyz", operation_id="readyz", tags=["probes"], responses={503: {"description": "Not ready."}}
    )
    async def readyz(request: Request) -> Response:
        """Say whether the coordinator and its ledger can be reached; no detail for strangers."""
        try:
            await ask(request, "ping")
        except OmniMindError:
            return answer({"status": "unavailable"}, 503, {"Retry-After": "1"})
        return answer({"status": "ok"})
