"""The cluster as a whole: status, task types, audit."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from serve import schemas as s
from serve.api.common import errors
from serve.auth import Operator, Viewer
from serve.backend import answer, ask
from serve.views import audit_view, status_view

router = APIRouter(tags=["cluster"])


@router.get(
    "/cluster/status", operation_id="getStatus", responses={200: {"model": s.ClusterStatus}, **errors()}
)
async def status(request: Request, _who: Viewer) -> Response:
    """Return the cluster at a glance."""
    return answer(status_view(await ask(request, "status")))


@router.get("/handlers", operation_id="listHandlers", responses={200: {"model": list[s.Handler]}, **errors()})
async def handlers(request: Request, _who: Viewer) -> Response:
    """Return the registered task types, which is what a submission may name."""
    return answer(await ask(request, "handlers"))


@router.get("/audit", operation_id="listAudit", responses={200: {"model": list[s.AuditEntry]}, **errors()})
async def audit(request: Request, _who: Operator) -> Response:
    """Return who changed what, newest first."""
    return answer([audit_view(entry) for entry in await ask(request, "audit")])
