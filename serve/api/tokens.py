"""Tokens: who may come in. For admins."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, status
from starlette.responses import Response

from omnimind.client.protocol import NameRequest, TokenRequest
from serve import schemas as s
from serve.api.common import Plan, errors
from serve.auth import Admin
from serve.backend import answer, ask
from serve.views import with_times

router = APIRouter(prefix="/tokens", tags=["tokens"])

_TIMES = ("created_at", "expires_at", "revoked_at", "last_used_at")


def _view(token: dict[str, Any]) -> dict[str, Any]:
    return with_times({key: value for key, value in token.items() if key != "digest"}, _TIMES)


@router.get("", operation_id="listTokens", responses={200: {"model": list[s.Token]}, **errors()})
async def list_tokens(request: Request, _who: Admin) -> Response:
    """Return all tokens; what opens the door is not kept, only a hash of it."""
    return answer([_view(token) for token in await ask(request, "tokens")])


@router.post(
    "",
    operation_id="createToken",
    status_code=status.HTTP_201_CREATED,
    responses={200: {"model": s.Token}, 201: {"model": s.NewToken}, **errors(409, 507)},
)
async def create(request: Request, who: Admin, body: s.TokenIn, plan: Plan = False) -> Response:
    """Make a token. Its `secret` is in this answer and nowhere else."""
    wanted = TokenRequest(body.name, body.role, body.expires_in, plan, who.actor)
    return answer(_view(await ask(request, "token_create", wanted)), 200 if plan else 201)


@router.delete(
    "/{token_id}", operation_id="revokeToken", responses={200: {"model": s.Token}, **errors(404, 507)}
)
async def revoke(
    request: Request, who: Admin, token_id: Annotated[s.Name, Path()], plan: Plan = False
) -> Response:
    """End a token now, by its id or name; replicas know within a second."""
    wanted = NameRequest(name=token_id, plan=plan, actor=who.actor)
    return answer(_view(await ask(request, "token_revoke", wanted)))
