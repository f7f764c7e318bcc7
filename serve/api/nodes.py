"""Nodes: machines, what runs on them, and taking them out of work."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Request
from starlette.responses import Response

from omnimind.client.protocol import NameRequest, NodeRequest
from serve import schemas as s
from serve.api.common import Plan, errors
from serve.auth import Identity, Operator, Viewer
from serve.backend import answer, ask
from serve.views import explain_view, node_view

router = APIRouter(prefix="/nodes", tags=["nodes"])

Id = Annotated[s.Name, Path()]


@router.get("", operation_id="listNodes", responses={200: {"model": list[s.Node]}, **errors()})
async def list_nodes(request: Request, _who: Viewer) -> Response:
    """Return all nodes."""
    return answer([node_view(node) for node in await ask(request, "nodes")])


@router.get("/{node_id}", operation_id="getNode", responses={200: {"model": s.NodeDetail}, **errors(404)})
async def get(request: Request, _who: Viewer, node_id: Id) -> Response:
    """Return one node with what runs on it."""
    return answer(node_view(await ask(request, "node", NameRequest(name=node_id))))


@router.get(
    "/{node_id}/explain", operation_id="explainNode", responses={200: {"model": s.Explanation}, **errors(404)}
)
async def explain(request: Request, _who: Viewer, node_id: Id) -> Response:
    """Say why a node is in its state."""
    return answer(explain_view(await ask(request, "explain", NameRequest(name=node_id))))


@router.post(
    "/{node_id}/cordon",
    operation_id="cordonNode",
    responses={200: {"model": s.NodeChange}, **errors(404, 409)},
)
async def cordon(
    request: Request, who: Operator, node_id: Id, body: s.Reason | None = None, plan: Plan = False
) -> Response:
    """Start nothing new on a node; what runs goes on."""
    return await _control(request, who, NodeRequest(node_id, "cordon", plan=plan), body)


@router.post(
    "/{node_id}/drain", operation_id="drainNode", responses={200: {"model": s.NodeChange}, **errors(404, 409)}
)
async def drain(
    request: Request, who: Operator, node_id: Id, body: s.Drain | None = None, plan: Plan = False
) -> Response:
    """Cordon a node, and move what still runs at the deadline. `?plan=true` shows what that would be."""
    deadline = body.deadline if body else None
    return await _control(request, who, NodeRequest(node_id, "drain", deadline, plan=plan), body)


@router.post(
    "/{node_id}/uncordon",
    operation_id="uncordonNode",
    responses={200: {"model": s.NodeChange}, **errors(404, 409)},
)
async def uncordon(
    request: Request, who: Operator, node_id: Id, body: s.Reason | None = None, plan: Plan = False
) -> Response:
    """Let a node take work again."""
    return await _control(request, who, NodeRequest(node_id, "uncordon", plan=plan), body)


async def _control(request: Request, who: Identity, wanted: NodeRequest, body: s.Reason | None) -> Response:
    wanted.actor = who.actor
    wanted.reason = body.reason if body else ""
    done = await ask(request, "node_control", wanted)
    shown = node_view({**done["node"], "attempts": done["attempts"]})
    attempts = shown.pop("attempts")
    return answer({"node": shown, "attempts": attempts, "status": done["status"], "plan": wanted.plan})
